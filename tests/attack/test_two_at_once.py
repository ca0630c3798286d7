"""Two processes that want the same folder: one gets it, the other a sentence, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from helpers import DATASET, Recipe, make_dataset, make_model, smooth_image, write_nifti
from napari_nnunet.errors import DatasetError, ModelError, SettingsError
from napari_nnunet.events import Progress, drain
from napari_nnunet.formats.claim import claimed, is_claimed, moving
from napari_nnunet.formats.dataset.case_trash import cases_in_trash
from napari_nnunet.formats.dataset.changing import changing
from napari_nnunet.formats.dataset.raw_writer import bring_case_back, drop_case, place_labels, set_spacing
from napari_nnunet.formats.dataset.relabel import change_classes, remap_dataset
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.model.model_trash import trash_model
from napari_nnunet.formats.preprocessed.cases import case_names
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.cases import NewCase, add_case, correct_reference
from napari_nnunet.jobs.dataset.manage import remove_dataset, rename_dataset
from napari_nnunet.jobs.planning.folds import fold_job
from napari_nnunet.jobs.planning.plan import extract_fingerprint, plan_experiment
from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
from napari_nnunet.jobs.planning.preprocess import preprocess
from napari_nnunet.jobs.prediction.predict_files import predict_folder
from napari_nnunet.jobs.sharing.export import export_models
from napari_nnunet.jobs.sharing.install import install_zip
from napari_nnunet.jobs.training.begin import require_the_same
from napari_nnunet.jobs.training.order import make_order
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.planning import (
    FingerprintRequest,
    FoldsRequest,
    PlanAndPreprocessRequest,
    PlanRequest,
    PreprocessRequest,
)
from napari_nnunet.schema.requests.prediction import PredictFolderRequest
from napari_nnunet.schema.requests.sharing import ExportSettings, InstallRequest
from napari_nnunet.schema.requests.training import TrainRequest

CONTENDER = """
import sys, time
from pathlib import Path
from napari_nnunet.errors import SettingsError
from napari_nnunet.formats.claim import claimed
print("ready", flush=True)
time.sleep(max(0.0, float(sys.stdin.readline()) - time.time()))
try:
    with claimed(Path(sys.argv[1]), "The folder is already being filled"):
        print("won", flush=True)
        sys.stdin.readline()
except SettingsError as error:
    print(error.message, flush=True)
