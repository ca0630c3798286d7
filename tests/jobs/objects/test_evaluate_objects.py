"""Folders of numbered objects are compared, and measured."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from napari_nnunet.errors import DatasetError, ImageError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.images.files import write_image, write_labels
from napari_nnunet.jobs.objects.evaluate import evaluate_objects
from napari_nnunet.jobs.objects.measure import measure_objects
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.choosing import EvaluateObjectsRequest, MeasureObjectsRequest

VOLUME = Geometry(spacing=(2.0, 0.5, 0.5))


def boxes(*numbers: int) -> np.ndarray:
    """Boxes of 3 x 4 x 4 in a row, with these numbers (0: none)."""
    objects = np.zeros((5, 8, 6 * len(numbers)), dtype=np.uint16)
    for i, number in enumerate(numbers):
        objects[1:4, 2:6, 6 * i + 1 : 6 * i + 5] = number
    return objects


def write(folder: Path, **cases: np.ndarray) -> Path:
    """Write objects as NIfTI."""
    folder.mkdir()
    for name, objects in cases.items():
        write_labels(objects, VOLUME, folder / f"{name}.nii.gz")
    return folder


def test_figures_of_every_case_and_of_all_together(tmp_path: Path) -> None:
    reference = write(tmp_path / "r", a=boxes(1, 2, 3), b=boxes(4, 0, 0))
    prediction = write(tmp_path / "p", a=boxes(7, 9, 0), b=boxes(1, 2, 0))
    request = EvaluateObjectsRequest(reference=reference, prediction=prediction, csv=tmp_path / "table.csv")
    drain(evaluate_objects(request))
    content = json.loads((prediction / "objects.json").read_text())
    assert content["all"]["AP@0.5"] == pytest.approx(3 / 5)
    assert content["all"]["F1@0.5"] == pytest.approx(6 / 8)
    assert content["cases"]["b"]["AP"] == pytest.approx(0.5)
    counted = ("references", "predictions", "found", "invented", "missed", "split", "merged")
    assert [content["all"][name] for name in counted] == [4, 4, 3, 1, 1, 0, 0]
    with (tmp_path / "table.csv").open() as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["b", "a"]


def test_a_prediction_stored_mirrored_is_turned_and_one_elsewhere_is_refused(tmp_path: Path) -> None:
    reference = write(tmp_path / "r", a=boxes(1, 2, 0))
    turned = Geometry(spacing=VOLUME.spacing, origin=(17 * 0.5, 0.0, 0.0), direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1))
    (tmp_path / "t").mkdir()
    write_labels(boxes(1, 2, 0)[..., ::-1], turned, tmp_path / "t" / "a.nii.gz")
    request = EvaluateObjectsRequest(reference=reference, prediction=tmp_path / "t")
    assert drain(evaluate_objects(request)).all.precision(0.95) == 1.0
    (tmp_path / "s").mkdir()
    write_labels(
        boxes(1, 2, 0),
        Geometry(spacing=VOLUME.spacing, origin=(50.0, 0.0, 0.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)),
        tmp_path / "s" / "a.nii.gz",
    )
    with pytest.raises((DatasetError, ImageError), match="a: the reference"):
        drain(evaluate_objects(EvaluateObjectsRequest(reference=reference, prediction=tmp_path / "s")))


def test_pictures_without_objects_have_no_figures_instead_of_wrong_ones(tmp_path: Path) -> None:
    reference, prediction = write(tmp_path / "r", a=boxes(0, 0)), write(tmp_path / "p", a=boxes(0, 0))
    drain(evaluate_objects(EvaluateObjectsRequest(reference=reference, prediction=prediction)))
    text = (prediction / "objects.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["all"]["AP@0.5"] is None


def test_classes_instead_of_objects_are_doubted(tmp_path: Path) -> None:
    reference, prediction = write(tmp_path / "r", a=boxes(1, 1, 1)), write(tmp_path / "p", a=boxes(1, 2, 3))
    events: list[object] = []
    drain(evaluate_objects(EvaluateObjectsRequest(reference=reference, prediction=prediction)), events.append)
    assert any(isinstance(event, Note) and "classes and not numbered objects" in event.text for event in events)


def test_objects_are_measured_with_the_brightness_of_their_images(tmp_path: Path) -> None:
    objects = write(tmp_path / "o", a=boxes(1, 2), b=boxes(0, 5))
    (tmp_path / "i").mkdir()
    for case in "ab":
        for channel in range(2):
            image = np.full((5, 8, 12), 10.0 * channel + ord(case), dtype=np.float32)
            write_image(image, VOLUME, tmp_path / "i" / f"{case}_000{channel}.nii.gz")
    target = tmp_path / "out" / "table.csv"
    drain(measure_objects(MeasureObjectsRequest(objects=objects, images=tmp_path / "i", target=target)))
    with target.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["object"], row["voxels"]) for row in rows] == [
        ("a", "1", "48"), ("a", "2", "48"), ("b", "5", "48"),
    ]  # fmt: skip
    assert float(rows[0]["volume"]) == pytest.approx(48 * 0.5)
    assert [float(row["mean channel 1"]) for row in rows] == [107, 107, 108]


def test_an_image_that_is_missing_is_named(tmp_path: Path) -> None:
    objects = write(tmp_path / "o", a=boxes(1))
    (tmp_path / "i").mkdir()
    write_image(np.zeros((5, 8, 6), np.float32), VOLUME, tmp_path / "i" / "other_0000.nii.gz")
    request = MeasureObjectsRequest(objects=objects, images=tmp_path / "i", target=tmp_path / "t.csv")
    with pytest.raises(DatasetError, match="no image of a; a_0000"):
        drain(measure_objects(request))
    assert not (tmp_path / "t.csv").exists()
