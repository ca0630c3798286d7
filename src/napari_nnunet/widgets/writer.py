"""Save a Labels layer as a medical image or a picture, with its geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_nnunet.formats.images import write_labels
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
