"""Image files in and out."""

from __future__ import annotations

import json

import imageio.v3 as iio
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from napari_nnunet.errors import ImageError, ResourceError
from napari_nnunet.formats import atomic
from napari_nnunet.formats.images.files import read_labels, read_volume, write_labels
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.volume import as_volume


def _itk_image(array: np.ndarray, *, spacing=(0.7, 0.8, 2.5)) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[: array.ndim])
    image.SetOrigin((1.0, -2.0, 3.0)[: array.ndim])
    if array.ndim == 3:
        c, s = np.cos(0.3), np.sin(0.3)
        image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    return image


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".gipl"])
def test_medical_images_come_back_with_axes_spacing_and_labels_on_their_grid(tmp_path, ending):
    array = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    path = tmp_path / f"case_0000{ending}"
    source = _itk_image(array)
    if ending == ".gipl":
        source.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, 1))
    sitk.WriteImage(source, str(path))
    volume = read_volume([path])
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array[0], array)
    assert volume.geometry.spacing == pytest.approx((2.5, 0.8, 0.7), rel=1e-6)
    out = tmp_path / f"out{ending}"
    write_labels((array > 50).astype(np.uint8), volume.geometry, out)
    written = sitk.ReadImage(str(out))
    assert written.GetSize() == source.GetSize()
    np.testing.assert_allclose(written.GetOrigin(), sitk.ReadImage(str(path)).GetOrigin(), atol=1e-5)
    np.testing.assert_allclose(written.GetDirection(), sitk.ReadImage(str(path)).GetDirection(), atol=1e-5)


def test_a_two_dimensional_medical_image_stays_two_dimensional(tmp_path):
    sitk.WriteImage(_itk_image(np.zeros((5, 6), np.float32)), str(tmp_path / "a.mha"))
    volume = read_volume([tmp_path / "a.mha"])
    assert volume.shape == (5, 6)
    assert volume.geometry.spacing_3d == pytest.approx((999 * 0.8, 0.8, 0.7))


def test_a_sheared_nifti_is_read_by_nibabel_and_written_with_its_affine(tmp_path):
    affine = np.array([[1.0, 0.2, 0, 5], [0, 0.9, 0, -3], [0, 0, 2.0, 1], [0, 0, 0, 1]])
    data = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(data, affine), tmp_path / "a_0000.nii.gz")
    volume = read_volume([tmp_path / "a_0000.nii.gz"])
    np.testing.assert_array_equal(volume.array[0], data.transpose(2, 1, 0))
    write_labels(np.ones(volume.shape, np.uint8), volume.geometry, tmp_path / "out.nii.gz")
    np.testing.assert_allclose(nibabel.load(tmp_path / "out.nii.gz").affine, affine, atol=1e-6)


@pytest.mark.parametrize("name", ["NibabelIOWithReorient", "SimpleITKIOWithReorient"])
def test_reorienting_readers_turn_to_ras_and_their_writers_turn_back(tmp_path, name):
    affine = np.array([[0, 0, 1.5, 0], [-0.7, 0, 0, 9], [0, -0.8, 0, 4], [0, 0, 0, 1]])
    data = np.random.default_rng(0).integers(0, 3, size=(6, 5, 4)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(data, affine), tmp_path / "a.nii.gz")
    volume = read_volume([tmp_path / "a.nii.gz"], reader=name)
    canonical = nibabel.as_closest_canonical(nibabel.load(tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(volume.array[0], canonical.get_fdata().transpose(2, 1, 0))
    write_labels(volume.array[0].astype(np.uint8), volume.geometry, tmp_path / "b.nii.gz", writer=name)
    back = nibabel.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(back.get_fdata(), data)
    np.testing.assert_allclose(back.affine, affine, atol=1e-5)


def test_tiff_stacks_take_their_spacing_from_the_file_beside(tmp_path):
    stack = np.arange(7 * 8 * 9, dtype=np.uint16).reshape(7, 8, 9)
    tifffile.imwrite(tmp_path / "cell_0000.tif", stack)
    (tmp_path / "cell.json").write_text(json.dumps({"spacing": [2.0, 0.5, 0.4]}))
    volume = read_volume([tmp_path / "cell_0000.tif"])
    assert volume.geometry.spacing == (2.0, 0.5, 0.4)
    write_labels((stack % 3).astype(np.uint8), volume.geometry, tmp_path / "out.tif")
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == {"spacing": [2.0, 0.5, 0.4]}
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), stack % 3)


def test_a_damaged_spacing_file_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "cell_0000.tif", np.zeros((7, 8, 9), np.uint8))
    (tmp_path / "cell.json").write_text('{"spacing": [1, 2]}')
    with pytest.raises(ImageError, match="cell.json has 2 spacings"):
        read_volume([tmp_path / "cell_0000.tif"])


