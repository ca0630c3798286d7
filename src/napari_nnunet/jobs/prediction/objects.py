"""A prediction of classes becomes one of numbered objects."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import make_folder, remove_leftovers
from napari_nnunet.formats.images.files import write_labels
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.model.known_models import cache_folder
from napari_nnunet.formats.results.objects import roomier, write_found
from napari_nnunet.formats.results.probabilities import scratch
from napari_nnunet.jobs.objects.find import Decoding, decoding_of, find_objects, known_rules
from napari_nnunet.jobs.prediction.result import Prediction, count_labels
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.objects import ObjectRules, ObjectScheme, forgotten_objects
from napari_nnunet.schema.requests.prediction import PredictSettings

HELD_BYTES = 1 << 28  # of probabilities that are held in memory


def decoding_for(members: Sequence[tuple[TrainedModel, PredictSettings]]) -> Decoding | None:
    """Return how the objects of models are found with these settings; None where classes are wanted."""
    if members[0][1].classes or all(ObjectScheme.of(model.dataset) is None for model, _ in members):
        return None
    return decoding_of(_with_folds(members))


def decoding_said(members: Sequence[tuple[TrainedModel, PredictSettings]]) -> Job[Decoding | None]:
    """Return how the objects of models are found; says where only the names of their classes tell of objects."""
    model, settings = members[0]
    if not settings.classes and (forgotten := forgotten_objects(model.dataset)):
        yield Note(level="warning", text=forgotten)
    return decoding_for(members)


def rules_for(members: Sequence[tuple[TrainedModel, PredictSettings]]) -> ObjectRules | None:
    """Return the mean of what the folds of models chose; None where none was validated, or none has objects."""
    return known_rules(_with_folds(members))


def _with_folds(members: Sequence[tuple[TrainedModel, PredictSettings]]) -> list[tuple[TrainedModel, Sequence[Fold]]]:
    return [(model, model.resolve_folds(own.folds, own.checkpoint)) for model, own in members]


def write_result(result: Prediction, info: DatasetInfo, out: Path, writer: str) -> str:
    """Write a prediction's labels or objects; returns a remark where there may be doubt which file holds them."""
    scheme = ObjectScheme.of(info)
    if result.kinds is None or scheme is None:
        write_labels(result.labels, result.geometry, out, writer=writer)
        return ""
    written = write_found(result.labels, result.kinds, scheme, result.geometry, out, writer)
    if written != out:
        return f"{out.name} cannot number {len(result.kinds)} objects; they are in {written.name}."
    other = roomier(out)
    if other is not None and other.is_file():
        return f"{other.name} was there before and is not part of this result. Remove it."
    return ""


@contextmanager
def room_for(given: NDArray[np.float32] | None, shape: tuple[int, ...]) -> Iterator[NDArray[np.float32]]:
    """Give an array for probabilities (heads, [Z,] Y, X): the given one, memory where they are few, or a file."""
    if given is not None:
        yield given
    elif 4 * math.prod(shape) <= HELD_BYTES:
        yield np.zeros(shape, dtype=np.float32)
    else:
        place = make_folder(cache_folder())
        remove_leftovers(place)
        with scratch(shape, place) as store:
            yield store


def with_objects(
    result: Prediction, probabilities: NDArray[np.float32], decoding: Decoding, canvas: NDArray[Any] | None
) -> Job[Prediction]:
    """Find the objects and return them in place of the classes.

    Parameters
    ----------
    result : Prediction
        Of classes.
    probabilities : ndarray of float32, shape (heads, [Z,] Y, X)
        Of the classes.
    decoding : Decoding
        How objects are found.
    canvas : ndarray of int, shape ([Z,] Y, X), optional
        Receives the objects, which must fit into its type; else an array of the smallest fitting type is made.
    """
    yield Stage(name="Finding objects")
    objects = np.zeros(result.labels.shape, dtype=np.uint32)
    kinds = find_objects(probabilities, decoding, result.geometry.spacing, objects)
    count = len(kinds)
    if canvas is None:
        canvas = objects.astype(np.uint16) if count <= np.iinfo(np.uint16).max else objects
    elif count > np.iinfo(canvas.dtype).max:
        raise OverflowError(f"{count} objects do not fit into {canvas.dtype}")
    else:
        canvas[...] = objects
    if decoding.doubt:
        yield Note(level="warning", text=decoding.doubt)
    each = {kind: sum(own == kind for own in kinds.values()) for kind in decoding.heads}
    yield Note(text="Found " + ", ".join(f"{number} x {kind}" for kind, number in each.items()) + ".")
    return replace(result, labels=canvas, kinds=kinds, counts=count_labels(canvas, count + 1))
