"""A law: an image in any format, in any order and size of voxels and of any type, comes back equal or is refused."""

from __future__ import annotations

import tempfile
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.files import read_header, read_volume, write_image
from napari_nnunet.schema.geometry import Geometry

PLACED = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
ENDINGS = (*PLACED, ".gipl", ".tif", ".png", ".bmp", ".jpg")
KINDS = ("uint8", "int16", "uint16", "int32", "float32")
SIZES = st.floats(1e-4, 50, allow_nan=False).map(lambda v: float(np.float32(v)))


@st.composite
def images(draw):
    ndim = draw(st.sampled_from([2, 3]))
    array = draw(
        arrays.arrays(draw(st.sampled_from(KINDS)), arrays.array_shapes(min_dims=ndim, max_dims=ndim, max_side=6))
    )
    array = np.nan_to_num(array, nan=0, posinf=1, neginf=-1)
    turned = array[tuple(slice(None, None, draw(st.sampled_from([1, -1]))) for _ in range(ndim))]
    turned = turned.transpose(draw(st.permutations(range(ndim))))
    spacing = tuple(draw(st.lists(SIZES, min_size=ndim, max_size=ndim)))
    axes = draw(st.sampled_from(list(permutations(range(ndim)))))
    direction = np.eye(ndim)[list(axes)] * [draw(st.sampled_from([1, -1])) for _ in range(ndim)]
    placed = {"origin": (1.0, -2.0, 3.0)[:ndim], "direction": tuple(direction.ravel())} if ndim == 3 else {}
    return turned, Geometry(spacing=spacing, **placed)


@settings(max_examples=150, deadline=None)
@given(images(), st.sampled_from(ENDINGS))
def test_what_is_written_comes_back_equal_or_is_refused(image, ending):
    array, geometry = image
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{ending}"
        try:
            write_image(array, geometry, path)
        except ImageError:
            assert not path.exists()
            return
        if (ending, array.ndim) == (".nii", 2):
            with pytest.raises(ImageError, match="has 2 dimensions"):  # nibabel's reader takes volumes only
                read_volume([path])
            return
        volume = read_volume([path], as_stored=True)
        # nibabel's reader computes in float32, as nnU-Net does, but for whole numbers that float32 cannot hold.
        exact = ending != ".nii" or volume.array.dtype.kind in "iu"
        np.testing.assert_array_equal(volume.array[0], array if exact else array.astype(np.float32))
        found = read_header(path)
        assert (found.shape, found.geometry.spacing) == (volume.array.shape, volume.geometry.spacing)
        if volume.geometry.spacing_known:
            np.testing.assert_allclose(volume.geometry.spacing, geometry.spacing, rtol=1e-5)
        if ending in PLACED and geometry.direction is not None and volume.geometry.direction is not None:
            np.testing.assert_allclose(volume.geometry.direction, geometry.direction, atol=1e-5)
