"""Headers that are text, of NRRD and MetaImage: what they say, checked before ITK follows it; and that of GIPL."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.text.numbers import (
    AXES,
    DIGITS,
    DIRECTIONS,
    HEADER_SIZE,
    META_PLACES,
    META_SIZES,
    MOST_AXES,
    SKIP,
    lacks_direction,
    note_negative,
    number_in,
    said_of,
    skipped,
    wrong_place,
)
from napari_nnunet.formats.room import require_room

_USUAL = 1024  # bytes of most headers
_LONGEST = 4 << 20  # bytes of a header that are looked through; those of sequences have lines for every picture
# ITK's readers are not strict about blanks, capitals and separators, so neither are these.
_LINE, _BLANKS = re.compile(rb"^([^:=\n]*)[:=]([^\n]*)", re.MULTILINE), b" \t\r\f\v"
_FILE = re.compile(
    rb"^[^\S\n]*(?:data[^\S\n]*file|ElementDataFile)[^\S\n]*[:=][^\S\n]*([^\n]*)", re.MULTILINE | re.IGNORECASE
)
_SIZES, _KINDS = (b"sizes", b"dimsize"), (b"type", b"elementtype")
_PACKED, _COMPONENTS = (b"compresseddatasize",), (b"elementnumberofchannels",)
_NRRD_SIZES = (b"spacings", DIRECTIONS)
_LENGTHS = (b"spaceunits", b"units", b"distanceunits")
_SLOPE, _SHIFT = (b"elementtointensityfunctionslope",), (b"elementtointensityfunctionoffset",)
_IS_PACKED = (b"compresseddata", b"encoding")
_KNOWN = frozenset((*AXES, *_SIZES, *_KINDS, *_PACKED, *_COMPONENTS, *_NRRD_SIZES, *META_SIZES, *_LENGTHS, *_SLOPE,
                    *_SHIFT, *_IS_PACKED, *META_PLACES, HEADER_SIZE, *SKIP, b"binarydata", b"datafile"))  # fmt: skip
_BLANK_NAMES = (b"space", b"data", b"byte", b"line")  # of fields that are written with a blank or without
_MILLIMETRES = {"mm", "millimeter", "millimeters", "millimetre", "millimetres", "?"}  # "?": ITK's own for unknown
_META_END = b"elementdatafile"
_NRRD_END = re.compile(rb"\n\r?\n")
_MOST_COMPONENTS = 1 << 16
_NUMBERED = re.compile(r"[^%]*(%0?\d?d[^%]*)?")  # ITK has the system follow any %, and some of these write to memory
_FILE_NUMBER = re.compile(r"-?[0-9]{1,9}")
_LIST = re.compile(rb"[:=][^\S\n]*LIST", re.IGNORECASE)
_PACKED_SIZE = re.compile(rb"^CompressedDataSize[^\n]*\n", re.MULTILINE)
_MOST_FILES = 100_000
_GIPL_HEADER, _GIPL_BYTES = 256, {7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}  # by type of values
_GIPL = (b"\xef\xff\xe9\xb0", b"\x2a\xe3\x89\xb8")  # marks at the end of its header


class TextFacts(NamedTuple):
    """What a header in words says that ITK does not tell.

    Parameters
    ----------
    spacing_known : bool
        Whether it has a size of the voxels.
    remarks : tuple of str
        What is odd.
    packed : bool
        Whether its voxels are.
    header : bytes
        What ITK's reading of it depends on.
    wrong : str
        A line that is no size or place, with what it must be.
    skip : int or None
        How many bytes are passed over before the voxels, -1 for as many as there are more; None where that, or in which
        file they are, is not plain.
    file : bytes
        The one that has the voxels; empty for the file itself.
    begin : int
        Where its header ends, if it has the voxels itself.
    """

    spacing_known: bool = True
    remarks: tuple[str, ...] = ()
    packed: bool = False
    header: bytes = b""
    wrong: str = ""
    skip: int | None = None
    file: bytes = b""
    begin: int = 0


def check_text(path: Path) -> TextFacts:
    """Look at the header of a NRRD, MetaImage or GIPL file before ITK follows it.

    Returns
    -------
    TextFacts
        What ITK, and nnU-Net with it, passes over.

    Raises
    ------
    ImageError
        If it names a file outside its own folder, or cannot be that of an image.
    ResourceError
        If the voxels take more than the free memory.
    """
    name = path.name.lower()
    if name.endswith(".gipl"):
        with path.open("rb") as file:
            start = file.read(_USUAL)
        return _of_gipl(path, start) if start[252:256] in _GIPL else TextFacts()
    if name.endswith(".nrrd"):
        start = _begin(path, lambda text: _NRRD_END.search(text) is not None)
        end = _NRRD_END.search(start)
        text = start if end is None else start[: end.start() + 1]
        fields, facts = _told(text, _NRRD_SIZES)
        for elsewhere in _FILE.finditer(text) if b"datafile" in fields else ():
            _refuse_outside(path, elsewhere[1].strip(), text[elsewhere.end() :])
        _check_numbers(path, fields, facts)
        return facts._replace(begin=0 if facts.file or end is None else end.end())
    start = _begin(path, _meta_ends)
    small = start.lower()
    where = _FILE.match(start, small.rfind(b"\n", 0, max(small.find(_META_END), 0)) + 1)
    if where is None or small.count(_META_END) != 1:
        raise ImageError(f"{path} has no MetaImage header, which ends in a line 'ElementDataFile = ...'.")
    file_name, (fields, facts) = where[1].strip(), _told(start[: where.start()], META_SIZES)
    if file_name.upper() != b"LOCAL":
        _refuse_outside(path, file_name, start[where.end() :])
    elif any(_number(packed, path) > path.stat().st_size for packed in said_of(fields, _PACKED)):
        raise ImageError(f"{path} is truncated: it says that it holds more bytes than it has. Copy it again.")
    _check_numbers(path, fields, facts)
    if file_name.upper() == b"LOCAL":
        return _behind(path, facts, where.end() + 1)
    if b"%" in file_name or file_name.startswith(b"LIST"):
        _require_planes(path, fields, file_name, start[where.end() :])
        return facts._replace(skip=None)
    return facts._replace(file=file_name)


def _of_gipl(path: Path, start: bytes) -> TextFacts:
    """Return what a GIPL file says besides; ITK reads one that is truncated, and fills up what is missing."""
    *shape, kind = struct.unpack(">5H", start[:10])
    sizes, place = struct.unpack(">3f", start[10:22]), struct.unpack(">3d", start[204:228])
    shape = [n for n in shape if n]
    require_room(path, shape, 1)
    shown = " ".join(f"{size:g}" for size in sizes)
    if not all(map(math.isfinite, (*sizes, *place))) or not all(sizes[: len(shape)]):
        raise ImageError(
            f"{path} cannot be read: its header has the voxel size {shown}, and begins at "
            f"{' '.join(f'{v:g}' for v in place)}; sizes must be numbers above 0. Export it again, as .nii.gz or .nrrd."
        )
    remarks: list[str] = []
    note_negative([f"{size:g}".encode() for size in sizes], remarks)
    if (itemsize := _GIPL_BYTES.get(kind)) is not None:
        needed = math.prod(shape) * itemsize
        beyond = path.stat().st_size - _GIPL_HEADER - needed
        if beyond < 0:
            raise ImageError(
                f"{path} cannot be read: it is truncated, and holds {max(needed + beyond, 0)} of {needed} bytes of "
                "voxels. Copy it again."
            )
        if beyond:
            remarks.append(f"it holds {beyond} bytes more than its header says, which were ignored")
    return TextFacts(remarks=tuple(remarks))


def _behind(path: Path, facts: TextFacts, begin: int) -> TextFacts:
    """Return what a MetaImage says that has its voxels itself; raises ImageError if these begin within its header."""
    if facts.skip is not None and 0 < facts.skip < begin:
        raise ImageError(
            f"{path} says that its voxels begin at byte {facts.skip} (HeaderSize), within its header, which ends at "
            f"byte {begin}. Write 'HeaderSize = -1', which means at the end, or leave the line out."
        )
    return facts._replace(begin=begin)


def _told(text: bytes, sizes: tuple[bytes, ...]) -> tuple[Mapping[bytes, Sequence[bytes]], TextFacts]:
    """Return the fields of a header, and what it says besides.

    It is looked at before a file is read and then again; and cases of one dataset often have the same.
    """
    return (_parsed if len(text) <= _USUAL else _parsed.__wrapped__)(text, sizes)


@lru_cache(maxsize=64)
def _parsed(text: bytes, sizes: tuple[bytes, ...]) -> tuple[Mapping[bytes, Sequence[bytes]], TextFacts]:
    fields = _fields(text)
    header = _PACKED_SIZE.sub(b"", text) if len(text) <= _USUAL else b""
    return fields, _facts(fields, sizes)._replace(header=header)


def _fields(text: bytes) -> dict[bytes, list[bytes]]:
    """Return what a header says of the names that matter here, written small and without blanks; some it has twice."""
    fields: dict[bytes, list[bytes]] = {}
    for line in _LINE.finditer(text):
        name = line[1].lower().strip(_BLANKS)
        if name.startswith(_BLANK_NAMES):
            name = name.translate(None, _BLANKS)
        if name in _KNOWN:
            fields.setdefault(name, []).append(line[2].strip())
    return fields


def _facts(fields: Mapping[bytes, Sequence[bytes]], sizes: Sequence[bytes]) -> TextFacts:
    """Return what a header says besides; of sizes, whether it has them."""
    said, remarks = said_of(fields, sizes), []
    for lengths in said_of(fields, _LENGTHS):
        units = {word.decode("utf-8", "replace") for word in re.findall(rb'[^\s"]+', lengths.lower())}
        if units - _MILLIMETRES:
            listed = " and ".join(sorted(units))
            remarks.append(f"its header counts lengths in {listed}; the numbers were read as mm, as ITK does")
    scaled = any(
        number_in(word) != plain for names, plain in ((_SLOPE, 1.0), (_SHIFT, 0.0)) for word in said_of(fields, names)
    )
    if scaled:
        remarks.append("its header scales the values, which ITK ignores: they were read as they are stored")
    packed = any(word[:1].lower() in (b"t", b"1", b"g") for word in said_of(fields, _IS_PACKED))  # true, or gzip
    wrong = wrong_place(fields, remarks, meta=sizes == META_SIZES)
    flat = any(lacks_direction(words) for words in fields.get(DIRECTIONS, ()))
    if flat:
        remarks.append("one of its axes has no direction (none); 1 mm was used for it")
    known = bool(said) and not flat and not any(b"nan" in words.lower() for words in said)
    files = fields.get(b"datafile", ())
    single = len(files) < 2 and not any(b"%" in name or name.upper().startswith(b"LIST") for name in files)
    skip = skipped(fields) if single else None
    return TextFacts(known, tuple(remarks), packed, wrong=wrong, skip=skip, file=files[0] if files else b"")


def _meta_ends(start: bytes) -> bool:
    """Whether the last line of a MetaImage's header is there, the one that names the voxels."""
    at = start.lower().find(_META_END)
    return at >= 0 and start.find(b"\n", at) >= 0


