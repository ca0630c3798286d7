"""DICOM in napari: series and DICOM-SEG as layers, and a Labels layer as a DICOM-SEG of the series it lies on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.layers import Image
from napari.utils.notifications import show_warning
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError, NnunetError
from napari_nnunet.formats.dicom.codes import codes_of
from napari_nnunet.formats.dicom.contours import write_structures
from napari_nnunet.formats.dicom.output import DICOM_ENDINGS, SEG, STRUCTURES
from napari_nnunet.formats.dicom.segmentation import DicomSegment, write_segmentation
from napari_nnunet.formats.dicom.series import holds_segments, read_series, series_in, slice_files
from napari_nnunet.formats.dicom.structures import read_segments, segments_in
from napari_nnunet.grid import Grid, Same, relation
from napari_nnunet.schema.dataset import BACKGROUND
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.widgets.files.place import STORED, LayerData, geometry_to_save, placement, tell_remarks
from napari_nnunet.widgets.frame.layers import class_names_of, colormap_of_values
from napari_nnunet.widgets.frame.words import as_text

#: Metadata key of where a layer's series lies.
SOURCE = "nnunet_dicom"


def read_dicom(path: str | list[str]) -> list[LayerData]:
    """Open series, DICOM-SEG and radiotherapy structures: files, or folders with slices; one layer each.

    Segments that overlap become a layer each.
    """
    return [layer for each in (path if isinstance(path, list) else [path]) for layer in _opened(Path(each))]


def _opened(path: Path) -> list[LayerData]:
    if holds_segments(path):
        return _segmentation_layers(path)
    segments = segments_in(path) if path.is_dir() else ()
    layers = [] if segments and not series_in(path) else [_series_layer(path)]
    failed: list[NnunetError] = []
    for beside in segments:  # planning systems put structures into the folder of their series, or one of their own
        try:
            layers += _segmentation_layers(beside)
        except NnunetError as error:
            failed.append(error)
    if not layers:
        raise failed[0]
    for reason in failed:
        show_warning(as_text(reason.in_window))
    return layers


def _series_layer(path: Path) -> LayerData:
    array, geometry = read_series(path)
    tell_remarks(path, geometry.remarks)
    place = placement(geometry)
    place["metadata"][SOURCE] = str(path)
    return array[0], {"name": path.name.removesuffix(".dcm"), **place}, "image"


def _segmentation_layers(path: Path) -> list[LayerData]:
    found = read_segments(path, _open_series())
    tell_remarks(path, found.geometry.remarks)
    name, place = path.name.removesuffix(".dcm"), placement(found.geometry)
    if found.labels is None:
        return [
            (mask.astype(np.uint8), {"name": f"{name} {found.names[number]}", **place}, "labels")
            for number, mask in found.masks
        ]
    names = {0: BACKGROUND, **found.names}
    features = {"index": list(names), "name": list(names.values())}
    colours = colormap_of_values(set(names))
    small = found.labels.astype(np.uint8 if max(names) < 256 else np.int32)
    return [(small, {"name": name, **place, "features": features, "colormap": colours}, "labels")]


def _open_series() -> list[Path]:
    """Return where the series of open layers lie: structures may have been drawn in one of them."""
    viewer = napari.current_viewer()
    return (
        [] if viewer is None else [Path(layer.metadata[SOURCE]) for layer in viewer.layers if SOURCE in layer.metadata]
    )


def write_dicom(path: Path, labels: NDArray[Any], attributes: Mapping[str, Any], axes: str) -> None:
    """Write a Labels layer as a DICOM-SEG, or as structures, of the open series that lies on the same grid.

    Parameters
    ----------
    path : Path
        To write; what ends in ``.rtstruct.dcm`` is an RTSTRUCT.
    labels : ndarray of int, shape (Z, Y, X)
        Of the layer.
    attributes : mapping
        napari's description of the layer.
    axes : str
        A letter for each axis.

    Raises
    ------
    ImageError
        If no such series is open, or the labels cannot be written so.
    """
    contours = path.name.lower().endswith(DICOM_ENDINGS[STRUCTURES])
    kind, write = (STRUCTURES, write_structures) if contours else (SEG, write_segmentation)
    if axes != "ZYX" or not labels.any():
        raise ImageError(
            f"'{attributes['name']}' is not a volume; {kind} holds volumes. Save it as .nii.gz."
            if axes != "ZYX"
            else f"'{attributes['name']}' holds no label; there is nothing to save as {kind}."
        )
    grid = Grid(labels.shape, geometry_to_save(labels.shape, attributes, axes))
    source = _series_under(grid, str(attributes["name"]), kind)
    names = {value: name for value, name in class_names_of(attributes.get("features", {})).items() if value > 0}
    told = {int(value) for value in np.unique(labels) if value} | set(names)
    values = sorted(told) if contours else range(1, max(told) + 1)  # numbers of segments have no gaps
    every = {value: names.get(value, f"label {value}") for value in values}
    segments = [DicomSegment(name, (value,), codes_of(name, value)) for value, name in every.items()]
    write(labels, path, source=slice_files(source), segments=segments)


def _series_under(grid: Grid, name: str, kind: str) -> Path:
    """Return where the series lies whose Image layer is on a grid."""
    viewer = napari.current_viewer()
    layers = [] if viewer is None else [layer for layer in viewer.layers if isinstance(layer, Image)]
    found = {
        layer.metadata[SOURCE]: Grid(layer.data.shape, Geometry.model_validate(layer.metadata[STORED]))
        for layer in layers
        if SOURCE in layer.metadata
    }
    on_it = [path for path, other in found.items() if isinstance(relation(grid, other), Same)]
    if len(on_it) == 1:
        return Path(on_it[0])
    raise ImageError(
        f"{'An' if kind == STRUCTURES else 'A'} {kind} references the series it was made from, but "
        f"{len(on_it) or 'no'} open DICOM series "
        f"{'lie' if len(on_it) > 1 else 'lies'} on the voxels of '{name}'. "
        + ("Close all but one." if on_it else "Open the series (File > Open Folder…), or save as .nii.gz.")
    )
