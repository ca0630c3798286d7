"""The usual slips are told apart, and labels without one are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_nnunet.engine.labelling.doubt import doubt_of
from napari_nnunet.engine.labelling.explain import displaced, slips
from napari_nnunet.schema.dataset import LabelScheme

SCHEME = LabelScheme(labels={"background": 0, "head": 1, "tail": 2})


def body(shape=(16, 40, 36)):
    """Two ellipsoids of different size, off the centre so that no mirroring maps them onto themselves."""
    z, y, x = np.indices(shape)
    labels = np.zeros(shape, dtype=np.uint8)
    labels[((z - 6) / 4) ** 2 + ((y - 10) / 6) ** 2 + ((x - 12) / 8) ** 2 < 1] = 1
    labels[((z - 7) / 5) ** 2 + ((y - 22) / 7) ** 2 + ((x - 14) / 5) ** 2 < 1] = 2
    return labels


def kinds(labels, seen, scheme=SCHEME):
    classes = doubt_of(labels, seen, None, scheme).classes
    return [slip.kind for slip in slips(labels, seen, classes, scheme.names)]


def eroded(labels):
    result = np.zeros_like(labels)
    for value in (1, 2):
        result[ndimage.binary_erosion(labels == value, iterations=2)] = value
    return result


def without(labels, value):
    return np.where(labels == value, 0, labels)


def ended(labels):
    result = labels.copy()
    result[:, 22:] = 0
    return result


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda a: np.choose(a, [0, 2, 1]).astype(np.uint8), "swapped"),
        (lambda a: displaced(a, (0, 5, 0)), "shifted"),
        (lambda a: displaced(a, (2, -4, 3)), "shifted"),
        (lambda a: a[:, ::-1].copy(), "mirrored"),
        (lambda a: a[::-1, :, ::-1].copy(), "mirrored"),
        (lambda a: without(a, 2), "missing"),
        (ended, "cut off"),
        (eroded, "too small"),
    ],
)
def test_a_slip_is_named(spoil, kind):
    seen = body()
    assert kind in kinds(spoil(seen), seen)


def test_labels_that_agree_have_no_slip():
    assert kinds(body(), body()) == []


def test_labels_drawn_around_the_structure_are_too_large():
    seen = body()
    wide = ndimage.grey_dilation(seen, size=(5, 5, 5))
    assert "too large" in kinds(wide, seen)


def test_a_picture_is_told_like_a_volume():
    seen = body()[7]
    assert kinds(displaced(seen, (5, 0)), seen) == ["shifted"]
    assert kinds(seen[:, ::-1].copy(), seen) == ["mirrored"]


def test_a_shift_says_where_the_labels_belong():
    seen = body()
    (slip,) = slips(
        displaced(seen, (0, 5, -2)), seen, doubt_of(displaced(seen, (0, 5, -2)), seen, None, SCHEME).classes, {}
    )
    assert "y -5, x +2" in slip.text


def test_large_volumes_are_looked_at_on_a_coarser_grid():
    seen = np.kron(body(), np.ones((4, 6, 6), dtype=np.uint8))
    assert kinds(displaced(seen, (0, 30, 0)), seen) == ["shifted"]


def test_nothing_drawn_at_all_is_missing_classes():
    assert kinds(np.zeros_like(body()), body()) == ["missing", "missing"]


def test_a_class_that_the_network_does_not_expect_to_be_right_about_is_not_called_missing():
    seen = body()
    labels = without(seen, 2)
    p = np.full((3, *seen.shape), 0.3, dtype=np.float32)
    np.put_along_axis(p, seen[None].astype(np.intp), np.float32(0.4), axis=0)
    classes = doubt_of(labels, seen, p, SCHEME).classes
    assert "missing" not in [slip.kind for slip in slips(labels, seen, classes, SCHEME.names)]
