"""What headers say before voxels are read: files for all planes, pipes, channels, units, and what nnU-Net's readers know."""

from __future__ import annotations

import os

import numpy as np
import pytest

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.files import read_header, read_volume
from napari_nnunet.formats.images.header import (
    KEPT,
    as_named,
    check_labels,
    no_pipe,
    one_line,
    opened_once,
    require_channels,
    require_file,
)
from napari_nnunet.formats.images.text.headers import TextFacts, check_text
from napari_nnunet.schema.geometry import Geometry

META = "ObjectType = Image\nNDims = 3\nDimSize = 5 4 3\nElementType = MET_SHORT\nElementSpacing = 1 1 1\n"
NRRD = "NRRD0004\ntype: int16\nendian: little\ndimension: 3\nsizes: 5 4 3\nencoding: raw\n"


@pytest.fixture
def planes(tmp_path):
    """Return a folder with a file for every plane, each full of its number, and all of them in one."""
    for number in (1, 2, 3):
        np.full((4, 5), number, "<i2").tofile(tmp_path / f"a{number:03}.raw")
    np.repeat(np.arange(1, 4, dtype="<i2"), 20).tofile(tmp_path / "list.raw")
    return tmp_path


def written(folder, text, ending=".mhd"):
    path = folder / f"x{ending}"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "where", ["a%03d.raw", "a%03d.raw 1", "a%03d.raw 1 3 1", "a%03d.raw 1 9 1", "LIST\na001.raw\na002.raw\na003.raw\n\n",
              "LIST 2\na001.raw\na002.raw\na003.raw", "LIST 2D\na001.raw\na002.raw\na003.raw", "list.raw"],
)  # fmt: skip
def test_a_file_for_every_plane_is_an_image(planes, where):
    path = written(planes, f"{META}ElementDataFile = {where}\n")
    assert read_volume([path]).array[0, :, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("a%03d.raw 1 2 1", "takes its 3 planes from 2 files, one for each"),
        ("a%03d.raw 1 3 2", "from 2 files"),
        ("LIST\na001.raw\n\na002.raw\n", "from 2 files"),
        ("LIST\n", "from 0 files"),
        ("a%03d.raw 1 3 0", "from 1 to 3 in steps of 0"),
        ("a%03d.raw 1 3", "from 1 to 3 in steps of 0"),
        ("a%03d.raw 3 1", "from 3 to 1 in steps of -1"),
        ("a%03d.raw 3 1 -1", "from 3 to 1 in steps of -1"),
        ("LIST 0\na001.raw\na002.raw\na003.raw\n", "begins with the line 'ElementDataFile = LIST'"),
        ("LIST 1\na001.raw\na002.raw\na003.raw\n", "begins with the line"),
        ("LIST 3\na001.raw\na002.raw\na003.raw\n", "begins with the line"),
        ("LIST 3D\na001.raw\na002.raw\na003.raw\n", "begins with the line"),
        ("LIST D\na001.raw\na002.raw\na003.raw\n", "begins with the line"),
        ("LISTING.raw", "begins with the line"),
        ("a%03d.raw 1 3 --1", "not a pattern of file names"),
        (f"a%03d.raw 1 {'9' * 30} 0", "not a pattern of file names"),
        ("a%03d.raw 1 ٣ 1", "not a pattern of file names"),
    ],
)
def test_planes_without_a_file_are_not_filled_with_what_memory_holds(planes, where, why):
    """ITK takes whatever lies in memory for them, and ends the process where it divides by a step of 0."""
    path = written(planes, f"{META}ElementDataFile = {where}\n")
    for look in (read_header, lambda path: read_volume([path])):
        with pytest.raises(ImageError, match=why):
            look(path)


