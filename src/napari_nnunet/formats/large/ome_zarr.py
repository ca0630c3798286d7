"""Zarr arrays and OME-Zarr images (0.1 to 0.5): levels, their axes and the size of their voxels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from napari_nnunet.errors import ImageError, NnunetError
from napari_nnunet.formats.large.level import Level, check_levels, require_own_size
from napari_nnunet.formats.large.source import LargeImage, check_axes
from napari_nnunet.formats.large.unpacking import bounded
from napari_nnunet.formats.regular import regular
from napari_nnunet.formats.room import require_room
from napari_nnunet.schema.geometry import GIVEN, OME, Geometry

_MOST_LEVELS = 100
_MOST_VOXELS = 1 << 50  # 2 petabytes of 16 bits
_TINY, _MOST_TINY = 256, 1_000_000  # voxels of a chunk, and how many chunks may be as small
_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
_MOST_MISSED = 1_000_000  # names of chunks that are remembered
_BY_COUNT = {2: "YX", 3: "ZYX"}
#: Names of axes beside the letters themselves.
_NAMED = {"time": "T", "channel": "C", "channels": "C", "band": "C"}


def is_zarr(path: str | Path) -> bool:
    """Whether a folder, or an address, is a zarr array or group."""
    if is_address(path):
        return True
    return Path(path).is_dir() and any((Path(path) / mark).is_file() for mark in _MARKS)


def is_address(path: str | Path) -> bool:
    """Whether something is an address (``https://``, ``s3://``) and not a path."""
    return "://" in str(path)


def library(name: str, what: str) -> Any:
    """Return a module of a library that only large images need.

    Parameters
    ----------
    name : str
        Of the module.
    what : str
        The beginning of the sentence where it is not installed: "Zarr images are read".

    Raises
    ------
    ImageError
        If it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImageError(
            f"{what} by {package}, which is not installed. Install it with 'pip install \"napari-nnunet[large]\"'."
        ) from error


def zarr_library() -> Any:
    """Return zarr; raises ImageError if it is not installed."""
    return library("zarr", "Zarr images are read")


def open_zarr(
    path: str | Path,
    *,
    level: str | None = None,
    axes: str | None = None,
    spacing: Sequence[float] | None = None,
    best: Callable[[Sequence[Level]], int] | None = None,
) -> LargeImage:
    """Open a zarr array, or a level of an OME-Zarr image.

    Parameters
    ----------
    path : str or Path
        Folder or address.
    level : str, optional
        Path or number of the level; chosen by ``best`` if not given.
    axes : str, optional
        A letter per axis, where the metadata do not say it; wins over what they say.
    spacing : sequence of float, optional
        Voxel size ([z,] y, x) in mm of the level that is read; wins over the metadata.
    best : callable, optional
        Returns the number of the level to read, given all of them; the finest if not given.

    Raises
    ------
    ImageError
        If it is no image, its levels contradict each other, or it does not say what a voxel is.
    """
    zarr, name = zarr_library(), str(path).rstrip("/").rpartition("/")[2]
    path = _local(path)
    found = _opened(path)
    files: tuple[Path, ...] = () if is_address(path) else (Path(path),)
    if isinstance(found, zarr.Array):
        letters = axes or _named(found, name)
        return LargeImage(
            (_plausible(found, name),), letters, _geometry(letters, found.ndim, spacing, None, name), name, files
        )
    levels = read_levels(found, name)
    at = levels[_chosen(levels, level, best, name)]
    letters = axes or at.letters
    known = at.spacing() if letters == at.letters else None
    if known is not None and spacing is None:
        require_own_size(levels[0], at, name)
    geometry = _geometry(letters, len(at.shape), spacing, known, name)
    notes: tuple[str, ...] = ()
    if len(levels) > 1 and level is None:
        others = ", ".join(f"{other.path} ({_x(other.shape)})" for other in levels)
        notes = (f"Level {at.path} of {name} is segmented; of its levels, its voxels fit the model best: {others}.",)
    files = tuple(file / at.path for file in files)
    place = at.place(letters, geometry)
    return LargeImage((_plausible(found[at.path], name),), letters, geometry, name, files, at, notes, place=place)


def open_group(path: Path) -> Any:
    """Open a group of zarr for reading; raises ImageError if it is none."""
    found = _opened(path)
    if isinstance(found, zarr_library().Array):
        raise ImageError(f"{path} is a zarr array without the metadata of an image (multiscales).")
    return found


def open_level(group: Any, level: Level, name: str) -> Any:
    """Return the array of a level, of which any part can be read; raises ImageError if none can hold it."""
    return _plausible(group[level.path], name)


def _opened(path: str | Path) -> Any:
    """Open an array or a group of zarr."""
    try:
        return zarr_library().open(_store(path), mode="r")
    except NnunetError:
        raise
    except Exception as error:  # whatever a store raises
        raise ImageError(f"{path} cannot be opened as zarr: {' '.join(str(error).split())}") from error


def _store(path: str | Path) -> Any:
    """Return what zarr reads an address, or a folder, from."""
    return (
        _addresses().from_url(str(path), read_only=True) if is_address(path) else _files()(Path(path), read_only=True)
    )


def _local(path: str | Path) -> str | Path:
    """Return the folder that an address of this computer names; any other path or address as it is."""
    text = str(path)
    return Path(url2pathname(urlsplit(text).path)) if text.startswith("file://") else path


@cache
def _addresses() -> Any:
    """Return zarr's store of an address, made to remember which chunks were not found: zarr takes them as empty."""
    store = library("zarr.storage", "Zarr images are read").FsspecStore

    class Addresses(store):  # type: ignore[misc, valid-type]
        def __init__(self, *more: Any, **named: Any) -> None:
            super().__init__(*more, **named)
            self.missed: set[str] = set()

        async def get(self, key: str, *more: Any, **named: Any) -> Any:
            found = await super().get(key, *more, **named)
            if found is None and not key.endswith(_MARKS) and len(self.missed) < _MOST_MISSED:
                self.missed.add(key)
            return found

    return Addresses


@cache
def _files() -> Any:
    """Return zarr's store of a folder, made to read files only.

    To read a pipe waits, perhaps for ever, some devices never end, and zarr takes a folder in the place of a chunk for
    a chunk that was never written. What is larger than memory is read into it no more than the voxels are.
    """
    store = library("zarr.storage", "Zarr images are read").LocalStore

    class Files(store):  # type: ignore[misc, valid-type]
        async def get(self, key: str, *more: Any, **named: Any) -> Any:
            _require_file(self.root / key)
            return await super().get(key, *more, **named)

        def get_sync(self, key: str, *more: Any, **named: Any) -> Any:
            _require_file(self.root / key)
            return super().get_sync(key, *more, **named)

        async def get_partial_values(self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]) -> Any:
            listed = list(key_ranges)
            for key, _ in listed:
                _require_file(self.root / key)
            return await super().get_partial_values(prototype, listed)

    return Files


