"""After training: join, measure, choose, postprocess, segment with the best. What is wrong is said before work starts."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import napari_nnunet
from helpers import Recipe, make_model, read_probabilities, smooth_image, write_nifti
from napari_nnunet.cli import main
from napari_nnunet.engine.choosing import components
from napari_nnunet.engine.choosing.surface import surface_metrics
from napari_nnunet.engine.prediction.vote import VoteSettings
from napari_nnunet.errors import DatasetError, ImageError, ModelError, NnunetError, ResourceError, SettingsError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.results.inference_information import read_best
from napari_nnunet.formats.results.postprocessing import read_cleaning, write_cleaning
from napari_nnunet.formats.results.probabilities import write_probabilities, write_properties
from napari_nnunet.formats.results.recipe import as_command, as_methods, as_python, read_recipe
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.best import Question, find_best
from napari_nnunet.jobs.choosing.calibrate import calibrate, known_temperature
from napari_nnunet.jobs.choosing.compare import compare_arrays, compare_folders, difference, folder_rules
from napari_nnunet.jobs.choosing.crossval import accumulate
from napari_nnunet.jobs.choosing.ensemble import ensemble_folders
from napari_nnunet.jobs.choosing.evaluate import Output, Rules, case_tasks, evaluate_folder, evaluate_pairs, pair_up
from napari_nnunet.jobs.choosing.postprocess import apply_postprocessing, determine_postprocessing
from napari_nnunet.jobs.prediction.combined import (
    Combination,
    Member,
    best_combination,
    predict_combined,
    predict_combined_series,
)
from napari_nnunet.jobs.prediction.predict_files import FolderSettings, predict_combined_folder
from napari_nnunet.processes import pool
from napari_nnunet.schema.cleaning import Cleaning, Step
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.volume import Volume

SHAPE = (6, 10, 9)
DATASET_JSON = {
    "channel_names": {"0": "MR"},
    "labels": {"background": 0, "organ": 1, "lesion": 2},
    "numTraining": 4,
    "file_ending": ".nii.gz",
}
INFO = DatasetInfo.parse(DATASET_JSON)
RULES = Rules.of(INFO)
CPU = PredictSettings(device="cpu", precision="float32", mirroring=False)


def _labels(seed, shape=SHAPE):
    return np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)


def _folder(path, arrays, *, info=True):
    path.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        write_nifti(path / f"{name}.nii.gz", array)
    if info:
        (path / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return path


def _member(path, cases=("a", "b"), *, seed=0, heads=3, shape=SHAPE):
    """Write what predict --save_probabilities leaves, plans aside."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name in cases:
        p = rng.random((heads, *shape)).astype(np.float32)
        p /= p.sum(axis=0)
        path.mkdir(parents=True, exist_ok=True)
        write_probabilities(p, path / f"{name}.npz")
        properties = {
            "spacing": [1.0, 1.0, 1.0],
            "sitk_stuff": {
                "spacing": (1.0, 1.0, 1.0),
                "origin": (3.0, 2.0, 1.0),
                "direction": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
            },
        }
        write_properties(properties, path / f"{name}.pkl")
        arrays[name] = p
    (path / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return arrays


def fold_members(model, settings, folds):
    """Return every fold of a model as a member of its own."""
    return tuple(Member(model, settings.replace(folds=(fold,))) for fold in folds)


def _run(*words):
    return main([str(word) for word in words])


# --- evaluation -------------------------------------------------------------------------------------------------------


def test_a_folder_is_measured_in_processes_as_without(tmp_path, monkeypatch):
    _folder(tmp_path / "ref", {f"c{i}": _labels(i) for i in range(4)})
    _folder(tmp_path / "pred", {f"c{i}": _labels(10 + i) for i in range(4)})
    pairs = pair_up(tmp_path / "ref", tmp_path / "pred", ".nii.gz")
    alone = drain(evaluate_pairs(pairs, RULES))
    monkeypatch.setattr(pool, "_WORTH_PROCESSES", 0)
    assert drain(evaluate_pairs(pairs, RULES, workers=2)).summary == alone.summary


def test_the_table_has_the_worst_case_first(tmp_path):
    good = _labels(0)
    _folder(tmp_path / "ref", {"good": good, "bad": _labels(1)})
    _folder(tmp_path / "pred", {"good": good, "bad": _labels(2)})
    output = Output(tmp_path / "o" / "summary.json", tmp_path / "o" / "table.csv")
    result = drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", RULES, output))
    rows = list(csv.DictReader((tmp_path / "o" / "table.csv").read_text().splitlines()))
    assert [row["case"] for row in rows] == ["bad", "bad", "good", "good"]
    assert float(rows[2]["Dice"]) == 1
    assert json.loads((tmp_path / "o" / "summary.json").read_text())["foreground_mean"]["Dice"] == result.dice


def test_different_cases_are_named_and_nothing_is_written(tmp_path):
    _folder(tmp_path / "ref", {"a": _labels(0), "b": _labels(1)})
    _folder(tmp_path / "pred", {"a": _labels(0), "x": _labels(1)})
    with pytest.raises(DatasetError, match=r"x\.nii\.gz.*not in.*b\.nii\.gz.*--chill") as caught:
        drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", RULES))
    assert "different cases" in caught.value.message
    assert not (tmp_path / "pred" / "summary.json").exists()
    (tmp_path / "pred" / "x.nii.gz").unlink()
    assert len(drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", RULES, missing_ok=True)).cases) == 1


def test_another_grid_and_a_damaged_file_are_named_together(tmp_path):
    _folder(tmp_path / "ref", {name: _labels(0) for name in "abc"})
    _folder(tmp_path / "pred", {"a": _labels(0), "b": _labels(0, (6, 10, 8)), "c": _labels(0)})
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


def test_a_class_that_occurs_nowhere_is_pointed_out(tmp_path):
    _folder(tmp_path / "ref", {"a": np.minimum(_labels(0), 1)})
    _folder(tmp_path / "pred", {"a": np.minimum(_labels(1), 1)})
    events = []
    result = drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred", RULES), events.append)
    assert np.isnan(result.dice)
    assert any(isinstance(e, Note) and e.level == "warning" and "Label 2" in e.text for e in events)
    assert "NaN" in (tmp_path / "pred" / "summary.json").read_text()


def test_surfaces_of_a_cube_that_was_moved_by_two_voxels(tmp_path):
    one, two = np.zeros((2, 12, 14, 16), dtype=np.uint8)
    one[4:8, 4:8, 4:8] = 1
    two[4:8, 4:8, 6:10] = 1
    _folder(tmp_path / "ref", {"a": one})
    _folder(tmp_path / "pred", {"a": two})
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


def test_a_postprocessing_may_write_a_value_that_the_file_type_does_not_hold(tmp_path):
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[1:4, 1:4, 1:4] = 1
    labels[5, 8, 8] = 1
    _folder(tmp_path / "pred", {"a": labels})
    steps = Cleaning(steps=(Step(target=1, background=300),))
    drain(apply_postprocessing(tmp_path / "pred", tmp_path / "out", steps, RULES))
    cleaned = read_labels(tmp_path / "out" / "a.nii.gz")[0]
    assert cleaned[5, 8, 8] == 300 and (cleaned == 1).sum() == 27


def test_every_case_asks_for_the_memory_of_its_own_size(tmp_path):
    _folder(tmp_path / "ref", {"a": _labels(0), "b": np.zeros((40, 40, 40), dtype=np.uint8)})
    small, large = case_tasks(pair_up(tmp_path / "ref", tmp_path / "ref", ".nii.gz"), None)
    assert large.memory() / small.memory() == pytest.approx(40**3 / np.prod(SHAPE))


def test_without_monai_surfaces_are_refused_before_work(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "monai", None)
    with pytest.raises(ResourceError, match=r"pip install napari-nnunet\[metrics\]"):
        drain(evaluate_pairs((), Rules.of(INFO, surface=1.0)))


def test_evaluate_simple_knows_compressed_files_and_the_python_door_gives_the_same(tmp_path, capsys):
    _folder(tmp_path / "ref", {"a": _labels(0)}, info=False)
    _folder(tmp_path / "pred", {"a": _labels(1)})
    assert _run("evaluate_simple", tmp_path / "ref", tmp_path / "pred", "-l", 1, 2, "-o", tmp_path / "s.json") == 0
    result = napari_nnunet.evaluate(tmp_path / "ref", tmp_path / "pred", tmp_path / "pred" / "dataset.json")
    assert json.loads((tmp_path / "s.json").read_text()) == result.summary
    assert f"Mean: Dice {result.dice:.4f}" in capsys.readouterr().out


# --- comparing --------------------------------------------------------------------------------------------------------


def test_two_folders_are_compared_by_what_they_hold(tmp_path, capsys):
    same = _labels(0)
    for info in (True, False):
        first = _folder(tmp_path / f"one{info}", {"a": same, "b": _labels(1)}, info=info)
        second = _folder(tmp_path / f"two{info}", {"a": same, "b": _labels(2)}, info=info)
        rules, names = folder_rules(first, second)
        assert rules.labels == (1, 2)
        result = drain(compare_folders(first, second, rules))
        assert [name for name, _ in result.cases] == ["b", "a"]
        assert ("organ" in names.values()) == info
    assert _run("compare", tmp_path / "oneTrue", tmp_path / "twoTrue", "--csv", tmp_path / "t.csv") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["case", "organ", "lesion"]
    assert shown[2].startswith("b ") and shown[3].split() == ["a", "1.0000", "1.0000"]
    assert (tmp_path / "t.csv").read_text().startswith("case,label,Dice")


def test_differences_say_who_has_something_where():
    first, second = np.array([0, 1, 1, 2, 0]), np.array([0, 1, 0, 1, 2])
    np.testing.assert_array_equal(difference(first, second), [0, 0, 1, 3, 2])
    found = compare_arrays(first[None], second[None])
    assert set(found) == {1, 2}
    assert found[1]["Dice"] == 0.5


# --- postprocessing ---------------------------------------------------------------------------------------------------


def test_a_postprocessing_survives_writing_and_nothing_else_is_read(tmp_path):
    cleaning = Cleaning.of([[1, 2], 1, (1, 2), [(1, 2), 3]])
    write_cleaning(tmp_path / "p.pkl", cleaning)
    assert read_cleaning(tmp_path / "p.pkl") == cleaning
    assert b"remove_all_but_largest_component_from_segmentation" in (tmp_path / "p.pkl").read_bytes()

    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(([Harmful()], [{}])))
    with pytest.raises(DatasetError, match="refused"):
        read_cleaning(tmp_path / "bad.pkl")
    assert not (tmp_path / "touched").exists()
    for content, words in (
        ([1, 2], "no pair"),
        (([], [{"labels_or_regions": 1}]), "0 functions"),
        ((["x"], [{"labels_or_regions": 1}]), "other than"),
    ):
        (tmp_path / "bad.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(DatasetError, match=words):
            read_cleaning(tmp_path / "bad.pkl")
    (tmp_path / "bad.json").write_text('{"postprocessing_fns": ["rm"], "postprocessing_kwargs": [{}]}')
    with pytest.raises(DatasetError, match="asks for rm"):
        read_cleaning(tmp_path / "bad.json")


def _speckled():
    truth = np.zeros((8, 16, 16), dtype=np.uint8)
    truth[2:6, 3:8, 3:8] = 1
    truth[2:6, 9:13, 9:13] = 2
    wrong = truth.copy()
    wrong[7, 15, 15] = 1
    wrong[0, 0, 0:3] = 1
    return truth, wrong


def test_postprocessing_is_found_applied_and_does_what_it_says(tmp_path, capsys):
    truth, wrong = _speckled()
    _folder(tmp_path / "ref", {"a": truth, "b": truth})
    _folder(tmp_path / "pred", {"a": wrong, "b": wrong})
    found = drain(determine_postprocessing(tmp_path / "pred", tmp_path / "ref", RULES, INFO.labels, keep_cleaned=False))
    assert found.cleaning == Cleaning.of([1])  # the foreground as a whole would lose label 2
    assert not (tmp_path / "pred" / "postprocessed").exists()
    words = ("-i", tmp_path / "pred", "-o", tmp_path / "out", "-pp_pkl_file", tmp_path / "pred" / "postprocessing.pkl")
    assert _run("apply_postprocessing", *words) == 0
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "a.nii.gz")[0], truth)
    assert _run("determine_postprocessing", "-i", tmp_path / "pred", "-ref", tmp_path / "ref") == 0
    assert "the largest part of organ" in capsys.readouterr().out
    with pytest.raises(SettingsError, match="same folder"):
        drain(apply_postprocessing(tmp_path / "pred", tmp_path / "pred", found.cleaning, RULES))


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "spot": [3]}, [1, 2, 3]),
        ({"background": 0, "a": 1, "b": 2, "c": 3, "nowhere": 4}, None),
    ],
    ids=["regions", "labels"],
)
def test_scores_predicted_by_the_search_are_those_of_the_files_it_writes(tmp_path, monkeypatch, labels, order):
    monkeypatch.setattr(components, "_SMALL", 0)  # as large volumes are looked at
    rng = np.random.default_rng(0)
    info = DatasetInfo.parse({**DATASET_JSON, "labels": labels, "regions_class_order": order})
    truth = {f"c{i}": np.digitize(smooth_image((10, 20, 20), seed=i)[0], [90, 120, 160]) for i in range(3)}
    if order is None:
        truth = dict.fromkeys(truth, _speckled()[0])
    _folder(tmp_path / "ref", {name: array.astype(np.uint8) for name, array in truth.items()})
    wrong = {}
    for name, array in truth.items():
        wrong[name] = array.astype(np.uint8)
        wrong[name][(rng.random(array.shape) > 0.97) & (array == 0)] = rng.integers(1, 4)
    _folder(tmp_path / "pred", wrong)
    rules = Rules.of(info)
    found = drain(determine_postprocessing(tmp_path / "pred", tmp_path / "ref", rules, info.labels))
    again = drain(evaluate_folder(tmp_path / "ref", tmp_path / "pred" / "postprocessed", rules, Output(tmp_path / "s")))
    for label, values in found.after["mean"].items():
        np.testing.assert_equal(again.summary["mean"][label], values)
    assert found.cleaning.steps


