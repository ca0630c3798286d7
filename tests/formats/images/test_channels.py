"""Channels of one case lie on one grid: turned where that is exact, resampled where asked for, else refused."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.files import read_volume, write_image
from napari_nnunet.schema.geometry import Geometry
from test_grid import EYE, FLAT, turned_copy

SHAPE = (5, 6, 7)
RAMP = np.arange(5 * 6 * 7, dtype=np.float32).reshape(SHAPE)
UP = Geometry(spacing=(2.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=EYE)
WAYS = [(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)]


def moved(x):
    return UP.model_copy(update={"origin": (float(x), 0.0, 0.0)})


def written(folder, *channels):
    paths = [folder / f"a_{i:04d}.nii.gz" for i in range(len(channels))]
    for path, (array, geometry) in zip(paths, channels, strict=True):
        write_image(array, geometry, path)
    return paths


@settings(max_examples=40, deadline=None, derandomize=True)
@given(way=st.sampled_from(WAYS), ending=st.sampled_from([".nii.gz", ".nrrd", ".mha", ".nii"]))
def test_a_channel_stored_any_way_gives_the_same_image(tmp_path_factory, way, ending):
    folder = tmp_path_factory.mktemp("ways")
    stored, geometry = turned_copy(RAMP, FLAT, *way)
    for name, array, place in (("a", RAMP, FLAT), ("b", np.ascontiguousarray(stored), geometry)):
        write_image(array, place, folder / f"{name}{ending}")
    found = read_volume([folder / f"a{ending}", folder / f"b{ending}"])
    assert (found.array[0] == RAMP).all()
    assert (found.array[1] == RAMP).all()
    assert bool(found.notes) == (way != ((0, 1, 2), (False,) * 3))


def test_a_turned_channel_is_said(tmp_path):
    mirrored = Geometry(spacing=UP.spacing, origin=(6.0, 0.0, 0.0), direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1))
    paths = written(tmp_path, (RAMP, UP), (np.ascontiguousarray(RAMP[:, :, ::-1]), mirrored))
    assert read_volume(paths).notes == (
        "a_0001.nii.gz is stored in another orientation than a_0000.nii.gz (mirrored along x); it was "
        "reoriented onto that grid.",
    )


def test_channels_that_lie_together_are_taken_without_a_word(tmp_path):
    found = read_volume(written(tmp_path, (RAMP, UP), (RAMP, moved(0.0005)), (RAMP, moved(0.05))))
    assert found.notes == ()
    assert (found.array == RAMP).all()


def test_a_channel_from_elsewhere_is_refused_whatever_is_asked_but_by_voxels(tmp_path):
    paths = written(tmp_path, (RAMP, UP), (RAMP, moved(42)))
    for apart in ("refuse", "resample"):
        with pytest.raises(ImageError, match=r"a_0001.* and a_0000.*, show different places: places 42 mm apart"):
            read_volume(paths, apart=apart)
    assert (read_volume(paths, apart="ignore").array[1] == RAMP).all()


def test_a_channel_on_another_grid_is_named_and_resampled_only_where_asked(tmp_path):
    coarse = Geometry(spacing=(2.0, 2.0, 2.0), origin=(0.5, 0.5, 0.0), direction=EYE)
    flat = np.broadcast_to(np.arange(3, dtype=np.float32) * 2 + 0.5, (5, 3, 3)).copy()  # x itself, in mm
    image = np.zeros((5, 6, 6), np.float32)
    paths = written(tmp_path, (image, UP), (flat, coarse))
    with pytest.raises(ImageError, match=r"5 x 6 x 6 voxels and 5 x 3 x 3\. Have it resampled \(--resample_channels\)"):
        read_volume(paths)
    found = read_volume(paths, apart="resample")
    assert np.allclose(found.array[1][:, :, 1:5], np.arange(1, 5))
    assert "a_0001.nii.gz was resampled onto the grid of a_0000.nii.gz" in found.notes[0]
    assert "outside" not in found.notes[0]


def test_what_lies_outside_of_a_resampled_channel_is_its_lowest_value_and_is_said(tmp_path):
    paths = written(tmp_path, (RAMP, UP), (RAMP + 100, moved(3)))
    with pytest.raises(ImageError, match="places 3 mm apart"):
        read_volume(paths)
    found = read_volume(paths, apart="resample")
    assert np.allclose(found.array[1][:, :, 3:], RAMP[:, :, :4] + 100)
    assert (found.array[1][:, :, :3] == 100).all()
    assert "43% of it lies outside of a_0001.nii.gz" in found.notes[0]
