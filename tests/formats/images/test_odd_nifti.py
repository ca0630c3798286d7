"""NIfTI files that are a little wrong are read as they are meant, or refused with the reason; bombs are not unpacked."""

from __future__ import annotations

import gzip
import struct
import tracemalloc

import nibabel
import numpy as np
import pytest

from napari_nnunet.errors import ImageError, ResourceError
from napari_nnunet.formats import room
from napari_nnunet.formats.images.files import read_header, read_labels, read_volume, write_labels
from napari_nnunet.grid import Apart, Grid, Same, relation

READERS = ("SimpleITKIO", "NibabelIO")
ARRAY = np.random.default_rng(0).integers(-50, 900, (5, 6, 7)).astype(np.int16)
AFFINE = np.array([[-0.5, 0, 0, 10], [0, -0.75, 0, 20], [0, 0, 2, -30], [0, 0, 0, 1.0]])


def plain(array=ARRAY, affine=AFFINE, **header):
    image = nibabel.Nifti1Image(array.T, affine)
    for name, value in header.items():
        image.header[name] = value
    return image.to_bytes()


def with_offset(content, offset):
    return content[:108] + struct.pack("<f", offset) + content[112:]


ODD = {
    "not packed": ("a.nii.gz", plain(), "not compressed, in spite of its name"),
    "packed": ("a.nii", gzip.compress(plain()), "compressed, in spite of its name"),
    "bytes behind": ("a.nii.gz", gzip.compress(plain()) + b"\r\n--part--\r\n", "12 bytes after its end"),
    "offset 0": ("a.nii.gz", gzip.compress(with_offset(plain(), 0)), "begin at byte 0"),
    "offset 0, not packed": ("a.nii", with_offset(plain(), 0), "begin at byte 0"),
    "offset -5": ("a.nii.gz", gzip.compress(with_offset(plain(), -5)), "begin at byte -5"),
    "offset 176": ("a.nii.gz", gzip.compress(with_offset(plain(), 176)), "begin at byte 176"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ODD)
def test_what_is_meant_is_read_and_what_is_odd_is_said(tmp_path, kind, reader):
    name, content, said = ODD[kind]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "right.nii.gz").write_bytes(gzip.compress(plain()))
    right = read_volume([tmp_path / "right.nii.gz"], reader=reader)
    volume = read_volume([tmp_path / name], reader=reader)
    np.testing.assert_array_equal(volume.array, right.array)
    assert volume.geometry.model_copy(update={"remarks": ()}) == right.geometry
    assert said in volume.geometry.remarks[0]
    assert read_header(tmp_path / name, reader=reader).shape == (1, *ARRAY.shape)
    np.testing.assert_array_equal(read_labels(tmp_path / name, reader=reader)[0], ARRAY)


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_with_scaled_values_are_read_as_well(tmp_path, kind):
    name, _, _ = ODD[kind]
    content = plain(scl_slope=2.0, scl_inter=-1.0)
    content = with_offset(content, 0) if "offset" in kind else content
    packed = name.endswith(".gz") != (kind in ("not packed", "packed"))
    content = gzip.compress(content) if packed else content
    (tmp_path / name).write_bytes(content + b"-" * (kind == "bytes behind"))
    volume = read_volume([tmp_path / name], reader="SimpleITKIO")
    np.testing.assert_array_equal(volume.array[0], ARRAY * 2.0 - 1)


@pytest.mark.parametrize("reader", [None, "SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"])
def test_a_file_that_is_compressed_twice_is_named_as_that(tmp_path, reader):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(gzip.compress(plain())))
    for read in (read_header, lambda path, reader: read_volume([path], reader=reader)):
        with pytest.raises(ImageError, match=r"a\.nii\.gz is compressed twice\. Unpack it once"):
            read(tmp_path / "a.nii.gz", reader=reader)


def test_several_packed_parts_are_one_file(tmp_path):
    content = plain()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    volume = read_volume([tmp_path / "a.nii.gz"])
    np.testing.assert_array_equal(volume.array[0], ARRAY)
    assert volume.geometry.remarks == ()


