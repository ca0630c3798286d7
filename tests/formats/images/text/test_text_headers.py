"""Headers that are text: whatever they say, ITK follows them to no other folder, and to no end that it cannot reach."""

from __future__ import annotations

import time

import numpy as np
import pytest

from napari_nnunet.errors import ImageError, NnunetError
from napari_nnunet.formats.images.files import read_header, read_volume

META = "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 2 3 4\nElementSpacing = 1 1 1\nElementType = MET_UCHAR\n"
NRRD = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 3 4\nencoding: raw\n"
OUTSIDE = "../secret.raw"
LONG = "Comment = x\n" * 8_000


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secret.raw").write_bytes(b"S" * 100)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "1.raw").write_bytes(bytes(range(24)))
    return tmp_path / "here"


def image(folder, header, ending, voxels=b""):
    path = folder / f"x{ending}"
    path.write_bytes(header.encode() + voxels)
    return path


def refused(path):
    """Return the sentences with which an image and its header are refused, which takes no time."""
    begun, said = time.process_time(), []
    for look in (read_header, lambda path: read_volume([path])):
        with pytest.raises(NnunetError) as caught:
            look(path)
        said.append(caught.value.message)
    assert time.process_time() - begun < 1
    return said


@pytest.mark.parametrize(
    "end",
    [
        f"ElementDataFile : {OUTSIDE}\n",
        f"  ElementDataFile = {OUTSIDE}\n",
        f"\tElementDataFile\t=\t{OUTSIDE}",
        f"elementdatafile={OUTSIDE}\r\n",
        f"{LONG}ElementDataFile = {OUTSIDE}\n",
        f"ElementDataFile = LIST\n1.raw\n{OUTSIDE}\n{OUTSIDE}\n{OUTSIDE}\n",
        f"{'Comment = x' * 60}\nElementDataFile = LIST 2\n{'1.raw' * 200}\n{OUTSIDE}\n",
        "ElementDataFile = LOCAL/../../secret.raw\n",
        "ElementDataFile = ../secret%d/../secret.raw 1 4 1\n",
        "ElementDataFile = 1.raw %d/../../secret.raw 1 4 1\n",
        "ElementDataFile = ..\\secret.raw\n",
    ],
    ids=["colon", "blanks", "tabs", "small letters", "long header", "list", "long list", "local", "numbered", "two names",
         "backslash"],
)  # fmt: skip
@pytest.mark.parametrize("ending", [".mha", ".mhd"])
def test_no_metaimage_takes_its_voxels_from_another_folder(folder, end, ending):
    said = refused(image(folder, META + end, ending))
    assert all("outside its own folder" in text or "not a pattern" in text for text in said)


@pytest.mark.parametrize(
    "end",
    [f"data file: {OUTSIDE}\n\n", f"DataFile:{OUTSIDE}\r\n\r\n", f"{'# x' * 40_000}\ndata file: {OUTSIDE}\n\n",
     f"data file: LIST\n1.raw\n{OUTSIDE}\n{OUTSIDE}\n{OUTSIDE}\n", "data file: ../secret%d/../secret.raw 1 4 1\n\n"],
    ids=["plain", "carriage returns", "long header", "list", "numbered"],
)  # fmt: skip
def test_no_nrrd_takes_its_voxels_from_another_folder(folder, end):
    assert all("outside its own folder" in text for text in refused(image(folder, NRRD + end, ".nrrd")))


def test_a_header_says_once_where_its_voxels_are(folder):
    for header in (META, f"{META}Comment = ElementDataFile\nElementDataFile = LOCAL\n"):
        assert "no MetaImage header" in refused(image(folder, header, ".mha", bytes(24)))[0]
    endless = image(folder, META, ".mhd", b"\nComment = x" * 400_000)
    assert "do not hold all of its header" in refused(endless)[0]


@pytest.mark.parametrize(
    "name", ["x%s%s%s%n.raw 1 3 1", "%n 1 2 1", "a%d%d.raw 1 2 1", "%999d 1 2 1", "a%03d.raw 1 2147483647 1"]
)
def test_the_system_is_given_no_pattern_but_that_of_a_number(folder, name):
    for path in (
        image(folder, f"{META}ElementDataFile = {name}\n", ".mhd"),
        image(folder, f"{NRRD}data file: {name}\n\n", ".nrrd"),
    ):
        assert all("not a pattern of file names" in text for text in refused(path))


@pytest.mark.parametrize("axes", ["0", "-1", "6", "1000000", str(2**31), "9" * 40, "x", "nan", ""])
def test_an_image_has_two_or_three_axes(folder, axes):
    meta = image(folder, META.replace("NDims = 3", f"NDims = {axes}") + "ElementDataFile = LOCAL\n", ".mha", bytes(24))
    nrrd = image(folder, NRRD.replace("dimension: 3", f"dimension: {axes}") + "\n", ".nrrd", bytes(24))
    for path in (meta, nrrd):
        assert all("dimensions; images have 2 or 3" in text or "a number must be" in text for text in refused(path))


