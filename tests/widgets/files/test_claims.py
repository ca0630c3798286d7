"""The reader says at once that something is not its own, however much it is, and claims what is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile

import pytest

from helpers import make_model
from napari_nnunet.formats.model.bundle import is_model_zip
from napari_nnunet.widgets.files.reader import get_reader

MOMENT = 15  # times what a computer takes to sort 20,000 words, whichever it is and whatever else it does


def quickest(function):
    """The least of several times: this computer may be doing something else."""
    times = []
    for _ in range(15):
        begun = time.perf_counter()
        assert function() is None
        times.append(time.perf_counter() - begun)
    return min(times)


@pytest.fixture
def strange(tmp_path):
    (tmp_path / "many").mkdir()
    for i in range(8000):
        (tmp_path / "many" / f"{i}.txt").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "image.zarr").mkdir()
    (tmp_path / "note.json").write_text(json.dumps({"a": 1}))
    (tmp_path / "array.npy").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        for i in range(20000):
            archive.writestr(f"folder/{i}.txt", "")
    return tmp_path


@pytest.mark.parametrize("name", ["many", "empty", "image.zarr", "note.json", "array.npy", "other.zip", "missing", ""])
def test_what_is_not_ours_is_left_to_others_at_once(strange, name):
    yardstick = quickest(lambda: sorted(str(i) for i in range(20_000)) and None)
    assert quickest(lambda: get_reader(str(strange / name))) < MOMENT * yardstick


def test_nothing_is_nothing():
    assert get_reader([]) is None


def test_a_model_in_a_zip_with_much_else_is_found(tmp_path):
    model = make_model(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for i in range(3000):
            archive.writestr(f"other/{i}.txt", "x")
        for path in model.folder.rglob("*"):
            archive.write(path, path.relative_to(tmp_path))
    assert is_model_zip(tmp_path / "a.zip")
    assert get_reader(str(tmp_path / "a.zip")) is not None


def test_a_zip_behind_other_bytes_or_with_a_comment_is_understood(tmp_path):
    model = make_model(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.comment = b"by hand" * 100
        for path in model.folder.rglob("*"):
            archive.write(path, path.relative_to(tmp_path))
    (tmp_path / "b.zip").write_bytes(b"#!/bin/sh\n" + (tmp_path / "a.zip").read_bytes())
    assert is_model_zip(tmp_path / "a.zip")
    assert is_model_zip(tmp_path / "b.zip")


def test_folders_that_hold_models_are_claimed(tmp_path):
    model = make_model(tmp_path)
    assert get_reader(str(model.folder)) is not None
    assert get_reader(str(model.folder.parent)) is not None
    assert get_reader(str(tmp_path)) is None


def test_a_folder_that_is_strange_loads_no_library_of_images(strange):
    code = (
        "import sys\nfrom napari_nnunet.widgets.files.reader import get_reader\nbefore = set(sys.modules)\n"
        f"assert get_reader({str(strange / 'many')!r}) is None\n"
        f"assert get_reader({str(strange / 'other.zip')!r}) is None\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before} & {'SimpleITK', 'scipy', 'torch'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
