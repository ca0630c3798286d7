"""Where few voxels are annotated, a training says what the others count, and what could be chosen instead."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from napari_nnunet.events import Note, drain
from napari_nnunet.formats.preprocessed.cases import store_case
from napari_nnunet.jobs.training.prepare import say_strokes, wholly_annotated

IGNORE = 2


def strokes() -> np.ndarray:
    """A stroke of a class and one of background in every other slice."""
    labels = np.full((1, 12, 40, 40), IGNORE, dtype=np.int16)
    labels[:, ::2, 10:12, 5:30], labels[:, ::2, 30:32, 5:30] = 1, 0
    return labels


def slices() -> np.ndarray:
    """One slice, wholly labelled."""
    labels = np.full((1, 12, 40, 40), IGNORE, dtype=np.int16)
    labels[:, 6], labels[:, 6, 10:20, 10:20] = 0, 1
    return labels


def boxes() -> np.ndarray:
    """A box of several slices, and one in a slice, both wholly labelled."""
    labels = np.full((1, 12, 40, 40), IGNORE, dtype=np.int16)
    labels[:, 2:5, 3:15, 3:18], labels[:, 3, 6:9, 6:9], labels[:, 9, 20:30, 20:30] = 0, 1, 1
    return labels


def brush() -> np.ndarray:
    """Strokes of a round brush, nine voxels wide: short ones, long ones, and dots."""
    labels = np.full((1, 3, 200, 200), IGNORE, dtype=np.int16)
    y, x = np.ogrid[:200, :200]
    for plane, cy, lo, hi, value in ((0, 20, 20, 150, 0), (1, 60, 20, 30, 1), (1, 120, 40, 40, 1), (2, 90, 10, 40, 0)):
        labels[0, plane][(y - cy) ** 2 + (x - np.clip(x, lo, hi)) ** 2 <= 20] = value
    return labels


def everything() -> np.ndarray:
    """Every voxel but a few; what lies outside the content is neither."""
    labels = np.zeros((1, 12, 40, 40), dtype=np.int16)
    labels[:, :, 10:20, 10:20], labels[:, :, 30:34, 30:34], labels[:, :, :, :4] = 1, IGNORE, -1
    return labels


@pytest.mark.parametrize(
    ("made", "scribbles", "said"),
    [
        (strokes, False, "Only 3.1% of the voxels of a case are annotated"),
        (strokes, True, None),
        (slices, False, None),
        (slices, True, "Trained as scribbles, but whole slices or boxes are annotated"),
        (boxes, False, None),
        (boxes, True, "Trained as scribbles, but whole slices or boxes are annotated"),
        (brush, False, "Only 1.5% of the voxels of a case are annotated"),
        (brush, True, None),
        (everything, False, None),
        (everything, True, "Trained as scribbles, but whole slices or boxes are annotated in every case"),
    ],
)
def test_few_annotated_voxels_are_said(tmp_path, made, scribbles, said):
    order = order_of(tmp_path, {name: made() for name in ("a", "b", "c")}, scribbles=scribbles)
    texts = said_of(order)
    assert (not texts) if said is None else (len(texts) == 1 and texts[0].startswith(said))


def order_of(folder, labels, *, scribbles):
    """A training with these preprocessed labels, as far as it is looked at here."""
    for name, own in labels.items():
        image = np.zeros(own.shape, dtype=np.float32)
        store_case(folder, name, image, own, {}, patch=(12, 40, 40), staging=folder)
    order = SimpleNamespace(
        info=SimpleNamespace(labels=SimpleNamespace(ignore_label=IGNORE)),
        split=SimpleNamespace(train=tuple(labels), val=()),
        data=folder,
        recipe=SimpleNamespace(scribbles=scribbles),
        wholly=frozenset(),
    )
    order.wholly = drain(wholly_annotated(order)) if scribbles else frozenset()
    return order


def said_of(order):
    events = []
    drain(say_strokes(order), events.append)
    return [event.text for event in events if isinstance(event, Note)]


def test_slices_among_strokes_are_told_case_by_case(tmp_path):
    """As where 'Next' makes whole slices of images, and the model goes on that began with strokes."""
    both = strokes()
    both[:, 6] = slices()[:, 6]
    order = order_of(tmp_path, {"a": strokes(), "b": slices(), "c": both, "d": boxes()}, scribbles=True)
    assert order.wholly == {"b", "c", "d"}
    (text,) = said_of(order)
    assert text.startswith("Whole slices or boxes are annotated in 3 of 4 cases (b, c, d)")
    assert "In the others, which are strokes, it counts as background." in text


def test_slices_that_are_much_of_every_case_are_not_said_to_count_as_background(tmp_path):
    half = slices()
    half[:, ::2], half[:, ::2, 10:20, 10:20] = 0, 1
    order = order_of(tmp_path, {"a": half, "b": half.copy()}, scribbles=True)
    assert order.wholly == {"a", "b"}
    (text,) = said_of(order)
    assert text.startswith("Trained as scribbles, but whole slices or boxes are annotated in every case")
