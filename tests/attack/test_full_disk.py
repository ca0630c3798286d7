"""A disk that is full: what was whole stays whole, and the user is told."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from napari_nnunet.cli import main
from napari_nnunet.errors import ResourceError
from napari_nnunet.formats.images.files import ADAPTERS, read_labels, read_volume, write_image, write_labels
from napari_nnunet.schema.geometry import Geometry

PICTURES = (".png", ".bmp")
ENDINGS = sorted({ending for adapter in ADAPTERS.values() for ending in adapter.endings} - {".jpg", ".jpeg"})
SMALL, LARGE = 6, 700
FREE = 40_000  # bytes that are left


@pytest.fixture
def full(tmp_path):
    """A real disk of 160 kB where tests run as root, a limit on the size of files elsewhere."""
    mounted = os.geteuid() == 0 and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    ).returncode  # fmt: skip
    if mounted:
        yield tmp_path
        subprocess.run(["umount", str(tmp_path)], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (160_000, before[1]))
    yield tmp_path
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def labels_of(ending, size):
    shape = (size, size) if ending in PICTURES else (1, size, size)
    return np.random.default_rng(0).integers(0, 250, shape).astype(np.uint8)


def fill(folder):
    """Leave only so many bytes of the disk, where it is one of its own."""
    there = os.statvfs(folder)
    free = there.f_bavail * there.f_frsize
    if free < 200_000:
        (folder / "filled").write_bytes(bytes(max(0, free - FREE)))


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files, no tmpfs")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio closes its file once more
@pytest.mark.parametrize("what", ["labels", "image", "plane"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_an_earlier_result_survives_and_the_disk_is_named(full, ending, what):
    if what == "plane" and ending not in (".tif", ".tiff", ".nii.gz", ".nrrd", ".mha"):
        pytest.skip("this format holds either planes or volumes")
    path = full / f"case{ending}"
    write = write_image if what == "image" else write_labels
    first, large = (labels_of(ending, size)[0 if what == "plane" else ...] for size in (SMALL, LARGE))
    geometry = Geometry(spacing=(1.0,) * first.ndim)
    write(first, geometry, path)
    fill(full)
    with pytest.raises(ResourceError, match="case"):
        write(large, geometry, path)
    found = read_volume([path]).array[0] if what == "image" else read_labels(path)[0]
    assert (found.reshape(first.shape) == first).all()
    assert [p.name for p in full.iterdir() if p.name.startswith(".")] == []


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files, no tmpfs")
def test_a_command_ends_with_status_1_and_names_the_disk(full, capsys):
    reference = full / "reference"
    reference.mkdir()
    write_labels(labels_of(".nii.gz", 40), Geometry(spacing=(1.0,) * 3), reference / "a.nii.gz")
    (full / "summary.json").write_text("whole")
    fill(full)
    words = ["evaluate_simple", str(reference), str(reference), "-l", *map(str, range(1, 250)), "-np", "0"]
    assert main([*words, "-o", str(full / "summary.json")]) == 1
    said = capsys.readouterr().err
    assert "No space left while writing" in said and "summary.json" in said
    assert (full / "summary.json").read_text(encoding="utf-8") == "whole"
