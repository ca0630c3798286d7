"""Numbered objects that were found, and which is of which kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.atomic import make_folder
from napari_nnunet.formats.images.files import ENDINGS, common_ending, ending_of, write_labels
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.objects import ObjectScheme

_NUMBERS = {".bmp": 254, ".png": 65535, ".gipl": 65535}  # that formats can hold; others hold 2 147 483 647
_ROOMIER = {".bmp": ".tif", ".png": ".tif", ".gipl": ".nii.gz"}  # instead of them
DRAWN = "tracks.png"  # what 'track' draws beside followed objects: no case, whatever their files are
FOUND_KINDS = "kinds"  # beside objects that were found: of which kind each is


def write_found(
    objects: NDArray[Any],
    kinds: Mapping[int, str],
    scheme: ObjectScheme,
    geometry: Geometry,
    path: Path,
    writer: str | None,
) -> Path:
    """Write the objects that were found in an image and, where there are several kinds, which is of which.

    Parameters
    ----------
    objects : ndarray of int, shape ([Z,] Y, X)
        Numbered; no more bits are written than they need.
    kinds : dict of int to str
        Kind of every object.
    scheme : ObjectScheme
        Kinds, and their values in a mask of kinds: ``kinds/CASE`` beside the file of the objects.
    geometry : Geometry
        Where the image lies.
    path : Path
        File to write, last of all.
    writer : str or None
        nnU-Net's name of what reads and writes images.

    Returns
    -------
    Path
        The file; see :func:`write_numbered`.
    """
    values = scheme.mask_values
    table = np.zeros(int(objects.max(initial=0)) + 1, dtype=np.uint16)
    if scheme.only_kind is None:
        for number, kind in kinds.items():
            table[number] = values[kind]
        name = _with_room(objects, path).name  # the mask of kinds is called as the objects are
        write_labels(table[objects], geometry, make_folder(path.parent / FOUND_KINDS) / name, writer=writer)
    return write_numbered(objects, geometry, path, writer)


def write_numbered(objects: NDArray[Any], geometry: Geometry, path: Path, writer: str | None = None) -> Path:
    """Write numbered objects ([Z,] Y, X), and return the file.

    It is another one, .tif or .nii.gz, where there are more objects than the format has numbers; whoever looks for
    them asks :func:`found_file`.
    """
    target = _with_room(objects, path)
    if target != path:
        path.unlink(missing_ok=True)  # of a run before, which had fewer
        writer = None
    write_labels(objects, geometry, target, writer=writer)
    return target


def found_file(path: Path) -> Path:
    """Return where the objects of a case are that were to be written to a path, also if it has too few numbers."""
    other = roomier(path)
    return other if other is not None and other.is_file() and not path.is_file() else path


def found_files(folder: Path) -> dict[str, Path]:
    """Return the files with numbered objects in a folder by case, sorted.

    A link that leads nowhere, or a pipe, is among them: reading it tells that.

    Raises
    ------
    ImageError
        If there are none, or files of several kinds, but for single cases with more objects than the others' format
        has numbers; or if a case has two files.
    """
    there = [path for path in folder.iterdir() if not path.is_dir()] if folder.is_dir() else []
    there = [path for path in there if path.name.lower().endswith(ENDINGS) and not path.name.startswith(".")]
    there = [path for path in there if path.name != DRAWN]
    endings = {ending_of(path) for path in there}
    limited = [ending for ending in endings if endings == {ending, _ROOMIER.get(ending)}]
    if not limited and (len(endings) != 1 or not folder.is_dir()):
        common_ending(folder)
    files: dict[str, Path] = {}
    for path in sorted(there):
        other = files.setdefault(path.name[: -len(ending_of(path))], path)
        if other != path:
            raise ImageError(
                f"{folder} has {other.name} and {path.name} of the same case; remove the one that is out of date."
            )
    return files


def _with_room(objects: NDArray[Any], path: Path) -> Path:
    """Return the file that can hold the numbers."""
    other = roomier(path)
    return path if other is None or objects.max(initial=0) <= _NUMBERS[ending_of(path)] else other


def roomier(path: Path) -> Path | None:
    """Return the file for more objects than a format has numbers; None for formats that have enough."""
    ending = ending_of(path)
    other = _ROOMIER.get(ending)
    return None if other is None else path.with_name(path.name[: -len(ending)] + other)


def info_file_beside(path: Path) -> Path | None:
    """Return the dataset.json that says what the objects in a file are: in its folder, or in the one around it."""
    files = [folder / "dataset.json" for folder in (path.parent, path.parent.parent)]
    return next((file for file in files if file.is_file()), None)


def scheme_beside(path: Path) -> ObjectScheme | None:
    """Return what that says of objects; None where there is none, or it speaks of classes."""
    found = info_file_beside(path)
    return None if found is None else ObjectScheme.of(DatasetInfo.read(found))
