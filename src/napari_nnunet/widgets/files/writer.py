"""Save a Labels layer as a medical image or a picture, with its geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.dataset.raw_writer import save_case
from napari_nnunet.formats.images.files import write_labels
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.widgets.frame.layers import geometry_from


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
            f"{target.parent} is not a dataset: it has no dataset.json. Save into the folder of a dataset, as "
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
