"""Packed voxels that were damaged or are not all there are never read as others, whatever reads them."""

from __future__ import annotations

import gzip
import zlib

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.files import read_header, read_volume

ARRAY = np.random.default_rng(0).integers(-50, 50, (8, 30, 31)).astype(np.int16)
READERS = {
    ".nii.gz": (None, "SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient"),
    ".mha": (None, "SimpleITKIOWithReorient"),
    ".mhd": (None, "SimpleITKIOWithReorient"),
    ".nrrd": (None, "SimpleITKIOWithReorient"),
    ".tif": (None,),
}
TYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]


def written(folder, ending, array=ARRAY):
    """Write an image; return its path, and that of the file with the voxels."""
    path = folder / f"a{ending}"
    if ending == ".tif":
        tifffile.imwrite(path, array, compression="zlib", metadata={"axes": "ZYX"})
    elif ending == ".nii.gz":
        nibabel.save(nibabel.Nifti1Image(array.T, np.diag([-1, -1, 1, 1]), dtype=array.dtype), path)
    else:
        image = sitk.GetImageFromArray(array, isVector=False)
        image.SetSpacing((0.5, 0.75, 2, 1)[: array.ndim])
        sitk.WriteImage(image, str(path), useCompression=True)
    return path, (folder / "a.zraw" if ending == ".mhd" else path)


CASES = [(ending, reader) for ending, readers in READERS.items() for reader in readers]


@pytest.mark.parametrize(("ending", "reader"), CASES)
def test_no_changed_bit_of_what_is_packed_changes_voxels(tmp_path, ending, reader):
    path, voxels = written(tmp_path, ending)
    whole = read_volume([path], reader=reader).array
    data, rng, refused = voxels.read_bytes(), np.random.default_rng(1), 0
    for _ in range(25):
        changed = bytearray(data)
        changed[int(rng.integers(len(data) // 2, len(data) - 8))] ^= 1 << int(rng.integers(8))
        voxels.write_bytes(changed)
        try:
            np.testing.assert_array_equal(read_volume([path], reader=reader).array, whole)
        except ImageError as error:
            refused += "a" in error.message
    assert refused > 10


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd"])
def test_more_and_fewer_voxels_than_the_header_says_are_told(tmp_path, ending):
    path, _ = written(tmp_path, ending)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"31 30 8", b"31 30 9"))
    with pytest.raises(ImageError, match=f"a{ending} cannot be read: it is truncated after 14880 of 16740 bytes"):
        read_volume([path])
    path.write_bytes(content.replace(b"31 30 8", b"31 30 7"))
    volume = read_volume([path])
    np.testing.assert_array_equal(volume.array[0], ARRAY[:7])
    assert volume.geometry.remarks == ("it holds 1860 bytes more than its header says, which were ignored",)


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd"])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 6), (2, 4, 5, 6)])
def test_what_is_unpacked_here_is_what_itk_reads(tmp_path, ending, kind, shape):
    array = np.random.default_rng(0).integers(0, 100, shape).astype(kind)
    path, _ = written(tmp_path, ending, array)
    for reader in (None, "SimpleITKIOWithReorient") if len(shape) == 3 else (None,):
        volume = read_volume([path], reader=reader, as_stored=True)
        by_itk = sitk.ReadImage(str(path))
        expected = sitk.GetArrayFromImage(by_itk if reader is None else sitk.DICOMOrient(by_itk, "RAS"))
        assert volume.array.dtype == kind
        np.testing.assert_array_equal(volume.array, expected if len(shape) == 4 else expected[None])
        assert volume.geometry.spacing == tuple(reversed(by_itk.GetSpacing()))[-volume.geometry.ndim :]
        if reader is None:
            assert volume.geometry == read_header(path).geometry
            assert volume.geometry.origin == by_itk.GetOrigin()[: volume.geometry.ndim]


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("packing", [zlib.compress, gzip.compress])
@pytest.mark.parametrize("order", ["<", ">"])
def test_metaimages_of_other_writers_are_unpacked(tmp_path, sized, packing, order):
    packed = packing(ARRAY.astype(f"{order}i2").tobytes())
    size = f"CompressedDataSize = {len(packed)}\n" if sized else ""
    text = (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = {order == '>'}\n"
        f"CompressedData = True\n{size}DimSize = 31 30 8\nElementType = MET_SHORT\nElementDataFile = "
    )
    (tmp_path / "a.mha").write_bytes(f"{text}LOCAL\n".encode() + packed)
    (tmp_path / "a.mhd").write_bytes(f"{text}a.zraw\n".encode())
    (tmp_path / "a.zraw").write_bytes(packed)
    for name in ("a.mha", "a.mhd"):
        np.testing.assert_array_equal(read_volume([tmp_path / name]).array[0], ARRAY)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("beside", [True, False])
def test_nrrds_of_other_writers_are_unpacked(tmp_path, order, beside):
    values = ARRAY.astype("<i2" if order == "little" else ">i2").tobytes()
    packed = gzip.compress(values[:5000]) + gzip.compress(values[5000:])
    text = f"NRRD0004\ntype: int16\ndimension: 3\nsizes: 31 30 8\nendian: {order}\nencoding: gz\n"
    text += "data file: a.raw.gz\n\n" if beside else "\n"
    (tmp_path / "a.nrrd").write_bytes(text.encode() + (b"" if beside else packed))
    (tmp_path / "a.raw.gz").write_bytes(packed)
    np.testing.assert_array_equal(read_volume([tmp_path / "a.nrrd"]).array[0], ARRAY)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("reader", [None, "SimpleITKIO", "NibabelIO"])
def test_the_header_of_a_pair_under_the_name_of_a_whole_file_is_named_as_that(tmp_path, reader, packed):
    small = ARRAY[:2, :3, :4]  # fewer bytes than a header has
    nibabel.save(nibabel.Nifti1Pair(small.T, np.eye(4)), tmp_path / "p.img")
    half = (tmp_path / "p.hdr").read_bytes()
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    path.write_bytes(gzip.compress(half) if packed else half)
    for read in (lambda: read_volume([path], reader=reader), lambda: read_header(path, reader=reader)):
        with pytest.raises(ImageError, match=r"is the header of a pair of files \(\.hdr and \.img\)"):
            read()
    whole = nibabel.Nifti1Image(small.T, np.eye(4)).to_bytes()
    whole = whole[:344] + b"ni1\0" + whole[348:]  # as some programs write it
    path.write_bytes(gzip.compress(whole) if packed else whole)
    np.testing.assert_array_equal(read_volume([path], reader=reader).array[0], small)


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd", ".nii"])
def test_files_whose_headers_are_alike_are_not_taken_for_each_other(tmp_path, ending):
    """What is known of a header is kept; voxels, and headers that differ in anything else, are not."""
    found = []
    for number in (1, 2, 3):
        array, spacing = np.full((4, 5, 6), number, np.int16), (0.5, 0.75, 2.0 + (number == 3))
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(spacing)
        sitk.WriteImage(image, str(tmp_path / f"{number}{ending}"), useCompression=number != 2)
        volume = read_volume([tmp_path / f"{number}{ending}"])
        assert (volume.array == number).all()
        found.append(volume.geometry.spacing[0])
    assert found == [2, 2, 3]
