"""Copies are found however they were mirrored or shifted; different images are not taken for copies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_nnunet.engine.image.likeness import alike, likeness_of


def scan(seed, shape=(24, 40, 44), kind=np.float32):
    """Return an image with a grain, as every camera and scanner gives one."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    return np.clip(2000 * smooth + rng.normal(128, 6, shape), 0, 255).astype(kind).astype(np.float32)


def pairs(**images):
    return alike({name: likeness_of(image) for name, image in images.items()})


IMAGE, OTHER = scan(0), scan(1)


@settings(max_examples=25, deadline=None)
@given(
    flips=st.sets(st.integers(0, 2)),
    shift=st.tuples(*[st.integers(-4, 4)] * 3),
    crop=st.tuples(*[st.integers(0, 4)] * 3),
)
def test_an_image_of_the_same_voxels_is_found_wherever_they_lie(flips, shift, crop):
    moved = np.flip(np.roll(IMAGE, shift, (0, 1, 2)), tuple(flips))
    copy = moved[tuple(slice(n, None) for n in crop)]
    assert ("a", "b") in pairs(a=IMAGE, b=copy, c=OTHER)
    assert not {("a", "c"), ("b", "c")} & set(pairs(a=IMAGE, b=copy, c=OTHER))


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1, 2)])
def test_a_mirrored_image_with_noise_in_other_units_is_found(axes):
    noise = np.random.default_rng(2).normal(0, 0.05 * IMAGE.std(), IMAGE.shape)
    smooth, other = (ndimage.gaussian_filter(image, 2) for image in (IMAGE, OTHER))
    copy = (0.01 * np.flip(smooth + noise, axes) - 5).astype(np.float32)
    how = f"one mirrored along {' and '.join('zyx'[axis] for axis in axes)}" if axes else ""
    assert pairs(a=smooth, b=copy, c=other) == {("a", "b"): how}


@pytest.mark.parametrize("kind", [np.uint8, np.int16])
def test_different_pictures_with_much_background_are_not_alike(kind):
    pictures = {}
    for seed in range(6):
        picture = scan(seed, (256, 256), kind)
        pictures[f"p{seed}"] = np.where(picture > 120, picture, 0).astype(np.float32)
    assert not pairs(**pictures)


def test_drawings_of_two_values_and_constant_images_say_nothing():
    drawing = np.zeros((60, 60), np.float32)
    drawing[20:40, 10:30] = 1
    assert not likeness_of(drawing).sketch.size
    assert likeness_of(np.zeros((4, 4), np.float32)).thumbnail is None
    assert not pairs(a=np.zeros((9, 9), np.float32), b=np.ones((9, 9), np.float32))
