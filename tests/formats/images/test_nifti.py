"""NIfTI by nibabel: every one of the 48 orders of voxels is turned to RAS and back, and only volumes are taken."""

from __future__ import annotations

from itertools import permutations, product

import nibabel
import numpy as np
import pytest

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images import itk, nifti
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.schema.geometry import Geometry

SPACING = (0.5, 0.75, 2.0)  # along x, y, z of the file, whichever way these lead
ORDERS = [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


def save(path, order=(0, 1, 2), signs=(1, 1, 1), shape=(2, 3, 4), kind=np.uint8):
    """Write a volume whose axes lead where order and signs say; returns its voxels (x, y, z) and affine."""
    data = np.arange(np.prod(shape)).reshape(shape).astype(kind)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = sign * SPACING[axis]
    affine[:3, 3] = (-3, 4, 5)
    nibabel.save(nibabel.Nifti1Image(data, affine), path)
    return data, affine


def world(voxels, affine):
    """Return where each value lies: value to position in mm, rounded."""
    where = np.argwhere(np.ones(voxels.shape)) @ np.asarray(affine)[:3, :3].T + np.asarray(affine)[:3, 3]
    return {int(value): tuple(np.round(place, 4)) for value, place in zip(voxels.ravel(), where, strict=True)}


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_every_order_of_voxels_is_turned_to_ras_and_back(tmp_path, order, signs):
    data, affine = save(tmp_path / "a.nii", order, signs)
    array, geometry = nifti.read_reoriented(tmp_path / "a.nii")
    turned = np.asarray(geometry.reoriented_affine)
    assert nibabel.aff2axcodes(turned) == ("R", "A", "S")
    assert world(array[0].transpose(2, 1, 0), turned) == world(data, affine)
    np.testing.assert_allclose(geometry.spacing, np.abs(turned[:3, :3]).sum(axis=0)[::-1])

    nifti.write(array[0].astype(np.uint8), geometry, tmp_path / "b.nii")
    back = nibabel.load(tmp_path / "b.nii")
    np.testing.assert_array_equal(np.asarray(back.dataobj), data)
    np.testing.assert_allclose(back.affine, affine)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 6, 7), (6, 1, 7), (6, 7, 1)])
def test_thin_volumes_keep_their_axes(tmp_path, shape):
    path = tmp_path / "Fall ä 1.nii.gz"
    data, _ = save(path, shape=shape)
    labels, geometry = read_labels(path, reader="NibabelIO")
    assert labels.shape == shape[::-1]
    write_labels(labels, geometry, path, writer="NibabelIO")
    np.testing.assert_array_equal(read_labels(path, reader="NibabelIO")[0], data.transpose(2, 1, 0))


def test_a_header_says_what_reading_gives(tmp_path):
    save(tmp_path / "a.nii.gz", kind=np.int16)
    array, geometry = nifti.read(tmp_path / "a.nii.gz")
    assert nifti.header(tmp_path / "a.nii.gz") == (array.shape, array.dtype.itemsize, geometry)
    assert geometry.spacing == tuple(reversed(SPACING))


def test_scaled_values_are_read_as_they_are_meant(tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nibabel.save(image, tmp_path / "a.nii")
    array, _ = nifti.read(tmp_path / "a.nii")
    raw = np.asarray(nibabel.load(tmp_path / "a.nii").dataobj.get_unscaled())
    np.testing.assert_allclose(array[0], raw.transpose(2, 1, 0) * 0.5 - 3)


def test_voxels_that_are_no_numbers_are_kept_and_counted(tmp_path):
    data = np.zeros((2, 3, 4), np.float32)
    data[0, 0, 0], data[1, 2, 3], data[0, 1, 2] = np.nan, np.inf, -np.inf
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "a.nii")
    array, _ = nifti.read(tmp_path / "a.nii")
    np.testing.assert_array_equal(array[0], data.transpose(2, 1, 0))
    assert nifti.count_invalid(tmp_path / "a.nii") == 3
    save(tmp_path / "b.nii")
    assert nifti.count_invalid(tmp_path / "b.nii") == 0


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5)])
@pytest.mark.parametrize("read", [nifti.read, nifti.read_reoriented, nifti.header])
def test_only_volumes_are_taken(tmp_path, read, shape):
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ImageError, match=f"{len(shape)} dimensions"):
        read(tmp_path / "a.nii")


def test_labels_of_an_image_that_another_reader_read_are_put_where_it_lies(tmp_path):
    place = Geometry(spacing=(3, 2, 1), origin=(5, 6, 7), direction=(0, -1, 0, 1, 0, 0, 0, 0, 1))
    labels = np.arange(24).reshape(2, 3, 4).astype(np.uint8)
    write_labels(labels, place, tmp_path / "a.nii", writer="NibabelIO")
    array, geometry = itk.read(tmp_path / "a.nii")
    np.testing.assert_array_equal(array[0], labels)
    np.testing.assert_allclose(geometry.direction, place.direction, atol=1e-6)
    assert (geometry.spacing, geometry.origin) == (place.spacing, place.origin)
