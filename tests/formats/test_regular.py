"""What is opened for reading is a file, whatever leads to it; a pipe or a device is never waited for."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from napari_nnunet.formats.regular import regular

links = pytest.mark.skipif(os.name == "nt", reason="links need a right of their own on Windows")


def test_a_file_is_given_back_as_it_was_named(tmp_path, monkeypatch):
    (tmp_path / "a").touch()
    monkeypatch.chdir(tmp_path)
    assert regular(Path("a")) == Path("a")


@links
def test_links_are_followed_to_what_they_lead_to(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "to_file").symlink_to("file")
    (tmp_path / "to_folder").symlink_to(tmp_path)
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "round").symlink_to("round")
    assert regular(tmp_path / "to_file") == tmp_path / "to_file"
    with pytest.raises(IsADirectoryError):
        regular(tmp_path / "to_folder")
    with pytest.raises(FileNotFoundError):
        regular(tmp_path / "nowhere")
    with pytest.raises(OSError, match="round"):
        regular(tmp_path / "round")


def test_a_folder_and_nothing_are_errors_that_name_the_path(tmp_path):
    with pytest.raises(IsADirectoryError) as caught:
        regular(tmp_path)
    assert (caught.value.errno, caught.value.filename) == (errno.EISDIR, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="gone"):
        regular(tmp_path / "gone")
    with pytest.raises(ValueError, match="null"):
        regular(tmp_path / "a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_and_a_device_are_refused_without_a_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(OSError, match="it is a pipe or a device; a file is expected") as caught:
            regular(path)
        assert caught.value.filename == str(path)
