"""Training cases larger than memory: read, prepared and stored box by box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.image.locations import class_locations, location_keys
from napari_nnunet.engine.large.boxes import cut_into_boxes
from napari_nnunet.engine.large.case import (
    CaseParts,
    CaseSource,
    limited_axes,
    marked_slabs,
    masked_channels,
    survey_case,
    survey_content,
)
from napari_nnunet.engine.large.measure import measure_parts
from napari_nnunet.engine.large.parts import PIECE_VOXELS
from napari_nnunet.engine.planning.fingerprint import CaseMeasure
from napari_nnunet.errors import ImageError
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase
from napari_nnunet.formats.dataset.read_case import label_relation, misplaced, unknown_in_words, unknown_values
from napari_nnunet.formats.images.files import read_header
from napari_nnunet.formats.large.opening import Say, open_image
from napari_nnunet.formats.large.source import LargeImage
from napari_nnunet.formats.pickles import write_pickle
from napari_nnunet.formats.preprocessed.cases import preprocessed_files
from napari_nnunet.formats.preprocessed.growing import growing, kept_meanwhile
from napari_nnunet.grid import WhenApart
from napari_nnunet.schema.dataset import LabelScheme, Region
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.plans import Configuration, Plans
from napari_nnunet.volume import Volume, whole_numbers

_SAMPLE = (16, 32, 64)  # voxels that tell how an image is packed best
_MOST_BOX = 3.2e7  # voxels that are made together


@dataclass(frozen=True, eq=False)
class LazyCase:
    """A case of which nothing was read yet but headers.

    Parameters
    ----------
    image, labels : LargeImage
        On one grid.
    geometry : Geometry
        Of the image, as its reader says it.
    """

    image: LargeImage
    labels: LargeImage
    geometry: Geometry


def open_lazily(case: TrainingCase, reader: str, apart: WhenApart) -> LazyCase:
    """Open image and labels of a case whose boxes can be read.

    Raises
    ------
    ImageError
        If files cannot be read, or do not lie on one grid.
    """
    say = Say(reader=lambda _: reader, ignores_place=apart == "ignore")
    image, labels = open_image(case.images, say), open_image([case.label], say)
    headers = [read_header(path, reader=reader) for path in (case.images[0], case.label)]
    geometry, own = (header.geometry for header in headers)
    if labels.channels != 1:
        raise ImageError(f"{case.label.name} has {labels.channels} channels; a label file must have one.")
    if labels.shape_3d != image.shape_3d:
        raise ImageError(f"The image has {image.shape_3d} voxels, its labels have {labels.shape_3d}.")
    shape = image.shape
    if apart != "ignore":
        volume = Volume(_Shape((1, *shape)), geometry)
        found = label_relation(volume, shape, own)
        if found is not None:
            raise misplaced(case.label, found)
    return LazyCase(image, labels, geometry)


@dataclass(frozen=True)
class _Shape:
    """An array of which only the shape is asked."""

    shape: tuple[int, ...]


class CheckedLabels:
    """Reads boxes of labels as whole numbers that a dataset knows.

    Parameters
    ----------
    labels : LargeImage
        The labels.
    path : Path
        Their file.
    scheme : LabelScheme
        The values that labels may have.
    """

    def __init__(self, labels: LargeImage, path: Path, scheme: LabelScheme) -> None:
        self._labels, self._path, self._scheme = labels, path, scheme

    def __call__(self, box: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
        """Read a box (1, z, y, x); raises ImageError where it holds something else."""
        found = whole_numbers(self._labels.read(box), self._path)
        unknown = unknown_values(found, self._scheme)
        if unknown:
            (lo, hi) = box[0]
            raise ImageError(
                f"{self._path.name}: in the planes {lo} to {hi - 1}, {unknown_in_words(unknown, self._scheme)}.",
                shell="Add it to 'labels', change the voxels, or, where nobody annotated them, give them the value of "
                "a label named 'ignore' (import_folders --map and --ignore do).",
                window="Check the dataset in the Training cases dock, which can fix it.",
            )
        return found


def measure_in_parts(
    case: TrainingCase, reader: str, scheme: LabelScheme, draws: int | None, apart: WhenApart, room: float
) -> tuple[CaseMeasure, list[int], bool]:
    """Measure a case box by box; returns the measure, the values of its labels, and whether its voxel size is known."""
    opened = open_lazily(case, reader, apart)
    spacing, sized = opened.geometry.spacing_3d, opened.geometry.spacing_known
    measured, values = measure_parts(_source(opened, case, scheme), spacing, room, draws)
    return measured, values, sized


def _source(opened: LazyCase, case: TrainingCase, scheme: LabelScheme) -> CaseSource:
    image = opened.image
    itemsize = max(np.dtype(array.dtype).itemsize for array in image.arrays)
    labels = CheckedLabels(opened.labels, case.label, scheme)
    return CaseSource(image.read, labels, image.shape_3d, image.channels, itemsize)


def preprocess_in_parts(
    case: TrainingCase,
    plans: Plans,
    targets: Sequence[tuple[Configuration, Path]],
    scheme: LabelScheme,
    staging: Path,
    apart: WhenApart,
    room: float,
) -> list[str]:
    """Prepare and store a case box by box; returns what there is to say of it.

    Raises
    ------
    ImageError
        If its files cannot be read or used.
    ResourceError
        If not even a plane fits into memory.
    """
    opened, configurations = open_lazily(case, plans.reader, apart), [configuration for configuration, _ in targets]
    image = opened.image
    expected = len(configurations[0].normalization_schemes)
    if image.channels != expected:
        plural = "s" if image.channels > 1 else ""
        raise ImageError(f"The image has {image.channels} channel{plural}, but the dataset has {expected}.")
    source = _source(opened, case, scheme)
    slabs = source.slabs(room)
    axes = limited_axes(source.shape, opened.geometry, plans, configurations)
    facts = survey_case(source, set(axes.values()), slabs)
    notes = [*image.notes, *opened.geometry.remarks]
    planes, sample = slabs[0][0][1], np.zeros(1, dtype=np.int16)
    with kept_meanwhile(staging, case.name, (1, *source.shape), planes, sample) as marked:
        outside = False
        for slab, labels in marked_slabs(source, facts):
            marked.write(slab, labels)
            outside = outside or bool((labels[facts.within(slab)] < 0).any())
        masked = outside and any(any(masked_channels(configuration)) for configuration in configurations)
        content = survey_content(source, facts, marked.read) if masked else {}
        for configuration, folder in targets:
            axis = axes[configuration.name]
            known, alone = facts.along[axis], content.get(axis)
            parts = CaseParts.of(source, known, marked.read, opened.geometry, plans, configuration, alone)
            _store(case.name, parts, folder, opened.geometry, location_keys(scheme), staging, room)
            notes += parts.record.notes
    return notes


def _store(
    name: str,
    parts: CaseParts,
    folder: Path,
    geometry: Geometry,
    keys: Sequence[Region],
    staging: Path,
    room: float,
) -> None:
    """Write the three files of a case, the properties last."""
    record, patch = parts.record, parts.configuration.patch_size
    image, seg, rest = preprocessed_files(folder, name)
    channels, shape = parts.preparation.channels, record.network_shape
    most = min(_MOST_BOX, max(0.0, room - 16.0 * PIECE_VOXELS * max(channels, 2)) / (8.0 * channels))
    middle = tuple((max(0, n // 2 - k // 2), min(n, n // 2 - k // 2 + k)) for n, k in zip(shape, _SAMPLE, strict=True))
    with growing(image, (channels, *shape), parts.image((middle[0], middle[1], middle[2])), patch, staging) as data:
        for box in cut_into_boxes(shape, data.chunk, most):
            data.write(box, parts.image(box))
    with growing(seg, (1, *shape), np.zeros(1, dtype=np.int16), patch, staging) as labels:
        for box in cut_into_boxes(shape, labels.chunk, most / 4):  # a class is compared after the other, in copies
            labels.write(box, parts.labels(box))
        located = class_locations(labels, keys, room / 4)
    properties = {**geometry.properties(), **record.properties(), "class_locations": located}
    write_pickle(rest, properties, staging=staging)
