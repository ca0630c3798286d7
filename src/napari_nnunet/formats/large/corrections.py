"""Voxels of labels on disk that somebody corrects: in every level, and all of them or none, whatever ends the process.

What is to be changed is first written beside the levels, as one file. Then the chunks are, each beside and renamed.
Who finds that file finishes what it says.
"""

from __future__ import annotations

import itertools
import json
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import (
    ImageError,
    NnunetError,
    ResourceError,
    SettingsError,
    counted,
    is_out_of_memory,
    memory_told,
)
from napari_nnunet.formats.atomic import write_error, written_beside
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.large.label_image import MADE_HERE
from napari_nnunet.formats.large.level import Level
from napari_nnunet.formats.large.ome_zarr import read_levels, zarr_library
from napari_nnunet.formats.large.unpacking import bounded
from napari_nnunet.formats.regular import regular

PENDING = ".napari-nnunet-correction"
_KEPT = "The correction is kept, and finished when the labels are opened again. Close other programs first."
_CORRECTED = "corrected"
_MOST_ATTRIBUTES = 64 << 20  # bytes
_MOST_LINE = 1 << 20  # bytes of the first line of what is pending
_MOST_GAINED = 20_000  # label values whose voxels are counted in that line
MOST_VOXELS = 1 << 25  # of a region: what can be copied, compared and painted without waiting


@dataclass(frozen=True, eq=False)
class VoxelChange:
    """What becomes of some voxels.

    Parameters
    ----------
    word : str
        Tells it from others.
    corner : tuple of int
        Of the box, in voxels of the finest level, all axes.
    changed : ndarray of bool
        Which voxels of the box change.
    values : ndarray, shape (changed.sum(),)
        What they become.
    gained : dict of int to int, optional
        By how many voxels each label value becomes more; None where that is not known.
    """

    word: str
    corner: tuple[int, ...]
    changed: NDArray[np.bool_]
    values: NDArray[Any]
    gained: dict[int, int] | None = None


