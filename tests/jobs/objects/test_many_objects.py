"""A picture of 200,000 objects is imported, drawn, decoded and measured in bounded time and memory."""

from __future__ import annotations

import csv
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from napari_nnunet.engine.objects.decode import Rule, decode
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.objects import read_objects
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.objects.import_objects import import_objects
from napari_nnunet.jobs.objects.measure import measure_objects
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.choosing import MeasureObjectsRequest
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest

resource = pytest.importorskip("resource", reason="what a process took is asked of Linux and macOS only")
pytestmark = pytest.mark.slow
SIDE, PITCH = 450, 10  # objects and pixels: 202,500 objects of 72 pixels
#: Processor seconds, those of workers that have ended included; 5, 3 and 60 were measured.
MOST_SECONDS = {"import": 90, "decode": 20, "measure": 240}
MOST_BYTES = 2.5e9  # of a process; 1.4 GB were measured


def spent() -> float:
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return float(own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime)


def all_steps(root: Path) -> tuple[dict[str, float], int, dict[str, int]]:
    """Do everything; return processor seconds of each step, the most memory of a process, and what was found."""
    y, x = np.indices((SIDE * PITCH,) * 2, dtype=np.int32)
    objects = (y // PITCH * SIDE + x // PITCH + 1) * ((y % PITCH < 8) & (x % PITCH < 9))
    for part in ("images", "masks"):
        (root / part).mkdir()
    grey = np.random.default_rng(0).integers(0, 50, objects.shape) + 100 * (objects > 0)
    write_labels(grey.astype(np.uint8), Geometry(spacing=(1.0, 1.0)), root / "images" / "a.tif")
    write_labels(objects, Geometry(spacing=(1.0, 1.0)), root / "masks" / "a.tif")
    seconds, found, began = {}, {}, spent()
    request = ImportFoldersRequest(images=root / "images", masks=root / "masks", name="Many", objects="cell")
    folder = drain(import_objects(Workspace.at(root / "ws"), request))
    found["import"] = len(np.unique(read_objects(folder / "objectsTr" / "a.tif")[0])) - 1
    labels = read_labels(folder / "labelsTr" / "a.tif")[0]
    seconds["import"], began = spent() - began, spent()
    core, inside = (labels == 1).astype(np.float32), (labels > 0).astype(np.float32)
    found["decode"] = int(decode(core, inside, Rule(1.0, neck=0.2, sure=0.5)).max())
    seconds["decode"], began = spent() - began, spent()
    table = root / "table.csv"
    drain(measure_objects(MeasureObjectsRequest(objects=folder / "objectsTr", target=table)))
    with table.open(encoding="utf-8") as file:
        found["measure"] = sum(1 for _ in csv.DictReader(file))
    seconds["measure"] = spent() - began
    unit = 1 if sys.platform == "darwin" else 1024
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return seconds, most * unit, found


def test_two_hundred_thousand_objects_take_bounded_time_and_memory(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        seconds, memory, found = process.submit(all_steps, tmp_path).result()
    assert found == dict.fromkeys(found, SIDE**2)
    assert {step: spent for step, spent in seconds.items() if spent > MOST_SECONDS[step]} == {}
    assert memory < MOST_BYTES
