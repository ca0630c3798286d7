"""What a job read before it had its claim may be another by then: it looks again, and says so instead of writing."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from helpers import DATASET, TRAINED, Recipe, dataset_json, just_before, make_dataset, make_model, make_trainable
from napari_nnunet.errors import DatasetError, ModelError, PlanError, SettingsError
from napari_nnunet.events import Stage, drain
from napari_nnunet.formats import claim
from napari_nnunet.formats.claim import claimed, moving
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing import calibrate as calibrating
from napari_nnunet.jobs.dataset.manage import remove_dataset, rename_dataset
from napari_nnunet.jobs.planning import folds, move_plans, plan
from napari_nnunet.jobs.sharing import install
from napari_nnunet.jobs.sharing.export import export_models
from napari_nnunet.jobs.training import improve, train
from napari_nnunet.schema.requests.choosing import CalibrateRequest
from napari_nnunet.schema.requests.planning import FingerprintRequest, MovePlansRequest, PlanRequest
from napari_nnunet.schema.requests.sharing import ExportSettings, InstallRequest
from napari_nnunet.schema.requests.training import TrainRequest, TrainSettings

pytestmark = pytest.mark.usefixtures("in_one_process")

NEW = "Other"
SHORT = TrainSettings(epochs=1, iterations=1, validation_iterations=1, workers=0, device="cpu", threads=1)


@pytest.fixture
def workspace(tmp_path):
    """A dataset that is measured and planned, and nothing else."""
    workspace = Workspace.at(make_dataset(tmp_path).parents[1])
    drain(plan.extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET)))
    drain(plan.plan_experiment(workspace, PlanRequest(dataset=DATASET)))
    return workspace


@pytest.fixture
def trainable(tmp_path):
    return Workspace.at(make_trainable(tmp_path, Recipe(spacing=(1.0, 1.0, 1.0))))


def renaming(workspace, name=DATASET):
    return lambda: drain(rename_dataset(workspace, name, NEW))


def left_behind(workspace, name=DATASET):
    """Return what there is under a dataset's old name."""
    return [
        root / name for root in (workspace.raw, workspace.preprocessed, workspace.results) if (root / name).exists()
    ]


@pytest.mark.parametrize("when", ["before the look", "between the looks"])
def test_a_claim_of_a_folder_that_is_moved_just_then_is_refused_and_blocks_nobody(tmp_path, monkeypatch, when):
    old, new = tmp_path / "Dataset001_A" / "model", tmp_path / "Dataset001_B" / "model"
    old.mkdir(parents=True)
    take = claim._take

    def taken_and_moved(path, content):
        take(path, content)
        if path.parent == old:
            old.parent.rename(new.parent)

    monkeypatch.setattr(claim, "_take", taken_and_moved)
    if when == "before the look":  # who moves it is done by then
        with pytest.raises(SettingsError, match="was moved or removed just now"), claimed(old, "It is written"):
            pass
    else:
        mover = moving(old.parent, "It is already being moved")
        refused = pytest.raises(SettingsError, match="already being moved by process")
        with mover, refused, claimed(old, "It is written"):
            pass
    assert not old.parent.exists() and new.is_dir()
    assert list(tmp_path.rglob(".*")) == []


def test_of_folders_that_were_made_for_a_claim_none_stays_empty(tmp_path):
    (tmp_path / "results").mkdir()
    fold = FoldFolder(tmp_path / "results" / "Dataset001_A" / "model" / "fold_0")
    with claimed(tmp_path / "a" / "b" / "c", "It is written"), fold.claimed():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["results"] and not list((tmp_path / "results").iterdir())
    with claimed(tmp_path / "a" / "b" / "c", "It is written"):
        (tmp_path / "a" / "x").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]