@pytest.mark.parametrize(
    ("ending", "shape", "channels"),
    [(".png", (6, 7), 1), (".png", (6, 7, 3), 3), (".png", (6, 7, 4), 4), (".bmp", (6, 7, 3), 3), (".jpg", (16, 16), 1),
     (".tif", (6, 7), 1), (".tif", (6, 7, 3), 3)],
)  # fmt: skip
def test_pictures_have_their_colours_as_channels(tmp_path, ending, shape, channels):
    picture = np.random.default_rng(0).integers(0, 255, size=shape).astype(np.uint8)
    iio.imwrite(tmp_path / f"a_0000{ending}", picture)
    volume = read_volume([tmp_path / f"a_0000{ending}"])
    assert volume.array.shape == (channels, *shape[:2])
    assert not volume.geometry.spacing_known
    if ending not in (".jpg",):
        expected = np.moveaxis(picture, -1, 0) if picture.ndim == 3 else picture[None]
        np.testing.assert_array_equal(volume.array, expected)


@pytest.mark.parametrize(("highest", "dtype"), [(3, np.uint8), (254, np.uint8), (255, np.uint16), (700, np.uint16)])
def test_labels_are_stored_in_the_smallest_type_nnunet_would_use(tmp_path, highest, dtype):
    labels = np.zeros((3, 4, 5), dtype=np.int32)
    labels[0, 0, 0] = highest
    write_labels(labels, Geometry(spacing=(1, 1, 1)), tmp_path / "a.nrrd")
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nrrd"))).dtype == dtype


def test_channels_must_share_shape_and_spacing(tmp_path):
    for i, (shape, spacing) in enumerate([((4, 5, 6), 1.0), ((4, 5, 7), 1.0), ((4, 5, 6), 1.5)]):
        sitk.WriteImage(
            _itk_image(np.zeros(shape, np.float32), spacing=(spacing,) * 3), str(tmp_path / f"a_{i:04d}.nrrd")
        )
    with pytest.raises(
        ImageError, match=r"a_0001.nrrd does not lie on the grid of a_0000.nrrd.*: 4 x 5 x 6 voxels and 4 x 5 x 7."
    ):
        read_volume([tmp_path / "a_0000.nrrd", tmp_path / "a_0001.nrrd"])
    with pytest.raises(ImageError, match="a_0002.nrrd does not .*: voxels of 1 x 1 x 1 mm and 1.5 x 1.5 x 1.5 mm"):
        read_volume([tmp_path / "a_0000.nrrd", tmp_path / "a_0002.nrrd"])


def test_a_truncated_gz_is_refused_by_name(tmp_path):
    noise = np.random.default_rng(0).normal(size=(20, 30, 30)).astype(np.float32)
    path = tmp_path / "a_0000.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(path))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ImageError, match="a_0000.nii.gz cannot be read"):
        read_volume([path])


def test_missing_files_unknown_endings_and_vector_images_are_explained(tmp_path):
    with pytest.raises(ImageError, match="Missing channel file"):
        read_volume([tmp_path / "none_0000.nii.gz"])
    (tmp_path / "a.xyz").write_text("x")
    with pytest.raises(ImageError, match="unknown kind of image. Known endings: .*png"):
        read_volume([tmp_path / "a.xyz"])
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6, 3)), isVector=True), str(tmp_path / "v.nrrd"))
    with pytest.raises(ImageError, match="stores 3 values per voxel"):
        read_volume([tmp_path / "v.nrrd"])


def test_labels_are_not_written_as_jpeg(tmp_path):
    with pytest.raises(ImageError, match="JPEG changes label values"):
        write_labels(np.zeros((4, 4), np.uint8), Geometry(spacing=(1, 1)), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_forbidden_folder_and_a_full_disk_leave_nothing_behind(tmp_path, monkeypatch):
    labels, geometry = np.zeros((4, 4, 4), np.uint8), Geometry(spacing=(1, 1, 1))
    with pytest.raises(ResourceError, match="could not be written|No permission"):
        write_labels(labels, geometry, tmp_path / "nowhere" / "a.nii.gz")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    (tmp_path / "a.nii.gz").write_bytes(b"old")
    with pytest.raises(ResourceError, match="No space left while writing .*a.nii.gz"):
        write_labels(labels, geometry, tmp_path / "a.nii.gz")
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]
    assert (tmp_path / "a.nii.gz").read_bytes() == b"old"


def test_label_files_come_back_as_integers(tmp_path):
    labels = np.random.default_rng(0).integers(0, 4, size=(3, 4, 5))
    write_labels(labels, Geometry(spacing=(1, 2, 3)), tmp_path / "a.nii.gz")
    found, geometry = read_labels(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(found, labels)
    assert geometry.spacing == (1, 2, 3)


def test_arrays_of_anything_but_real_numbers_are_refused():
    array = np.zeros((4, 5, 6))
    with pytest.raises(ImageError, match=r"holds complex64 values; an image holds real numbers\. Pass the magnitude"):
        as_volume(array.astype(np.complex64), (1, 1, 1), 1)
    with pytest.raises(ImageError, match="holds <U"):
        as_volume(array.astype(str), (1, 1, 1), 1)
    assert as_volume(array > 0, (1, 1, 1), 1).shape == (4, 5, 6)