def _begin(path: Path, ends: Callable[[bytes], bool]) -> bytes:
    """Return the header of a text format, or all of a small file; raises ImageError for a large one without an end."""
    with path.open("rb") as file:
        start = file.read(_USUAL)
        if not ends(start) or _lists(start):
            start += file.read(_LONGEST)
            if file.read(1) and (not ends(start) or _lists(start)):
                raise ImageError(
                    f"{path} is not an image: its first {_LONGEST >> 20} MB do not hold all of its header."
                )
    return start


def _lists(start: bytes) -> bool:
    """Whether a header may name its files in a list, which follows it."""
    return b"LIST" in start.upper() and _LIST.search(start) is not None


def _check_numbers(path: Path, fields: Mapping[bytes, Sequence[bytes]], facts: TextFacts) -> None:
    """Refuse numbers of axes, voxels and values that no image has, or that are too much for the free memory."""
    if facts.wrong:
        raise ImageError(f"{path} cannot be read: its header, which is text, has {facts.wrong}.")
    for word in fields.get(HEADER_SIZE, ()):
        if not (number_in(word).is_integer() and number_in(word) >= -1):
            raise ImageError(
                f"{path} has HeaderSize = {_shown(word)}; it must be a number of bytes, or -1 for as many as there are "
                "before the voxels."
            )
    for axes in said_of(fields, AXES):
        if not 0 < _number(axes, path) <= MOST_AXES:
            raise ImageError(f"{path} says that it has {_shown(axes)} dimensions; images have 2 or 3.")
    if any(not 0 < _number(count, path) <= _MOST_COMPONENTS for count in said_of(fields, _COMPONENTS)):
        raise ImageError(f"{path} says that it holds more than {_MOST_COMPONENTS} values per voxel, or none.")
    itemsize = max(map(_value_bytes, said_of(fields, _KINDS)), default=1)
    for words in said_of(fields, _SIZES):
        sizes = [_number(word, path) for word in words.split()[:MOST_AXES]]
        if any(size < 1 for size in sizes):
            raise ImageError(f"{path} says that it holds {_shown(words)} voxels; each number must be at least 1.")
        require_room(path, sizes, itemsize)


