"""Save a Labels layer as a medical image or a picture, with its geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.images import write_labels
from napari_nnunet.formats.raw_writer import save_case
from napari_nnunet.schema.geometry import Geometry


def write_labels_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write one Labels layer.

    The geometry of the file the layer was read from is kept; other layers are written with their spacing in mm.

    Parameters
    ----------
    path : str
        The ending decides the format.
    data : array-like
        Labels ([Z,] Y, X).
    attributes : dict
        napari's description of the layer.
    """
    labels = np.asarray(data)
    stored = attributes.get("metadata", {}).get("nnunet_geometry")
    geometry = Geometry.model_validate(stored) if stored else geometry_from(labels.ndim, attributes)
    write_labels(labels, geometry, Path(path))
    return [path]


def write_case(path: str, layers: list[tuple[Any, dict[str, Any], str]]) -> list[str]:
    """Save image layers and a Labels layer as a training case.

    Parameters
    ----------
    path : str
        ``DATASET/CASE.nnunet``: the folder must hold a dataset.json, the name is the case's. No file of that name is
        written; images and labels go where the dataset keeps them.
    layers : list
        Image layers, one per channel, and one Labels layer, on the same grid.

    Raises
    ------
    DatasetError
        If the folder is no dataset, or the layers do not fit it.
    """
    target = Path(path)
    if not (target.parent / "dataset.json").is_file():
        raise DatasetError(
            f"{target.parent} is no dataset: it has no dataset.json. Save into the folder of a dataset, as "
            "Dataset001_Cells/case_07.nnunet; the Training cases dock makes new datasets."
        )
    images = [(data, attributes) for data, attributes, kind in layers if kind == "image"]
    labels, about = next((data, attributes) for data, attributes, kind in layers if kind == "labels")
    stored = about.get("metadata", {}).get("nnunet_geometry") or images[0][1].get("metadata", {}).get("nnunet_geometry")
    array = np.asarray(labels)
    geometry = Geometry.model_validate(stored) if stored else geometry_from(array.ndim, images[0][1])
    channels = [np.asarray(data) for data, _ in images]
    if images[0][1].get("rgb"):
        channels = [channels[0][..., c] for c in range(3)]
    case = save_case(target.parent, target.stem, channels, array, geometry)
    return [str(file) for file in (*case.images, case.label)]


def geometry_from(ndim: int, attributes: dict[str, Any]) -> Geometry:
    """Return spacing, origin and direction of a layer, in mm."""
    matrix = np.asarray(attributes.get("affine", np.eye(ndim + 1)), dtype=float)
    scale = np.asarray(attributes.get("scale", np.ones(ndim)), dtype=float)
    translate = np.asarray(attributes.get("translate", np.zeros(ndim)), dtype=float)
    rotate = np.asarray(attributes.get("rotate", np.eye(ndim)), dtype=float)
    factor = np.array([_to_mm(unit) for unit in attributes.get("units", ["pixel"] * ndim)])
    linear = factor[:, None] * (matrix[:ndim, :ndim] @ rotate @ np.diag(scale))
    spacing = np.linalg.norm(linear, axis=0)
    direction = (linear / spacing)[::-1, ::-1]
    origin = factor * (matrix[:ndim, :ndim] @ translate + matrix[:ndim, ndim])
    return Geometry(
        spacing=tuple(float(s) for s in spacing),
        origin=tuple(float(v) for v in origin[::-1]),
        direction=tuple(float(v) for v in direction.ravel()),
    )


def _to_mm(unit: Any) -> float:
    """Return mm per unit, 1 for pixels."""
    import pint

    try:
        quantity = (1 * unit) if hasattr(unit, "dimensionality") else pint.get_application_registry()(str(unit))
        return float(quantity.to("mm").magnitude)
    except (pint.PintError, AttributeError, TypeError):
        return 1.0
