"""Masks are recognised whichever way they are turned, and translated into what was proposed, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from napari_nnunet.errors import DatasetError, ImageError
from napari_nnunet.formats.masks.facts import facts_of
from napari_nnunet.formats.masks.kinds import recognise, to_look_at
from napari_nnunet.formats.masks.pieces import pieces_of
from napari_nnunet.formats.masks.stored import StoredMask
from napari_nnunet.formats.masks.translation import Told, translate
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
@example([np.full((12, 14), 0.5, np.float32)])  # 0.5 and more is the class: nothing would be background
def test_a_proposal_gives_the_proposed_classes_and_nothing_else(masks):
    stored, facts, found = looked_at(masks)
    if not (found.mapping or found.ignore is not None or found.threshold is not None):
        return
    ignored = () if found.ignore is None else (found.ignore,)
    translation, unnamed = translate(facts, Told(found.mapping, {}, ignored, found.threshold))
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
            with pytest.raises(ImageError, match="not whole numbers"):
                translation.apply(mask)
        else:
            restored = [back[int(label)] for label in translation.apply(mask).ravel()]
            assert restored == mask.array.ravel().tolist()


def blobs(count, seed=0, first=1, shape=(40, 48)):
    """A mask with small numbered discs that touch no other."""
    mask = np.zeros(shape, np.int32)
    places = np.random.default_rng(seed).permutation(20)[:count]
    for number, place in enumerate(places, start=first):
        row, column = divmod(int(place), 5)
        mask[10 * row + 2 : 10 * row + 7, 9 * column + 2 : 9 * column + 7] = number
    return mask


@pytest.mark.parametrize(
    "masks",
    [
        [blobs(n, seed) for seed, n in enumerate((1, 3, 4, 2))],
        [blobs(n, seed) for seed, n in enumerate((1, 2, 1))],
        [blobs(n, seed) for seed, n in enumerate((5, 0, 3))],
        [blobs(3, seed, first=1 + 10 * seed) for seed in range(3)],
        [blobs(8)],
    ],
    ids=["up to four", "up to two", "one mask is empty", "no number twice", "one mask"],
)
def test_a_few_numbered_objects_are_asked_about_like_many(masks):
    found = looked_at(masks)[2]
    assert found.kind == "objects"
    assert not found.certain


def test_numbered_objects_of_one_size_are_asked_about_too():
    found = looked_at([blobs(n, seed) for seed, n in enumerate((9, 13, 11, 10, 12, 9, 13))])[2]
    assert found.kind == "objects"
    assert not found.certain


@pytest.mark.parametrize("counts", [(3, 3, 3), (2, 2)])
def test_the_same_values_in_every_mask_are_classes(counts):
    assert looked_at([blobs(n, seed) for seed, n in enumerate(counts)])[2].kind == "classes"


def test_classes_that_lie_within_each_other_are_no_objects_though_a_mask_lacks_one():
    organ = np.zeros((40, 48), np.int32)
    organ[5:30, 5:30] = 1
    tumour = organ.copy()
    tumour[10:15, 10:15] = 2
    assert looked_at([organ, tumour, tumour])[2].certain


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0, 1, 2, 254, 255], "values 254, 255 lie apart"),
        ([0, 1, 99], "value 99 lies apart"),
        ([0, 1, 2, -1, 255], "value -1"),
        ([1, 2, 3], "no 0. Which is the background?"),
    ],
)
def test_values_that_may_be_no_classes_are_asked_about(values, words):
    mask = np.array(values, np.int32).repeat(20).reshape(len(values), 20)
    found = looked_at([mask, mask])[2]
    assert not found.certain
    assert words in found.sentence
    assert {v: row.becomes for v, row in zip(sorted(values), found.rows, strict=True)}.get(255) in (None, "ignore")


def test_of_masks_without_0_the_largest_value_is_proposed_as_background():
    mask = np.array([1, 3, 2, 2, 2, 2], np.int32).repeat(20).reshape(6, 20)
    assert looked_at([mask])[2].mapping == {"2": "background", "1": "class_1", "3": "class_2"}


def test_one_value_per_mask_and_none_twice_is_asked_about():
    assert not looked_at([np.where(blobs(2) > 0, value, 0) for value in (1, 2, 3)])[2].certain


def test_a_jpeg_of_three_levels_is_not_cut_into_two():
    levels = np.zeros((40, 48), np.float64)
    levels[5:30, 5:30], levels[10:18, 10:18] = 100, 200
    noisy = np.clip(levels + np.random.default_rng(0).normal(0, 4, levels.shape), 0, 255).astype(np.uint8)
    stored = StoredMask(noisy, FLAT, lossy=True)
    found = recognise({"a": facts_of(stored)}, [pieces_of(stored)])
    assert found.kind == "picture"
    assert found.threshold is None
