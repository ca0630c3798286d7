"""Masks are recognised whichever way they are turned, and translated into what was proposed, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from napari_nnunet.errors import DatasetError, ImageError
from napari_nnunet.formats.masks.facts import facts_of
from napari_nnunet.formats.masks.kinds import recognise, to_look_at
from napari_nnunet.formats.masks.pieces import pieces_of
from napari_nnunet.formats.masks.stored import StoredMask
from napari_nnunet.formats.masks.translation import Told, proposed, translate
from napari_nnunet.schema.geometry import Geometry

FLAT = Geometry(spacing=(1.0, 1.0), spacing_known=False)
SHAPE = (12, 14)
VALUES = st.sampled_from([0, 0, 1, 2, 3, 7, 128, 254, 255, -1, 65535, 70001])
MASKS = st.lists(
    st.one_of(
        arrays.arrays(np.int32, SHAPE, elements=VALUES),
        arrays.arrays(np.int32, SHAPE, elements=st.integers(0, 255)),
        arrays.arrays(np.float32, SHAPE, elements=st.sampled_from([0, 0.25, 0.5, 1, 2])),
    ),
    min_size=1,
    max_size=4,
)


def looked_at(masks):
    stored = {f"c{i}": StoredMask(mask, FLAT) for i, mask in enumerate(masks)}
    facts = {name: facts_of(mask) for name, mask in stored.items()}
    return stored, facts, recognise(facts, [pieces_of(stored[name]) for name in to_look_at(facts)])


@settings(max_examples=60, deadline=None)
@given(MASKS, st.randoms(use_true_random=False))
def test_turning_masks_and_shuffling_cases_changes_nothing(masks, random):
    _, _, found = looked_at(masks)
    turned = [np.flip(m, random.choice([0, 1, (0, 1), ()])) for m in masks]
    random.shuffle(turned)
    _, _, again = looked_at(turned)
    assert again == found


@settings(max_examples=100, deadline=None)
@given(MASKS)
def test_a_proposal_gives_the_proposed_classes_and_nothing_else(masks):
    stored, facts, found = looked_at(masks)
    if not found.has_proposal:
        return
    translation, unnamed = translate(facts, proposed(found))
    assert translation is not None
    assert not unnamed
    for mask in stored.values():
        labels = translation.apply(mask)
        assert set(np.unique(labels)) <= set(translation.labels.values())
    assert {row.becomes for row in found.rows if row.becomes and row.voxels} <= {*translation.labels, "ignore"}


@settings(max_examples=100, deadline=None)
@given(MASKS, st.sets(VALUES))
def test_values_survive_or_are_refused(masks, kept):
    """Where each value is a class, the masks come back from the labels; a value without a class is refused."""
    stored, facts, _ = looked_at(masks)
    try:
        translation, unnamed = translate(facts, Told({str(v): f"v{v}" for v in kept if v}, {}))
    except DatasetError:
        return
    if translation is None:
        occurring = {int(v) for f in facts.values() for v in f.counts if v == int(v)}
        assert set(unnamed) == {str(v) for v in occurring - kept - {0}}
        return
    back = {label: value for value, label in translation.values.items()}
    for name, mask in stored.items():
        if facts[name].fractional:
            with pytest.raises(ImageError, match="no whole numbers"):
                translation.apply(mask)
        else:
            restored = [back[int(label)] for label in translation.apply(mask).ravel()]
            assert restored == mask.array.ravel().tolist()
