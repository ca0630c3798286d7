"""A pipe in the place of a file is never opened: whoever opens one waits until somebody writes, perhaps for ever.

The quick part puts one in the place of what libraries open themselves; the whole attack in the place of any file of a
world, while a job runs.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
import stat
import threading
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import side_files
from hostile import read_image
from runs import start
from tally import SEED, TRIES, numbers
from works import WORKS

from formats_large import ome_zarr
from napari_nnunet.errors import DatasetError, NnunetError, ResourceError
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase
from napari_nnunet.formats.dicom.series import is_dicom_image
from napari_nnunet.formats.images.files import adapter_for
from napari_nnunet.formats.large.opening import open_image
from napari_nnunet.formats.model.bundle import is_model_zip
from napari_nnunet.formats.model.checkpoint import read_raw
from napari_nnunet.formats.preprocessed.cases import damage_of, open_case, read_next_stage, read_stored_labels
from napari_nnunet.formats.results.probabilities import ProbabilityReader, is_complete
from napari_nnunet.jobs.planning.freshness import content_of

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
_IMAGE = np.arange(4 * 8 * 8, dtype=np.uint16).reshape(4, 8, 8)


@contextmanager
def pipe(path):
    """Put a pipe in the place of a file; gives a list, in which stands whether somebody opened it."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    opened, done = [], threading.Event()
    watcher = threading.Thread(target=_watch, args=(path, opened, done))
    watcher.start()
    try:
        yield opened
    finally:
        done.set()
        watcher.join()


def _watch(path, opened, done):
    """Open a pipe as soon as somebody waits for that, and end their wait."""
    while not done.wait(0.002):
        try:
            file = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody waits, or it is a pipe no more
            continue
        if stat.S_ISFIFO(os.fstat(file).st_mode):
            opened.append(path.name)
        os.close(file)


def _never_opened(path, act):
    with pipe(path) as opened, suppress(NnunetError, OSError, ValueError):
        act()
    assert not opened


@pytest.mark.parametrize(("version", "place"), [
    ("0.4", ".zattrs"), ("0.4", ".zgroup"), ("0.4", "0/.zarray"), ("0.4", "0/0.0.0"), ("0.5", "zarr.json"),
    ("0.5", "0/zarr.json"), ("0.5", "0/c/0/0/0"),
])  # fmt: skip
@pytest.mark.parametrize("named", [str, lambda path: path.as_uri()], ids=["a folder", "an address"])
def test_zarr_opens_no_pipe(tmp_path, version, place, named):
    path = ome_zarr(tmp_path / "a.zarr", [_IMAGE], scales=[[1, 1, 1]], version=version)
    assert (path / place).is_file()
    _never_opened(path / place, lambda: open_image([named(path)]).read([(0, 4), (0, 8), (0, 8)]))


@pytest.mark.parametrize(("version", "chunk"), [("0.4", "0/0.0.0"), ("0.5", "0/c/0/0/0")])
def test_a_folder_in_the_place_of_a_chunk_is_not_background(tmp_path, version, chunk):
    path = ome_zarr(tmp_path / "a.zarr", [_IMAGE], scales=[[1, 1, 1]], version=version)
    (path / chunk).unlink()
    (path / chunk).mkdir()
    image = open_image([path])
    with pytest.raises(NnunetError, match=f"cannot be read.*{chunk}"):
        image.read([(0, 4), (0, 8), (0, 8)])


def test_a_chunk_that_is_larger_than_memory_is_not_read(tmp_path):
    path = ome_zarr(tmp_path / "a.zarr", [_IMAGE], scales=[[1, 1, 1]], version="0.5")
    os.truncate(path / "0/c/0/0/0", 1 << 43)
    with pytest.raises(ResourceError, match="GB of memory are free"):
        open_image([path]).read([(0, 4), (0, 8), (0, 8)])


