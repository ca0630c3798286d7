"""What somebody decided about labels: a suggested place becomes a case, a network's segmentation becomes a label."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.labelling.doubt import Part, mask_of_part
from napari_nnunet.engine.labelling.queries import Spot
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Job
from napari_nnunet.formats.dataset.case_files import Case, volume_of_case
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase, reader_of, survey
from napari_nnunet.formats.dataset.read_case import grid_of_image, labels_over
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.formats.preprocessed.journal import joined_by
from napari_nnunet.grid import Grid, WhenApart, onto
from napari_nnunet.jobs.choosing.evaluate import Rules
from napari_nnunet.jobs.dataset.cases import NewCase, add_case, correct_reference
from napari_nnunet.jobs.labelling.examine import without_unknown
from napari_nnunet.jobs.labelling.suspects import Examined
from napari_nnunet.schema.dataset import IGNORE, LabelScheme
from napari_nnunet.volume import Volume


def take_correction(folder: Path, place: Spot, image: Case, labels: NDArray[Any]) -> Job[TrainingCase]:
    """Save a suggested place, with labels that somebody looked at, as a case of a dataset.

    What lies outside the place is not annotated: it gets the dataset's ignore label, which is added where the dataset
    has none. Where the image is a case already, its labels are kept and the place is added to them.

    Parameters
    ----------
    folder : Path
        The raw dataset.
    place : Spot
        What was suggested.
    image : Case
        Where the image lies.
    labels : ndarray of int, shape ([Z,] Y, X)
        Of the whole image; only those in the place count.

    Returns
    -------
    TrainingCase
        The case that was written.

    Raises
    ------
    DatasetError
        If the labels hold values that the dataset does not know, or have another shape than the image, or the dataset
        has another image under this name.
    """
    dataset, _ = survey(folder)
    info = dataset.info
    apart = joined_by(folder, place.case)
    volume = volume_of_case(image, reader_of(dataset), apart=apart)
    if labels.shape != volume.shape:
        raise DatasetError(f"The labels have {labels.shape} voxels, {place.case} has {volume.shape}.")
    where = tuple(slice(lo, hi) for lo, hi in place.box)
    own = np.asarray(labels)[where]
    strange = sorted(set(np.unique(own).tolist()) - {*info.labels.all_labels, _ignored(info.labels)})
    if strange:
        raise DatasetError(
            f"The labels of {place.case} hold {', '.join(map(str, strange))}; {folder.name} knows "
            f"{', '.join(map(str, info.labels.all_labels))} only.",
            shell="Add the class to dataset.json first.",
            window="Add the class in the Training cases dock first ('Edit dataset…').",
        )
    whole = own.shape == volume.shape
    classes, ignored = dict(info.labels.labels), info.labels.ignore_label
    if not whole and ignored is None:
        ignored = max(info.labels.all_labels) + 1
        classes[IGNORE] = ignored
    case = next((case for case in dataset.cases if case.name == place.case), None)
    if case is not None:
        _require_same_image(case, volume, info.reader, apart)
        drawn = labels_over(case.label, Grid(volume.shape, volume.geometry), reader=info.reader, apart=apart).voxels
        merged = np.array(drawn)
        merged[where] = own
        yield from correct_reference(folder, case.name, merged, seen=drawn)
        return case
    full = own if whole else np.full(volume.shape, ignored, dtype=np.int32)
    if not whole:
        full[where] = own
    names = tuple(info.channel_names)
    mapping = {int(value): int(value) for value in np.unique(full)}
    channels, classes_of = list(np.asarray(volume.array)), _lists(classes)
    where_to = (folder, place.case, channels, full, volume.geometry, mapping, classes_of, names, info.file_ending)
    new = NewCase(*where_to, known=True, fresh=True)
    return (yield from add_case(new))


def _require_same_image(case: TrainingCase, volume: Volume, reader: str | None, apart: WhenApart) -> None:
    """Raise DatasetError if a case is of another image than that which has its name elsewhere."""
    own = read_volume(case.images, reader=reader, apart=apart)
    if own.array.shape != volume.array.shape or not np.array_equal(own.array, volume.array, equal_nan=True):
        raise DatasetError(
            f"{case.images[0].parent} has another image with the name {case.name}: its voxels are not those that were "
            "labelled. Nothing was written. Give one of the two images another name."
        )


def take_prediction(folder: Path, case: Examined, part: Part | None) -> Job[Path]:
    """Put what the network sees in the place of what is drawn; the old labels go to the dataset's trash folder.

    Parameters
    ----------
    folder : Path
        The raw dataset.
    case : Examined
        A case that looks wrong.
    part : Part, optional
        Only this part of it; the whole case if not given, but for what nobody annotated.

    Returns
    -------
    Path
        The labels that were written.

    Raises
    ------
    DatasetError
        If the labels changed since they were looked at, so that they do not fit the prediction.
    """
    dataset, _ = survey(folder)
    own = next((other for other in dataset.cases if other.name == case.name), None)
    if own is None:
        raise DatasetError(f"{folder.name} has no case {case.name}.")
    reader = dataset.info.reader
    grid = grid_of_image(own.images[0], reader)
    apart = joined_by(folder, case.name)
    drawn = labels_over(own.label, grid, reader=reader, apart=apart).voxels
    seen, place = read_labels(case.prediction, reader=reader)
    if seen.shape == drawn.shape:  # else it is said below
        seen = onto(seen, place, grid, what=f"{case.prediction} and the image of {case.name}", apart=apart)
    there = drawn.shape == seen.shape
    if there:
        seen = without_unknown(seen, Rules.of(dataset.info).unknown.get(case.name, ()))
        there = part is None or (drawn[part.place] == part.label and seen[part.place] == part.seen)
    if not there:
        raise DatasetError(
            f"The labels of {case.name}, or what the network sees in them, changed since they were looked at. Look for "
            "wrong labels again."
        )
    if part is None:
        if dataset.info.labels.ignore_label is not None:  # what nobody annotated stays so
            seen = np.where(drawn == dataset.info.labels.ignore_label, drawn, seen)
        return (yield from correct_reference(folder, case.name, seen, seen=drawn))
    merged = np.where(mask_of_part(drawn, seen, part), part.seen, drawn)
    return (yield from correct_reference(folder, case.name, merged, seen=drawn))


def _ignored(scheme: LabelScheme) -> int:
    return -1 if scheme.ignore_label is None else scheme.ignore_label


def _lists(classes: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): list(value) if isinstance(value, tuple) else value for name, value in classes.items()}