def _require_file(path: Path) -> None:
    """Raise what tells that something is there which is no file, or too large a one."""
    try:
        size = regular(path).stat().st_size
    except (FileNotFoundError, NotADirectoryError):  # chunks that were never written hold one value
        return
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}.") from error
    require_room(path, (size,), 1)


def _plausible(array: Any, name: str) -> Any:
    """Return an array; raises what tells that it has more voxels than any image, or chunks larger than memory.

    Its chunks unpack to what they hold, and by nothing but what is known here.
    """
    if math.prod(array.shape) > _MOST_VOXELS:
        raise ImageError(
            f"The metadata of {name} say that it has {_x(array.shape)} voxels, more than any image. Copy it again."
        )
    if min(array.chunks, default=1) < 1:
        raise ImageError(f"The metadata of {name} say that its chunks hold no voxel. Copy it again.")
    count, held = math.prod(-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True)), math.prod(array.chunks)
    if count > _MOST_TINY and held < _TINY:
        raise ImageError(
            f"{name} lies in {count:,} chunks of {held} voxels each; reading them would never end. Copy it with "
            "chunks of thousands of voxels."
        )
    require_room(Path(name), array.chunks, array.dtype.itemsize)
    return bounded(array, name)


def _geometry(
    letters: str, ndim: int, given: Sequence[float] | None, known: tuple[float, ...] | None, name: str
) -> Geometry:
    check_axes(letters, ndim, name)
    spatial = sum(letter in letters for letter in "ZYX")
    if given is not None:
        return Geometry(spacing=(1.0,) * spatial).with_spacing(given, GIVEN)
    if known is None:
        return Geometry(spacing=(1.0,) * spatial, spacing_known=False)
    return Geometry(spacing=known, spacing_source=OME)


def _named(array: Any, name: str) -> str:
    """Return a letter per axis: by the names that an array has for them, by their number where it has none.

    Raises
    ------
    ImageError
        If it has names for them of which one is not known: the axis may be time as well as space.
    """
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not isinstance(names, list | tuple) or not any(names):
        return _BY_COUNT.get(array.ndim, "")
    known = [str(one or "").lower() for one in names]
    letters = "".join(_NAMED.get(one, one.upper() if one in tuple("tczyx") else "?") for one in known)
    if "?" in letters:
        raise ImageError(
            f"{name} calls its axes {', '.join(str(one or 'nothing')[:40] for one in names)}, which does not say which "
            "is what. Give one letter per axis: T (time), C (channel), Z, Y, X.",
            shell="For instance --axes CZYX.",
        )
    return letters


