"""Evaluation, postprocessing, ensembles and the choice of the best against what nnU-Net v2 2.8.1 gave."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers import read_probabilities
from napari_nnunet.engine.choosing.components import to_remove
from napari_nnunet.events import drain
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.results.postprocessing import read_cleaning
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.best import find_best
from napari_nnunet.jobs.choosing.ensemble import ensemble_folders
from napari_nnunet.jobs.choosing.evaluate import EvaluationFiles, Rules, evaluate_folder
from napari_nnunet.jobs.choosing.postprocess import determine
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.requests.choosing import EnsembleRequest, FindBestRequest

pytestmark = pytest.mark.parity


def _info(folder: Path) -> DatasetInfo:
    return DatasetInfo.parse_json((folder / "dataset.json").read_text(encoding="utf-8"))


def _read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def _same(found, expected):
    """Whether two JSON values are the same, NaN being NaN."""
    if isinstance(expected, dict):
        return set(found) == set(expected) and all(_same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(_same, found, expected))
    if isinstance(expected, float) and math.isnan(expected):
        return math.isnan(found)
    return found == (pytest.approx(expected, rel=1e-12) if isinstance(expected, float) else expected)


@pytest.mark.parametrize("name", ["labels", "regions", "ignore", "absent"])
def test_summaries_agree_to_the_digit(real_data, tmp_path, name):
    folder = real_data / "parity" / "numerics" / "metrics" / name
    output = EvaluationFiles(tmp_path / "summary.json", tmp_path / "table.csv")
    drain(evaluate_folder(folder / "ref", folder / "pred", Rules.of(_info(folder)), output))
    found, expected = _read(tmp_path / "summary.json"), _read(folder / "summary.json")
    for key in ("mean", "foreground_mean"):
        assert _same(found[key], expected[key])
    for ours, theirs in zip(found["metric_per_case"], expected["metric_per_case"], strict=True):
        assert _same(ours["metrics"], theirs["metrics"])
        assert Path(ours["prediction_file"]).name == Path(theirs["prediction_file"]).name
    lines = (tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("case,label,Dice,")
    assert len(lines) == 1 + sum(len(case["metrics"]) for case in expected["metric_per_case"])


NAMES = ["foreground_helps", "only_label_1", "only_label_2", "nothing_helps", "regions", "region_core", "one_label"]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_postprocessing_is_chosen(real_data, tmp_path, name):
    folder = real_data / "parity" / "numerics" / "postprocessing" / name
    pred = tmp_path / "pred"
    shutil.copytree(folder / "pred", pred)
    info = _info(pred)
    found = drain(determine(pred, folder / "ref", Rules.of(info), info.labels))
    expected = folder / "expected"
    assert found.cleaning == read_cleaning(expected / "postprocessing.pkl")
    assert read_cleaning(pred / "postprocessing.pkl") == found.cleaning
    assert read_cleaning(pred / "postprocessing.json").steps == read_cleaning(expected / "postprocessing.json").steps
    assert _same(_read(pred / "postprocessing.json"), _read(expected / "postprocessing.json"))
    cases = list((expected / "postprocessed").glob("*.nii.gz"))
    assert cases
    for path in cases:
        np.testing.assert_array_equal(read_labels(pred / "postprocessed" / path.name)[0], read_labels(path)[0])


def test_largest_components_are_the_recorded_ones(real_data):
    folder = real_data / "parity" / "numerics"
    arrays = np.load(folder / "largest_component.npz")
    for case in _read(folder / "largest_component.json")["cases"]:
        target = case["labels_or_regions"]
        if case["type"] == "tuple":
            target = tuple(target)
        elif case["type"] == "list":
            target = [tuple(t) if isinstance(t, list) else t for t in target]
        labels = arrays[f"{case['id']}_in"].copy()
        wrong = to_remove(labels, target)
        if wrong is not None:
            labels[wrong] = 0
        np.testing.assert_array_equal(labels, arrays[f"{case['id']}_out"])


@pytest.mark.parametrize("name", ["labels", "three_members", "regions"])
def test_ensembles_are_identical(real_data, tmp_path, name):
    folder = real_data / "parity" / "numerics" / "ensemble" / name
    members = sorted(folder.glob("member_*"))
    drain(
        ensemble_folders(
            EnsembleRequest(sources=members, target=tmp_path / "out", uncertainty=True, probabilities=True)
        )
    )
    ending = _info(members[0]).file_ending
    for path in sorted((folder / "expected").glob("*.npz")):
        ours = tmp_path / "out" / path.name
        np.testing.assert_allclose(read_probabilities(ours), np.load(path)["probabilities"], atol=1e-7)
        labels, geometry = read_labels(ours.with_suffix("").with_name(path.stem + ending))
        expected, theirs = read_labels(path.with_name(path.stem + ending))
        np.testing.assert_array_equal(labels, expected)
        assert geometry == theirs
        assert ours.with_suffix(".pkl").is_file()


@pytest.mark.parametrize("name", ["ensemble_wins", "single_wins"])
def test_the_same_configuration_is_best(real_data, tmp_path, name):
    source = real_data / "parity" / "numerics" / "find_best" / name
    shutil.copytree(source, tmp_path / "w")
    workspace = Workspace.at(tmp_path / "w")
    dataset = next(workspace.results.iterdir()).name
    request = FindBestRequest(dataset=dataset, configurations=("2d", "3d_fullres"), folds=(0, 1, 2))
    answer = drain(find_best(workspace, request))
    found = _read(workspace.results / dataset / "inference_information.json")
    best = found["best_model_or_ensemble"]
    for key in ("postprocessing_file", "some_plans_file"):
        best[key] = str(Path(best[key]).relative_to(workspace.results))
    assert _same(found, _read(source / "expected" / "inference_information.json"))
    report = answer.best.postprocessing.with_suffix(".json")
    assert _same(_read(report), _read(source / "expected" / "postprocessing.json"))
    # Asked again without overwriting, nothing is computed twice and the answer is the same.
    before = (answer.scored[0].folder / "summary.json").stat().st_mtime_ns
    again = drain(find_best(workspace, request.replace(overwrite=False)))
    assert (answer.scored[0].folder / "summary.json").stat().st_mtime_ns == before
    assert again.best == answer.best


@pytest.mark.real
def test_the_ensemble_of_two_trained_models_is_nnunets(real_data, tmp_path):
    folder = real_data / "models" / "predictions"
    drain(
        ensemble_folders(
            EnsembleRequest(
                sources=[folder / "2d_probabilities", folder / "3d_fullres_probabilities"], target=tmp_path / "out"
            )
        )
    )
    for path in sorted((folder / "ensemble").glob("*.nii.gz")):
        np.testing.assert_array_equal(read_labels(tmp_path / "out" / path.name)[0], read_labels(path)[0])


@pytest.mark.real
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_the_recorded_scores_of_real_models_are_found_again(real_data, tmp_path, configuration):
    model = real_data / "models" / "Dataset004_Hippocampus" / f"nnUNetTrainer__nnUNetPlansSmall__{configuration}"
    validation = model / "fold_0" / "validation"
    references = real_data / "data" / "Dataset004_Hippocampus" / "labelsTr"
    output = EvaluationFiles(tmp_path / "s.json")
    rules = Rules.of(_info(model))
    result = drain(evaluate_folder(references, validation, rules, output, missing_ok=True))
    expected = _read(validation / "summary.json")
    assert _same(result.summary.mean, expected["mean"])
    assert _same(result.summary.foreground, expected["foreground_mean"])