def _number(word: bytes, path: Path) -> int:
    """Return a number of a header, as ITK reads it; raises ImageError where there is none."""
    try:
        return int(float(word[:DIGITS]))
    except (ValueError, OverflowError):
        raise ImageError(f"{path} is damaged: its header has {_shown(word)} where a number must be.") from None


def _shown(word: bytes) -> str:
    """Return a part of a header for a sentence."""
    return repr(word[:DIGITS].decode("ascii", "replace").strip())


def _refuse_outside(path: Path, name: bytes, following: bytes) -> None:
    """Refuse files in other folders: a header from elsewhere could have any file read, and be sent on, as an image."""
    names = [name]
    if name.upper().startswith(b"LIST"):
        names += following.split(b"\n")
    folder = path.parent.resolve()
    for entry in names:
        first = entry.decode("utf-8", "replace").strip()
        pattern, *numbers = first.split() if "%" in first else [first]
        if _NUMBERED.fullmatch(pattern) is None or ("%" in first and not _few(numbers)):
            raise ImageError(
                f"{path} takes its voxels from {first!r:.80}, which is not a pattern of file names such as "
                "'a%03d.raw 1 9 1'."
            )
        for part in (first, pattern):
            target = (folder / part.replace("\\", "/")).resolve()
            if target != folder and folder not in target.parents:
                raise ImageError(
                    f"{path} takes its voxels from {first!r}, outside its own folder, which is not followed. Put both "
                    "files into one folder, or save the image as one file."
                )
            # ITK would wait for what a pipe is to bring, and numbered files may be any of those beside.
            with suppress(OSError):  # of a name that is too long for any file
                for file in folder.iterdir() if "%" in first else [target]:
                    if file.exists() and not (file.is_file() or file.is_dir()):
                        raise ImageError(f"{path} takes its voxels from {file.name}, which is a pipe or a device.")


