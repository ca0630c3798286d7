"""Open medical images with their geometry, label files with the classes of the dataset beside, and model folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.images import ending_of, read_labels, read_volume
from napari_nnunet.formats.model import find_models, is_model_folder
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.widgets._layers import colormap_of, features_of

LayerData = tuple[Any, dict[str, Any], str]


def get_reader(path: str | list[str]) -> Callable[[Any], list[LayerData]] | None:
    """Return a reader for medical images and model folders, None for everything else."""
    first = Path(path[0] if isinstance(path, list) else path)
    if first.is_dir():
        return _read_model if is_model_folder(first) or find_models(first, depth=1) else None
    try:
        ending_of(first)
    except NnunetError:
        return None
    return _read_images


def _read_model(path: str | list[str]) -> list[LayerData]:
    """Remember a dropped model folder for the Segment dock; it adds no layer."""
    from napari.utils.notifications import show_info

    from napari_nnunet.formats.known_models import remember_model

    first = Path(path[0] if isinstance(path, list) else path)
    models = find_models(first, depth=1)
    for folder in reversed(models):
        remember_model(folder)
    show_info(f"{len(models)} model{'s' if len(models) > 1 else ''} added; choose it in Plugins > nnU-Net > Segment.")
    return [(None,)]  # type: ignore[list-item]  # napari's sign for "read, but nothing to show"


def _read_images(path: str | list[str]) -> list[LayerData]:
    paths = [Path(p) for p in (path if isinstance(path, list) else [path])]
    return [layer for p in paths for layer in _read_one(p)]


def _read_one(path: Path) -> list[LayerData]:
    dataset = _dataset_beside(path)
    name = path.name[: -len(ending_of(path))]
    if dataset is not None and path.parent.name not in ("imagesTr", "imagesTs", "imagesVal"):
        labels, geometry = read_labels(path)
        if set(np.unique(labels)) <= {*dataset.labels.names, *_ignore(dataset)}:
            small = labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.uint16)
            extra = {"colormap": colormap_of(dataset.labels), "features": features_of(dataset.labels)}
            return [(small, {"name": name, **extra, **_place(geometry)}, "labels")]
    volume = read_volume([path])
    place = _place(volume.geometry)
    if volume.channels == 1:
        return [(np.asarray(volume.array)[0], {"name": name, **place}, "image")]
    return [(np.asarray(channel), {"name": f"{name} {c}", **place}, "image") for c, channel in enumerate(volume.array)]


def _ignore(dataset: DatasetInfo) -> tuple[int, ...]:
    return () if dataset.labels.ignore_label is None else (dataset.labels.ignore_label,)


def _dataset_beside(path: Path) -> DatasetInfo | None:
    """Return the dataset.json of the folder a label file lies in, or of the one above."""
    for folder in path.parents[:2]:
        beside = folder / "dataset.json"
        if beside.is_file():
            try:
                return DatasetInfo.parse_json(beside.read_text(encoding="utf-8"), where=str(beside))
            except (NnunetError, OSError):
                return None
    return None


def _place(geometry: Geometry) -> dict[str, Any]:
    """Return the layer keywords of a grid; an oblique direction becomes the layer's affine."""
    ndim = geometry.ndim
    place: dict[str, Any] = {
        "scale": geometry.spacing,
        "units": ["mm" if geometry.spacing_known else "pixel"] * ndim,
        "axis_labels": list("zyx")[-ndim:],
        "metadata": {"nnunet_geometry": geometry.model_dump()},
    }
    if geometry.origin is not None and geometry.direction is not None:
        direction = np.asarray(geometry.direction).reshape(ndim, ndim)
        # From ITK's (x, y, z) to the array's (z, y, x): rows and columns turn around.
        rotation = direction[::-1, ::-1]
        place["translate"] = tuple(reversed(geometry.origin))
        if not np.allclose(rotation, np.eye(ndim)):
            affine = np.eye(ndim + 1)
            affine[:ndim, :ndim] = rotation
            origin = np.asarray(geometry.origin[::-1])
            place["translate"] = (0.0,) * ndim
            affine[:ndim, ndim] = origin
            place["affine"] = affine
    return place