def read_levels(group: Any, name: str) -> list[Level]:
    """Return the levels of an OME-Zarr image, finest first.

    Raises
    ------
    ImageError
        If there is no image, or its levels contradict each other.
    """
    attributes = group.attrs.asdict()
    content = attributes.get("ome", attributes)
    if not isinstance(content, Mapping) or not content.get("multiscales"):
        raise ImageError(_no_image(group, content if isinstance(content, Mapping) else {}, name))
    try:
        entry = content["multiscales"][0]
        version = str(content.get("version") or entry.get("version") or "0.4")
        datasets = list(entry["datasets"])
        if len(datasets) > _MOST_LEVELS:
            raise ImageError(f"The metadata of {name} name {len(datasets):,} levels, more than any image has.")
        axes = tuple(_axis(axis) for axis in entry.get("axes", ()))
        whole = _transformed(entry, len(axes))
        levels = [_level(group, dataset, axes, whole, version, name) for dataset in datasets]
    except NnunetError:
        raise
    except Exception as error:  # whatever a store raises of a level, or Python of odd metadata
        raise ImageError(
            f"The metadata of {name} do not describe an image: {error!r:.500} in 'multiscales'."
        ) from error
    if not levels:
        raise ImageError(f"The metadata of {name} name no level.")
    check_levels(levels, name)
    return levels


def _no_image(group: Any, content: Mapping[str, Any], name: str) -> str:
    if "plate" in content or "well" in content:
        return f"{name} is a plate with many images. Name one of them, such as {name}/A/1/0."
    inside = sorted(key for key, _ in group.groups())
    arrays = sorted(key for key, _ in group.arrays())
    listed = f" It holds {', '.join((inside + arrays)[:10])}." if inside or arrays else ""
    return f"{name} is a zarr group without the metadata of an image (multiscales).{listed} Name an image within it."


def _axis(axis: Any) -> Mapping[str, Any]:
    """Return an axis as version 0.4 has it; 0.3 has names only."""
    return {"name": axis} if isinstance(axis, str) else dict(axis)


def _transformed(entry: Mapping[str, Any], ndim: int) -> tuple[list[float], list[float]]:
    """Return scale and translation of a list of transformations."""
    scale, translation = [1.0] * ndim, [0.0] * ndim
    for step in entry.get("coordinateTransformations") or ():
        if step["type"] == "scale":
            factors = [float(v) for v in step["scale"]]
            scale = [a * b for a, b in zip(scale, factors, strict=True)]
            translation = [a * b for a, b in zip(translation, factors, strict=True)]
        elif step["type"] == "translation":
            translation = [a + float(b) for a, b in zip(translation, step["translation"], strict=True)]
    if not all(math.isfinite(v) and v > 0 for v in scale):
        raise ValueError(f"the scale {scale}")
    return scale, translation


def _level(
    group: Any,
    dataset: Mapping[str, Any],
    axes: tuple[Mapping[str, Any], ...],
    whole: tuple[list[float], list[float]],
    version: str,
    name: str,
) -> Level:
    path = str(dataset["path"])
    try:
        shape = tuple(int(n) for n in group[path].shape)
    except (KeyError, FileNotFoundError, AttributeError) as error:
        raise ImageError(f"The metadata of {name} name the level {path}, which is not there. Copy it again.") from error
    if not axes:  # versions 0.1 and 0.2 had five axes in this order
        axes = tuple({"name": letter.lower()} for letter in "TCZYX") if len(shape) == 5 else ()
        whole = ([1.0] * len(axes), [0.0] * len(axes))
    if len(axes) != len(shape):
        raise ImageError(
            f"The metadata of {name} name {len(axes)} axes, but level {path} has {len(shape)}: {_x(shape)}."
        )
    scale, translation = _transformed(dataset, len(axes))
    return Level(
        path,
        shape,
        tuple(a * b for a, b in zip(scale, whole[0], strict=True)),
        tuple(a * b + c for a, b, c in zip(translation, *whole, strict=True)),
        axes,
        version,
    )


def _x(numbers: Sequence[int]) -> str:
    return " x ".join(map(str, numbers))


def _chosen(
    levels: Sequence[Level], wanted: str | None, best: Callable[[Sequence[Level]], int] | None, name: str
) -> int:
    if wanted is None:
        return best(levels) if best is not None and len(levels) > 1 else 0
    paths = [level.path for level in levels]
    if wanted in paths:
        return paths.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(levels):
        return int(wanted)
    raise ImageError(f"{name} has no level {wanted}; it has {', '.join(paths)}.")