def _few(numbers: Sequence[str]) -> bool:
    """Whether the first, the last and the step of numbered files are numbers, and of not too many files."""
    return all(_FILE_NUMBER.fullmatch(word) is not None and abs(int(word)) <= _MOST_FILES for word in numbers)


def _require_planes(path: Path, fields: Mapping[bytes, Sequence[bytes]], name: bytes, following: bytes) -> None:
    """Refuse a MetaImage whose files are fewer than its planes, and steps that lead nowhere.

    ITK leaves what no file fills as it was in memory, and divides by a step of 0. Its own rule for two numbers is that
    the step is a whole part of what lies between them.
    """
    axes = max((_number(word, path) for word in said_of(fields, AXES)), default=0)
    sizes = max(
        ([_number(word, path) for word in words.split()[:axes]] for words in said_of(fields, _SIZES)),
        key=lambda found: found[-1:],
        default=[],
    )
    planes = sizes[-1] if sizes else 0
    first, *words = name.decode("utf-8", "replace").split()
    if "%" not in first:
        if first != "LIST" or [word.rstrip("Dd") for word in words] not in ([], [str(axes - 1)]):
            raise ImageError(
                f"{path} takes its voxels from {_shown(name)}; a list of files begins with the line "
                "'ElementDataFile = LIST', and each file holds one plane."
            )
        files = len([line for line in following.splitlines() if line.strip()])
    else:
        numbers = [int(word) for word in words]
        begin, end = (*numbers, 0)[:2] if numbers else (1, 0)
        step = numbers[2] if len(numbers) > 2 else (end - begin) // max(planes, 1) if len(numbers) == 2 else 1
        if step < 1:
            raise ImageError(
                f"{path} takes its voxels from {_shown(name)}, which leads from {begin} to {end} in steps of {step}. "
                "Write the first number, the last and a step of at least 1, as in 'a%03d.raw 1 9 1'."
            )
        files = len(range(begin, end + 1, step)) if len(numbers) > 1 else planes
    if files < planes:
        raise ImageError(
            f"{path} takes its {planes} planes from {files} file{'s' if files != 1 else ''}, one for each. Name a file "
            "for every plane in its header, or correct the number of planes."
        )


@lru_cache(maxsize=64)
def _value_bytes(kind: bytes) -> int:
    """Return the bytes per value of a type by its name, 1 for names that say nothing."""
    name = kind.lower().strip()
    for words, size in (
        ((b"double", b"long long", b"int64", b"longlong"), 8),
        ((b"float", b"int32", b"met_int", b"met_uint", b"met_long", b"met_ulong"), 4),
        ((b"short", b"int16"), 2),
    ):
        if any(word in name for word in words):
            return size
    return 4 if name in (b"int", b"uint", b"unsigned int", b"signed int") else 1
