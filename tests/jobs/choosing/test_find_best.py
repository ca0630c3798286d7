"""The best model or ensemble of a dataset is chosen from the validated folds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import napari_nnunet
from choices import (
    notes,
    random_labels,
    run_verb,
    validated,
)
from helpers import write_nifti
from napari_nnunet.errors import DatasetError, ModelError, SettingsError
from napari_nnunet.events import drain
from napari_nnunet.formats.results.inference_information import read_best
from napari_nnunet.jobs.choosing.best import find_best
from napari_nnunet.jobs.choosing.calibrate import calibrate, known_temperature
from napari_nnunet.jobs.choosing.crossval import collect
from napari_nnunet.schema.requests.choosing import CalibrateRequest, FindBestRequest


def test_the_best_is_chosen_from_the_folds_that_all_have(tmp_path):
    workspace = validated(tmp_path, "3d_fullres", (0, 1, 2), quality=0.8)
    validated(tmp_path, "2d", (0, 1), quality=0.3)
    answer, said = notes(find_best(workspace, FindBestRequest(dataset="Dataset001_Tiny")))
    assert answer.best.folds == (0, 1)
    assert "2d lacks fold 2, 3, 4" in said and "3d_lowres is not in nnUNetPlans" in said
    assert len(answer.scored) == 3
    best = read_best(workspace.results / "Dataset001_Tiny")
    assert best.dice == max(entry.dice for entry in answer.scored)
    text = answer.instructions.read_text(encoding="utf-8")
    assert f"-f 0 1 -tr nnUNetTrainer -c 3d_fullres -p nnUNetPlans --workspace {tmp_path}" in text


def test_means_over_other_cases_are_not_compared_without_a_word(tmp_path):
    workspace = validated(tmp_path, "3d_fullres", (0, 1), quality=0.8)
    validated(tmp_path, "2d", (0, 1), quality=0.3)
    model = workspace.results / "Dataset001_Tiny" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    shutil.copy(model / "fold_1/validation/c1.nii.gz", model / "fold_1/validation/c2.nii.gz")
    shutil.copy(workspace.preprocessed / "Dataset001_Tiny/gt_segmentations/c1.nii.gz", tmp_path / "c2.nii.gz")
    (tmp_path / "c2.nii.gz").rename(workspace.preprocessed / "Dataset001_Tiny/gt_segmentations/c2.nii.gz")
    _, said = notes(find_best(workspace, FindBestRequest(dataset="Dataset001_Tiny", ensembling=False)))
    assert "of 3 cases nnUNetTrainer__nnUNetPlans__2d lacks 1 (c2)" in said


def test_triples_are_compared_on_request(tmp_path):
    for configuration in ("3d_fullres", "2d", "3d_lowres"):
        workspace = validated(tmp_path, configuration, (0,), quality=0.4)
    answer, _ = notes(find_best(workspace, FindBestRequest(dataset="Dataset001_Tiny", triples=True)))
    assert [len(entry.models) for entry in answer.scored] == [1, 1, 1, 2, 2, 2, 3]
    assert len(answer.best.models) == 3  # independent errors: the more members, the better


def test_without_probabilities_single_models_are_compared_and_the_command_is_given(tmp_path):
    workspace = validated(tmp_path, "3d_fullres", (0,), quality=0.8)
    validated(tmp_path, "2d", (0,), quality=0.3, npz=False)
    answer, said = notes(find_best(workspace, FindBestRequest(dataset="Dataset001_Tiny")))
    assert len(answer.scored) == 2
    assert "napari-nnunet train Dataset001_Tiny 2d 0 --val --npz" in said


def test_folds_that_were_asked_for_must_be_there(tmp_path):
    workspace = validated(tmp_path, "3d_fullres", (0, 1), quality=0.8)
    with pytest.raises(ModelError, match="3d_fullres lacks fold 3"):
        drain(find_best(workspace, FindBestRequest(dataset="Dataset001_Tiny", folds=(0, 3))))
    with pytest.raises(ModelError, match="Nothing to compare"):
        drain(
            find_best(
                workspace,
                FindBestRequest(dataset="Dataset001_Tiny", configurations=("3d_lowres",)),
            )
        )
    shutil.rmtree(
        workspace.results / "Dataset001_Tiny" / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "fold_0" / "validation"
    )
    shutil.rmtree(
        workspace.results / "Dataset001_Tiny" / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "fold_1" / "validation"
    )
    with pytest.raises(ModelError, match="No model has a validated fold"):
        drain(find_best(workspace, FindBestRequest(dataset="Dataset001_Tiny")))
    assert not (workspace.results / "Dataset001_Tiny" / "inference_information.json").exists()


def test_an_accumulated_folder_is_replaced_whole_and_one_of_the_users_never(tmp_path):
    workspace = validated(tmp_path, "3d_fullres", (0, 1), quality=0.8)
    model = napari_nnunet.load_model(workspace.results / "Dataset001_Tiny" / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    first = drain(collect(workspace, model, (0, 1)))
    folder = first.folder
    stale = folder / "postprocessing.pkl"
    stale.write_bytes(b"of earlier results")
    second = drain(collect(workspace, model, (0, 1)))
    assert second.evaluation.summary == first.evaluation.summary
    assert not stale.exists()
    recorded = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["metric_per_case"]
    assert all(Path(entry["prediction_file"]).is_file() for entry in recorded)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(SettingsError, match="not empty"):
        drain(collect(workspace, model, (0, 1), target=tmp_path / "mine"))
    # A case in two folds: the folds come from different splits.
    shutil.copy(model.folder / "fold_0" / "validation" / "c0.nii.gz", model.folder / "fold_1" / "validation")
    with pytest.raises(DatasetError, match="validated in two folds"):
        drain(collect(workspace, model, (0, 1)))
    assert (folder / "summary.json").is_file()
    assert not [path for path in model.folder.iterdir() if path.name.startswith(".")]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    workspace = validated(tmp_path, "3d_fullres", (0,), quality=0.8)
    model = napari_nnunet.load_model(workspace.results / "Dataset001_Tiny" / "nnUNetTrainer__nnUNetPlans__3d_fullres")
    gone = model.folder / ".crossval_results_folds_0.partial-999999-abc123"
    gone.mkdir()
    (gone / "x").write_text("x")
    drain(collect(workspace, model, (0,)))
    assert not gone.exists()


def test_a_class_that_nobody_has_leaves_nothing_to_choose_but_one_model_that_invents_it_does_not(tmp_path):
    workspace = validated(tmp_path, "2d", (0,), quality=0.9, npz=False)
    validated(tmp_path, "3d_fullres", (0,), quality=0.9, npz=False)
    references = workspace.preprocessed / "Dataset001_Tiny" / "gt_segmentations"
    results = workspace.results / "Dataset001_Tiny"
    files = {name: results / f"nnUNetTrainer__nnUNetPlans__{name}" / "fold_0" / "validation" / "c0.nii.gz"
             for name in ("2d", "3d_fullres")}  # fmt: skip
    for path in (references / "c0.nii.gz", *files.values()):
        write_nifti(path, np.minimum(random_labels(0), 1))
    with pytest.raises(DatasetError, match="No model .* can be scored"):
        drain(find_best(workspace, FindBestRequest(dataset="Dataset001_Tiny", ensembling=False)))
    invented = np.minimum(random_labels(0), 1)
    invented[0, 0, 0] = 2
    write_nifti(files["3d_fullres"], invented)
    answer = drain(find_best(workspace, FindBestRequest(dataset="Dataset001_Tiny", ensembling=False)))
    assert answer.best.models[0].configuration == "3d_fullres"


def test_a_model_and_an_ensemble_are_calibrated_on_their_validation(tmp_path, capsys):
    workspace = validated(tmp_path, "3d_fullres", (0, 1), quality=0.8)
    validated(tmp_path, "2d", (0, 1), quality=0.3)
    for configurations in (["2d"], ["2d", "3d_fullres"]):
        assert run_verb("calibrate", 1, "-c", *configurations, "--workspace", tmp_path) == 0
    value, path = capsys.readouterr().out.splitlines()[:2]
    results = workspace.results / "Dataset001_Tiny"
    folders = {name: results / f"nnUNetTrainer__nnUNetPlans__{name}" for name in ("2d", "3d_fullres")}
    assert Path(path) == folders["2d"] / "calibration.json"
    assert known_temperature([folders["2d"]]) == pytest.approx(float(value.split()[1]), abs=1e-4)
    assert known_temperature([folders["3d_fullres"], folders["2d"]]) is not None  # in either order
    assert known_temperature([folders["3d_fullres"]]) is None
    content = json.loads((folders["2d"] / "calibration.json").read_text(encoding="utf-8"))
    assert content["cases"] == 2 and content["loss_after"] <= content["loss_before"]
    (folders["2d"] / "fold_1" / "validation" / "c1.npz").unlink()
    with pytest.raises(ModelError, match="--val --npz"):
        drain(calibrate(workspace, CalibrateRequest(dataset="Dataset001_Tiny", configurations=("2d",))))
