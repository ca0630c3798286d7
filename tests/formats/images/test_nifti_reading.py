"""Quick reading of .nii.gz gives what ITK gives, or leaves the file to ITK."""

from __future__ import annotations

import gzip
import os
import struct
import tempfile

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from napari_nnunet.errors import ImageError, ResourceError
from napari_nnunet.formats.images import itk as _itk
from napari_nnunet.formats.images import itk_grid
from napari_nnunet.formats.images.files import read_header, read_volume


def itk(path):
    image = sitk.ReadImage(str(path))
    return _itk._placed(sitk.GetArrayFromImage(image), image, path)


def same(path):
    (a, g), (b, h) = _itk.read(path), itk(path)
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)
    assert g == h


def write(path, array, *, spacing=None, direction=None, origin=None):
    image = sitk.GetImageFromArray(array) if array.ndim < 4 else sitk.JoinSeries([*map(sitk.GetImageFromArray, array)])
    dimension = image.GetDimension()
    image.SetSpacing(spacing or [0.7, 0.8, 2.5, 1.0][:dimension])
    if direction is not None:
        image.SetDirection(direction)
    image.SetOrigin(origin or [-12.5, 3.25, 40.0, 0.0][:dimension])
    sitk.WriteImage(image, str(path))


@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
@pytest.mark.parametrize("shape", [(5, 6, 7), (6, 7), (3, 5, 6, 7), (1, 6, 7)])
def test_types_and_dimensions(tmp_path, kind, shape):
    array = (np.random.default_rng(0).normal(size=shape) * 40).astype(kind)
    write(tmp_path / "x.nii.gz", array)
    assert _itk._voxels(gzip.decompress((tmp_path / "x.nii.gz").read_bytes()), tmp_path) is not None
    same(tmp_path / "x.nii.gz")


def test_oblique_and_mirrored_grids(tmp_path):
    c, s = np.cos(0.4), np.sin(0.4)
    for direction in ((c, -s, 0, s, c, 0, 0, 0, 1), (-1, 0, 0, 0, 1, 0, 0, 0, -1), (0, 0, 1, 1, 0, 0, 0, 1, 0)):
        write(tmp_path / "x.nii.gz", np.arange(60, dtype=np.int16).reshape(3, 4, 5), direction=direction)
        same(tmp_path / "x.nii.gz")


def test_values_that_are_no_numbers_become_zero_as_in_itk(tmp_path):
    array = np.ones((4, 5, 6), np.float32)
    array[0, 0, :3] = np.nan, np.inf, -np.inf
    nibabel.save(nibabel.Nifti1Image(array.T, np.eye(4)), tmp_path / "x.nii.gz")
    (voxels, geometry), (expected, place) = _itk.read(tmp_path / "x.nii.gz"), itk(tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(voxels, expected)
    assert (voxels[0, 0, 0, :3] == 0).all()
    assert geometry.model_copy(update={"remarks": ()}) == place
    assert "read as 0" in " ".join(geometry.remarks)


def test_scaled_and_swapped_files_are_left_to_itk(tmp_path):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    scaled = nibabel.Nifti1Image(array, np.eye(4))
    scaled.header.set_slope_inter(2.0, 10.0)
    nibabel.save(scaled, tmp_path / "scaled.nii.gz")
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4), header), tmp_path / "swapped.nii.gz")
    for name in ("scaled.nii.gz", "swapped.nii.gz"):
        assert _itk._voxels(gzip.decompress((tmp_path / name).read_bytes()), tmp_path) is None
        same(tmp_path / name)


def test_truncated_files_are_refused(tmp_path):
    path = tmp_path / "x.nii.gz"
    write(path, np.random.default_rng(0).integers(0, 9000, (9, 30, 30)).astype(np.int16))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="it is truncated"):
        _itk.read(path)
    content = gzip.decompress(whole)
    path.write_bytes(gzip.compress(content[:-100]))  # a sound archive of a truncated file
    with pytest.raises(ImageError, match="it is truncated after .* bytes. Copy it again"):
        _itk.read(path)
    path.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))  # two members
    assert _itk.read(path)[0].shape == (1, 9, 30, 30)
    path.write_bytes(b"no archive at all")
    with pytest.raises(Exception, match=r".+"):
        _itk.read(path)


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO"])
def test_the_header_of_a_volume_larger_than_the_memory_is_read_from_the_first_bytes(tmp_path, reader):
    small = nibabel.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.diag([0.5, 0.5, 2, 1]))
    content = bytearray(small.to_bytes())
    content[42:48] = struct.pack("<3h", 30000, 30000, 30000)  # 54 TB
    path = tmp_path / "huge.nii.gz"
    path.write_bytes(gzip.compress(bytes(content)))
    header = read_header(path, reader=reader)
    assert header.shape == (1, 30000, 30000, 30000)
    assert header.geometry.spacing == (2, 0.5, 0.5)
    with pytest.raises(ResourceError, match="30000 x 30000 x 30000 voxels"):
        read_volume([path], reader=reader)


@pytest.mark.parametrize(
    ("ending", "reader"),
    [(".nii", None), (".nii", "NibabelIO"), (".nii.gz", None), (".nii.gz", "NibabelIO"), (".nii.gz", "SimpleITKIO")],
)
def test_what_is_no_nifti_is_told_as_that(tmp_path, ending, reader):
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ImageError, match="is not a NIfTI file, neither compressed nor plain"):
        read_volume([path], reader=reader)


def test_itk_looks_at_a_header_in_a_file_that_is_closed(tmp_path, monkeypatch):
    """Windows opens no file by its name that somebody still writes."""
    path, handles, informed, make = tmp_path / "a.nii.gz", [], itk_grid.informed, tempfile.mkstemp
    write(path, np.zeros((4, 5, 6), np.int16))

    def made(**how):
        handle, name = make(**how)
        handles.append(handle)
        return handle, name

    def looked(header):
        with pytest.raises(OSError, match="descriptor"):
            os.fstat(handles[-1])
        return informed(header)

    monkeypatch.setattr(itk_grid.tempfile, "mkstemp", made)
    monkeypatch.setattr(itk_grid, "informed", looked)
    itk_grid.grid_of.cache_clear()
    assert read_header(path)[2].spacing == pytest.approx((2.5, 0.8, 0.7))
    assert len(handles) == 1
