"""One bad case never ends a folder: it is named, the rest goes on, and the status says that something is missing."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from choices import VOLUME, boxes, validated, write_objects_folder
from napari_nnunet.cli.main import main
from napari_nnunet.errors import counted
from napari_nnunet.formats.images.files import write_labels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.processes import pool
from napari_nnunet.schema.geometry import Geometry


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(params=["here", "processes"])
def anywhere(request, monkeypatch):
    """Both ways of working on cases: in this process, and in others."""
    if request.param == "processes":
        monkeypatch.setattr(pool, "_WORTH_PROCESSES", -1)


@pytest.mark.usefixtures("anywhere")
def test_measure_writes_the_table_of_the_others(tmp_path, capsys):
    folder = write_objects_folder(tmp_path / "o", a=boxes(1, 2), c=boxes(5))
    (folder / "b.nii.gz").write_bytes(b"no image")
    target = tmp_path / "t.csv"
    assert main(["measure", "-i", str(folder), "-o", str(target)]) == 1
    assert [(row["case"], row["object"]) for row in rows(target)] == [("a", "1"), ("a", "2"), ("c", "5")]
    assert "b FAILED" in capsys.readouterr().err


def test_where_no_case_can_be_measured_nothing_is_written(tmp_path, capsys):
    (tmp_path / "o").mkdir()
    for name in "ab":
        (tmp_path / "o" / f"{name}.nii.gz").write_bytes(b"no image")
    assert main(["measure", "-i", str(tmp_path / "o"), "-o", str(tmp_path / "t.csv")]) == 1
    assert "2 of 2 cases could not be measured" in capsys.readouterr().err
    assert not (tmp_path / "t.csv").exists()


def test_curves_go_through_the_other_time_points_and_say_what_percents_refer_to(tmp_path, capsys):
    (tmp_path / "s").mkdir()
    for time in range(1, 4):
        labels = np.zeros((4, 10, 10), np.uint8)
        labels[:, : 2 * time] = 1
        write_labels(labels, VOLUME, tmp_path / "s" / f"p_t{time}.nii.gz")
    (tmp_path / "s" / "p_t0.nii.gz").write_bytes(b"no image")
    assert main(["curves", "-i", str(tmp_path / "s"), "-o", str(tmp_path / "out")]) == 1
    found = rows(tmp_path / "out" / "curves.csv")
    assert [float(row["percent of the first"]) for row in found] == [100, 200, 300]
    said = capsys.readouterr().err
    assert "p_t0 FAILED" in said
    assert "its first time point, p_t0, could not be measured. Percents refer to p_t1" in said


def test_a_series_that_cannot_be_followed_does_not_end_the_others(tmp_path, capsys):
    pytest.importorskip("laptrack", reason="laptrack is not installed: it comes with napari-nnunet[tracking]")
    (tmp_path / "in").mkdir()
    objects = np.zeros((20, 20), np.uint16)
    objects[2:8, 2:8] = 1
    for name in ("good_t0", "good_t1", "bad_t0"):
        write_labels(objects, Geometry(spacing=(1.0, 1.0)), tmp_path / "in" / f"{name}.tif")
    (tmp_path / "in" / "bad_t1.tif").write_bytes(b"no image")
    assert main(["track", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--distance", "8"]) == 1
    said = capsys.readouterr()
    assert "good: 2 time points, 1 track, 0 divisions" in said.out
    assert "bad FAILED" in said.err
    assert {row["series"] for row in rows(tmp_path / "out" / "tracks.csv")} == {"good"}


def test_a_calibration_takes_the_other_cases(tmp_path, capsys):
    root = validated(tmp_path, "3d_fullres", (0, 1), quality=0.8)
    where = Workspace.at(tmp_path)
    references = sorted(where.preprocessed.glob("*/gt_segmentations/*.nii.gz"))
    references[0].write_bytes(b"no image")
    assert root is not None
    assert main(["calibrate", "1", "-c", "3d_fullres", "--workspace", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "Temperature:" in said.out
    assert "FAILED" in said.err
    assert f"of {counted(len(references) - 1, 'case')}" in said.err


def test_objects_that_are_not_there_are_told_as_that(tmp_path, capsys):
    assert main(["measure", "-i", str(tmp_path / "none"), "-o", str(tmp_path / "t.csv")]) == 1
    assert "none do not exist" in capsys.readouterr().err


def unreadable(folder: Path) -> None:
    """Put a link that leads nowhere into a folder, and a pipe where there are such."""
    (folder / "bad_t0.nii.gz").symlink_to(folder / "gone.nii.gz")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe_t0.nii.gz")


@pytest.mark.parametrize("verb", ["measure", "track", "look"])
def test_links_that_lead_nowhere_and_pipes_are_named(tmp_path, capsys, verb):
    if verb == "track":
        pytest.importorskip("laptrack", reason="laptrack is not installed: it comes with napari-nnunet[tracking]")
    folder = write_objects_folder(tmp_path / "o", good_t0=boxes(1, 2), good_t1=boxes(1, 2))
    unreadable(folder)
    words = {
        "measure": ["measure", "-i", str(folder), "-o", str(tmp_path / "t.csv")],
        "track": ["track", "-i", str(folder), "-o", str(tmp_path / "out"), "--distance", "8"],
        "look": ["look", str(folder)],
    }
    assert main(words[verb]) == 1
    shown = capsys.readouterr()
    said = shown.out + shown.err
    assert f"bad_t0.nii.gz (a link to {folder / 'gone.nii.gz'})" in said
    assert "pipe_t0.nii.gz is a pipe or a device" in said or not hasattr(os, "mkfifo")
    assert "good" in said if verb != "measure" else len(rows(tmp_path / "t.csv")) == 4


def test_folders_of_objects_with_a_link_that_leads_nowhere_are_not_compared(tmp_path, capsys):
    folder = write_objects_folder(tmp_path / "o", a=boxes(1, 2))
    other = write_objects_folder(tmp_path / "p", a=boxes(1, 2))
    (folder / "b.nii.gz").symlink_to(folder / "gone.nii.gz")
    assert main(["evaluate_objects", str(folder), str(other)]) == 1
    assert "b.nii.gz" in capsys.readouterr().err
