"""Headers of NIfTI whose sizes and places are none: said, the same by every reader, and never taken for a size."""

from __future__ import annotations

import gzip
import struct

import nibabel
import numpy as np
import pytest

from napari_nnunet.formats.images.files import read_header, read_volume, write_labels

ARRAY = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
NAN, INF = float("nan"), float("inf")
FILES = [("a.nii.gz", "SimpleITKIO"), ("a.nii", "SimpleITKIO"), ("a.nii", "NibabelIO"), ("a.nii.gz", "NibabelIO"),
         ("a.nii", "NibabelIOWithReorient"), ("a.nii.gz", "SimpleITKIOWithReorient"),
         ("a.nii", "SimpleITKIOWithReorient")]  # fmt: skip


def written(path, *, kind=np.int16, second=False, order="<", **changes):
    """Write a file of 2 x 0.75 x 0.5 mm (z, y, x) with both transforms, some numbers of its header replaced."""
    maker = nibabel.Nifti2Image if second else nibabel.Nifti1Image
    header = maker.header_class(endianness=order)
    image = maker(ARRAY.T.astype(kind), np.diag([0.5, 0.75, 2, 1]), header)
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    content = bytearray(image.to_bytes())
    places = {"pixdim": 104, "sform_code": 348, "qform_code": 344, "quatern": 352, "qoffset": 376, "sform": 400}
    if not second:
        places = {"pixdim": 76, "qform_code": 252, "sform_code": 254, "quatern": 256, "qoffset": 268, "sform": 280}
    for name, values in changes.items():
        letter = ("i" if second else "h") if "code" in name else "d" if second else "f"
        skipped = struct.calcsize(letter) if name == "pixdim" else 0
        struct.pack_into(f"{order}{len(values)}{letter}", content, places[name] + skipped, *values)
    path.write_bytes(gzip.compress(bytes(content)) if path.name.endswith(".gz") else bytes(content))
    return path


def geometry_of(path, reader):
    volume = read_volume([path], reader=reader)
    assert volume.array.shape[0] == 1
    header = read_header(path, reader=reader).geometry
    if "Reorient" not in reader:  # whose headers are those of the file
        np.testing.assert_array_equal(volume.array[0], ARRAY)
        assert (header.spacing, header.remarks) == (volume.geometry.spacing, volume.geometry.remarks)
        assert header.axes_code == volume.geometry.axes_code
    return volume.geometry


@pytest.mark.parametrize(("name", "reader"), FILES)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("value", "word"), [(NAN, "nan"), (0, "0"), (INF, "inf"), (-INF, "-inf")])
@pytest.mark.parametrize("codes", [(1, 0), (0, 0), (1, 1)])
def test_a_size_that_is_none_is_said_and_is_no_known_size(tmp_path, name, reader, order, value, word, codes):
    path = written(tmp_path / name, order=order, pixdim=(0.5, 0.75, value), qform_code=codes[:1], sform_code=codes[1:])
    geometry = geometry_of(path, reader)
    assert geometry.spacing == (1.0, 0.75, 0.5)
    assert not geometry.spacing_known
    also = ", although its sform says 2" if codes[1] else ""
    assert geometry.remarks == (f"its header has voxels of size {word} along z; 1 mm was used instead{also}",)
    assert geometry.with_spacing((3, 0.75, 0.5), "what was given").spacing_known


@pytest.mark.parametrize("kind", [np.float64, np.int8, np.uint32, np.int64])
@pytest.mark.parametrize(("name", "reader"), FILES[:4])
def test_so_it_is_whatever_type_the_voxels_have(tmp_path, name, reader, kind):
    path = written(tmp_path / name, kind=kind, pixdim=(NAN, NAN, NAN))
    volume = read_volume([path], reader=reader)
    np.testing.assert_array_equal(volume.array[0], ARRAY.astype(kind))
    assert volume.geometry.spacing == (1.0, 1.0, 1.0)
    assert not volume.geometry.spacing_known


