"""Synthetic pictures are the same for the same seed, and hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from napari_nnunet.engine.objects.shell import pieces
from napari_nnunet.engine.synthetic import make_crowd, make_volume


@pytest.mark.parametrize("make", [make_crowd, make_volume])
def test_a_seed_gives_one_picture_and_another_seed_another(make) -> None:
    (image, truth), (again, same), (other, _) = make(3), make(3), make(4)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(truth, same)
    assert not np.array_equal(image, other)
    assert image.dtype == np.float32 and image.shape == truth.shape


@pytest.mark.parametrize("shape", [(144, 144), (20, 60, 60)])
def test_a_crowd_has_many_objects_in_one_piece_of_which_some_touch(shape: tuple[int, ...]) -> None:
    counts, touching = [], 0
    for seed in range(4):
        _, objects = make_crowd(seed, shape)
        total, in_pieces, _ = pieces(objects)
        counts.append(total)
        assert in_pieces <= 0.1 * total
        assert set(np.unique(objects)) == set(range(total + 1))
        one, next_to_it = objects[..., 1:], objects[..., :-1]
        touching += int(((one != next_to_it) & (one > 0) & (next_to_it > 0)).any())
    assert min(counts) > 10
    assert touching == 4


def test_objects_are_brighter_than_what_is_around_them() -> None:
    image, objects = make_crowd(0)
    assert image[objects > 0].mean() > 2 * image[objects == 0].mean()
