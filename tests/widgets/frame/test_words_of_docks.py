"""Numbers, times and names are said as people say them."""

from __future__ import annotations

import errno

import pytest

from napari_nnunet.errors import counted
from napari_nnunet.widgets.frame.forms import distinct
from napari_nnunet.widgets.frame.words import about_time, failure_text, path_in, plain_time


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.3, "Under a second"), (1.2, "About 1 s"), (60, "About 60 s"), (100, "About 2 min"), (7000, "About 1.9 h")],
)
def test_a_time_is_said_in_the_unit_that_fits(seconds, said):
    assert about_time(seconds) == said


def test_one_is_singular_and_no_time_is_about_under_something():
    assert (counted(1, "file"), counted(2, "file"), counted(0, "case")) == ("1 file", "2 files", "0 cases")
    assert plain_time(0.1) == "under a second"


@pytest.mark.parametrize("name", ["a.zip", "two words.nii.gz", "odd, (1); name", "folder"])
@pytest.mark.parametrize(
    "sentence", ["Exported to {}.", "{} is damaged: it ends early.", "See '{}'. Twice: {}", "x\n{}\ny"]
)
def test_a_file_that_a_sentence_names_is_found_in_it(tmp_path, name, sentence):
    (tmp_path / name).touch() if name != "folder" else (tmp_path / name).mkdir()
    assert path_in(sentence.format(tmp_path / name, tmp_path / name)) == tmp_path / name


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "3 / 4 of all and/or none",
        "https://tmp/x",
        "mm/voxel",
        "//",
        "/ is",
        "/not/there.zip is missing.",
        "/" + "x" * 9000,
    ],
)
def test_what_names_no_file_is_none(sentence):
    assert path_in(sentence) is None


def test_equal_names_are_told_apart():
    assert [name for name, _ in distinct([("model", 1), ("other", 2), ("model", 3)])] == ["model", "other", "model (2)"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(errno.ENOENT, "x", "/a/b.nii"), "/a/b.nii is not there any more."),
        (OSError(errno.EIO, "x", "/a/b.nii"), "/a/b.nii could not be read or written: the disk reports an error."),
        (OSError(errno.ENODEV, "x", "/a/b.nii"), "/a/b.nii is on a disk that is gone."),
        (NotADirectoryError(errno.ENOTDIR, "x", "/a/b.nii"), "/a/b.nii lies below a file where a folder was."),
        (OSError(errno.EBUSY, "Busy", "/a/b.nii"), "Busy: /a/b.nii."),
        (MemoryError(), "Not enough main memory."),
    ],
)
def test_what_a_system_says_is_a_sentence_in_a_dock_as_in_a_shell(error, said):
    assert failure_text(error).startswith(said)