@pytest.mark.parametrize("reader", READERS)
def test_an_offset_that_fits_no_way_is_refused_with_the_reason(tmp_path, reader):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(with_offset(plain() + b"more", 176)))
    with pytest.raises(ImageError, match="voxels begin at byte 176, within the header itself"):
        read_volume([tmp_path / "a.nii.gz"], reader=reader)


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_stream_that_breaks_off_is_truncated(tmp_path, cut):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(plain())[:-cut])
    with pytest.raises(ImageError, match="truncated"):
        read_volume([tmp_path / "a.nii.gz"])


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
def test_a_sheared_volume_keeps_its_voxels_and_its_place(tmp_path, name):
    shear = np.eye(4)
    shear[1, 2] = 0.2
    image = nibabel.Nifti1Image(ARRAY.T, AFFINE @ shear)
    image.header.set_sform(image.affine, code=1)
    image.header.set_qform(None, code=0)
    nibabel.save(image, tmp_path / name)
    volume = read_volume([tmp_path / name], reader="SimpleITKIO", as_stored=True)
    np.testing.assert_array_equal(volume.array[0], ARRAY)
    assert volume.array.dtype == np.int16
    assert volume.geometry.spacing == pytest.approx((2, 0.75, 0.5))
    assert "not at right angles (tilted by 4.3 degrees)" in volume.geometry.remarks[0]
    assert read_header(tmp_path / name, reader="SimpleITKIO").geometry == volume.geometry
    write_labels((ARRAY > 0).astype(np.uint8), volume.geometry, tmp_path / "out.nii.gz", writer="SimpleITKIO")
    np.testing.assert_allclose(nibabel.load(tmp_path / "out.nii.gz").affine, image.affine, atol=1e-5)


def test_a_fourth_axis_of_one_entry_means_nothing(tmp_path):
    nibabel.save(nibabel.Nifti1Image(ARRAY.T[..., None], AFFINE), tmp_path / "a.nii.gz")
    for reader in READERS:
        np.testing.assert_array_equal(read_volume([tmp_path / "a.nii.gz"], reader=reader).array[0], ARRAY)


def test_a_fourth_axis_is_channels_for_itk_and_refused_with_the_remedy_by_nibabel(tmp_path):
    both = np.stack([ARRAY, ARRAY + 1])
    nibabel.save(nibabel.Nifti1Image(both.T, AFFINE), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_volume([tmp_path / "a.nii.gz"], reader="SimpleITKIO").array, both)
    with pytest.raises(ImageError, match=r"has 4 dimensions \(7 x 6 x 5 x 2\)\. Save each channel"):
        read_volume([tmp_path / "a.nii.gz"], reader="NibabelIO")


@pytest.mark.parametrize("reader", READERS)
def test_a_header_that_claims_more_than_the_memory_is_refused_before_anything_is_unpacked(
    tmp_path, reader, monkeypatch
):
    monkeypatch.setattr(room, "available_memory", lambda: int(1e9))
    content = bytearray(plain(np.zeros((2, 2, 2), np.int16)))
    content[40:56] = struct.pack("<8h", 3, 2000, 2000, 500, 1, 1, 1, 1)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(content) + bytes(50_000_000)))
    tracemalloc.start()
    with pytest.raises(ResourceError, match=r"2000 x 2000 x 500 voxels, which take [48].0 GB; 1.0 GB of memory"):
        read_volume([tmp_path / "a.nii.gz"], reader=reader)
    assert tracemalloc.get_traced_memory()[1] < 30e6
    tracemalloc.stop()


def test_no_more_is_kept_than_the_header_promises(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(plain() + bytes(200_000_000)))
    tracemalloc.start()
    np.testing.assert_array_equal(read_volume([tmp_path / "a.nii.gz"]).array[0], ARRAY)
    assert tracemalloc.get_traced_memory()[1] < 60e6
    tracemalloc.stop()