def corrected_voxels(path: Path) -> int:
    """Return how many voxels of a result were corrected by hand; 0 for what says nothing of that."""
    try:
        return max(0, int((_noted(path) or {})["voxels"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return 0


def gained_by_hand(path: Path) -> dict[int, int] | None:
    """Return by how many voxels all corrections so far made each label value more; None where that is not known.

    Whichever window or process finished them: what was counted before can be kept in step with it.
    """
    noted = _noted(path)
    return None if noted is None else _known_gain(noted)


def _known_gain(noted: dict[str, Any]) -> dict[int, int] | None:
    """Return what is noted of corrections, {} where there were none, None for those of versions that noted no gain."""
    if not noted:
        return {}
    try:
        return {int(value): int(more) for value, more in noted["gained"]}
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _noted(path: Path) -> dict[str, Any] | None:
    """Return what a result says of its corrections, {} where it says nothing; None where it cannot be read."""
    for name, where in (("zarr.json", ("attributes",)), (".zattrs", ())):
        try:  # without zarr, which takes a second to load: forms ask this
            found = json.loads(regular(path / name).read_bytes()[:_MOST_ATTRIBUTES])
            for key in (*where, MADE_HERE):
                found = found[key]
            noted = found.get(_CORRECTED, {})
            return noted if isinstance(noted, dict) else {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return None


def by_hand(path: Path) -> str:
    """Return a sentence about what would be lost with a result, after a blank; "" where nothing was corrected."""
    voxels = corrected_voxels(path) if path.exists() else 0
    return f" {counted(voxels, 'voxel')} of it {'was' if voxels == 1 else 'were'} corrected by hand." if voxels else ""


def read_region(path: Path, box: Sequence[tuple[int, int]]) -> NDArray[Any]:
    """Read a half-open box of the finest level, all axes; what was pending is finished first.

    Raises
    ------
    ImageError, ResourceError, SettingsError
        If it is no result of this program, cannot be read, or what is pending cannot be written.
    """
    finish_correction(path)
    return read_region_of(path, [lo for lo, _ in box], [hi - lo for lo, hi in box])


def correct(path: Path, corner: Sequence[int], before: NDArray[Any], after: NDArray[Any]) -> int:
    """Put the voxels of a box that were changed into a result, and return how many these are.

    Parameters
    ----------
    path : Path
        The result.
    corner : sequence of int
        Of the box, all axes.
    before, after : ndarray
        The box when it was read, and as it is now.

    Raises
    ------
    SettingsError
        If somebody else changed one of these voxels since, or is writing now, or the file cannot hold a value.
    ImageError, ResourceError
        If it cannot be read or written; after a full disk, what is left is done when it is opened again.
    """
    changed = before != after
    if not changed.any():
        return 0
    with claimed(path.parent, f"{path} is already being written", part=path.name):
        _finish(path)
        there = read_region_of(path, corner, changed.shape)
        lost = changed & (there != before) & (there != after)
        if lost.any():
            raise SettingsError(
                f"{counted(int(lost.sum()), 'voxel')} of {path.name} changed on disk since this region was opened. "
                "Open the region again, and correct it there."
            )
        kept = after.astype(there.dtype)
        if (changed & (kept != after)).any():
            raise SettingsError(
                f"{path.name} holds labels of type {there.dtype}, which cannot hold all values that were painted. "
                "Paint with others."
            )
        left = changed & (there != kept)  # the rest was on disk already, such as a correction that was pending
        if not left.any():
            return int(changed.sum())
        box = tuple(slice(int(np.min(on)), int(np.max(on)) + 1) for on in np.nonzero(left))
        start = tuple(int(c) + part.start for c, part in zip(corner, box, strict=True))
        inside, gained = left[box], _gained(there[left], kept[left])
        _write_pending(path, VoxelChange(secrets.token_hex(8), start, inside, kept[box][inside], gained))
        _finish(path)
    return int(changed.sum())


def _gained(before: NDArray[Any], after: NDArray[Any]) -> dict[int, int]:
    """Return by how many voxels each value became more; values of which there are as many as before are left out."""
    found: dict[int, int] = {}
    for values, sign in ((before, -1), (after, 1)):
        for value, count in zip(*np.unique(values, return_counts=True), strict=True):
            found[int(value)] = found.get(int(value), 0) + sign * int(count)
    return {value: count for value, count in found.items() if count}


def finish_correction(path: Path) -> bool:
    """Do what a process that was killed had begun to change; returns whether there was something."""
    if not (path / PENDING).is_file():
        return False
    with claimed(path.parent, f"{path} is already being written", part=path.name):
        return _finish(path)


def read_region_of(path: Path, corner: Sequence[int], shape: Sequence[int]) -> NDArray[Any]:
    """Read a box that begins at a corner."""
    _, arrays = _opened(path, "r")
    try:
        return np.asarray(arrays[0][tuple(slice(c, c + n) for c, n in zip(corner, shape, strict=True))])
    except Exception as error:  # whatever a store raises for a chunk that is damaged
        if _says_itself(error):
            raise
        raise ImageError(f"{path} cannot be read here: {_text(error)}. Restore that part of it.") from error


def _says_itself(error: Exception) -> bool:
    """Whether an error says already what to do, or that memory ran out: no chunk is damaged then."""
    return isinstance(error, NnunetError) or is_out_of_memory(error)


def _text(error: Exception) -> str:
    """Return what a library says, as part of a sentence."""
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")


def _finish(path: Path) -> bool:
    pending = path / PENDING
    if not pending.is_file():
        return False
    with memory_told(_KEPT):
        _write_levels(path, pending)
    return True


def _write_levels(path: Path, pending: Path) -> None:
    """Do a pending correction in every level, note it, and forget what was pending."""
    group, arrays = _opened(path, "r+")
    levels = read_levels(group, path.name)
    correction = _read_pending(pending, arrays[0])
    where = f"Level {levels[0].path} of {path}"
    try:
        _write_finest(arrays[0], correction)
        for array, level in zip(arrays[1:], levels[1:], strict=True):
            where = f"Level {level.path} of {path}"
            _write_coarser(array, _factors(levels[0], level, path), arrays[0], correction)
        where = str(path)
        origin = dict(group.attrs[MADE_HERE])
        noted = origin.get(_CORRECTED)
        known: dict[str, Any] = noted if isinstance(noted, dict) else {}
        if known.get("last") != correction.word:
            voxels = int(known.get("voxels", 0)) + len(correction.values)
            about = {"voxels": voxels, "last": correction.word, **_more_gained(_known_gain(known), correction.gained)}
            group.attrs[MADE_HERE] = {**origin, _CORRECTED: about}
        pending.unlink()
    except OSError as error:
        if _says_itself(error):
            raise
        told = write_error(path, error)
        raise ResourceError(f"{told.message} The correction is kept, and finished when it is opened again.") from error
    except Exception as error:  # whatever a store raises for a chunk that is damaged
        if _says_itself(error):
            raise
        raise ImageError(
            f"{where} could not be corrected: {_text(error)}. The correction is kept, and finished when the labels are "
            f"opened again. Restore that level; or delete {pending}, and the correction is in part of the levels only."
        ) from error


def _more_gained(before: dict[int, int] | None, more: dict[int, int] | None) -> dict[str, list[list[int]]]:
    """Return what is noted of the gain of all corrections; nothing where a part of it is not known."""
    if before is None or more is None:
        return {}
    found = {value: before.get(value, 0) + more.get(value, 0) for value in sorted({*before, *more})}
    return {"gained": [[value, count] for value, count in found.items() if count]}


def _opened(path: Path, mode: str) -> tuple[Any, list[Any]]:
    """Open a result of this program and its levels."""
    try:
        group = zarr_library().open_group(str(path), mode=mode)
        origin = group.attrs.get(MADE_HERE)
    except Exception as error:  # whatever a store raises
        if _says_itself(error):
            raise
        raise ImageError(
            f"{path} cannot be opened as zarr: {_text(error)}. Check the path, or restore the folder."
        ) from error
    if not isinstance(origin, dict):
        raise ImageError(
            f"{path} was not written by this program, so how its coarser levels were made is not known. Save a copy "
            "of the labels, and correct that."
        )
    levels = read_levels(group, path.name)
    return group, [bounded(group[level.path], f"{path.name}/{level.path}") for level in levels]


def _factors(finest: Level, level: Level, path: Path) -> tuple[int, ...]:
    """Return by how much a level is coarser, along each axis."""
    found = tuple(max(1, round(b / a)) for a, b in zip(finest.scale, level.scale, strict=True))
    if tuple(math.ceil(n / f) for n, f in zip(finest.shape, found, strict=True)) != level.shape:
        raise ImageError(
            f"Level {level.path} of {path} is not made of every second voxel. Save a copy, and correct that."
        )
    return found


def _write_finest(array: Any, correction: VoxelChange) -> None:
    """Write the chunks in which something changes."""
    corner, shape = correction.corner, correction.changed.shape
    values = np.zeros(shape, dtype=array.dtype)
    values[correction.changed] = correction.values
    unit = getattr(array, "shards", None) or array.chunks
    edges = [
        [lo, *range((lo // step + 1) * step, lo + n, step), lo + n]
        for lo, n, step in zip(corner, shape, unit, strict=True)
    ]
    for cell in itertools.product(*(list(itertools.pairwise(along)) for along in edges)):
        own = tuple(slice(lo - first, hi - first) for (lo, hi), first in zip(cell, corner, strict=True))
        changed = correction.changed[own]
        if changed.any():
            place = tuple(slice(lo, hi) for lo, hi in cell)
            array[place] = np.where(changed, values[own], np.asarray(array[place]))


def _write_coarser(array: Any, factors: Sequence[int], finest: Any, correction: VoxelChange) -> None:
    """Take every second voxel, or every fourth, of the finest level, where something changed."""
    ends = [(lo, lo + n) for lo, n in zip(correction.corner, correction.changed.shape, strict=True)]
    place = [(math.ceil(lo / f), math.ceil(hi / f)) for (lo, hi), f in zip(ends, factors, strict=True)]
    if all(lo < hi for lo, hi in place):
        source = tuple(slice(lo * f, (hi - 1) * f + 1) for (lo, hi), f in zip(place, factors, strict=True))
        values = np.asarray(finest[source])[tuple(slice(None, None, f) for f in factors)]
        array[tuple(slice(lo, hi) for lo, hi in place)] = values


def _write_pending(path: Path, correction: VoxelChange) -> None:
    head = {
        "word": correction.word,
        "corner": list(correction.corner),
        "shape": list(correction.changed.shape),
        "values": len(correction.values),
    }
    if correction.gained is not None and len(correction.gained) <= _MOST_GAINED:
        head["gained"] = list(correction.gained.items())
    with written_beside(path / PENDING) as temporary, temporary.open("wb") as file:
        file.write(json.dumps(head).encode() + b"\n")
        file.write(np.packbits(correction.changed).tobytes())
        file.write(np.ascontiguousarray(correction.values).tobytes())


def _read_pending(pending: Path, array: Any) -> VoxelChange:
    """Read what is to be changed of an array; raises SettingsError for what no program wrote."""
    try:
        with regular(pending).open("rb") as file:
            head = json.loads(file.readline(_MOST_LINE))
            corner, shape, count = tuple(head["corner"]), tuple(head["shape"]), head["values"]
            numbers = (*corner, *shape, count)
            inside = len(corner) == len(shape) == array.ndim and all(type(n) is int and n >= 0 for n in numbers)
            if not inside or any(c + n > whole for c, n, whole in zip(corner, shape, array.shape, strict=True)):
                raise ValueError("its box is not within the image")
            voxels = math.prod(shape)
            bits, rest = file.read(-(-voxels // 8)), file.read(count * array.dtype.itemsize + 1)
            changed = np.unpackbits(np.frombuffer(bits, np.uint8), count=voxels).astype(bool).reshape(shape)
            if len(bits) != -(-voxels // 8) or int(changed.sum()) != count or len(rest) != count * array.dtype.itemsize:
                raise ValueError("it is not whole")
            gained = _known_gain(head)
            return VoxelChange(str(head["word"])[:32], corner, changed, np.frombuffer(rest, array.dtype), gained)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SettingsError(
            f"{pending} is damaged: {error}. Delete it; what was corrected last may be in part of the levels only."
        ) from error
