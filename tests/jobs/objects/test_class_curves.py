"""The volume of every class over time, from the names of files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from napari_nnunet.cli.main import main
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.images.files import write_labels
from napari_nnunet.jobs.objects.curves import class_curves, series_of
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.choosing import CurvesRequest

LABELS = {"background": 0, "liver": 1, "tumour": 2}


def followed(folder: Path, names: tuple[str, ...], *, ending: str = ".nii.gz", **more: object) -> Path:
    """Segmentations of which the tumour grows by 10 voxels each time, and the voxels get finer."""
    folder.mkdir()
    for i, name in enumerate(names):
        labels = np.zeros((4, 20, 20) if ending == ".nii.gz" else (20, 20), np.uint8)
        labels[..., :5, :] = 1
        labels[..., 10, : 10 * (i + 1) // len(labels) if labels.ndim == 3 else 5 * (i + 1)] = 2
        spacing = (2.0, 1.0, 1.0 / (i + 1)) if labels.ndim == 3 else (1.0, 1.0)
        write_labels(labels, Geometry(spacing=spacing), folder / f"{name}{ending}")
    content = {"channel_names": {"0": "CT"}, "labels": LABELS, "numTraining": 1, "file_ending": ending, **more}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_a_follow_up_becomes_a_table_and_a_picture_from_the_shell(tmp_path: Path, capsys) -> None:
    source = followed(tmp_path / "in", ("anna_2024-01-31", "anna_2024-03-01"))
    assert main(["curves", "-i", str(source), "-o", str(tmp_path / "out")]) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "curves.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["series"], float(row["time (days)"]), row["class"]) for row in rows] == [
        ("anna", 0, "liver"), ("anna", 30, "liver"), ("anna", 0, "tumour"), ("anna", 30, "tumour"),
    ]  # fmt: skip
    assert [float(row["size (mm³)"]) for row in rows] == [800, 400, 16, 20]
    assert [float(row["percent of the first"]) for row in rows] == [100, 50, 100, 125]
    assert "anna, tumour: 16 to 20 mm³ over 2 time points" in capsys.readouterr().out
    assert (tmp_path / "out" / "curves.png").stat().st_size > 5000


def test_time_points_have_the_unit_that_is_told(tmp_path: Path) -> None:
    source = followed(tmp_path / "in", ("a_t0", "a_t1", "a_t3"))
    request = CurvesRequest(source=source, target=tmp_path / "o", interval=0.5, unit="h", workers=1)
    (series,) = drain(class_curves(request))
    assert (series.times, series.unit) == ((0.0, 0.5, 1.5), "h")


def test_pictures_without_a_voxel_size_are_measured_in_voxels_and_that_is_said(tmp_path: Path) -> None:
    source = followed(tmp_path / "in", ("a_1", "a_2"), ending=".png")
    (source / "dataset.json").unlink()
    events: list[object] = []
    (series,) = drain(class_curves(CurvesRequest(source=source, target=tmp_path / "o")), events.append)
    assert series.measured_in == "voxels"
    assert series.sizes == {"label 1": (100.0, 100.0), "label 2": (5.0, 10.0)}
    assert any(isinstance(event, Note) and "in voxels, not in mm" in event.text for event in events)


def test_without_names_only_labels_that_occur_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(2):
        labels = np.zeros((20, 20), np.uint8)
        labels[:4], labels[10 : 12 + i] = 3, 200
        write_labels(labels, Geometry(spacing=(1.0, 1.0)), folder / f"a_{i}.tif")
    (series,) = drain(class_curves(CurvesRequest(source=folder, target=tmp_path / "o")))
    assert series.sizes == {"label 3": (80.0, 80.0), "label 200": (40.0, 60.0)}


def test_many_values_without_names_are_doubted(tmp_path: Path) -> None:
    folder, said = tmp_path / "in", []
    folder.mkdir()
    for i in range(2):
        labels = np.arange(400, dtype=np.uint16).reshape(20, 20) // 10
        write_labels(labels, Geometry(spacing=(1.0, 1.0)), folder / f"a_{i}.tif")
    request = CurvesRequest(source=folder, target=tmp_path / "o")
    drain(class_curves(request), lambda event: said.append(getattr(event, "text", "")))
    assert any("39 values, and no dataset.json names them. If they number objects" in text for text in said)


def test_numbered_objects_are_not_taken_for_classes(tmp_path: Path) -> None:
    scheme = {"kinds": {"cell": [1, 2]}, "width": 1, "unit": 1}
    source = followed(tmp_path / "in", ("a_1", "a_2"), napari_nnunet_objects=scheme)
    with pytest.raises(DatasetError, match="number objects"):
        drain(class_curves(CurvesRequest(source=source, target=tmp_path / "o")))
    told = CurvesRequest(source=source, target=tmp_path / "o", dataset_json=source / "dataset.json")
    assert set(drain(class_curves(told))[0].sizes) == {"liver", "tumour"}


def test_series_and_times_are_told_by_names() -> None:
    assert series_of(["a_t2", "a_t10", "b 1"]) == {"a": {2: "a_t2", 10: "a_t10"}, "b": {1: "b 1"}}
    assert series_of(["frame_001", "frame_002"]).popitem()[1] == {1: "frame_001", 2: "frame_002"}
    with pytest.raises(DatasetError, match="no number at its end"):
        series_of(["nucleus"])
    assert series_of(["pos1t3", "posT3", "POS_TP_4"]) == {
        "POS": {4: "POS_TP_4"},
        "pos": {3: "posT3"},
        "pos1": {3: "pos1t3"},
    }
    with pytest.raises(DatasetError, match="both time 1"):
        series_of(["a_t1", "a_t01"])


def test_names_of_series_are_whole_and_unique():
    """The t of left is no mark of a time: left and right, or plan and plant, lost it, and two of them became one."""
    assert list(series_of(["left_1", "left_2", "right_1", "leaf1", "CD4T_1"])) == ["CD4T", "leaf", "left", "right"]
    assert series_of(["plan_1", "plant_2"]) == {"plan": {1: "plan_1"}, "plant": {2: "plant_2"}}
    assert series_of(["a_f1", "a_t2", "b_t1"]) == {"a_f": {1: "a_f1"}, "a_t": {2: "a_t2"}, "b": {1: "b_t1"}}
    assert series_of(["001", "series_002"]) == {"unnamed": {1: "001"}, "series": {2: "series_002"}}
    dated = series_of(["2024-02-28", "series_2024-02-28", "series_2024-02-29"])
    assert [len(times) for times in dated.values()] == [1, 2]


def test_dates_at_the_ends_of_names_are_days_since_the_first() -> None:
    assert series_of(["a_20240228", "a_20240301", "b-2024.01.01"]) == {
        "a": {0: "a_20240228", 2: "a_20240301"},
        "b": {0: "b-2024.01.01"},
    }
    assert series_of(["a_20241332"]) == {"a": {20241332: "a_20241332"}}  # no month has that number
    with pytest.raises(DatasetError, match="both of the same day"):
        series_of(["a_20240228", "a_2024-02-28"])