# --- ensembles --------------------------------------------------------------------------------------------------------


def test_members_are_joined_where_only_properties_tell_the_grid(tmp_path):
    first, second = (_member(tmp_path / name, seed=i) for i, name in enumerate("xy"))
    words = ("-i", tmp_path / "x", tmp_path / "y", "-o", tmp_path / "o", "--save_npz", "--uncertainty")
    assert _run("ensemble", *words, "--weights", 1, 3) == 0
    mean = (first["a"] + 3 * second["a"]) / 4
    np.testing.assert_allclose(read_probabilities(tmp_path / "o" / "a.npz"), mean, atol=1e-6)
    labels, geometry = read_labels(tmp_path / "o" / "a.nii.gz")
    np.testing.assert_array_equal(labels, mean.argmax(axis=0))
    assert geometry.origin == (3.0, 2.0, 1.0)
    entropy = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "o" / "entropy" / "b.nii.gz")))
    assert entropy.shape == SHAPE and 0 < entropy.max() <= 1
    assert json.loads((tmp_path / "o" / "ensemble.json").read_text())["weights"] == [1.0, 3.0]


@pytest.mark.parametrize("workers", [1, 2])
def test_cases_are_joined_in_processes_as_without(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(pool, "_WORTH_PROCESSES", 0)
    first, second = (_member(tmp_path / name, seed=i) for i, name in enumerate("xy"))
    drain(ensemble_folders([tmp_path / "x", tmp_path / "y"], tmp_path / "o", workers=workers))
    for name in "ab":
        expected = ((first[name] + second[name]) / 2).argmax(axis=0)
        np.testing.assert_array_equal(read_labels(tmp_path / "o" / f"{name}.nii.gz")[0], expected)


def _break(tmp_path, what):
    y = tmp_path / "y"
    if what == "case":
        (y / "b.npz").unlink()
    elif what == "shape":
        _member(y, ("b",), shape=(6, 10, 8))
    elif what == "classes":
        _member(y, ("b",), heads=4)
    elif what == "truncated":
        (y / "b.npz").write_bytes((y / "b.npz").read_bytes()[:100])
    elif what == "other content":
        np.savez_compressed(y / "b.npz", other=np.zeros(3))
    elif what == "labels":
        content = {**DATASET_JSON, "labels": {"background": 0, "lesion": 1, "organ": 2}}
        (y / "dataset.json").write_text(json.dumps(content))
    elif what == "dataset.json":
        (y / "dataset.json").unlink()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("case", r"y lacks b\.npz.*--save_probabilities"),
        ("shape", r"has shape \(3, 6, 10, 8\).*\(3, 6, 10, 9\)"),
        ("classes", "has 4 classes, but dataset.json speaks of 3"),
        ("truncated", "not a complete file of probabilities"),
        ("other content", "no 'probabilities'"),
        ("labels", "same classes"),
        ("dataset.json", "no dataset.json"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_written(tmp_path, what, words):
    for i, name in enumerate("xy"):
        _member(tmp_path / name, seed=i)
    _break(tmp_path, what)
    with pytest.raises(NnunetError, match=words):
        drain(ensemble_folders([tmp_path / "x", tmp_path / "y"], tmp_path / "o"))
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("folders", "vote", "words"),
    [
        (["x"], {}, "two members or more"),
        (["x", "x"], {}, "more than once"),
        (["x", "o"], {}, "one of the inputs"),
        (["x", "y"], {"weights": (1.0,)}, "2 members but 1 weights"),
        (["x", "y"], {"weights": (0.0, 0.0)}, "not all 0"),
        (["x", "y"], {"weights": (-1.0, 2.0)}, "from 0 on"),
        (["x", "y"], {"temperature": 0.0}, "not a positive number"),
    ],
)
def test_a_senseless_ensemble_is_refused(tmp_path, folders, vote, words):
    for i, name in enumerate("xyo"):
        _member(tmp_path / name, seed=i)
    with pytest.raises(SettingsError, match=words):
        drain(ensemble_folders([tmp_path / name for name in folders], tmp_path / "o", VoteSettings(**vote)))


def test_a_huge_deflated_member_is_read_in_pieces_and_its_end_is_missed(tmp_path):
    _member(tmp_path / "x")
    path = tmp_path / "x" / "a.npz"
    with zipfile.ZipFile(path) as archive:
        content = archive.read("probabilities.npy")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("probabilities.npy", content[:-8])
    with pytest.raises(ImageError, match="ends too early"):
        read_probabilities(path)


# --- the best ---------------------------------------------------------------------------------------------------------


def _validated(root, configuration, folds, *, quality, npz=True, dataset="Dataset001_Tiny"):
    """Write a model whose validation is right in a share of the voxels; returns the workspace."""
    recipe = Recipe(configuration=configuration, patch=(16, 16) if configuration == "2d" else (8, 16, 16), folds=folds)
    model = make_model(root / "nnUNet_results", recipe)
    gt = root / "nnUNet_preprocessed" / dataset / "gt_segmentations"
    plans = root / "nnUNet_preprocessed" / dataset / "nnUNetPlans.json"
    gt.mkdir(parents=True, exist_ok=True)
    known = json.loads(plans.read_text()) if plans.is_file() else json.loads((model.folder / "plans.json").read_text())
    own = json.loads((model.folder / "plans.json").read_text())
    known["configurations"] = {**known["configurations"], **own["configurations"]}
    plans.write_text(json.dumps(known))
    for fold in folds:
        case = f"c{fold}"
        truth = _labels(fold)
        write_nifti(gt / f"{case}.nii.gz", truth)
        rng = np.random.default_rng(100 * fold + len(configuration))
        p = rng.random((3, *SHAPE)).astype(np.float32) + quality * np.eye(3, dtype=np.float32)[truth].transpose(
            3, 0, 1, 2
        )
        p /= p.sum(axis=0)
        folder = model.folder / f"fold_{fold}" / "validation"
        folder.mkdir()
        write_nifti(folder / f"{case}.nii.gz", p.argmax(axis=0).astype(np.uint8))
        if npz:
            write_probabilities(p, folder / f"{case}.npz")
    return Workspace.at(root)


def _notes(job):
    events = []
    return drain(job, events.append), " ".join(e.text for e in events if isinstance(e, Note))


def test_the_best_is_chosen_from_the_folds_that_all_have(tmp_path):
    workspace = _validated(tmp_path, "3d_fullres", (0, 1, 2), quality=0.8)
    _validated(tmp_path, "2d", (0, 1), quality=0.3)
    answer, said = _notes(find_best(workspace, "Dataset001_Tiny", Question()))
    assert answer.best.folds == (0, 1)
    assert "2d lacks 2, 3, 4" in said and "3d_lowres is not in nnUNetPlans" in said
    assert len(answer.scored) == 3
    best = read_best(workspace.results / "Dataset001_Tiny")
    assert best.dice == max(entry.dice for entry in answer.scored)
    text = answer.instructions.read_text()
    assert f"-f 0 1 -tr nnUNetTrainer -c 3d_fullres -p nnUNetPlans --workspace {tmp_path}" in text


def test_triples_are_compared_on_request(tmp_path):
    for configuration in ("3d_fullres", "2d", "3d_lowres"):
        workspace = _validated(tmp_path, configuration, (0,), quality=0.4)
    answer, _ = _notes(find_best(workspace, "Dataset001_Tiny", Question(triples=True)))
    assert [len(entry.models) for entry in answer.scored] == [1, 1, 1, 2, 2, 2, 3]
    assert len(answer.best.models) == 3  # independent errors: the more members, the better


def test_without_probabilities_single_models_are_compared_and_the_command_is_given(tmp_path):
    workspace = _validated(tmp_path, "3d_fullres", (0,), quality=0.8)
    _validated(tmp_path, "2d", (0,), quality=0.3, npz=False)
    answer, said = _notes(find_best(workspace, "Dataset001_Tiny", Question()))
    assert len(answer.scored) == 2
    assert "napari-nnunet train Dataset001_Tiny 2d 0 --val --npz" in said


def test_folds_that_were_asked_for_must_be_there(tmp_path):
    workspace = _validated(tmp_path, "3d_fullres", (0, 1), quality=0.8)
    with pytest.raises(ModelError, match="3d_fullres lacks fold 3"):
        drain(find_best(workspace, "Dataset001_Tiny", Question(folds=(0, 3))))
    with pytest.raises(ModelError, match="Nothing to compare"):
        drain(find_best(workspace, "Dataset001_Tiny", Question(("3d_lowres",))))
    shutil.rmtree(
        workspace.results / "Dataset001_Tiny" / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "fold_0" / "validation"
    )
    shutil.rmtree(
        workspace.results / "Dataset001_Tiny" / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "fold_1" / "validation"
    )
    with pytest.raises(ModelError, match="No model has a validated fold"):
        drain(find_best(workspace, "Dataset001_Tiny", Question()))
    assert not (workspace.results / "Dataset001_Tiny" / "inference_information.json").exists()


def test_an_accumulated_folder_is_replaced_whole_and_one_of_the_users_never(tmp_path):
    workspace = _validated(tmp_path, "3d_fullres", (0, 1), quality=0.8)
    model = napari_nnunet.load_model(workspace.results / "Dataset001_Tiny" / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    folder, first = drain(accumulate(workspace, model, (0, 1)))
    stale = folder / "postprocessing.pkl"
    stale.write_bytes(b"of earlier results")
    _, second = drain(accumulate(workspace, model, (0, 1)))
    assert second.summary == first.summary
    assert not stale.exists()
    recorded = json.loads((folder / "summary.json").read_text())["metric_per_case"]
    assert all(Path(entry["prediction_file"]).is_file() for entry in recorded)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(SettingsError, match="not empty"):
        drain(accumulate(workspace, model, (0, 1), target=tmp_path / "mine"))
    # A case in two folds: the folds come from different splits.
    shutil.copy(model.folder / "fold_0" / "validation" / "c0.nii.gz", model.folder / "fold_1" / "validation")
    with pytest.raises(DatasetError, match="validated in two folds"):
        drain(accumulate(workspace, model, (0, 1)))
    assert (folder / "summary.json").is_file()
    assert not [path for path in model.folder.iterdir() if path.name.startswith(".")]


@pytest.fixture
def best(tmp_path):
    """A workspace whose best is an ensemble with a postprocessing, and images to segment."""
    workspace = _validated(tmp_path, "3d_fullres", (0, 1), quality=0.3)
    _validated(tmp_path, "2d", (0, 1), quality=0.3)
    answer = drain(find_best(workspace, "Dataset001_Tiny", Question()))
    assert len(answer.best.models) == 2
    write_cleaning(answer.best.postprocessing, Cleaning.of([1]))
    images = tmp_path / "images"
    images.mkdir()
    for i in range(2):
        write_nifti(images / f"n{i}_0000.nii.gz", smooth_image((10, 24, 24), seed=i)[0])
    return workspace, images


def test_the_best_segments_a_folder_as_its_instructions_do_by_hand(best, tmp_path):
    workspace, images = best
    words = ("-d", 1, "-i", images, "-o", tmp_path / "out", "--workspace", tmp_path, "--uncertainty")
    assert _run("predict_best", *words, "-device", "cpu") == 0
    text = (workspace.results / "Dataset001_Tiny" / "inference_instructions.txt").read_text()
    commands = [line.split()[1:] for line in text.splitlines() if line.startswith("napari-nnunet ")]
    places = {name: str(tmp_path / name) for name in ("OUTPUT_FOLDER", "OUTPUT_FOLDER_PP", "OUTPUT_FOLDER_MODEL_1",
                                                      "OUTPUT_FOLDER_MODEL_2")}  # fmt: skip
    for command in commands[1:]:
        assert main([places.get(word, str(images) if word == "INPUT_FOLDER" else word) for word in command]) == 0
    for i in range(2):
        ours = read_labels(tmp_path / "out" / f"n{i}.nii.gz")[0]
        np.testing.assert_array_equal(ours, read_labels(tmp_path / "OUTPUT_FOLDER_PP" / f"n{i}.nii.gz")[0])
        assert (tmp_path / "out" / "disagreement" / f"n{i}.nii.gz").is_file()
    # Nothing of what was needed on the way is left.
    assert not [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_a_result_tells_how_to_make_it_again(best, tmp_path, capsys):
    _, images = best
    assert _run("predict_best", "-d", 1, "-i", images, "-o", tmp_path / "out", "--workspace", tmp_path) == 0
    recipe = read_recipe(tmp_path / "out")
    capsys.readouterr()
    for style in ("command", "python", "methods"):
        assert _run("recipe", tmp_path / "out", "--as", style) == 0
    shown = capsys.readouterr().out
    assert as_command(recipe) in shown and as_python(recipe) in shown and as_methods(recipe) in shown
    # The commands run as they are printed, and give the same.
    for line in as_command(recipe, source=str(images), target=str(tmp_path / "again")).splitlines():
        assert main(line.split()[1:]) == 0
    ours = read_labels(tmp_path / "out" / "n0.nii.gz")[0]
    np.testing.assert_array_equal(read_labels(tmp_path / "again_PP" / "n0.nii.gz")[0], ours)
    names: dict = {}
    code = as_python(recipe).replace("CASE_0000.nii.gz", str(images / "n0_0000.nii.gz"))
    exec(compile(code, "recipe", "exec"), names)  # our own text: that it runs is the point
    np.testing.assert_array_equal(names["labels"], ours)
    text = as_methods(recipe)
    assert (
        "averaged" in text and "largest part of organ" in text and recipe["members"][0]["sha256"]["fold_0"][:12] in text
    )
    with pytest.raises(DatasetError, match="no recipe.json"):
        read_recipe(tmp_path)


def test_results_that_were_moved_still_find_their_postprocessing(best, tmp_path):
    workspace, _ = best
    moved = tmp_path / "elsewhere"
    shutil.copytree(workspace.results, moved / "nnUNet_results")
    shutil.rmtree(workspace.results)
    combination = best_combination(Workspace.at(moved), "Dataset001_Tiny")
    assert combination.cleaning == Cleaning.of([1])
    assert str(combination.cleaning_file).startswith(str(moved))


def test_nobody_compared_yet_and_an_edited_file_are_errors(tmp_path):
    workspace = _validated(tmp_path, "3d_fullres", (0,), quality=0.3)
    results = workspace.results / "Dataset001_Tiny"
    with pytest.raises(ModelError, match="find_best_configuration Dataset001_Tiny"):
        best_combination(workspace, "Dataset001_Tiny")
    drain(find_best(workspace, "Dataset001_Tiny", Question()))
    path = results / "inference_information.json"
    content = json.loads(path.read_text())
    sound = json.dumps(content)
    for elsewhere in ("/etc/passwd", f"{results}/../x.pkl"):
        content["best_model_or_ensemble"]["postprocessing_file"] = elsewhere
        path.write_text(json.dumps(content))
        with pytest.raises(ModelError, match="does not lie in"):
            read_best(results)
    content = json.loads(sound)
    content["best_model_or_ensemble"]["selected_model_or_models"][0]["trainer"] = "../../etc"
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="Run it again"):
        read_best(results)


def test_folds_disagree_and_one_member_alone_is_a_plain_prediction(new_model, volume):
    model = new_model(folds=(0, 1))
    members = fold_members(model, CPU, (0, 1))
    both = drain(predict_combined(Combination(members, VoteSettings(uncertainty=True)), volume))
    entropy, disagreement = both.uncertainty
    assert entropy.shape == disagreement.shape == volume.shape
    assert disagreement.max() > 0.01
    assert sum(both.counts) == both.labels.size
    alone = drain(predict_combined(Combination(members[:1]), volume))
    plain = napari_nnunet.predict(model, volume, settings=members[0].settings)
    np.testing.assert_array_equal(alone.labels, plain.labels)
    assert alone.uncertainty is None


def test_a_region_stays_the_only_part_that_is_segmented(new_model, volume):
    members = fold_members(new_model(folds=(0, 1)), CPU, (0, 1))
    roi = ((2, 10), (5, 30), (4, 33))
    result = drain(predict_combined(Combination(members), volume, roi=roi))
    inside = tuple(slice(*pair) for pair in roi)
    assert result.labels[inside].any()
    rest = result.labels.copy()
    rest[inside] = 0
    assert not rest.any()


def test_models_of_other_channels_or_classes_cannot_be_joined(new_model):
    first = new_model()
    channels = new_model(channels=("T1", "T2"), name="Dataset002_Two")
    classes = new_model(labels={"background": 0, "organ": 1}, name="Dataset003_One")
    with pytest.raises(ModelError, match="cannot segment the same image"):
        Combination((Member(first, CPU), Member(channels, CPU)))
    with pytest.raises(ModelError, match="cannot be joined"):
        Combination((Member(first, CPU), Member(classes, CPU)))
    with pytest.raises(SettingsError, match="at least one"):
        Combination(())


def test_a_cancelled_ensemble_leaves_nothing_on_disk(new_model, volume, tmp_path):
    members = fold_members(new_model(folds=(0, 1)), CPU, (0, 1))
    job = predict_combined(Combination(members), volume, folder=tmp_path / "scratch")
    for _ in range(12):
        next(job)
    job.close()
    assert not list((tmp_path / "scratch").iterdir())


def test_a_model_and_an_ensemble_are_calibrated_on_their_validation(tmp_path, capsys):
    workspace = _validated(tmp_path, "3d_fullres", (0, 1), quality=0.8)
    _validated(tmp_path, "2d", (0, 1), quality=0.3)
    for configurations in (["2d"], ["2d", "3d_fullres"]):
        assert _run("calibrate", 1, "-c", *configurations, "--workspace", tmp_path) == 0
    value, path = capsys.readouterr().out.splitlines()[:2]
    results = workspace.results / "Dataset001_Tiny"
    folders = {name: results / f"nnUNetTrainer__nnUNetPlans__{name}" for name in ("2d", "3d_fullres")}
    assert Path(path) == folders["2d"] / "calibration.json"
    assert known_temperature([folders["2d"]]) == pytest.approx(float(value.split()[1]), abs=1e-4)
    assert known_temperature([folders["3d_fullres"], folders["2d"]]) is not None  # in either order
    assert known_temperature([folders["3d_fullres"]]) is None
    content = json.loads((folders["2d"] / "calibration.json").read_text())
    assert content["cases"] == 2 and content["loss_after"] <= content["loss_before"]
    (folders["2d"] / "fold_1" / "validation" / "c1.npz").unlink()
    with pytest.raises(ModelError, match="--val --npz"):
        drain(calibrate(workspace, [napari_nnunet.load_model(folders["2d"])]))


def test_pictures_are_joined_with_their_uncertainty(new_model, tmp_path):
    import imageio.v3 as iio

    kind = {"configuration": "2d", "patch": (16, 16), "spacing": (1.0, 1.0), "file_ending": ".png",
            "reader": "NaturalImage2DIO", "folds": (0, 1)}  # fmt: skip
    model = new_model(**kind)
    (tmp_path / "in").mkdir()
    for i in range(2):
        picture = smooth_image((30, 34), seed=i)[0].clip(0, 255).astype(np.uint8)
        iio.imwrite(tmp_path / "in" / f"p{i}_0000.png", picture)
    combination = Combination(fold_members(model, CPU, (0, 1)), VoteSettings(uncertainty=True), Cleaning.of([1]))
    folder = FolderSettings(tmp_path / "in", tmp_path / "out")
    result = drain(predict_combined_folder(combination, folder, probabilities=True))
    assert result.done == ("p0", "p1")
    assert iio.imread(tmp_path / "out" / "p0.png").shape == (30, 34)
    entropy = iio.imread(tmp_path / "out" / "entropy" / "p0.tif")
    assert entropy.shape == (30, 34) and entropy.dtype == np.float32 and 0 < entropy.max() <= 1
    # The same from files, without the networks.
    for fold in (0, 1):
        words = ("-m", model.folder, "-i", tmp_path / "in", "-o", tmp_path / f"f{fold}", "-f", fold, "-device", "cpu",
                 "--precision", "float32")  # fmt: skip
        assert _run("predict_from_modelfolder", *words, "--save_probabilities", "--disable_tta") == 0
    words = ("-i", tmp_path / "f0", tmp_path / "f1", "-o", tmp_path / "joined", "--uncertainty")
    assert _run("ensemble", *words) == 0
    assert iio.imread(tmp_path / "joined" / "disagreement" / "p1.tif").shape == (30, 34)
    assert len(read_recipe(tmp_path / "joined")["members"]) == 2
    write_cleaning(tmp_path / "p.pkl", Cleaning.of([1]))
    words = ("-i", tmp_path / "joined", "-o", tmp_path / "pp", "-pp_pkl_file", tmp_path / "p.pkl")
    assert _run("apply_postprocessing", *words, "-plans_json", model.folder / "plans.json") == 0
    assert "apply_postprocessing" in as_command(read_recipe(tmp_path / "pp"))
    for i in range(2):
        ours = iio.imread(tmp_path / "out" / f"p{i}.png")
        assert (ours == iio.imread(tmp_path / "pp" / f"p{i}.png")).mean() > 0.999


def test_time_points_and_regions_are_segmented_together(new_model):
    kind = {"labels": {"background": 0, "whole": [1, 2], "core": [2]}, "regions_class_order": (1, 2), "folds": (0, 1)}
    members = fold_members(new_model(**kind), CPU, (0, 1))
    frames = []
    for i in range(2):
        volume = Volume(smooth_image((9, 20, 18), seed=i), Geometry(spacing=(1.0,) * 3))
        frames.append((volume, np.zeros(volume.shape, dtype=np.uint8), None))
    found = drain(predict_combined_series(Combination(members, VoteSettings(uncertainty=True)), frames))
    assert [result.labels is frame[1] for result, frame in zip(found, frames, strict=True)] == [True, True]
    for result in found:
        assert set(np.unique(result.labels)) <= {0, 1, 2} and result.labels.any()
        assert result.uncertainty[0].min() >= 0 and result.uncertainty[0].max() <= 1


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    workspace = _validated(tmp_path, "3d_fullres", (0,), quality=0.8)
    model = napari_nnunet.load_model(workspace.results / "Dataset001_Tiny" / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    gone = model.folder / ".crossval_results_folds_0.partial-999999-abc123"
    gone.mkdir()
    (gone / "x").write_text("x")
    drain(accumulate(workspace, model, (0,)))
    assert not gone.exists()


def test_a_class_that_nobody_has_leaves_nothing_to_choose_but_one_model_that_invents_it_does_not(tmp_path):
    workspace = _validated(tmp_path, "2d", (0,), quality=0.9, npz=False)
    _validated(tmp_path, "3d_fullres", (0,), quality=0.9, npz=False)
    references = workspace.preprocessed / "Dataset001_Tiny" / "gt_segmentations"
    results = workspace.results / "Dataset001_Tiny"
    files = {name: results / f"nnUNetTrainer__nnUNetPlans__{name}" / "fold_0" / "validation" / "c0.nii.gz"
             for name in ("2d", "3d_fullres")}  # fmt: skip
    for path in (references / "c0.nii.gz", *files.values()):
        write_nifti(path, np.minimum(_labels(0), 1))
    with pytest.raises(DatasetError, match="No model .* can be judged"):
        drain(find_best(workspace, "Dataset001_Tiny", Question(ensembling=False)))
    invented = np.minimum(_labels(0), 1)
    invented[0, 0, 0] = 2
    write_nifti(files["3d_fullres"], invented)
    answer = drain(find_best(workspace, "Dataset001_Tiny", Question(ensembling=False)))
    assert answer.best.models[0].configuration == "3d_fullres"