@pytest.mark.parametrize(("name", "reader"), FILES)
def test_a_negative_size_is_read_without_its_sign_and_said(tmp_path, name, reader):
    geometry = geometry_of(written(tmp_path / name, pixdim=(-0.5, 0.75, -2)), reader)
    assert (geometry.spacing, geometry.spacing_known) == ((2.0, 0.75, 0.5), True)
    said = "its header has voxels of negative size along x, z (-0.5 and -2), which were read without the sign"
    assert geometry.remarks == (said,)


SINGULAR = (0.5, 0, 0, 9, 0, 0.75, 0, 9, 0, 0, 0, 9)


@pytest.mark.parametrize(("name", "reader"), FILES)
@pytest.mark.parametrize("rows", [(0,) * 12, (NAN,) * 12, SINGULAR, (INF, *SINGULAR[1:])])
@pytest.mark.parametrize("qform", [0, 1])
def test_a_sform_that_is_no_place_is_left_aside_and_said(tmp_path, name, reader, rows, qform):
    geometry = geometry_of(written(tmp_path / name, sform=rows, qform_code=(qform,)), reader)
    assert (geometry.spacing, geometry.spacing_known) == ((2.0, 0.75, 0.5), True)
    assert geometry.remarks == (
        "its sform is not a place (NaN, or axes without a length of their own), and was left aside",
    )
    numbers = [*(geometry.origin or ()), *(geometry.direction or ()), *np.ravel(geometry.affine or ())]
    assert np.isfinite(np.array(numbers, float)).all()
    write_labels(np.ones(ARRAY.shape, np.uint8), geometry, tmp_path / f"out_{name}", writer=reader)
    assert np.linalg.det(nibabel.load(tmp_path / f"out_{name}").affine) != 0


@pytest.mark.parametrize(("name", "reader"), FILES[:5])
@pytest.mark.parametrize("quatern", [(NAN, 0, 0), (3, 2, 2)])
def test_a_qform_that_is_no_rotation_is_left_aside_and_said(tmp_path, name, reader, quatern):
    geometry = geometry_of(written(tmp_path / name, quatern=quatern), reader)
    assert geometry.remarks == ("its qform is not a rotation (quatern_b, c, d), and was left aside",)
    assert geometry.axes_code == "RAS"


@pytest.mark.parametrize(("name", "reader"), FILES)
@pytest.mark.parametrize(("form", "number"), [("sform", "qform_code"), ("qform", "sform_code")])
def test_a_place_that_is_no_number_is_0_and_said(tmp_path, name, reader, form, number):
    moved = {"sform": (0.5, 0, 0, NAN, 0, 0.75, 0, 0, 0, 0, 2, 0)} if form == "sform" else {"qoffset": (0, NAN, 0)}
    geometry = geometry_of(written(tmp_path / name, **moved, **{number: (0,)}), reader)
    assert geometry.remarks == (f"the place in its {form} is not a number, and was read as 0",)
    assert geometry.axes_code == "RAS" or geometry.orientation is not None


@pytest.mark.parametrize(("name", "reader"), FILES[:4])
@pytest.mark.parametrize(("changes", "said"), [
    ({"pixdim": (0.5, 0.75, NAN), "sform_code": (0,)}, "size nan along z"),
    ({"pixdim": (0.5, 0, 2)}, "size 0 along y"),
    ({"pixdim": (0.5, -0.75, 2)}, "negative size along y"),
    ({"sform": (0,) * 12}, "its sform is not a place"),
])  # fmt: skip
def test_so_it_is_in_the_second_version(tmp_path, name, reader, changes, said):
    geometry = geometry_of(written(tmp_path / name, second=True, **changes), reader)
    assert said in geometry.remarks[0]
    assert geometry.spacing_known == ("size nan" not in said and "size 0" not in said)


def test_a_picture_has_no_third_axis_to_talk_of(tmp_path):
    image = nibabel.Nifti1Image(ARRAY[0].T, np.diag([0.5, 0.75, 1, 1]))
    image.header["pixdim"][3:] = 0
    nibabel.save(image, tmp_path / "a.nii.gz")
    geometry = read_volume([tmp_path / "a.nii.gz"], reader="SimpleITKIO").geometry
    assert (geometry.spacing, geometry.spacing_known) == ((0.75, 0.5), True)
    assert not [text for text in geometry.remarks if "size" in text]
