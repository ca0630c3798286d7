"""Objects of series of files keep their numbers."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from napari_nnunet.cli.main import main
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.objects import read_objects
from napari_nnunet.formats.images.files import write_labels
from napari_nnunet.jobs.objects.track import renumbered, track_objects
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.choosing import TrackRequest

pytest.importorskip("laptrack")
PLANE = Geometry(spacing=(1.0, 1.0))


def dividing(folder: Path) -> Path:
    """Two squares that move, of which one divides in the last of three pictures; numbers are those of finding."""
    folder.mkdir()
    for time in range(3):
        objects = np.zeros((40, 60), np.uint16)
        objects[30:36, 4 + time : 10 + time] = 2 - time % 2
        if time < 2:
            objects[6:14, 30 + time : 38 + time] = 1 + time % 2
        else:
            objects[2:8, 32:40], objects[12:18, 32:40] = 3, 4
        write_labels(objects, PLANE, folder / f"pos_t{time:03d}.tif")
    return folder


def test_a_series_gets_tracks_a_table_and_a_picture_from_the_shell(tmp_path: Path, capsys) -> None:
    assert main(["track", "-i", str(dividing(tmp_path / "in")), "-o", str(tmp_path / "out"), "--distance", "8"]) == 0
    assert "pos: 3 time points, 4 tracks, 1 divisions" in capsys.readouterr().out
    first, second, third = (read_objects(tmp_path / "out" / f"pos_t00{t}.tif")[0] for t in range(3))
    assert first[32, 6] == second[32, 7] == third[32, 8] == 2
    assert first[10, 33] == second[10, 33] == 1
    assert {int(third[5, 35]), int(third[15, 35])} == {3, 4}
    rows = list(csv.DictReader((tmp_path / "out" / "tracks.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 7
    assert [(r["object"], r["parent"], r["time"]) for r in rows if r["parent"]] == [("3", "1", "2"), ("4", "1", "2")]
    assert float(rows[0]["area"]) == 64.0
    assert (tmp_path / "out" / "tracks.png").stat().st_size > 5000


def test_without_divisions_one_of_the_two_keeps_the_number(tmp_path: Path) -> None:
    request = TrackRequest(objects=dividing(tmp_path / "in"), target=tmp_path / "out", divisions=False, distance=8)
    (series,) = drain(track_objects(request))
    assert (series.tracks, series.divisions) == (3, 0)


def test_numbers_are_exchanged_all_at_once() -> None:
    objects = np.array([[0, 1, 2, 70000]])
    assert renumbered(objects, {1: 2, 2: 1, 70000: 3}).tolist() == [[0, 2, 1, 3]]
    assert not renumbered(np.zeros((2, 2), int), {}).any()
