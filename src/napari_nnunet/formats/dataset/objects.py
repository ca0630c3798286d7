"""Numbered objects of a raw dataset: objectsTr beside labelsTr, and kindsTr where objects are of several kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import DatasetError, ImageError
from napari_nnunet.formats.dataset.case_trash import KINDS, OBJECTS
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.objects import ObjectScheme


def object_files(folder: Path) -> dict[str, Path]:
    """Return the files with numbered objects by case, sorted.

    Raises
    ------
    DatasetError
        If the dataset has none.
    """
    ending = read_info(folder).file_ending
    home = folder / OBJECTS
    found = sorted(home.glob(f"*{ending}")) if home.is_dir() else []
    files = {path.name.removesuffix(ending): path for path in found if not path.name.startswith(".")}
    if not files:
        raise DatasetError(
            f"{folder.name} has no numbered objects: {OBJECTS} is missing or holds no file that ends in {ending}. "
            "Put a mask for each case there in which every object has its own number."
        )
    return files


def kinds_file(folder: Path, case: str) -> Path | None:
    """Return the mask that says of which kind the objects of a case are, and where ordinary classes lie."""
    path = folder / KINDS / f"{case}{read_info(folder).file_ending}"
    return path if path.is_file() else None


def read_objects(path: Path, reader: str | None = None) -> tuple[NDArray[Any], Geometry]:
    """Return numbered objects ([Z,] Y, X), 0 elsewhere, and their geometry."""
    return read_labels(path, reader=reader, as_stored=True)


def reference_file(folder: Path, case: str, info: DatasetInfo) -> Path:
    """Return the mask of a case that people draw and correct: its numbered objects, or else its labels."""
    where = "labelsTr" if ObjectScheme.of(info) is None else OBJECTS
    return folder / where / f"{case}{info.file_ending}"


def numbered(array: NDArray[Any], where: str) -> NDArray[np.uint32]:
    """Return an array as numbers of objects that label files can hold.

    Numbers stay as they are where they fit into 16 bits; else they become 1, 2, 3, ... in their order.

    Raises
    ------
    ImageError
        If a value is negative, or no whole number.
    """
    if array.dtype.kind == "f" and not np.array_equal(array, np.rint(array)):
        raise ImageError(f"{where} has values that are no whole numbers; every object must have one, and 0 is none")
    if array.size and array.min() < 0:
        raise ImageError(f"{where} has the value {array.min():g}; numbers of objects begin with 1, and 0 is no object")
    objects = array.astype(np.int64)
    if objects.size and objects.max() > np.iinfo(np.uint16).max:
        _, place = np.unique(objects, return_inverse=True)
        objects = place.reshape(objects.shape) + int(not (objects == 0).any())
    return objects.astype(np.uint32)


def kinds_of(objects: NDArray[Any], kinds: NDArray[Any], names: dict[int, str], where: str) -> dict[int, str]:
    """Return the kind of every object: what most of its voxels have in the mask of kinds.

    Parameters
    ----------
    objects, kinds : ndarray of int, shape ([Z,] Y, X)
        Numbered objects; values of kinds and classes.
    names : dict of int to str
        Value to kind.
    where : str
        Named in errors.

    Raises
    ------
    DatasetError
        If the shapes differ, or an object lies for the most part where no kind is.
    """
    if objects.shape != kinds.shape:
        raise DatasetError(f"{where}: the objects have shape {objects.shape}, the mask of kinds {kinds.shape}.")
    inside = objects != 0
    numbers, place = np.unique(objects[inside], return_inverse=True)
    values, column = np.unique(kinds[inside], return_inverse=True)
    table = np.bincount(place * len(values) + column, minlength=len(numbers) * len(values))
    most = values[table.reshape(len(numbers), len(values)).argmax(axis=1)] if len(numbers) else values
    unknown = [int(n) for n, value in zip(numbers, most, strict=True) if int(value) not in names]
    if unknown:
        listed = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise DatasetError(
            f"{where}: the objects {listed} lie where the mask of kinds has no kind; its kinds are "
            f"{', '.join(f'{value} ({name})' for value, name in names.items())}."
        )
    return {int(n): names[int(value)] for n, value in zip(numbers, most, strict=True)}


def object_kinds(folder: Path, case: str, objects: NDArray[Any]) -> dict[int, str]:
    """Return the kind of each object of a case; nothing where its dataset has but one kind.

    Raises
    ------
    DatasetError
        If the mask of kinds does not fit the objects.
    """
    scheme, path = object_scheme(folder), kinds_file(folder, case)
    if scheme is None or scheme.only_kind is not None or path is None:
        return {}
    mask, _ = read_labels(path)
    return kinds_of(objects, mask, dict(scheme.values), f"{folder.name}, {case}")


def object_scheme(folder: Path) -> ObjectScheme | None:
    """Return what the dataset.json of a folder says of objects; None for an ordinary dataset or model."""
    return ObjectScheme.of(read_info(folder))
