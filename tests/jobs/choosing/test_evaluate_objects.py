"""Folders of numbered objects are compared."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from choices import VOLUME, boxes, write_objects_folder
from napari_nnunet.errors import DatasetError, ImageError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.images.files import write_labels
from napari_nnunet.jobs.choosing.evaluate_objects import evaluate_objects
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.choosing import EvaluateObjectsRequest
from turned_files import mirror, shift


def test_figures_of_every_case_and_of_all_together(tmp_path: Path) -> None:
    reference = write_objects_folder(tmp_path / "r", a=boxes(1, 2, 3), b=boxes(4, 0, 0))
    prediction = write_objects_folder(tmp_path / "p", a=boxes(7, 9, 0), b=boxes(1, 2, 0))
    request = EvaluateObjectsRequest(reference=reference, prediction=prediction, csv=tmp_path / "table.csv")
    drain(evaluate_objects(request))
    content = json.loads((prediction / "objects.json").read_text(encoding="utf-8"))
    assert content["all"]["AP@0.5"] == pytest.approx(3 / 5)
    assert content["all"]["F1@0.5"] == pytest.approx(6 / 8)
    assert content["cases"]["b"]["AP"] == pytest.approx(0.5)
    counted = ("references", "predictions", "found", "invented", "missed", "split", "merged")
    assert [content["all"][name] for name in counted] == [4, 4, 3, 1, 1, 0, 0]
    with (tmp_path / "table.csv").open() as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["b", "a"]


def test_a_prediction_stored_mirrored_is_turned_and_one_elsewhere_is_refused(tmp_path: Path) -> None:
    reference = write_objects_folder(tmp_path / "r", a=boxes(1, 2, 0))
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
    reference, prediction = (
        write_objects_folder(tmp_path / "r", a=boxes(0, 0)),
        write_objects_folder(tmp_path / "p", a=boxes(0, 0)),
    )
    drain(evaluate_objects(EvaluateObjectsRequest(reference=reference, prediction=prediction)))
    text = (prediction / "objects.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert json.loads(text)["all"]["AP@0.5"] is None


def test_classes_instead_of_objects_are_doubted(tmp_path: Path) -> None:
    reference, prediction = (
        write_objects_folder(tmp_path / "r", a=boxes(1, 1, 1)),
        write_objects_folder(tmp_path / "p", a=boxes(1, 2, 3)),
    )
    events: list[object] = []
    drain(evaluate_objects(EvaluateObjectsRequest(reference=reference, prediction=prediction)), events.append)
    assert any(isinstance(event, Note) and "classes and not numbered objects" in event.text for event in events)


KINDS = {"kinds": {"nucleus": [1, 2], "debris": [3, 4]}, "width": 1.0, "unit": 0.5, "ignore": 255}
TOLD = {
    "channel_names": {"0": "grey"},
    "labels": {"background": 0, "nucleus core": 1, "nucleus border": 2, "debris core": 3, "debris border": 4},
    "numTraining": 1,
    "file_ending": ".nii.gz",
    "napari_nnunet_objects": {**KINDS, "values": {1: "nucleus", 2: "debris"}},
}


def test_objects_of_different_kinds_are_not_matched_and_each_kind_has_figures(tmp_path: Path) -> None:
    reference = write_objects_folder(tmp_path / "objectsTr", a=boxes(1, 2, 3))
    write_objects_folder(tmp_path / "kindsTr", a=boxes(1, 2, 1))
    prediction = write_objects_folder(tmp_path / "p", a=boxes(5, 6, 7))
    write_objects_folder(prediction / "kinds", a=boxes(1, 1, 1))
    for folder in (tmp_path, prediction):
        (folder / "dataset.json").write_text(json.dumps(TOLD))
    request = EvaluateObjectsRequest(reference=reference, prediction=prediction, csv=tmp_path / "table.csv")
    drain(evaluate_objects(request))
    content = json.loads((prediction / "objects.json").read_text(encoding="utf-8"))
    counted = ("found", "invented", "missed")
    assert [content["all"][name] for name in counted] == [2, 1, 1]
    assert [content["kinds"]["nucleus"]["all"][name] for name in counted] == [2, 1, 0]
    assert [content["kinds"]["debris"]["cases"]["a"][name] for name in counted] == [0, 0, 1]
    with (tmp_path / "table.csv").open() as file:
        assert [(row["case"], row["kind"], row["missed"]) for row in csv.DictReader(file)] == [
            ("a", "", "1"), ("a", "debris", "1"), ("a", "nucleus", "0"),
        ]  # fmt: skip


def test_masks_of_kinds_in_another_order_give_every_object_its_own_kind(tmp_path: Path) -> None:
    reference = write_objects_folder(tmp_path / "objectsTr", a=boxes(1, 2, 0))
    kinds = boxes(1, 2, 0)
    kinds[:, :, 12:] = 255  # there, nobody looked
    write_objects_folder(tmp_path / "kindsTr", a=kinds)
    prediction = write_objects_folder(tmp_path / "p", a=boxes(5, 6, 7))
    write_objects_folder(prediction / "kinds", a=boxes(1, 2, 2))
    for folder in (tmp_path, prediction):
        (folder / "dataset.json").write_text(json.dumps(TOLD))
    for path in (tmp_path / "kindsTr" / "a.nii.gz", prediction / "kinds" / "a.nii.gz"):
        mirror(path)
    request = EvaluateObjectsRequest(reference=reference, prediction=prediction)
    found = drain(evaluate_objects(request))
    assert {kind: own.all.counts() for kind, own in found.kinds.items()} == {"debris": (1, 0, 0), "nucleus": (1, 0, 0)}
    shift(prediction / "kinds" / "a.nii.gz")
    with pytest.raises(DatasetError, match=r"a\.nii\.gz and the mask of kinds .*a\.nii\.gz show different places"):
        drain(evaluate_objects(request))


def test_without_kinds_on_both_sides_objects_are_matched_whatever_they_are(tmp_path: Path) -> None:
    reference = write_objects_folder(tmp_path / "objectsTr", a=boxes(1, 2))
    write_objects_folder(tmp_path / "kindsTr", a=boxes(1, 2))
    (tmp_path / "dataset.json").write_text(json.dumps(TOLD))
    prediction = write_objects_folder(tmp_path / "p", a=boxes(5, 6))
    found = drain(evaluate_objects(EvaluateObjectsRequest(reference=reference, prediction=prediction)))
    assert found.all.counts() == (2, 0, 0)
    assert "kinds" not in found.content()


def test_what_nobody_annotated_is_neither_found_nor_invented(tmp_path: Path) -> None:
    reference = write_objects_folder(tmp_path / "objectsTr", a=boxes(1, 0, 0))
    kinds = boxes(1, 0, 0)
    kinds[:, :, 8:] = 255
    write_objects_folder(tmp_path / "kindsTr", a=kinds)
    (tmp_path / "dataset.json").write_text(json.dumps(TOLD))
    seen = boxes(5, 6, 0)
    seen[1:4, 2:6, 5:9] = 7  # more of it lies where somebody looked
    prediction = write_objects_folder(tmp_path / "p", a=seen)
    found = drain(evaluate_objects(EvaluateObjectsRequest(reference=reference, prediction=prediction)))
    assert found.all.counts() == (1, 1, 0)
    assert sorted(found.all.prediction_numbers.tolist()) == [5, 7]


def test_classes_are_not_taken_for_objects_without_a_word(tmp_path: Path) -> None:
    folder = write_objects_folder(tmp_path / "p", a=boxes(1, 2))
    content = {"channel_names": {"0": "x"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz"}
    request = EvaluateObjectsRequest(reference=folder, prediction=folder, summary=tmp_path / "s.json")

    def said() -> list[str]:
        events: list[object] = []
        drain(evaluate_objects(request), events.append)
        return [event.text for event in events if isinstance(event, Note) and "holds classes" in event.text]

    assert not said()
    (folder / "dataset.json").write_text(json.dumps({**content, "numTraining": 1}))
    assert said()
    scheme = {"kinds": {"cell": [1, 2]}, "width": 1.0, "unit": 1.0}
    (folder / "dataset.json").write_text(json.dumps({**content, "numTraining": 1, "napari_nnunet_objects": scheme}))
    assert not said()


@pytest.mark.parametrize("both", [True, False])
def test_predicted_classes_are_doubted_as_well(tmp_path: Path, both: bool) -> None:
    drawn = boxes(255, 0, 255, 0, 255)
    reference = write_objects_folder(tmp_path / "r", a=drawn if both else boxes(1, 0, 2, 0, 3))
    prediction = write_objects_folder(tmp_path / "p", a=drawn)
    said: list[str] = []
    request = EvaluateObjectsRequest(reference=reference, prediction=prediction)
    drain(evaluate_objects(request), lambda event: said.append(event.text) if isinstance(event, Note) else None)
    doubted = [text.partition(" has")[0] for text in said if "classes and not numbered objects" in text]
    assert doubted == (["No reference"] if both else []) + ["No prediction"]
