"""Segmentations are measured against references and compared with each other."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest

import napari_nnunet
from choices import (
    INFO,
    RULES,
    SHAPE,
    label_folder,
    notes,
    random_labels,
    run_verb,
    speckled,
)
from helpers import write_nifti
from napari_nnunet.cli.main import main
from napari_nnunet.engine.choosing import components
from napari_nnunet.engine.choosing.surface import surface_metrics
from napari_nnunet.errors import DatasetError, ResourceError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.images.files import write_labels
from napari_nnunet.jobs.choosing.compare import compare_arrays, compare_folders, difference
from napari_nnunet.jobs.choosing.evaluate import (
    EvaluationFiles,
    Rules,
    evaluate,
    evaluate_folder,
    evaluate_pairs,
    other_classes,
)
from napari_nnunet.jobs.choosing.pairs import case_tasks, files_of, pair_up
from napari_nnunet.processes import pool
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.choosing import CompareRequest, EvaluateSimpleRequest
from test_grid import turned_copy


def test_a_folder_is_measured_in_processes_as_without(tmp_path, monkeypatch):
    label_folder(tmp_path / "ref", {f"c{i}": random_labels(i) for i in range(4)})
    label_folder(tmp_path / "pred", {f"c{i}": random_labels(10 + i) for i in range(4)})
    pairs = pair_up(tmp_path / "ref", tmp_path / "pred", ".nii.gz")
    alone = drain(evaluate_pairs(pairs, RULES))
    monkeypatch.setattr(pool, "_WORTH_PROCESSES", 0)
    assert drain(evaluate_pairs(pairs, RULES, workers=2)).summary == alone.summary


def test_the_table_has_the_worst_case_first(tmp_path):
    good = random_labels(0)
    label_folder(tmp_path / "ref", {"good": good, "bad": random_labels(1)})
    label_folder(tmp_path / "pred", {"good": good, "bad": random_labels(2)})
    output = EvaluationFiles(tmp_path / "o" / "summary.json", tmp_path / "o" / "table.csv")
    result = drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", RULES, output))
    rows = list(csv.DictReader((tmp_path / "o" / "table.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["case"] for row in rows] == ["bad", "bad", "good", "good"]
    assert float(rows[2]["Dice"]) == 1
    assert (
        json.loads((tmp_path / "o" / "summary.json").read_text(encoding="utf-8"))["foreground_mean"]["Dice"]
        == result.dice
    )


def test_different_cases_are_named_and_nothing_is_written(tmp_path):
    label_folder(tmp_path / "ref", {"a": random_labels(0), "b": random_labels(1)})
    label_folder(tmp_path / "pred", {"a": random_labels(0), "x": random_labels(1)})
    with pytest.raises(DatasetError, match=r"x\.nii\.gz.*not in.*b\.nii\.gz.*not in") as caught:
        drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", RULES))
    assert "different cases" in caught.value.message
    assert not (tmp_path / "pred" / "summary.json").exists()
    (tmp_path / "pred" / "x.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"b\.nii\.gz.*--chill"):
        drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", RULES))
    assert len(drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", RULES, missing_ok=True)).cases) == 1


@pytest.mark.parametrize("reader", [None, "SimpleITKIO", "NibabelIO"])
def test_endings_in_capitals_are_the_same_ending_and_two_files_of_a_case_are_asked_about(tmp_path, reader):
    label_folder(tmp_path / "ref", {"a": random_labels(0), "b": random_labels(1)})
    label_folder(tmp_path / "pred", {"a": random_labels(0), "b": random_labels(2)})
    rules = replace(RULES, reader=reader)
    usual = drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", rules))
    (tmp_path / "pred" / "b.nii.gz").rename(tmp_path / "pred" / "b.NII.GZ")
    (tmp_path / "ref" / "a.nii.gz").rename(tmp_path / "ref" / "a.NII.GZ")
    assert drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", rules)).dice == usual.dice < 1
    label_folder(tmp_path / "pred", {"b": random_labels(1)})
    with pytest.raises(DatasetError, match=r"b\.NII\.GZ and b\.nii\.gz: one case"):
        drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", rules))


def test_another_grid_and_a_damaged_file_are_named_together(tmp_path):
    label_folder(tmp_path / "ref", {name: random_labels(0) for name in "abc"})
    label_folder(tmp_path / "pred", {"a": random_labels(0), "b": random_labels(0, (6, 10, 8)), "c": random_labels(0)})
    path = tmp_path / "pred" / "c.nii.gz"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DatasetError, match="2 of 3 cases") as caught:
        drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", RULES))
    assert "6 x 10 x 9" in caught.value.message and "6 x 10 x 8" in caught.value.message
    assert "c.nii.gz" in caught.value.message
    assert not (tmp_path / "pred" / "summary.json").exists()


def test_an_empty_folder_and_one_of_something_else_are_told_apart(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "png").mkdir()
    (tmp_path / "png" / "a.png").write_bytes(b"")
    for name, words in (("empty", "no files ending in .nii.gz"), ("png", "it has .png"), ("no", "does not exist")):
        with pytest.raises(DatasetError, match=words):
            pair_up(tmp_path / name, tmp_path / name, ".nii.gz")


def test_a_file_in_the_place_of_a_folder_is_named_as_one(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(DatasetError, match=r"a\.nii\.gz is a file; a folder is expected"):
        files_of(tmp_path / "a.nii.gz", ".nii.gz")


def test_a_class_that_occurs_nowhere_is_pointed_out(tmp_path):
    label_folder(tmp_path / "ref", {"a": np.minimum(random_labels(0), 1)})
    label_folder(tmp_path / "pred", {"a": np.minimum(random_labels(1), 1)})
    events = []
    result = drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", RULES), events.append)
    assert np.isnan(result.dice)
    assert any(isinstance(e, Note) and e.level == "warning" and "Label 2" in e.text for e in events)
    assert "NaN" in (tmp_path / "pred" / "summary.json").read_text(encoding="utf-8")


def test_surfaces_of_a_cube_that_was_moved_by_two_voxels(tmp_path):
    one, two = np.zeros((2, 12, 14, 16), dtype=np.uint8)
    one[4:8, 4:8, 4:8] = 1
    two[4:8, 4:8, 6:10] = 1
    label_folder(tmp_path / "ref", {"a": one})
    label_folder(tmp_path / "pred", {"a": two})
    for folder in ("ref", "pred"):
        write_nifti(tmp_path / folder / "a.nii.gz", one if folder == "ref" else two, (1.0, 1.0, 0.5))
    rules = Rules.of(INFO, surface=1.0)
    values = drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", rules)).cases[0][1]
    assert values["HD95"] == pytest.approx(1.0)  # two voxels of half a millimetre
    assert values["NSD"] == pytest.approx(1.0, abs=1e-6)
    strict = drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", Rules.of(INFO, surface=0.4))).cases[0][1]
    assert 0.3 < strict["NSD"] < 0.9
    missing = drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", rules)).cases[0][2]
    assert np.isnan(missing["HD95"]) and np.isnan(missing["NSD"])


def test_surfaces_of_a_large_volume_are_looked_for_around_each_label_only(monkeypatch):
    rng = np.random.default_rng(3)
    reference = np.zeros((2, 12, 40, 40), dtype=np.uint8)
    for value in range(1, 9):  # value 8 lies in one of the two only, 9 in none, some touch the border
        z, y, x = rng.integers(0, (9, 33, 33))
        reference[0, z : z + 4, y : y + 6, x : x + 7] = value
    reference[1] = np.roll(reference[0], 1, axis=1)
    reference[1][reference[1] == 8] = 0
    labels = [1, 2, (3, 4), 5, (6, 9), 7, 8, 9]

    def found():
        return surface_metrics(*reference, labels, spacing=(2.0, 1.0, 1.0), ignore_label=5)

    slow = found()
    monkeypatch.setattr(components, "_SMALL", 0)
    assert components.boxes_of(reference[0], [9]) == {9: (slice(0, 0),) * 3}
    fast = found()
    assert {str(k): str(v) for k, v in fast.items()} == {str(k): str(v) for k, v in slow.items()}
    assert np.isnan(fast[9]["HD95"]) and fast[8]["NSD"] == 0 and fast[1]["HD95"] > 0


def test_every_case_asks_for_the_memory_of_its_own_size(tmp_path):
    label_folder(tmp_path / "ref", {"a": random_labels(0), "b": np.zeros((40, 40, 40), dtype=np.uint8)})
    small, large = case_tasks(pair_up(tmp_path / "ref", tmp_path / "ref", ".nii.gz"), None)
    assert large.memory() / small.memory() == pytest.approx(40**3 / np.prod(SHAPE))


def test_without_monai_surfaces_are_refused_before_work(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "monai", None)
    with pytest.raises(ResourceError, match=r"pip install napari-nnunet\[metrics\]"):
        drain(evaluate_pairs((), Rules.of(INFO, surface=1.0)))


def test_evaluate_simple_knows_compressed_files_and_the_python_door_gives_the_same(tmp_path, capsys):
    label_folder(tmp_path / "ref", {"a": random_labels(0)}, info=False)
    label_folder(tmp_path / "pred", {"a": random_labels(1)})
    assert run_verb("evaluate_simple", tmp_path / "ref", tmp_path / "pred", "-l", 1, 2, "-o", tmp_path / "s.json") == 0
    result = napari_nnunet.evaluate(tmp_path / "ref", tmp_path / "pred", tmp_path / "pred" / "dataset.json")
    assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8")) == result.summary.to_json()
    assert f"Mean: Dice {result.dice:.4f}" in capsys.readouterr().out


def test_two_folders_are_compared_by_what_they_hold(tmp_path, capsys):
    same = random_labels(0)
    for info in (True, False):
        first = label_folder(tmp_path / f"one{info}", {"a": same, "b": random_labels(1)}, info=info)
        second = label_folder(tmp_path / f"two{info}", {"a": same, "b": random_labels(2)}, info=info)
        result = napari_nnunet.compare(first, second)
        assert result.evaluation.labels == (1, 2)
        assert [name for name, _ in result.cases] == ["b", "a"]
        assert ("organ" in result.names.values()) == info
    assert run_verb("compare", tmp_path / "oneTrue", tmp_path / "twoTrue", "--csv", tmp_path / "t.csv") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["case", "organ", "lesion"]
    assert shown[2].startswith("b ") and shown[3].split() == ["a", "1.0000", "1.0000"]
    assert (tmp_path / "t.csv").read_text(encoding="utf-8").startswith("case,label,Dice")


@pytest.mark.parametrize("verb", ["compare", "evaluate_folder"])
def test_folders_that_give_the_same_value_to_other_classes_are_told(tmp_path, capsys, verb):
    truth, _ = speckled()
    label_folder(tmp_path / "a", {"x": truth})
    label_folder(tmp_path / "b", {"x": truth})
    words = [tmp_path / "a", tmp_path / "b"]
    words = [verb, *words] if verb == "compare" else [verb, *words, "-djfile", tmp_path / "a" / "dataset.json"]
    assert run_verb(*words) == 0
    assert "do not mean the same" not in "".join(capsys.readouterr())
    content = json.loads((tmp_path / "b" / "dataset.json").read_text())
    first, second = [name for name in content["labels"] if name != "background"][:2]
    content["labels"] |= {first: content["labels"][second], second: content["labels"][first]}
    (tmp_path / "b" / "dataset.json").write_text(json.dumps(content))
    assert run_verb(*words) == 0
    said = "".join(capsys.readouterr())
    assert f"{first} = {content['labels'][first]}" in said
    assert "the values do not mean the same classes" in said


REGIONS = {"background": 0, "whole": [1, 2], "core": [2], "Rim 1": 3}


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ({"whole": [2, 1], "core": 2, "rim_1": [3], "background": 0}, None),
        ({**REGIONS, "ignore": 4}, None),
        ({"background": 0, "all": [1, 2], "core": 2, "Rim 1": 3}, "scores compare values, whatever they are called"),
        ({"background": 0, "whole": [1, 3], "core": 2, "Rim 1": 3}, "the values do not mean the same classes"),
        ({"background": 0, "whole": [1, 2], "core": 3, "Rim 1": 2}, "the values do not mean the same classes"),
    ],
)
def test_classes_are_told_apart_by_what_they_mean_and_not_by_how_they_are_written(tmp_path, theirs, words):
    for name, labels in (("a", REGIONS), ("b", theirs)):
        content = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".png", "numTraining": 1}
        (tmp_path / name).mkdir()
        (tmp_path / name / "dataset.json").write_text(json.dumps({**content, "regions_class_order": [1, 2, 3]}))
    ours = tmp_path / "a" / "dataset.json"
    said = [note.text for note in other_classes(DatasetInfo.read(ours), ours, tmp_path / "b")]
    assert (words in said[0] and len(said) == 1) if words else not said


def test_differences_say_who_has_something_where():
    first, second = np.array([0, 1, 1, 2, 0]), np.array([0, 1, 0, 1, 2])
    np.testing.assert_array_equal(difference(first, second), [0, 0, 1, 3, 2])
    found = compare_arrays(first[None], second[None])
    assert set(found) == {1, 2}
    assert found[1]["Dice"] == 0.5


def test_predicted_values_that_dataset_json_lacks_are_named(tmp_path):
    label_folder(tmp_path / "ref", {name: random_labels(0) for name in "ab"})
    strange = random_labels(0)
    strange[0, 0, :3] = 77
    label_folder(tmp_path / "pred", {"a": strange, "b": random_labels(0)})
    events = []
    drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", RULES), events.append)
    (warned,) = [event.text for event in events if isinstance(event, Note) and "define" in event.text]
    assert "1 file (a.nii.gz)" in warned and "(77)" in warned


def test_values_of_references_that_count_as_background_are_said(tmp_path):
    truth = random_labels(0)
    wrong = truth.copy()
    wrong[0, 0, :3] = 255
    label_folder(tmp_path / "r", {"a": wrong, "b": truth})
    label_folder(tmp_path / "p", {"a": truth, "b": truth})
    _, said = notes(evaluate_folder(tmp_path / "r", tmp_path / "p", RULES))
    assert "1 file (a.nii.gz) of the references have values that dataset.json does not define (255)" in said
    assert "of the predictions" not in said


def test_a_class_that_only_the_last_case_has_is_compared(tmp_path):
    common, rare = (np.full((2, 3, 4), value, np.uint8) for value in (1, 7))
    for folder in ("a", "b"):
        cases = {f"c{i:02d}": common for i in range(11)}
        label_folder(tmp_path / folder, {**cases, "z": rare}, info=False)
    result = drain(compare_folders(CompareRequest(first=tmp_path / "a", second=tmp_path / "b")))
    assert list(result.names) == [1, 7]


@pytest.mark.parametrize(("reference", "prediction", "said"), [
    (1, 255, "The predictions never have the label 1, but 255, which the references do not have"),
    (255, 1, "The references never have the label 1, but 255, which the predictions do not have"),
    (1, 1, None), (1, 0, None),
])  # fmt: skip
def test_values_that_cannot_mean_the_same_classes_are_doubted(tmp_path, reference, prediction, said):
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[1:3, 2:5, 2:5] = 1
    label_folder(tmp_path / "ref", {"a": drawn * np.uint8(reference)})
    label_folder(tmp_path / "pred", {"a": drawn * np.uint8(prediction)})
    events = []
    drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", Rules((1,), ".nii.gz")), events.append)
    assert [event.text.partition(". Do")[0] for event in events if isinstance(event, Note)] == (
        [] if said is None else [said]
    )


def test_distances_between_surfaces_of_pictures_are_not_called_millimetres(tmp_path):
    pytest.importorskip("monai")
    for name in ("ref", "pred"):
        (tmp_path / name).mkdir()
        iio.imwrite(tmp_path / name / "a.png", np.eye(12, dtype=np.uint8))
    events = []
    rules = Rules((1,), ".png", surface=1.0)
    drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", rules), events.append)
    (said,) = (event.text for event in events if isinstance(event, Note))
    assert said.startswith("1 file (a.png) of the references have no voxel size")


@pytest.mark.parametrize(
    ("value", "where", "words"),
    [
        (255, "r", ("The references have the value 255", "counts as background", "(-il 255)")),
        (-1, "r", ("The references have the value -1", "(-il -1)")),
        (-1, "p", ("The predictions have the value -1", "counts as background")),
        (np.nan, "p", ("a: of its prediction: 3 of its voxels are NaN or infinite and were read as 0",)),
        (np.inf, "r", ("a: 3 of its voxels are NaN or infinite and were read as 0",)),
    ],
)
def test_values_that_cannot_be_classes_are_said_without_a_dataset_json(tmp_path, value, where, words):
    truth = random_labels(0).astype(np.float32)
    strange = truth.copy()
    strange[0, 0, :3] = value
    for name in "rp":
        label_folder(tmp_path / name, {"a": strange if name == where else truth}, info=False)
    asked = EvaluateSimpleRequest(reference=tmp_path / "r", prediction=tmp_path / "p", labels=(1, 2))
    _, said = notes(evaluate(asked))
    assert all(text in said for text in words)
    if value == 255:
        assert "255" not in notes(evaluate(asked.replace(ignore_label=255)))[1]


def test_classes_that_were_not_asked_for_are_no_stray_values(tmp_path):
    for name, seed in zip("rp", (0, 1), strict=True):
        label_folder(tmp_path / name, {"a": random_labels(seed) * (3 if name == "r" else 1)}, info=False)
    asked = EvaluateSimpleRequest(reference=tmp_path / "r", prediction=tmp_path / "p", labels=(1, 3))
    assert "not asked for" not in notes(evaluate(asked))[1]


def test_cases_that_are_turned_although_places_are_ignored_are_named(tmp_path, capsys):
    place = Geometry(spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
    for folder in ("r", "p"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            array, own = random_labels(1), place
            if (folder, name) == ("p", "a"):
                array, own = turned_copy(array, place, (2, 1, 0), (False, True, False))
            write_labels(array, own, tmp_path / folder / f"{name}.nii.gz")
    words = ["evaluate_simple", str(tmp_path / "r"), str(tmp_path / "p"), "-l", "1", "2"]
    assert main([*words, "--ignore_geometry"]) == 0
    assert (
        "a: its prediction has the voxels of its reference in another orientation, and was reoriented"
        in capsys.readouterr().err
    )
    assert main(words) == 0
    assert "another orientation" not in capsys.readouterr().err
