"""Open medical images with their geometry, label files with the classes of the dataset beside, and model folders."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.utils.colormaps import DirectLabelColormap
from napari.utils.notifications import show_info
from numpy.typing import NDArray

from napari_nnunet.errors import DatasetError, NnunetError
from napari_nnunet.events import Job, Stage
from napari_nnunet.formats.dataset.objects import object_kinds, reference_file
from napari_nnunet.formats.dataset.raw_dataset import survey
from napari_nnunet.formats.dataset.read_case import (
    LaidLabels,
    header_in_words,
    labels_over,
    lay_labels,
    misplaced_in_words,
)
from napari_nnunet.formats.dicom.syntax import holds_segments, is_dicom_image
from napari_nnunet.formats.images.files import ending_of, read_labels, read_volume
from napari_nnunet.formats.images.label_note import LabelNote
from napari_nnunet.formats.large.finished import is_label_image, is_unfinished
from napari_nnunet.formats.large.ome_zarr import is_zarr
from napari_nnunet.formats.model.bundle import is_model_zip
from napari_nnunet.formats.model.folder import find_models, holds_models
from napari_nnunet.formats.model.known_models import remember_model
from napari_nnunet.formats.preprocessed.journal import joined_by
from napari_nnunet.formats.results.noted import nifti_reader, read_note, read_noted
from napari_nnunet.grid import Apart, Grid, Turned, WhenApart
from napari_nnunet.schema.dataset import BACKGROUND, DatasetInfo
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.widgets.files.label_image_layer import read_label_images, refuse_unfinished
from napari_nnunet.widgets.files.origins import case_origin
from napari_nnunet.widgets.files.place import KEPT, LayerData, in_window_words, placement, tell_remarks, with_time
from napari_nnunet.widgets.frame.layers import ORIGIN, colormap_of, colormap_of_values, features_of
from napari_nnunet.widgets.frame.tabs import open_dock

_CASES = ("imagesTr", "labelsTr", "imagesTs")  # of a dataset, which opens as a whole
_DICOM = (".dcm", ".dicom", ".ima")


def get_reader(path: str | list[str]) -> Callable[[Any], list[LayerData]] | None:
    """Return a reader for medical images and model folders, None for everything else."""
    reader = _reader_of(path)
    return None if reader is None else in_window_words()(reader)


def _reader_of(path: str | list[str]) -> Callable[[Any], list[LayerData]] | None:
    paths = path if isinstance(path, list) else [path]
    if not paths:
        return None
    first = Path(paths[0])
    if first.is_dir():
        return _folder_reader(first)
    if first.suffix.lower() == ".zip":
        damaged = not zipfile.is_zipfile(first)  # the Models dock says what is wrong with it
        return _read_zip if damaged or is_model_zip(first) else None
    if first.name == "dataset.json":
        return _read_dataset if (first.parent / "imagesTr").is_dir() else None
    try:
        ending_of(first)
    except NnunetError:
        return _dicom_reader(first) if first.suffix.lower() in _DICOM else None
    return _read_images


def _folder_reader(folder: Path) -> Callable[[Any], list[LayerData]] | None:
    if is_unfinished(folder):
        return refuse_unfinished
    if is_zarr(folder):  # images are for others: no claim is made to what would be opened in another way here
        return read_label_images if is_label_image(folder) else None
    if (folder / "dataset.json").is_file() and (folder / "imagesTr").is_dir():
        return _read_dataset
    if folder.name in _CASES and (folder.parent / "dataset.json").is_file() and (folder.parent / "imagesTr").is_dir():
        return _read_dataset
    if holds_models(folder):
        return _read_model
    return _dicom_reader(folder)


def _dicom_reader(path: Path) -> Callable[[Any], list[LayerData]] | None:
    if not is_dicom_image(path) and not holds_segments(path):
        return None
    from napari_nnunet.widgets.files.dicom_layers import read_dicom  # loads ITK, which few files need

    return read_dicom


def case_layers(folder: Path, name: str, *, together: bool = False) -> list[LayerData]:
    """Return the layers of a training case: one image per channel, then its labels.

    Labels in another orientation than the image are turned onto its voxels, others that lie elsewhere are
    shown where they lie; both is said. Where the case was preprocessed whatever the headers say, it is shown so.

    Parameters
    ----------
    folder : Path
        The raw dataset.
    name : str
        Of the case.
    together : bool
        Whether labels that lie elsewhere are refused instead.

    Raises
    ------
    NnunetError
        If the dataset has no such case or its files cannot be read.
    """
    dataset, _ = survey(folder)
    case = next((case for case in dataset.cases if case.name == name), None)
    if case is None:
        raise DatasetError(f"{folder.name} has no complete case named {name}.")
    reader = dataset.info.reader
    apart = joined_by(folder, name)
    volume = read_volume(case.images, reader=reader, as_stored=True, apart=_for_looking(apart, together))
    scheme = ObjectScheme.of(dataset.info)
    drawn = case.label if scheme is None else reference_file(folder, name, dataset.info)
    lay = labels_over if together else lay_labels
    laid = lay(drawn, Grid(volume.shape, volume.geometry), reader=reader, apart=apart)
    labels, place = laid.voxels, placement(volume.geometry)
    own = place if not isinstance(laid.found, Apart) else placement(laid.geometry)
    place["metadata"][ORIGIN] = own["metadata"][ORIGIN] = case_origin(folder, name, drawn)
    _tell_place(drawn, laid)
    names = dataset.info.channel_names
    layers: list[LayerData] = [
        (np.asarray(channel), {"name": f"{name} {names[c]}" if c < len(names) else f"{name} {c}", **place}, "image")
        for c, channel in enumerate(volume.array)
    ]
    small = _small(labels)
    if scheme is not None:
        kinds = object_kinds(folder, name, labels, laid.geometry)
        extra = {"features": {"index": list(kinds), "kind": list(kinds.values())}} if kinds else {}
        return [*layers, (small, {"name": f"{name} objects", **own, **extra}, "labels")]
    classes = dataset.info.labels
    values = {value: label for label, value in classes.labels.items() if isinstance(value, int)}
    if classes.has_regions:
        values = {0: "background", **{value: f"label_{value}" for value in classes.foreground_labels}}
    extra = {
        "colormap": colormap_of_values(values),
        "features": {"index": list(values), "name": list(values.values())},
    }
    return [*layers, (small, {"name": f"{name} labels", **own, **extra}, "labels")]


def _for_looking(apart: WhenApart, together: bool) -> WhenApart:
    """Return how channels are joined as in training; what may be saved again is not interpolated."""
    return apart if together or apart == "ignore" else "refuse"


def _tell_place(path: Path, laid: LaidLabels) -> None:
    """Say how labels lie to their image by their header, where not voxel by voxel."""
    found = laid.found
    if laid.ignored is not None:
        how = "each voxel is shown on that of the image, as the case was preprocessed whatever the headers say"
        tell_remarks(path, [f"{header_in_words(laid.ignored)}; {how}"])
    elif isinstance(found, Turned):
        tell_remarks(path, [f"{misplaced_in_words(found)}; here they are reoriented onto it, and saved so"])
    elif found is not None:
        tell_remarks(path, [f"{misplaced_in_words(found)}; each is shown where it lies", "'Check dataset' can fix it"])


def open_layers(folder: Path, name: str, *, together: bool = False) -> Job[list[LayerData]]:
    """Read the layers of a training case, as :func:`case_layers`."""
    yield Stage(name=f"Opening {name}")
    return case_layers(folder, name, together=together)


def _read_dataset(path: str | list[str]) -> list[LayerData]:
    """Open the first case of a dropped dataset, and all of it in the Training cases dock."""
    first = Path(path[0] if isinstance(path, list) else path)
    folder = first if first.is_dir() and first.name not in _CASES else first.parent
    dataset, _ = survey(folder)
    if not dataset.cases:
        raise DatasetError(f"{folder.name} has no complete training case.")
    viewer = napari.current_viewer()
    if viewer is not None:
        open_dock(viewer, "Training cases").offer(folder)
    return case_layers(folder, dataset.cases[0].name)


def _read_model(path: str | list[str]) -> list[LayerData]:
    """Remember a dropped model folder for the Segment dock; it adds no layer."""
    first = Path(path[0] if isinstance(path, list) else path)
    models = find_models(first, depth=1)
    for folder in reversed(models):
        remember_model(folder)
    show_info(f"{len(models)} model{'s' if len(models) > 1 else ''} added; choose it in Plugins > nnU-Net > Segment.")
    return [(None,)]  # type: ignore[list-item]  # napari's sign for "read, but nothing to show"


def _read_zip(path: str | list[str]) -> list[LayerData]:
    """Hand a dropped zip with models to the Models dock, which asks before it installs."""
    first = Path(path[0] if isinstance(path, list) else path)
    viewer = napari.current_viewer()
    if viewer is None:
        raise DatasetError(f"{first.name} holds models, not images; install it in the Models dock.")
    open_dock(viewer, "Models").offer(first)
    return [(None,)]  # type: ignore[list-item]  # napari's sign for "read, but nothing to show"


def _read_images(path: str | list[str]) -> list[LayerData]:
    paths = [Path(p) for p in (path if isinstance(path, list) else [path])]
    return [layer for p in paths for layer in _read_one(p)]


def _read_one(path: Path) -> list[LayerData]:
    note = read_note(path)
    noted = None if note is None else _noted_layer(path, note)
    if noted is not None:
        return [noted]
    dataset = _dataset_beside(path)
    name = path.name[: -len(ending_of(path))]
    if dataset is not None and path.parent.name not in ("imagesTr", "imagesTs", "imagesVal"):
        labels, keywords = label_layer(path)
        if set(np.unique(labels)) <= {*dataset.labels.names, *_ignore(dataset)}:
            return [(labels, keywords, "labels")]
    volume = read_volume([path], reader=nifti_reader(path))
    tell_remarks(path, (*volume.notes, *volume.geometry.remarks))
    place = placement(volume.geometry)
    if volume.channels == 1:
        return [(np.asarray(volume.array)[0], {"name": name, **place}, "image")]
    return [(np.asarray(channel), {"name": f"{name} {c}", **place}, "image") for c, channel in enumerate(volume.array)]


def labels_in(path: Path) -> LayerData | None:
    """Return the Labels layer of a file that holds labels of ours or of a dataset beside it; None for any other."""
    if read_note(path) is None and _dataset_beside(path) is None:
        return None
    try:
        layer, *others = _read_one(path)
    except (NnunetError, OSError):
        return None
    return layer if layer[2] == "labels" and not others else None


def _plain_name(path: Path) -> str:
    kept = next((ending for ending in KEPT if path.name.lower().endswith(ending)), None)
    return path.name[: -len(kept or ending_of(path))]


def _noted_layer(path: Path, note: LabelNote) -> LayerData | None:
    """Return the Labels layer that was saved, with its names and colours; None if the file is another by now."""
    found = read_noted(path, note)
    if found is None:
        return None
    labels, note = found
    keywords: dict[str, Any] = {"name": _plain_name(path), **placement(note.geometry)}
    if "T" in note.axes:
        keywords |= with_time(keywords, note.time_step, note.time_unit, note.time_start)
    if note.names or note.colours:
        colours = dict(colormap_of_values({*note.names, *note.colours}).color_dict)
        colours.update(note.colours)
        keywords["colormap"] = DirectLabelColormap(color_dict=colours)
    if note.names:
        names = {0: BACKGROUND, **note.names}
        keywords["features"] = {"index": list(names), "name": list(names.values())}
    return _small(labels), keywords, "labels"


def _small(labels: NDArray[Any]) -> NDArray[Any]:
    lowest, highest = labels.min(initial=0), labels.max(initial=0)
    return labels.astype(np.int32 if lowest < 0 or highest > 65535 else np.uint8 if highest < 256 else np.uint16)


def label_layer(path: Path) -> tuple[Any, dict[str, Any]]:
    """Return array and keywords of a Labels layer for a label file, with the classes of the dataset beside it.

    Raises
    ------
    ImageError
        If the file cannot be read.
    """
    labels, geometry = read_labels(path, reader=nifti_reader(path))
    tell_remarks(path, geometry.remarks)
    keywords: dict[str, Any] = {"name": path.name[: -len(ending_of(path))], **placement(geometry)}
    dataset = _dataset_beside(path)
    if dataset is not None:
        keywords |= {"colormap": colormap_of(dataset.labels), "features": features_of(dataset.labels)}
    return _small(labels), keywords


def _ignore(dataset: DatasetInfo) -> tuple[int, ...]:
    return () if dataset.labels.ignore_label is None else (dataset.labels.ignore_label,)


def _dataset_beside(path: Path) -> DatasetInfo | None:
    """Return the dataset.json of the folder a label file lies in, or of the one above."""
    for folder in path.parents[:2]:
        beside = folder / "dataset.json"
        if beside.is_file():
            try:
                return DatasetInfo.read(beside)
            except (NnunetError, OSError):
                return None
    return None
