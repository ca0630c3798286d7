"""NIfTI-2 says where its voxels lie as NIfTI-1 does, and is read alike: units, two transforms, what is no number."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.files import read_header, read_volume

TURNING = "SimpleITKIOWithReorient"
ARRAY = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
FLIPPED = np.array([[-150, 0, 0, 10], [0, 200, 0, -20], [0, 0, 300, 30], [0, 0, 0, 1.0]])
PLAIN = np.diag([100, 200, 300, 1.0])
TILTED = np.array([[100, 50, 0, 0], [0, 200, 0, 0], [0, 0, 300, 0], [0, 0, 0, 1.0]])


def in_micrometres(image):
    image.header.set_xyzt_units("micron")


def saying_two_places(image):
    image.set_qform(FLIPPED, 1)
    image.set_sform(PLAIN, 2)


def with_a_small_quaternion_only(image):
    image.set_qform(FLIPPED, 1)
    image.set_sform(None, 0)


def without_a_place(image):
    image.set_qform(None, 0)
    image.set_sform(None, 0)


@pytest.fixture
def both(tmp_path):
    """Return a function that writes one image as both versions."""

    def make(change, *, array=ARRAY, affine=FLIPPED, ending=".nii.gz"):
        paths = []
        for version, kind in enumerate((nibabel.Nifti1Image, nibabel.Nifti2Image), start=1):
            image = kind(array.T, affine)
            change(image)
            paths.append(tmp_path / f"version{version}{ending}")
            nibabel.save(image, paths[-1])
        return paths

    return make


CHANGES = [in_micrometres, saying_two_places, with_a_small_quaternion_only, without_a_place, lambda image: None]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("change", CHANGES)
def test_both_versions_lie_at_the_same_place(both, change, ending):
    one, two = both(change, ending=ending)
    first, second = (read_volume([path], reader="SimpleITKIO") for path in (one, two))
    assert second.geometry == first.geometry
    assert np.array_equal(first.array, second.array)
    assert read_header(two, reader="SimpleITKIO") == read_header(one, reader="SimpleITKIO")


@pytest.mark.parametrize("change", [in_micrometres, saying_two_places])
def test_what_is_odd_about_the_second_version_is_said_by_nibabel_too(both, change):
    one, two = (read_volume([path], reader="NibabelIO").geometry for path in both(change))
    assert one.remarks
    assert tuple(text.replace("As .nii.gz of NIfTI-1 its", "As .nii.gz its") for text in two.remarks) == one.remarks
    assert (two.spacing, two.affine, two.other_affine) == (one.spacing, one.affine, one.other_affine)


def test_what_is_no_number_counts_as_0_and_is_said(both):
    array = ARRAY.copy()
    array[0, 0, 0], array[1, 1, 1] = np.nan, np.inf
    for path in both(lambda image: None, array=array):
        volume = read_volume([path], reader="SimpleITKIO")
        assert np.array_equal(volume.array[0], np.where(np.isfinite(array), array, 0))
        assert volume.geometry.remarks == ("2 of its voxels are NaN or infinite and were read as 0",)


@pytest.mark.parametrize("change", [in_micrometres, lambda image: None])
def test_tilted_axes_have_the_unit_of_their_header(both, change):
    unit = 1e-3 if change is in_micrometres else 1
    for path in both(change, affine=TILTED):
        for geometry in (
            read_volume([path], reader="SimpleITKIO").geometry,
            read_header(path, reader="SimpleITKIO").geometry,
        ):
            across = np.abs(np.diag(np.linalg.qr(TILTED[:3, :3])[1]))[::-1] * unit
            assert np.allclose(geometry.spacing, across)
            assert np.allclose(geometry.affine, np.diag([unit, unit, unit, 1]) @ TILTED)
            assert "not at right angles" in geometry.remarks[0]


def test_the_header_of_what_itk_refuses_is_read_without_its_voxels(both):
    _, path = both(lambda image: None, ending=".nii")
    path.write_bytes(path.read_bytes()[:600])
    assert read_header(path, reader="SimpleITKIO").shape == (1, 5, 6, 7)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", [(6, 7), (2, 5, 6, 7), (1, 5, 6, 7)])
@pytest.mark.parametrize("change", [in_micrometres, lambda image: None])
def test_slices_and_channels_of_both_versions_are_read_alike(both, change, shape, ending):
    array = np.random.default_rng(1).integers(0, 900, shape).astype(np.int16)
    one, two = both(change, array=array, affine=PLAIN, ending=ending)
    first, second = (read_volume([path], reader="SimpleITKIO") for path in (one, two))
    np.testing.assert_array_equal(second.array, first.array)
    assert second.geometry == first.geometry
    assert read_header(two, reader="SimpleITKIO") == read_header(one, reader="SimpleITKIO")


def test_a_slice_of_the_second_version_that_is_tilted_is_refused(both):
    _, two = both(lambda image: None, array=ARRAY[0], affine=TILTED)
    for read in (lambda path: read_volume([path], reader="SimpleITKIO"), read_header):
        with pytest.raises(ImageError, match=r"version2\.nii\.gz has 2 dimensions"):
            read(two)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("change", CHANGES)
def test_both_versions_are_turned_alike(both, change, ending):
    one, two = (read_volume([path], reader=TURNING) for path in both(change, ending=ending))
    np.testing.assert_array_equal(one.array, two.array)
    assert one.geometry == two.geometry


@pytest.mark.parametrize("version", [0, 1])
def test_tilted_axes_are_not_turned_and_their_header_says_so_too(both, version):
    path = both(lambda image: None, affine=TILTED)[version]
    for read in (lambda: read_volume([path], reader=TURNING), lambda: read_header(path, reader=TURNING)):
        with pytest.raises(ImageError, match="not at right angles. Resample it onto axes that are"):
            read()


@pytest.mark.parametrize("shape", [(6, 7), (3, 5, 6, 7)])
def test_slices_and_channels_are_not_turned_and_their_header_says_so_too(both, shape):
    for path in both(lambda image: None, array=np.ones(shape, np.float32)):
        for read, source in ((read_volume, [path]), (read_header, path)):
            with pytest.raises(ImageError, match=f"{len(shape)} dimensions; only volumes can be reoriented"):
                read(source, reader=TURNING)
