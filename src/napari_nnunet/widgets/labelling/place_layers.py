"""The layers of a suggested place: the image, the model's proposal, and a frame around what is to be looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.labelling.queries import Spot
from napari_nnunet.errors import NnunetError
from napari_nnunet.events import Job, Stage
from napari_nnunet.formats.dataset.case_files import volume_of_case
from napari_nnunet.formats.dataset.raw_dataset import read_info, reader_of, survey
from napari_nnunet.formats.dataset.read_case import labels_over
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.preprocessed.journal import joined_by
from napari_nnunet.formats.workspace import stamp
from napari_nnunet.grid import Grid, onto
from napari_nnunet.jobs.labelling.suggestion import Suggestion
from napari_nnunet.widgets.files.place import LayerData, placement
from napari_nnunet.widgets.frame.forms import DERIVED
from napari_nnunet.widgets.frame.layers import colormap_of, features_of
from napari_nnunet.widgets.objects.look import on_screen, show_voxel

_FRAME = "#ffd166"


def place_layers(folder: Path, found: Suggestion) -> Job[list[LayerData]]:
    """Read the layers of a place: its channels, the labels to correct, the frame.

    What is annotated already of an image that is a training case stays as it is.

    Parameters
    ----------
    folder : Path
        The raw dataset.
    found : Suggestion
        The place; with a proposal.
    """
    yield Stage(name=f"Opening {found.place.case}")
    dataset, _ = survey(folder)
    info = dataset.info
    apart = joined_by(folder, found.place.case)
    volume = volume_of_case(found.image, reader_of(dataset), apart=apart)
    place, grid = placement(volume.geometry), Grid(volume.shape, volume.geometry)
    labels = np.zeros(volume.shape, dtype=np.uint8)
    if found.proposal is not None:
        labels, own = read_labels(found.proposal, reader=info.reader)
        labels = onto(labels, own, grid, what=f"{found.proposal} and its image")
    case = next((case for case in dataset.cases if case.name == found.place.case), None)
    if case is not None:
        drawn = labels_over(case.label, grid, reader=info.reader, apart=apart).voxels
        labels = np.where(drawn == info.labels.ignore_label, labels, drawn)
    names = info.channel_names
    layers: list[LayerData] = [
        (np.asarray(channel), {"name": f"{found.place.case} {names[c]}", **place}, "image")
        for c, channel in enumerate(volume.array)
    ]
    colours = {"colormap": colormap_of(info.labels), "features": features_of(info.labels)}
    small = labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.uint16)
    layers.append((small, {"name": f"{found.place.case} proposal", **place, **colours}, "labels"))
    frame = {**place, "metadata": {DERIVED: True}, "name": "label here", "face_color": "transparent"}
    frame |= {"edge_color": _FRAME, "edge_width": 0.5, "shape_type": "polygon"}
    return [*layers, (frames_of_box(found.place.box), frame, "shapes")]


def frames_of_box(box: tuple[tuple[int, int], ...]) -> list[NDArray[np.float64]]:
    """Return the outline of a box in each of its slices, as (4, ndim) corners in voxels.

    The slices lie across the axis along which the box is thinnest; of a picture there is one outline.
    """
    flat = len(box) == 2
    axis = drawn_across(box)
    sides = [span for a, span in enumerate(box) if flat or a != axis]
    (lo0, hi0), (lo1, hi1) = sides
    corners = np.array([(lo0, lo1), (lo0, hi1), (hi0, hi1), (hi0, lo1)], dtype=float) - 0.5
    if flat:
        return [corners]
    return [np.insert(corners, axis, plane, axis=1) for plane in range(*box[axis])]


def drawn_across(box: tuple[tuple[int, int], ...]) -> int:
    """Return the axis along which a box is thinnest, of equal ones the first: its slices lie across it."""
    return int(np.argmin([hi - lo for lo, hi in box])) if len(box) == 3 else 0


def look_at_place(viewer: Any, layer: Any, place: Spot) -> None:
    """Show the most doubtful voxel of a place; a slice lies in the plane of the screen, a whole image fills it."""
    if layer.ndim == 3 and place.partial:
        across = drawn_across(place.box)
        viewer.dims.order = (across, *(axis for axis in range(3) if axis != across))
    show_voxel(viewer, layer, place.middle)
    if viewer.dims.ndim == layer.ndim and place.partial:
        viewer.scene.camera.center = on_screen(layer, place.middle, viewer.dims)


def label_stamp(raw: Path, case: str) -> tuple[int, int] | None:
    """Return a stamp of the labels of a case, None where it has none."""
    try:
        return stamp(raw / "labelsTr" / f"{case}{read_info(raw).file_ending}")
    except (NnunetError, OSError):
        return None  # what is wrong with the dataset is said where it is written