PLANNING = {
    "measured": (
        plan,
        lambda workspace: drain(plan.extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET, clean=True))),
    ),
    "planned": (plan, lambda workspace: drain(plan.plan_experiment(workspace, PlanRequest(dataset=DATASET)))),
    "given plans": (
        move_plans,
        lambda workspace: move_plans.move_plans(
            workspace, MovePlansRequest(source="Dataset001_Tiny", target=DATASET, plans="nnUNetPlans", new_name="x")
        ),
    ),
    "given folds": (folds, lambda workspace: folds.adopt_cases(workspace, DATASET, ["c9"])),
}


@pytest.mark.parametrize("what", PLANNING)
def test_a_dataset_that_is_renamed_before_it_is_planned_leaves_nothing_under_its_old_name(workspace, monkeypatch, what):
    module, job = PLANNING[what]
    model = make_model(workspace.results, Recipe())
    (workspace.preprocessed / "Dataset001_Tiny").mkdir()
    (workspace.preprocessed / "Dataset001_Tiny" / "nnUNetPlans.json").write_text(json.dumps(dict(model.plans.raw)))
    just_before(monkeypatch, module, "claimed", renaming(workspace))
    with pytest.raises(DatasetError):
        job(workspace)
    assert left_behind(workspace) == []


def test_a_model_that_is_continued_leaves_no_plans_under_the_old_name(workspace, monkeypatch, tmp_path):
    model = make_model(tmp_path / "other", Recipe())
    just_before(monkeypatch, improve, "claimed", renaming(workspace))
    with pytest.raises(DatasetError):
        list(improve._take_over(workspace.preprocessed / DATASET, workspace.raw / DATASET, model, "x"))
    assert left_behind(workspace) == []


def test_a_dataset_is_not_renamed_while_it_is_planned(workspace):
    with closing(plan.plan_experiment(workspace, PlanRequest(dataset=DATASET))) as job:
        assert isinstance(next(job), Stage)
        with pytest.raises(SettingsError, match="nnUNetPlans of .* are already being planned by process"):
            renaming(workspace)()
    renaming(workspace)()
    assert left_behind(workspace) == []


def test_a_case_that_comes_before_cases_are_measured_is_measured(workspace, monkeypatch):
    def add():
        for part, name in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
            folder = workspace.raw / DATASET / part
            (folder / f"new{name}").write_bytes((folder / f"c0{name}").read_bytes())

    just_before(monkeypatch, plan, "claimed", add)
    found = drain(plan.extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET, clean=True)))
    assert len(found.spacings) == 5
    drain(plan.plan_experiment(workspace, PlanRequest(dataset=DATASET)))


def test_a_case_that_goes_while_cases_are_measured_is_told(workspace, monkeypatch):
    measure = plan.measure_case

    def measured_and_gone(case, *more):
        found = measure(case, *more)
        if case.name == "c0":
            for path in (*case.images, case.label):
                path.unlink()
        return found

    monkeypatch.setattr(plan, "measure_case", measured_and_gone)
    with pytest.raises(DatasetError, match="was changed while it was measured"):
        drain(plan.extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET, clean=True)))


def training(workspace, **changes):
    return train.train(
        workspace, TrainRequest.like(SHORT, dataset=TRAINED, configuration="3d_fullres", validation=False, **changes)
    )


@pytest.mark.parametrize("fold", [0, "all"])
def test_a_dataset_that_is_renamed_before_its_training_begins_is_not_trained_under_its_old_name(
    trainable, monkeypatch, fold
):
    just_before(monkeypatch, train, "fresh_network", renaming(trainable, TRAINED))
    with pytest.raises(SettingsError, match="were moved or removed just now"):
        drain(training(trainable, fold=fold))
    assert left_behind(trainable, TRAINED) == []
    assert len(list(trainable.raw.iterdir())) == 1


def change_plans(workspace):
    path = workspace.preprocessed / TRAINED / "nnUNetPlans.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["configurations"]["3d_fullres"]["batch_size"] = 5
    path.write_text(json.dumps(content))