@pytest.mark.parametrize(
    "ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl", ".png", ".tif", ".bmp", ".dcm"]
)
def test_no_reader_of_images_opens_a_pipe(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    for act in (read_image, adapter_for, lambda path: open_image([path]), is_dicom_image):
        _never_opened(path, functools.partial(act, path))


@pytest.mark.parametrize(("name", "text", "data"), [
    ("a.mhd", "ElementDataFile = a.raw\n", "a.raw"), ("a.mhd", "ElementDataFile = LIST\na.raw\nb.raw\n", "a.raw"),
    ("a.mhd", "ElementDataFile = %03d.raw 1 2 1\n", "001.raw"), ("a.nhdr.nrrd", "data file: a.raw\n\n", "a.raw"),
])  # fmt: skip
def test_a_header_leads_to_no_pipe(tmp_path, name, text, data):
    meta = "ObjectType = Image\nNDims = 2\nDimSize = 2 2\nElementType = MET_UCHAR\n"
    nrrd = "NRRD0004\ntype: uchar\ndimension: 2\nsizes: 2 2\nencoding: raw\n"
    (tmp_path / name).write_text((meta if name.endswith(".mhd") else nrrd) + text, encoding="utf-8")
    _never_opened(tmp_path / data, lambda: read_image(tmp_path / name))


@pytest.mark.parametrize("name", ["c.b2nd", "c_seg.b2nd", "c.pkl", "c.npz", "c.npy", "c_seg.npy"])
def test_no_part_of_a_preprocessed_case_is_a_pipe(tmp_path, name):
    for other in ("c.b2nd", "c_seg.b2nd", "c.pkl") if name.endswith(("b2nd", "pkl")) else ("c.pkl",):
        (tmp_path / other).write_bytes(b"x")
    reads = (damage_of, open_case, read_next_stage, lambda folder, case: read_stored_labels(folder / name))
    for act in reads:
        _never_opened(tmp_path / name, functools.partial(act, tmp_path, "c"))


@pytest.mark.parametrize("act", [ProbabilityReader, is_complete, is_model_zip, read_raw, lambda path: content_of(
    TrainingCase("c", (path,), path))], ids=["probabilities", "is_complete", "is_model_zip", "read_raw", "content_of"])  # fmt: skip
def test_no_other_file_of_ours_is_a_pipe(tmp_path, act):
    _never_opened(tmp_path / "a", lambda: act(tmp_path / "a"))


def test_a_case_with_a_pipe_is_named(tmp_path):
    with pipe(tmp_path / "a.png") as opened, pytest.raises(DatasetError, match=r"a\.png cannot be read: it is a pipe"):
        content_of(TrainingCase("c", (tmp_path / "a.png",), tmp_path / "a.png"))
    assert not opened


@pytest.mark.parametrize("name", ["description.json", "fold_0.onnx", "image.npy", "image.nii.gz"])
def test_a_carried_model_opens_no_pipe(tmp_path, name):
    folder, program = side_files.carried()
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    network = sorted(copy.glob("*.onnx"))[0]
    if name.startswith("image"):
        _never_opened(copy / name, lambda: program._read(copy / name))
    else:
        _never_opened(copy / name.replace("fold_0.onnx", network.name), lambda: program.Carried(copy, threads=1))


@pytest.mark.skipif(not TRIES, reason="in the whole attack only")
def test_jobs_open_no_pipe_wherever_it_lies(tmp_path, world, figures):
    chance, root = random.Random(f"{SEED} pipes"), tmp_path / "root"
    files = [path.relative_to(world) for path in sorted(world.rglob("*")) if path.is_file()]
    for number in numbers("pipes", 1, TRIES, 0):
        name, file = chance.choice(sorted(WORKS)), chance.choice(files)
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(world, root)
        with pipe(root / file) as opened:
            run = start(WORKS[name].line(root), tmp_path / "said")
            run.wait()
            run.kill()
        what = "refused" if run.status else "harmless"
        what = "hang" if opened or run.status is None else "traceback" if run.fault else what
        figures.note("pipes", what, f"{name}, number {number}, {file}: {run.fault}")
    figures.require_none()