@pytest.mark.parametrize(
    ("key", "why"),
    [("ElementNumberOfChannels = 2147483647", "values per voxel"), ("ElementNumberOfChannels = -1", "values per voxel"),
     ("CompressedData = True\nCompressedDataSize = 1099511627776", "is truncated"), ("DimSize = -2 3 4", "at least 1"),
     ("DimSize = 2 0 4", "at least 1"), ("DimSize = 99999999 99999999 4", "GB of memory are free")],
)  # fmt: skip
def test_numbers_that_no_image_has_are_named(folder, key, why):
    header = f"{META}{key}\nElementDataFile = LOCAL\n"
    assert all(why in text for text in refused(image(folder, header, ".mha", bytes(24))))


def test_what_people_write_is_read(folder):
    np.arange(24, dtype=np.uint8).tofile(folder / "with blank.raw")
    for number in range(1, 5):
        np.arange(6, dtype=np.uint8).tofile(folder / f"plane{number:03}.raw")
    heads = {
        ".mha": [META + "ElementDataFile = LOCAL\n", META + LONG + "ElementDataFile = Local\r\n"],
        ".mhd": [META + end for end in ("ElementDataFile=1.raw", "ElementDataFile = ./1.raw\n", "ElementDataFile = with blank.raw\n",
                                        "ElementDataFile = plane%03d.raw 1 4 1\n",
                                        "ElementDataFile = LIST\nplane001.raw\nplane002.raw\nplane003.raw\nplane004.raw\n")],
        ".nrrd": [NRRD + "\n", NRRD + "# x\n" * 40_000 + "\n", NRRD + "data file: ./1.raw\n", NRRD + "data file: plane%03d.raw 1 4 1\n"],
    }  # fmt: skip
    for ending, texts in heads.items():
        for text in texts:
            alone = "file" not in text.lower() or "local" in text.lower()
            path = image(folder, text, ending, bytes(range(24)) if alone else b"")
            assert read_header(path).shape == (1, 4, 3, 2)
            array = read_volume([path]).array
            assert (array.ravel() == (np.arange(24) if "plane" not in text else np.tile(np.arange(6), 4))).all(), text


def test_a_file_is_read_as_its_ending_says(folder):
    whole = image(folder, META + "ElementDataFile = LOCAL\n", ".mha", bytes(24))
    for ending in (".nrrd", ".gipl", ".nii", ".nii.gz"):
        path = folder / f"other{ending}"
        path.write_bytes(whole.read_bytes())
        with pytest.raises(ImageError, match="other"):
            read_volume([path])


PLACED = "space: left-posterior-superior\nspace origin: (0,0,0)\n"
VOXELS = bytes(range(24))


@pytest.mark.parametrize(("ending", "head", "more", "said"), [
    (".nrrd", NRRD, 'spacings: 1 2 3\nunits: "um" "um" "um"\n', "counts lengths in um; the numbers were read as mm"),
    (".nrrd", NRRD, PLACED + 'space units: "microns" "microns" "microns"\nspace directions: (1,0,0) (0,2,0) (0,0,3)\n',
     "counts lengths in microns"),
    (".nrrd", NRRD, PLACED + "space directions: (1,0,0) (0.5,2,0) (0,0,3)\n", "not at right angles"),
    (".mha", META, "DistanceUnits = um\n", "counts lengths in um"),
    (".mha", META, "ElementToIntensityFunctionSlope = 2\n", "scales the values"),
    (".mha", META, "ElementToIntensityFunctionOffset = -1024\n", "scales the values"),
    (".mha", META, "TransformMatrix = 2 0 0 0 2 0 0 0 2\n", "have lengths of 2 x 2 x 2 instead of 1"),
])  # fmt: skip
def test_what_itk_passes_over_is_said(tmp_path, ending, head, more, said):
    end = "\n" if ending == ".nrrd" else "ElementDataFile = LOCAL\n"
    path = image(tmp_path, head + more + end, ending, VOXELS)
    for geometry in (read_volume([path]).geometry, read_header(path).geometry):
        assert geometry.spacing_known
        assert said in " ".join(geometry.remarks)


@pytest.mark.parametrize("more", ['spacings: 1 2 3\nunits: "mm" "mm" "mm"\n', "spacings: 1 2 3\n"])
def test_plain_headers_say_nothing_odd(tmp_path, more):
    geometry = read_volume([image(tmp_path, NRRD + more + "\n", ".nrrd", VOXELS)]).geometry
    assert geometry.spacing_known
    assert geometry.remarks == ()


@pytest.mark.parametrize(("ending", "text"), [
    (".nrrd", NRRD + "\n"), (".nrrd", NRRD + "spacings: 1 2 nan\n\n"),
    (".mha", META.replace("ElementSpacing = 1 1 1\n", "") + "ElementDataFile = LOCAL\n"),
    (".mha", META.replace("ElementSpacing = 1 1 1", "Element Spacing = 2 2 2") + "ElementDataFile = LOCAL\n"),
])  # fmt: skip
def test_a_header_without_sizes_does_not_pretend_to_know_them(tmp_path, ending, text):
    path = image(tmp_path, text, ending, VOXELS)
    assert not read_volume([path]).geometry.spacing_known
    assert not read_header(path).geometry.spacing_known