def test_a_training_is_not_begun_with_plans_that_are_others_by_now(trainable, monkeypatch):
    just_before(monkeypatch, train, "fresh_network", lambda: change_plans(trainable))
    with pytest.raises(SettingsError, match="was just planned again"):
        drain(training(trainable, fold=0))
    assert not (trainable.results / TRAINED).exists()


def test_a_model_has_the_plans_it_was_trained_with_whatever_was_planned_meanwhile(trainable, monkeypatch):
    just_before(monkeypatch, train, "begin", lambda: change_plans(trainable))
    result = drain(training(trainable, fold=0))
    content = json.loads((result.folder.path.parent / "plans.json").read_text(encoding="utf-8"))
    assert content["configurations"]["3d_fullres"]["batch_size"] == 2


def test_a_dataset_that_is_renamed_before_its_validation_is_not_validated_under_its_old_name(trainable, monkeypatch):
    drain(training(trainable, fold=0))
    just_before(monkeypatch, train, "_trained", lambda: pytest.fail("nothing is read of a fold that is gone"))
    make = train.make_order

    def renamed_after(*args):
        order = yield from make(*args)
        renaming(trainable, TRAINED)()
        return order

    monkeypatch.setattr(train, "make_order", renamed_after)
    with pytest.raises(SettingsError, match="were moved or removed just now"):
        drain(training(trainable, fold=0, validate_only=True))
    assert left_behind(trainable, TRAINED) == []


def test_a_model_that_is_renamed_before_it_is_calibrated_leaves_nothing_under_its_old_name(tmp_path, monkeypatch):
    workspace = Workspace.at(tmp_path)
    model = make_model(workspace.results, Recipe())
    (model.folder / "fold_0" / "validation").mkdir()
    (model.folder / "fold_0" / "validation" / "a.nii.gz").touch()
    just_before(monkeypatch, calibrating, "claimed", renaming(workspace, "Dataset001_Tiny"))
    request = CalibrateRequest(dataset="Dataset001_Tiny", configurations=("3d_fullres",))
    with pytest.raises(ModelError, match="has no validation"):
        drain(calibrating.calibrate(workspace, request))
    assert left_behind(workspace, "Dataset001_Tiny") == []


def test_a_model_that_comes_while_one_of_its_name_is_unpacked_is_not_passed_over(tmp_path, monkeypatch):
    zipped, yours = tmp_path / "m.zip", Workspace.at(tmp_path / "yours")
    model = make_model(tmp_path / "mine", Recipe())
    drain(export_models([model], zipped, ExportSettings()))
    come = yours.results / "Dataset001_Tiny" / model.folder.name
    just_before(monkeypatch, install, "_check", lambda: come.mkdir(parents=True))
    with pytest.raises(ModelError, match="were installed into .* meanwhile"):
        drain(install.install_zip(yours, InstallRequest(source=zipped)))
    assert list(come.iterdir()) == []


@pytest.mark.parametrize("then", [rename_dataset, remove_dataset], ids=["renamed", "removed"])
def test_what_was_renamed_is_not_said_to_be_renamed_or_removed_once_more(tmp_path, then):
    workspace = Workspace.at(make_dataset(tmp_path, cases=1).parents[1])
    renaming(workspace)()
    with pytest.raises(DatasetError, match="was renamed or removed meanwhile"):
        drain(then(workspace, DATASET, *(["Third"] if then is rename_dataset else [])))
    assert left_behind(workspace) == []


def test_plans_that_were_read_know_whether_their_file_is_still_the_same(workspace):
    from napari_nnunet.formats.preprocessed.plans import read_plans, unchanged

    found = read_plans(workspace.preprocessed / DATASET, "nnUNetPlans")
    assert unchanged(found)
    dataset_json(workspace.raw / DATASET, numTraining=9)
    assert unchanged(found)
    path = workspace.preprocessed / DATASET / "nnUNetPlans.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"batch_size": ', '"batch_size": 1'))
    assert not unchanged(found)
    path.unlink()
    with pytest.raises(PlanError):
        unchanged(found)