"""


def contenders(folder, count):
    """Start processes that claim a folder at the same instant; returns them and what each of them said."""
    found = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(count)
    ]
    assert [process.stdout.readline() for process in found] == ["ready\n"] * count
    for process in found:
        process.stdin.write(f"{time.time() + 0.3}\n")
        process.stdin.flush()
    return found, [process.stdout.readline() for process in found]


def end(processes):
    for process in processes:
        process.communicate("\n", timeout=300)


@pytest.mark.parametrize("left", ["nothing", "a dead claim", "an empty claim"])
def test_of_many_that_start_at_the_same_instant_exactly_one_wins(tmp_path, left):
    old = {"pid": os.getpid(), "host": os.uname().nodename, "created": 1.0, "started": 1.0, "token": "old"}
    for i in range(3):
        folder = tmp_path / str(i)
        if left != "nothing":
            folder.mkdir()
            (folder / ".claimed").write_text(json.dumps(old) if left == "a dead claim" else "")
            os.utime(folder / ".claimed", (1, 1))
        processes, said = contenders(folder, 4)
        end(processes)
        assert said.count("won\n") == 1, said
        assert all(s == "won\n" or s.startswith("The folder is already being filled by") for s in said)
        assert not folder.exists() or list(folder.iterdir()) == []


def test_what_a_kill_left_while_a_dead_claim_was_removed_goes_with_the_next_one(tmp_path):
    left, other = tmp_path / f".claimed.{'0' * 16}", tmp_path / f".x.claimed.{'0' * 16}"
    for path in (left, other, tmp_path / ".claimed"):
        path.touch()
        os.utime(path, (1, 1))
    with claimed(tmp_path, "It is being written"):
        assert not left.exists()
        assert other.exists()


def test_the_second_is_told_who_has_the_folder_since_when_and_what_to_do(tmp_path):
    with claimed(tmp_path / "out", "Dataset001 is already being preprocessed"):
        expected = rf"Dataset001 is already.* by process {os.getpid()} since \d{{4}}-\d\d-\d\d \d\d:\d\d\. Wait for it"
        with pytest.raises(SettingsError, match=expected), claimed(tmp_path / "out", "Another"):
            pass
        assert is_claimed(tmp_path / "out")
        with claimed(tmp_path / "out", "Another", part="x" * 240):
            pass
    assert not (tmp_path / "out").exists()


def test_a_claim_of_another_computer_holds_until_its_file_is_deleted(tmp_path):
    there = {"pid": 1, "host": "elsewhere", "created": 1.0, "started": time.time(), "doing": "X is already being made"}
    (tmp_path / ".claimed").write_text(json.dumps(there))
    expected = r"X is already being made by process 1 on elsewhere since .* if it no longer runs, delete .*\.claimed"
    with pytest.raises(SettingsError, match=expected), claimed(tmp_path, "Y"):
        pass
    (tmp_path / ".claimed").unlink()
    with claimed(tmp_path, "Y"):
        pass


def test_a_process_that_was_killed_leaves_no_claim_that_holds(tmp_path):
    (process,), said = contenders(tmp_path, 1)
    assert said == ["won\n"]
    assert is_claimed(tmp_path)
    process.kill()
    process.communicate()
    assert (tmp_path / ".claimed").is_file()
    with claimed(tmp_path, "Y"):
        assert json.loads((tmp_path / ".claimed").read_text(encoding="utf-8"))["pid"] == os.getpid()


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace.at(make_dataset(tmp_path).parents[1])
    drain(plan_and_preprocess(workspace, PlanAndPreprocessRequest(dataset=DATASET, configurations=())))
    return workspace


def until(job, kind):
    for event in job:
        if isinstance(event, kind):
            return


def test_two_preprocessings_of_a_dataset_do_not_delete_each_others_cases(workspace):
    first = preprocess(workspace, PreprocessRequest(dataset=DATASET, workers=0))
    with closing(first):
        until(first, Progress)
        staging = workspace.preprocessed / DATASET / ".unfinished"
        for _ in range(2):
            with pytest.raises(SettingsError, match=f"{DATASET} is already being preprocessed by process"):
                drain(preprocess(workspace, PreprocessRequest(dataset=DATASET)))
        assert staging.is_dir()
        result = None
        while result is None:
            try:
                next(first)
            except StopIteration as done:
                result = done.value
    assert sorted(result.done) == ["c0", "c1", "c2", "c3"]
    assert [case_names(folder) for folder in result.folders] == [["c0", "c1", "c2", "c3"]] * len(result.folders)
    assert drain(preprocess(workspace, PreprocessRequest(dataset=DATASET))).done == ()


def test_a_dataset_is_measured_and_planned_by_one_at_a_time(workspace):
    first = extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET, clean=True, workers=0))
    with closing(first):
        next(first)
        with pytest.raises(SettingsError, match=f"{DATASET} is already being measured by process"):
            drain(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET, clean=True)))
    drain(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET, clean=True)))
    with (
        claimed(workspace.preprocessed / DATASET, "The plans are already being made", part="nnUNetPlans.json"),
        pytest.raises(SettingsError, match="The plans are already being made by process"),
    ):
        drain(plan_experiment(workspace, PlanRequest(dataset=DATASET)))


def test_two_predictions_do_not_share_a_folder_unless_they_share_the_cases(tmp_path):
    model = make_model(tmp_path / "results", Recipe())
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        write_nifti(tmp_path / "in" / f"{name}_0000.nii.gz", smooth_image((12, 20, 20), seed=1)[0])
    request = PredictFolderRequest(source=tmp_path / "in", target=tmp_path / "out", device="cpu", folds=(0,))
    first = predict_folder(model, request)
    with closing(first):
        next(first)
        with pytest.raises(SettingsError, match="out is already being filled with segmentations by process"):
            drain(predict_folder(model, request))
    assert not is_claimed(tmp_path / "out")
    first = predict_folder(model, request.replace(parts=2, part=0))
    with closing(first):
        next(first)
        assert drain(predict_folder(model, request.replace(parts=2, part=1))).done == ("b",)


def test_a_dataset_is_changed_by_one_at_a_time_and_one_that_is_refused_leaves_no_folder(tmp_path):
    folder = make_dataset(tmp_path)
    image, geometry = smooth_image((4, 5, 6)), Geometry(spacing=(1.0,) * 3)
    new = NewCase(
        folder, "d", image, np.zeros((4, 5, 6), int), geometry, {}, {"background": 0, "a": 1}, ("MR",), ".nii.gz"
    )
    survey = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    (entry,) = [drop_case(folder, "c0")] and cases_in_trash(folder)
    changes = (
        lambda: drain(add_case(new)),
        lambda: drain(correct_reference(folder, "c1", np.zeros((20, 24, 22), int))),
        lambda: drop_case(folder, "c1"),
        lambda: bring_case_back(folder, entry),
        lambda: place_labels(folder, "c1"),
        lambda: set_spacing(folder, (1, 1, 1)),
        lambda: remap_dataset(folder),
        lambda: change_classes(folder, {"a": "b"}),
    )
    with changing(folder):
        for change in changes:
            with pytest.raises(SettingsError, match=f"{DATASET} is already being changed by process"):
                change()
    bring_case_back(folder, entry)
    assert json.loads((folder / "dataset.json").read_text(encoding="utf-8")) == survey
    empty = replace(new, folder=folder.with_name("Dataset009_New"), classes={"a": 0})
    with pytest.raises(DatasetError):
        drain(add_case(empty))
    assert not empty.folder.exists()
    drain(add_case(replace(empty, classes=new.classes)))
    assert sorted(p.name for p in empty.folder.iterdir()) == ["dataset.json", "imagesTr", "labelsTr"]


def test_models_are_exported_and_installed_by_one_at_a_time(tmp_path):
    model = make_model(tmp_path / "results", Recipe())
    first = export_models([model], tmp_path / "m.zip", ExportSettings())
    with closing(first):
        next(first)
        with pytest.raises(SettingsError, match=r"m\.zip is already being written by process"):
            drain(export_models([model], tmp_path / "m.zip", ExportSettings()))
    drain(export_models([model], tmp_path / "m.zip", ExportSettings()))
    yours, sent = Workspace.at(tmp_path / "yours"), InstallRequest(source=tmp_path / "m.zip")
    first = install_zip(yours, sent)
    with closing(first):
        next(first)
        with pytest.raises(SettingsError, match="Models of Dataset001_Tiny are already being installed by process"):
            drain(install_zip(yours, sent))
    drain(install_zip(yours, sent))
    with pytest.raises(ModelError, match="already"):
        drain(install_zip(yours, sent))


def test_nobody_writes_in_a_folder_that_is_moved_and_nobody_moves_one_that_is_written(tmp_path):
    deep = tmp_path / "Dataset001_A" / "model" / "fold_0"
    with claimed(deep, "The fold is already being trained"):
        for folder in (tmp_path / "Dataset001_A", deep.parent, deep):
            with pytest.raises(SettingsError, match="already being trained by process"), moving(folder, "It is moved"):
                pass
        with moving(tmp_path / "Dataset002_B", "It is moved"):
            pass
    with moving(tmp_path / "Dataset001_A", "Dataset001_A is already being moved"):
        for folder in (tmp_path / "Dataset001_A", deep):
            refused = pytest.raises(SettingsError, match="Dataset001_A is already being moved by process")
            with refused, claimed(folder, "Another"):
                pass
            assert not deep.exists()
        with claimed(tmp_path / "Dataset002_B", "Another"):
            pass
    assert list(tmp_path.rglob(".*")) == []


def test_a_dataset_at_work_is_neither_moved_nor_are_its_cases_changed_while_it_is_trained(workspace):
    fold = FoldFolder(workspace.results / DATASET / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "fold_0")
    moves = (lambda: drain(rename_dataset(workspace, DATASET, "B")), lambda: drain(remove_dataset(workspace, DATASET)))
    for move in moves:
        claim = claimed(workspace.preprocessed / DATASET, "It is already being measured", part="x")
        with claim, pytest.raises(SettingsError, match="already being measured by process"):
            move()
        for held in (fold.arriving(), fold.claimed()):
            with held, pytest.raises(SettingsError, match="Fold 0 of .* is already being trained by process"):
                move()
    with fold.arriving(), pytest.raises(SettingsError, match="is being trained with cases that would be changed"):
        drain(preprocess(workspace, PreprocessRequest(dataset=DATASET, clean=True, workers=1)))
    with fold.claimed():
        with pytest.raises(SettingsError, match="is already being trained by process"):
            trash_model(fold.path.parent)
        drain(fold_job(workspace, FoldsRequest(dataset=DATASET, folds=3)))
        with pytest.raises(DatasetError, match="was trained with them"):
            drain(fold_job(workspace, FoldsRequest(dataset=DATASET, folds=2)))


def test_a_training_notices_that_its_folds_were_made_anew_or_that_its_cases_are_being_made(workspace):
    def order(fold=0):
        return drain(make_order(workspace, TrainRequest(dataset=DATASET, configuration="3d_fullres", fold=fold)))

    drain(preprocess(workspace, PreprocessRequest(dataset=DATASET, configurations=("3d_fullres",), workers=1)))
    ordered = order()
    require_the_same(ordered)
    claim = claimed(ordered.base, "It is already being filled", part=ordered.data.name)
    with claim, pytest.raises(SettingsError, match="are being preprocessed"):
        require_the_same(ordered)
    drain(fold_job(workspace, FoldsRequest(dataset=DATASET, folds=2)))
    with pytest.raises(SettingsError, match=f"The folds of {DATASET} were changed just now"):
        require_the_same(ordered)
    require_the_same(order())
    require_the_same(order("all"))
