"""From the image grid to the network grid."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from helpers import smooth_image
from napari_nnunet.engine.image.prepare import fill_holes, prepare
from napari_nnunet.errors import ImageError
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.volume import Volume


def test_the_record_leads_back_to_the_grid_of_the_image(model, volume):
    data, record = prepare(volume, model.plans, model.configuration)
    assert record.network_shape == data.shape[1:] == (18, 32, 32)
    assert record.cropped_shape == record.shape == (14, 40, 36)


def test_an_empty_border_is_cropped_and_the_rest_standardised(model):
    array = np.zeros((1, 20, 24, 24), dtype=np.float32)
    array[:, 4:16, 3:20, 5:21] = smooth_image((12, 17, 16))
    data, record = prepare(Volume(array, Geometry(spacing=(1, 1, 1))), model.plans, model.configuration)
    assert record.box == ((4, 16), (3, 20), (5, 21))
    assert abs(data.mean()) < 1e-5
    assert abs(data.std() - 1) < 1e-3


def test_lazily_loaded_images_are_prepared_like_arrays_and_never_loaded_whole(model, volume):
    class Lazy:
        shape, dtype = volume.array.shape, volume.array.dtype
        largest = 0

        def __getitem__(self, key):
            part = volume.array[key]
            Lazy.largest = max(Lazy.largest, part.size)
            return part

    import napari_nnunet.engine.image.prepare as module

    before, module._SLAB_BYTES = module._SLAB_BYTES, 40 * 36 * 8 * 3
    try:
        lazy, _ = prepare(Volume(Lazy(), volume.geometry), model.plans, model.configuration)
    finally:
        module._SLAB_BYTES = before
    whole, _ = prepare(volume, model.plans, model.configuration)
    np.testing.assert_array_equal(lazy, whole)
    assert Lazy.largest <= 3 * 40 * 36


def test_nan_and_infinity_become_zero_and_are_counted(model, volume):
    array = volume.array.copy()
    array[0, 3, 3, 3], array[0, 4, 4, 4] = np.nan, np.inf
    data, record = prepare(Volume(array, volume.geometry), model.plans, model.configuration)
    assert data.isfinite().all()
    assert any("2 voxels were NaN or infinite" in note for note in record.notes)


def test_a_constant_image_becomes_zero(model):
    data, _ = prepare(Volume(np.full((1, 9, 9, 9), 7.0), Geometry(spacing=(1, 1, 1))), model.plans, model.configuration)
    assert (data == 0).all()


def test_an_axis_that_would_vanish_keeps_one_voxel_and_says_so(model):
    thin = Volume(smooth_image((1, 30, 30)), Geometry(spacing=(0.2, 1, 1)))
    data, record = prepare(thin, model.plans, model.configuration)
    assert data.shape[1] == 1
    assert any("thinner than one voxel" in note for note in record.notes)


def test_the_wrong_number_of_channels_is_named(model):
    two = Volume(smooth_image((8, 8, 8), channels=2), Geometry(spacing=(1, 1, 1)))
    with pytest.raises(ImageError, match="expects 1 channel, but the image has 2"):
        prepare(two, model.plans, model.configuration)


def test_eight_bit_models_refuse_larger_values(new_model):
    model = new_model(schemes=("RGBTo01Normalization",))
    with pytest.raises(ImageError, match="8-bit colours"):
        prepare(Volume(smooth_image((8, 8, 8)) + 900, Geometry(spacing=(1, 1, 1))), model.plans, model.configuration)


@pytest.mark.parametrize("seed", range(5))
def test_holes_are_filled_as_scipy_fills_them(seed):
    rng = np.random.default_rng(seed)
    mask = ndimage.gaussian_filter(rng.normal(size=(12, 14, 13)), 1.2) > -0.1
    np.testing.assert_array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))


def test_a_region_is_normalised_by_the_whole_image(model, volume):
    same_grid = Volume(volume.array, Geometry(spacing=(1, 1, 1)))
    whole, _ = prepare(same_grid, model.plans, model.configuration)
    part, inner = prepare(same_grid, model.plans, model.configuration, roi=((0, 14), (0, 40), (30, 36)))
    assert inner.box == ((0, 14), (0, 40), (22, 36))  # with half a window of context
    np.testing.assert_array_equal(part, whole[..., 22:])
