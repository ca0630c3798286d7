"""Numbers in headers that are text: sizes and places that are none, and how many bytes are passed over."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

META_SIZES, META_PLACES = (b"elementspacing", b"elementsize"), (
    b"offset", b"position", b"origin", b"transformmatrix", b"rotation", b"orientation")  # fmt: skip
_TURNS = META_PLACES[3:]
DIRECTIONS, HEADER_SIZE, SKIP = b"spacedirections", b"headersize", (b"byteskip", b"lineskip")
AXES, MOST_AXES = (b"dimension", b"ndims"), 5  # ITK's own limit; of more it makes lists before it says so
DIGITS = 24  # of a number
_META_NAMES = {name.lower().encode(): name for name in (
    "ElementSpacing", "ElementSize", "Offset", "Position", "Origin", "TransformMatrix", "Rotation",
    "Orientation")}  # fmt: skip
_PER_AXIS = {False: "one number above 0 of mm for every axis", True: "finite numbers, and axes with a length"}
_PLAIN = (b"raw", b"t")  # voxels as they lie, of NRRD and MetaImage


def said_of(fields: Mapping[bytes, Sequence[bytes]], names: Sequence[bytes]) -> list[bytes]:
    """Return all that a header says under some names."""
    return [value for name in names if name in fields for value in fields[name]]


def number_in(word: bytes) -> float:
    """Return a number of a header; NaN where it is none."""
    try:
        return float(word[:DIGITS])
    except ValueError:
        return math.nan


def wrong_place(fields: Mapping[bytes, Sequence[bytes]], remarks: list[str], *, meta: bool) -> str:
    """Return a line that is no size or place, with what it must be; what is read otherwise becomes a remark."""
    if not meta:
        rows = [row for words in fields.get(DIRECTIONS, ()) for row in re.findall(rb"\(([^)]*)\)", words)]
        empty = any(not any(map(number_in, row.split(b","))) for row in rows)
        for words in fields.get(b"spacings", ()):
            note_negative(words.split(), remarks)
        return "a direction of the length 0 ('space directions'); every axis must have a length" if empty else ""
    axes = max((number_in(word) for word in said_of(fields, AXES)), default=0.0)
    if not (0 < axes <= MOST_AXES and axes.is_integer()):
        return ""  # which is said
    sizes = next(([name] for name in META_SIZES if name in fields), [])  # ITK reads the first of these alone
    for names, places in ((sizes, False), (META_PLACES, True)):
        for name, words in ((known, words) for known in names for words in fields.get(known, ())):
            turns = name in _TURNS
            count = int(axes * axes if turns else axes)  # what is behind these is not read
            numbers = [number_in(word) for word in words.split()[:count]]
            lengths = [any(numbers[i : i + int(axes)]) for i in range(0, len(numbers), int(axes))] if turns else numbers
            right = all(map(math.isfinite, numbers)) and (all(lengths) or (places and not turns))
            if not right or len(numbers) < count:
                shown = words.decode("ascii", "replace")[: 4 * DIGITS]
                return f"{_META_NAMES[name]} = {shown!r}; write {_PER_AXIS[places]}"
            if not places:
                note_negative(words.split()[:count], remarks)
    return ""


def lacks_direction(words: bytes) -> bool:
    """Whether an axis of space has no direction in a NRRD; that of colours or channels ("none") is none of space."""
    rows = re.findall(rb"\(([^)]*)\)", words)
    return b"none" in words.lower() and (not rows or len(rows) < len(rows[0].split(b",")))


def note_negative(words: Sequence[bytes], remarks: list[str]) -> None:
    """Say of which axes a header has negative sizes: ITK takes these to lead the other way."""
    axes = [axis for axis, word in zip("xyz", words, strict=False) if number_in(word) < 0]
    if axes:
        shown = " ".join(word.decode("ascii", "replace") for word in words)
        remarks.append(
            f"its header has a negative voxel size along {', '.join(axes)} ({shown}), which was read as an axis that "
            "leads the other way"
        )


def skipped(fields: Mapping[bytes, Sequence[bytes]]) -> int | None:
    """Return how many bytes a header has passed over, None where it is not plain, or voxels are no bytes."""
    plain = (*said_of(fields, (b"encoding",)), *said_of(fields, (b"binarydata",)))
    said = said_of(fields, (HEADER_SIZE, b"byteskip"))
    if b"lineskip" in fields or not plain or len(said) > 1 or not all(w.lower().startswith(_PLAIN) for w in plain):
        return None
    number = number_in(said[0]) if said else 0.0
    return int(number) if math.isfinite(number) else None