HEADERS = {
    "a.nrrd": "NRRD0004\ntype: short\ndimension: 3\nsizes: {sizes}\nencoding: raw\nendian: little\n{elsewhere}\n\n",
    "a.mhd": "ObjectType = Image\nNDims = 3\nDimSize = {sizes}\nElementType = MET_SHORT\n{elsewhere}\n",
}
NAMES = {"a.nrrd": "data file: {}", "a.mhd": "ElementDataFile = {}"}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("outside", [True, False])
def test_voxels_in_another_file_are_followed_within_the_folder_only(tmp_path, name, outside):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "voxels.raw").write_bytes(ARRAY.tobytes())
    (tmp_path / "secret.raw").write_bytes(ARRAY.tobytes())
    elsewhere = NAMES[name].format("../secret.raw" if outside else "voxels.raw")
    (folder / name).write_text(HEADERS[name].format(sizes="7 6 5", elsewhere=elsewhere))
    if outside:
        with pytest.raises(ImageError, match=r"'\.\./secret\.raw', outside its own folder"):
            read_volume([folder / name])
    else:
        np.testing.assert_array_equal(read_volume([folder / name]).array[0], ARRAY)


@pytest.mark.parametrize("name", HEADERS)
def test_sizes_in_words_are_held_against_memory(tmp_path, name, monkeypatch):
    monkeypatch.setattr(room, "available_memory", lambda: int(1e9))
    elsewhere = NAMES[name].format("LOCAL" if name == "a.mhd" else "voxels.raw")
    (tmp_path / name).write_text(HEADERS[name].format(sizes="3000 3000 1000", elsewhere=elsewhere))
    with pytest.raises(ResourceError, match="which take 18.0 GB"):
        read_volume([tmp_path / name])


@pytest.mark.parametrize("content", [b"abc", b"<html>" * 100, gzip.compress(b"abc")], ids=["short", "page", "packed"])
def test_what_is_no_nifti_is_named_by_its_own_path(tmp_path, content):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        read_volume([path], reader="SimpleITKIO")
    assert str(path) in caught.value.message
    assert "straight" not in caught.value.message


def test_values_that_are_no_numbers_and_voxels_without_a_size_are_said(tmp_path):
    odd = ARRAY.astype(np.float32)
    odd[2, 3] = np.nan
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(plain(odd)))
    assert read_volume([path]).geometry.remarks == ("7 of its voxels are NaN or infinite and were read as 0",)
    path.write_bytes(gzip.compress(plain(pixdim=[1, 0, 0, 0, 1, 1, 1, 1])))
    volume = read_volume([path])
    (said,) = volume.geometry.remarks
    assert said.startswith("its header has voxels of size 0 along x, y, z; 1 mm was used instead")
    assert volume.geometry.spacing == (1, 1, 1)


def twice_placed(path, qform, sform=AFFINE):
    """Write a file whose header has both transforms."""
    image = nibabel.Nifti1Image(ARRAY.T, sform)
    image.set_sform(sform, 2)
    image.set_qform(qform, 1)
    nibabel.save(image, path)


MIRRORED = AFFINE * np.array([[-1], [1], [1], [1]])


@pytest.mark.parametrize(("name", "reader", "taken"), [
    ("a.nii.gz", "SimpleITKIO", "qform"), ("a.nii", "SimpleITKIO", "qform"), ("a.nii.gz", "NibabelIO", "sform"),
    ("a.nii", "NibabelIO", "sform"),
])  # fmt: skip
def test_transforms_that_disagree_about_left_and_right_are_said(tmp_path, name, reader, taken):
    twice_placed(tmp_path / name, MIRRORED)
    said = f"its header gives two orientations, RPS (qform) and LPS (sform); the {taken} was used"
    assert read_volume([tmp_path / name], reader=reader).geometry.remarks == (said,)
    assert read_header(tmp_path / name, reader=reader).geometry.remarks == (said,)


def test_transforms_that_agree_or_are_alone_are_not_talked_of(tmp_path):
    twice_placed(tmp_path / "a.nii.gz", AFFINE)
    (tmp_path / "b.nii").write_bytes(plain())
    for name in ("a.nii.gz", "b.nii"):
        geometry = read_volume([tmp_path / name]).geometry
        assert geometry.remarks == ()
        assert geometry.other_affine is None


