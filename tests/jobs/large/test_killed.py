"""A large prediction is killed at random instants and continued each time: nobody can tell from its result."""

import json
import os
import random
import shutil
import subprocess
import time
from contextlib import suppress

import pytest

from formats_large import command_words, ome_zarr
from helpers import smooth_image
from napari_nnunet import predict_image
from napari_nnunet.events import Painted
from napari_nnunet.formats.large.journal import NAME

pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
pytest.importorskip("yaozarrs", reason="yaozarrs is not installed: it comes with napari-nnunet[large]")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("known_arithmetic", "small_blocks")]
KILLS = int(os.environ.get("NAPARI_NNUNET_TEST_KILLS", "3"))
HOW = {"device": "cpu", "backend": "torch", "precision": "float32", "mirroring": False, "chunk": (8, 16, 16)}


class _StopError(Exception):
    pass


def stop(event):
    if isinstance(event, Painted):
        raise _StopError


def start(model, image, target):
    return subprocess.Popen([*command_words(model, image, target), "--no_pbar"], stdout=subprocess.DEVNULL)


def finished(unfinished):
    """Return the blocks that are noted, in order, and when the chunks of the finest level were written."""
    lines = (unfinished / NAME).read_text(encoding="utf-8").splitlines(keepends=True)
    noted = [json.loads(line) for line in lines if line.endswith("\n")]
    blocks = [tuple(line["block"]["at"]) for line in noted if "block" in line]
    return blocks, {chunk: chunk.stat().st_mtime_ns for chunk in chunks_of(unfinished, blocks)}


def chunks_of(unfinished, blocks):
    """Give the files of finished blocks, which are as large as chunks here; an empty one has none."""
    for _, *place in blocks:
        chunk = unfinished.joinpath("0", "c", *map(str, place))
        if chunk.exists():
            yield chunk


def wait_for_blocks(job, unfinished, count):
    with suppress(OSError):  # it is renamed at its end
        while job.poll() is None and (unfinished / NAME).read_text(encoding="utf-8").count('"block"') < count:
            time.sleep(0.01)


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_kills_at_random_instants_leave_the_bytes_of_an_undisturbed_run(tmp_path, model):
    image = ome_zarr(tmp_path / "image.zarr", [smooth_image((32, 64, 64))[0]], unit="millimeter")
    for name in ("begun", "whole", "killed"):
        (tmp_path / name).mkdir()
    begun = tmp_path / "begun" / "result.zarr"
    with pytest.raises(_StopError):  # the small blocks of this process are noted, and kept by those that continue
        predict_image(model, image, begun, on_event=stop, **HOW)

    def begin(place):
        shutil.copytree(f"{begun}.unfinished", tmp_path / place / "result.zarr.unfinished")
        return tmp_path / place / "result.zarr"

    whole, target = begin("whole"), begin("killed")
    began = time.monotonic()
    assert start(model, image, whole).wait() == 0
    lasts, expected, chance, kills = time.monotonic() - began, files_of(whole), random.Random(0), 0
    left, known, most = target.with_name("result.zarr.unfinished"), {}, 0
    chunks = len([name for name in expected if name.startswith("0/c/")])
    while kills < KILLS or not target.exists():
        if target.exists():  # it came to its end; the next kills are of another run
            assert files_of(target) == expected
            shutil.rmtree(target)
            begin("killed")
            known = {}
        job, there = start(model, image, target), len(finished(left)[0])
        try:
            if kills < KILLS and kills % 3 != 1:  # however long it takes to begin, blocks are being written
                wait_for_blocks(job, left, chance.randint(there + 1, max(there + 1, chunks - 2)))
            assert job.wait(chance.uniform(0, 0.3) * lasts if kills < KILLS else None) == 0
        except subprocess.TimeoutExpired:
            kills += 1
        finally:
            job.kill()
            job.wait()
        if left.exists():
            blocks, written = finished(left)
            assert len(set(blocks)) == len(blocks), "a finished block was computed again"
            assert known.items() <= written.items(), "a finished block was written again"
            known, most = written, max(most, len(blocks))
    assert most > 1, "no kill fell into the blocks"
    assert files_of(target) == expected
    assert chunks > 20
