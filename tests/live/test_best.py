"""Five folds of four configurations, handed to nnunetv2: the same choice, scores and files, and zips both ways."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers import TRAINED, Recipe, configuration_of, make_trainable, preprocess_here, smooth_image, write_nifti
from napari_nnunet.cli import main
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.results.postprocessing import read_cleaning
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.best import find_best
from napari_nnunet.jobs.training.train import train
from napari_nnunet.schema.requests.choosing import FindBestRequest
from napari_nnunet.schema.requests.training import TrainRequest, TrainSettings

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("nnunetv2")

SHORT = TrainSettings(epochs=2, iterations=8, validation_iterations=1, workers=0, device="cpu", probabilities=True)
CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")


def _theirs(workspace, entry, *words):
    """Run one of nnU-Net's own commands."""
    module, function = entry.split(":")
    code = f"import sys; from {module} import {function} as f\nif __name__ == '__main__': sys.argv[0] = 'x'; f()"
    script = workspace.raw.parent / f"{function}.py"
    script.write_text(code)
    places = {
        name: str(getattr(workspace, name[7:])) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    }
    command = [sys.executable, str(script), *map(str, words)]
    done = subprocess.run(command, env={**os.environ, **places}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workspace with five folds of everything, the cascade included."""
    root = tmp_path_factory.mktemp("five")
    make_trainable(root, cases=10)
    workspace = Workspace.at(root)
    base = workspace.preprocessed / TRAINED
    plans = json.loads((base / "nnUNetPlans.json").read_text(encoding="utf-8"))
    full = plans["configurations"]["3d_fullres"]
    low = configuration_of(Recipe(configuration="3d_lowres", spacing=(1.5,) * 3))
    flat = configuration_of(Recipe(configuration="2d", patch=(16, 16), spacing=(1.0, 1.0)))
    plans["configurations"] = {
        "2d": flat,
        "3d_lowres": {**low, "next_stage": "3d_cascade_fullres"},
        "3d_fullres": full,
        "3d_cascade_fullres": {**full, "previous_stage": "3d_lowres"},
    }
    (base / "nnUNetPlans.json").write_text(json.dumps(plans))
    (base / "dataset_fingerprint.json").write_text("{}")
    preprocess_here(workspace, open_dataset(workspace.raw / TRAINED))
    for configuration in ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"):
        for fold in range(5):
            drain(
                train(
                    workspace,
                    TrainRequest.like(SHORT, dataset=TRAINED, configuration=configuration, fold=fold),
                )
            )
    return workspace


def _copy(workspace, target):
    shutil.copytree(workspace.raw.parent, target)
    return Workspace.at(target)


def _same(a, b):
    if isinstance(a, dict):
        return set(a) == set(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or a == pytest.approx(b, rel=1e-12)
    return a == b


def test_choice_scores_and_files_are_nnunets(trained, tmp_path):
    ours, theirs = (_copy(trained, tmp_path / name) for name in ("ours", "theirs"))
    answer = drain(find_best(ours, FindBestRequest(dataset=TRAINED)))
    entry = "nnunetv2.evaluation.find_best_configuration:find_best_configuration_entry_point"
    _theirs(theirs, entry, "6", "-c", *CONFIGURATIONS, "-np", "2")
    found, expected = (
        json.loads((w.results / TRAINED / "inference_information.json").read_text(encoding="utf-8"))
        for w in (ours, theirs)
    )
    assert found["all_results"].keys() == expected["all_results"].keys()
    assert len(found["all_results"]) == 4 + 6
    assert _same(found["all_results"], expected["all_results"])
    assert found["considered_models"] == expected["considered_models"]
    best, their_best = (information["best_model_or_ensemble"] for information in (found, expected))
    for key in ("postprocessing_file", "some_plans_file"):
        relative = [str(Path(b[key]).relative_to(w.results)) for b, w in ((best, ours), (their_best, theirs))]
        assert relative[0] == relative[1]
    for key in ("result_on_crossval_pre_pp", "result_on_crossval_post_pp", "selected_model_or_models"):
        assert _same(best[key], their_best[key])
    steps = [read_cleaning(w.results / answer.best.postprocessing.relative_to(ours.results)) for w in (ours, theirs)]
    assert steps[0] == steps[1]
    compared = 0
    for path in sorted(theirs.results.rglob("*.nii.gz")):
        if "fold_" in str(path.relative_to(theirs.results).parts[2]):
            continue
        mine = ours.results / path.relative_to(theirs.results)
        np.testing.assert_array_equal(read_labels(mine)[0], read_labels(path)[0])
        compared += 1
    assert compared >= 10 * 10
    for path in theirs.results.rglob("summary.json"):
        mine, their = (
            json.loads(p.read_text(encoding="utf-8")) for p in (ours.results / path.relative_to(theirs.results), path)
        )
        assert _same(mine["mean"], their["mean"]) and _same(mine["foreground_mean"], their["foreground_mean"])


def test_the_cascade_is_carried_out_whole_and_as_nnunet_does_it(trained, tmp_path):
    workspace = _copy(trained, tmp_path / "w")
    answer = drain(find_best(workspace, FindBestRequest(dataset=TRAINED, configurations=("3d_cascade_fullres",))))
    images = tmp_path / "images"
    images.mkdir()
    for i in range(2):
        write_nifti(images / f"n{i}_0000.nii.gz", smooth_image((12, 24, 22), seed=50 + i)[0])
    assert main(["predict_best", "-d", "6", "-i", str(images), "-o", str(tmp_path / "out"), "--workspace",
                 str(workspace.raw.parent), "-device", "cpu"]) == 0  # fmt: skip
    text = answer.instructions.read_text(encoding="utf-8")
    assert "-prev_stage_predictions OUTPUT_FOLDER_FIRST" in text and "-c 3d_lowres" in text
    predict = "nnunetv2.inference.predict_from_raw_data:predict_entry_point"
    common = ("-i", images, "-d", "6", "-tr", "nnUNetTrainer", "-p", "nnUNetPlans", "-device", "cpu")
    _theirs(workspace, predict, *common, "-o", tmp_path / "low", "-c", "3d_lowres")
    cascade = ("-o", tmp_path / "high", "-c", "3d_cascade_fullres", "-prev_stage_predictions", tmp_path / "low")
    _theirs(workspace, predict, *common, *cascade)
    apply = "nnunetv2.postprocessing.remove_connected_components:entry_point_apply_postprocessing"
    _theirs(
        workspace, apply, "-i", tmp_path / "high", "-o", tmp_path / "pp", "-pp_pkl_file", answer.best.postprocessing
    )
    for i in range(2):
        ours = read_labels(tmp_path / "out" / f"n{i}.nii.gz")[0]
        assert (ours == read_labels(tmp_path / "pp" / f"n{i}.nii.gz")[0]).mean() > 0.99


def test_zips_go_both_ways(trained, tmp_path):
    workspace = _copy(trained, tmp_path / "w")
    drain(find_best(workspace, FindBestRequest(dataset=TRAINED, configurations=("2d", "3d_fullres"))))
    ours, theirs = tmp_path / "ours.zip", tmp_path / "theirs.zip"
    words = ["export_model_to_zip", "-d", "6", "-o", str(ours), "--workspace", str(workspace.raw.parent), "--light"]
    assert main([*words, "-c", "2d", "3d_fullres"]) == 0
    export = "nnunetv2.model_sharing.entry_points:export_pretrained_model_entry"
    _theirs(workspace, export, "-d", "6", "-o", theirs, "-c", "2d", "3d_fullres")
    images = tmp_path / "images"
    images.mkdir()
    write_nifti(images / "n_0000.nii.gz", smooth_image((12, 24, 22), seed=60)[0])
    results = {}
    for name, path in (("ours", ours), ("theirs", theirs)):
        for who in ("us", "them"):
            place = Workspace.at(tmp_path / f"{name} {who}".replace(" ", "_"))
            for folder in (place.raw, place.preprocessed, place.results):
                folder.mkdir(parents=True)
            if who == "us":
                assert main(["install_pretrained_model_from_zip", str(path), "--workspace", str(place.raw.parent)]) == 0
            else:
                _theirs(place, "nnunetv2.model_sharing.entry_points:install_from_zip_entry_point", path)
            out = tmp_path / f"{name}_{who}_out"
            common = ("-i", images, "-o", out, "-d", TRAINED, "-c", "3d_fullres", "-device", "cpu")
            if name == "theirs" or who == "us":
                assert main(["predict", *map(str, common), "--workspace", str(place.raw.parent)]) == 0
            else:
                _theirs(place, "nnunetv2.inference.predict_from_raw_data:predict_entry_point", *common)
            results[name, who] = read_labels(out / "n.nii.gz")[0]
    first = results["ours", "us"]
    for other in results.values():
        assert (first == other).mean() > 0.99
