"""A disk that is full: what was whole stays whole, and the user is told."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from napari_nnunet.errors import ResourceError
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.schema.geometry import Geometry

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl", ".tif", ".png", ".bmp")
SMALL, LARGE = 6, 700


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
    shape = (size, size) if ending in (".png", ".bmp") else (1, size, size)
    return np.random.default_rng(0).integers(0, 250, shape).astype(np.uint8)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files, no tmpfs")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio closes its file once more
@pytest.mark.parametrize("ending", ENDINGS)
def test_an_earlier_result_survives_and_the_disk_is_named(full, ending):
    path = full / f"case{ending}"
    first = labels_of(ending, SMALL)
    geometry = Geometry(spacing=(1.0,) * first.ndim)
    write_labels(first, geometry, path)
    with pytest.raises(ResourceError, match="case"):
        write_labels(labels_of(ending, LARGE), geometry, path)
    assert (read_labels(path)[0] == first).all()
    assert [p.name for p in full.iterdir() if p.name.startswith(".")] == []