@pytest.mark.parametrize("moved", [MIRRORED, AFFINE + np.diag([0, 0, 0, 0.0]) + np.eye(4, k=3) * 25])
def test_readers_that_take_different_transforms_find_the_same_voxels(tmp_path, moved):
    twice_placed(tmp_path / "a.nii.gz", moved)
    twice_placed(tmp_path / "b.nii", moved)
    image, mask = (read_volume([tmp_path / name]) for name in ("a.nii.gz", "b.nii"))
    grids = [Grid(ARRAY.shape, volume.geometry) for volume in (image, mask)]
    assert isinstance(relation(*grids), Same)
    assert isinstance(relation(*grids[::-1]), Same)
    elsewhere = AFFINE + np.eye(4, k=3) * 7
    twice_placed(tmp_path / "c.nii", elsewhere, elsewhere)
    assert isinstance(relation(grids[0], Grid(ARRAY.shape, read_volume([tmp_path / "c.nii"]).geometry)), Apart)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_two_sizes_of_a_voxel_in_a_header_are_said(tmp_path, name):
    image = nibabel.Nifti1Image(ARRAY.T, AFFINE)
    image.header["pixdim"][1:4] = 5
    (tmp_path / name).write_bytes(gzip.compress(image.to_bytes()) if name.endswith("gz") else image.to_bytes())
    said = "two voxel sizes, 5 x 5 x 5 mm (pixdim) and 2 x 0.75 x 0.5 mm (sform); 5 x 5 x 5 mm was used"
    assert said in read_volume([tmp_path / name]).geometry.remarks[0]


@pytest.mark.parametrize(("unit", "word"), [(1, "metres"), (3, "micrometres")])
def test_a_unit_that_nibabel_passes_over_is_said(tmp_path, unit, word):
    (tmp_path / "a.nii").write_bytes(plain(xyzt_units=unit))
    geometry = read_volume([tmp_path / "a.nii"]).geometry
    assert geometry.spacing == (2.0, 0.75, 0.5)
    assert f"its header counts in {word}; nibabel's readers" in geometry.remarks[0]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_what_itk_takes_for_0_is_said_whatever_the_file_is_called(tmp_path, name, scaled):
    array = ARRAY.astype(np.float32)
    array[0, 0, 0] = np.nan
    content = plain(array)
    if scaled:
        content = content[:112] + struct.pack("<2f", 2, 1) + content[120:]
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    volume = read_volume([tmp_path / name], reader="SimpleITKIO")
    assert volume.geometry.remarks == ("1 of its voxels are NaN or infinite and were read as 0",)


def test_an_intercept_without_a_slope_is_said(tmp_path):
    content = plain()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content[:112] + struct.pack("<2f", 0, 5) + content[120:]))
    assert "an intercept of 5, which was added" in read_volume([tmp_path / "a.nii.gz"]).geometry.remarks[0]


@pytest.mark.parametrize(("array", "said"), [
    (ARRAY.astype(np.complex64), "a.nii holds complex numbers"),
    (np.zeros(ARRAY.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")]), "a.nii stores 3 values per voxel"),
    (ARRAY[0], "a.nii has 2 dimensions; nibabel's readers take volumes. Save it as one of a single slice (7 x 6 x 1)"),
])  # fmt: skip
def test_what_nibabel_would_read_otherwise_is_refused(tmp_path, array, said):
    nibabel.save(nibabel.Nifti1Image(array.T, AFFINE), tmp_path / "a.nii")
    for read in (read_header, lambda path: read_volume([path])):
        with pytest.raises(ImageError) as caught:
            read(tmp_path / "a.nii")
        assert said in caught.value.message


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_the_second_version_is_read_where_itk_is_asked(tmp_path, capfd, ending):
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    path = tmp_path / f"a{ending}"
    nibabel.save(nibabel.Nifti2Image(voxels, affine), path)
    volume = read_volume([path], reader="SimpleITKIO")
    assert np.array_equal(volume.array[0], voxels.T)
    assert volume.geometry.spacing == (4.0, 3.0, 2.0)
    assert read_header(path, reader="SimpleITKIO").shape == (1, 5, 4, 3)
    turned = read_volume([path], reader="SimpleITKIOWithReorient")
    assert turned.geometry.spacing == (4.0, 3.0, 2.0)
    assert read_header(path, reader="SimpleITKIOWithReorient").shape == turned.array.shape
    assert capfd.readouterr().err == ""