def test_planes_of_a_nrrd_may_be_counted_backwards(planes):
    path = written(planes, f"{NRRD}data file: a%03d.raw 3 1 -1\n\n", ".nrrd")
    assert read_volume([path]).array[0, :, 0, 0].tolist() == [3, 2, 1]
    with pytest.raises(ImageError, match="not a pattern of file names"):
        check_text(written(planes, f"{NRRD}data file: a%03d.raw 3 1 --1\n\n", ".nrrd"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii")
    for look in (no_pipe, lambda path: require_file(path, "image file"), lambda path: require_channels([path])):
        with pytest.raises(ImageError, match=r"pipe.nii is a pipe or a device; an image file is expected"):
            look(tmp_path / "pipe.nii")


def test_what_is_there_instead_of_a_file_is_said(tmp_path):
    no_pipe(tmp_path)
    no_pipe(tmp_path / "gone.nii")
    with pytest.raises(ImageError, match="is a folder; the label file is expected"):
        check_labels(tmp_path)
    with pytest.raises(ImageError, match=r"The label file .*gone.nii does not exist"):
        check_labels(tmp_path / "gone.nii")
    with pytest.raises(ImageError, match=r"^Missing channel files: .*b_0000.nii, .*b_0001.nii\.$"):
        require_channels([tmp_path / "b_0000.nii", tmp_path / "b_0001.nii"])
    with pytest.raises(ImageError, match=r"^Missing channel file: "):
        require_channels([tmp_path / "b_0000.nii"])
    with pytest.raises(ImageError, match="is a folder; the channel file is expected"):
        require_channels([tmp_path, tmp_path / "b_0001.nii"])


@pytest.mark.parametrize("name", ["a.jpg", "A.JPEG"])
def test_labels_are_no_jpeg_however_it_is_spelled(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ImageError, match=f"{name} is a JPEG, which changes the values of labels"):
        check_labels(tmp_path / name)


def test_pictures_know_no_size_of_a_pixel_under_nnunets_reader_of_pictures():
    known = Geometry(spacing=(0.5, 0.25), remarks=("odd",))
    assert as_named(known, "SimpleITKIO") == as_named(known, None) == known
    assert as_named(known, "NaturalImage2DIO") == Geometry(spacing=(1.0, 1.0), spacing_known=False, remarks=("odd",))


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ("", TextFacts()),
        ("DistanceUnits = mm\n", TextFacts()),
        ('DistanceUnits = "um"\n', "counts lengths in um; the numbers were read as mm"),
        ("ElementToIntensityFunctionSlope = 1.0\nElementToIntensityFunctionOffset = 0\n", TextFacts()),
        ("ElementToIntensityFunctionSlope = 2\n", "scales the values, which ITK ignores"),
        ("ElementToIntensityFunctionOffset = x\n", "scales the values"),
    ],
)
def test_what_itk_passes_over_in_a_metaimage_is_told(tmp_path, line, facts):
    found = check_text(written(tmp_path, f"{META}{line}ElementDataFile = LOCAL\n", ".mha"))
    assert (
        found[:2] == facts[:2]
        if isinstance(facts, TextFacts)
        else (len(found.remarks) == 1 and facts in found.remarks[0])
    )


def test_sizes_are_known_only_where_the_header_has_numbers(tmp_path):
    sized = NRRD + "spacings: 1 1 2\n\n"
    assert check_text(written(tmp_path, sized, ".nrrd")).spacing_known
    assert not check_text(written(tmp_path, sized.replace("1 1 2", "nan nan NaN"), ".nrrd")).spacing_known
    assert not check_text(written(tmp_path, NRRD + "\n", ".nrrd")).spacing_known
    units = check_text(written(tmp_path, NRRD + 'space units: "mm" "mm" "cm"\n\n', ".nrrd"))
    assert "counts lengths in cm and mm" in units.remarks[0]


def test_what_stays_open_while_a_function_looks_is_closed_after_it_even_if_it_fails(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x")
    seen = []

    @opened_once
    def looking(fail):
        kept = KEPT.get()
        kept[path] = (path.open("rb"), "what is known")
        seen.append(kept[path][0])
        if fail:
            raise ValueError("x")

    looking(False)
    with pytest.raises(ValueError, match="x"):
        looking(True)
    assert [file.closed for file in seen] == [True, True]
    assert KEPT.get() is None


@pytest.mark.parametrize(
    ("said", "line"),
    [("a\nb.\n\n", "b."), ("  what happened  ", "what happened."), ("\n", "ValueError."), ("really..", "really.")],
)
def test_an_error_of_a_library_is_told_by_its_last_line(said, line):
    assert one_line(ValueError(said)) == line
