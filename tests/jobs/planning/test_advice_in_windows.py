"""What a window advises can be done in it: nobody there is told to edit a JSON file."""

from __future__ import annotations

import json

import pytest

from helpers import DATASET, make_dataset
from napari_nnunet.engine.planning.derive import derive, entries_of
from napari_nnunet.engine.training.splits import Split
from napari_nnunet.errors import DatasetError, PlanError
from napari_nnunet.events import drain
from napari_nnunet.formats.atomic import write_json
from napari_nnunet.formats.preprocessed.plans import read_plans
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.case_checks import CaseFacts
from napari_nnunet.jobs.dataset.contradictions import fold_problems
from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
from napari_nnunet.jobs.planning.preprocess import preprocess
from napari_nnunet.jobs.training.prepare import check_training
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.requests.planning import PlanAndPreprocessRequest, PreprocessRequest
from napari_nnunet.schema.requests.training import TrainRequest


@pytest.fixture
def workspace(tmp_path):
    """A dataset with the data of the usual plans."""
    make_dataset(tmp_path, shape=(20, 24, 22))
    workspace = Workspace.at(tmp_path)
    _plan(workspace, planner="ExperimentPlanner", configurations=("3d_fullres",))
    return workspace


def _plan(workspace, **words):
    drain(plan_and_preprocess(workspace, PlanAndPreprocessRequest(dataset=DATASET, **words)))


def _preprocess(workspace, configuration):
    request = PreprocessRequest(dataset=DATASET, plans="nnUNetResEncUNetMPlans", configurations=(configuration,))
    return drain(preprocess(workspace, request))


def test_data_of_other_plans_are_kept_by_what_the_plan_dock_can_do(workspace):
    resenc = {"planner": "nnUNetPlannerResEncM", "configurations": ()}
    _plan(workspace, **resenc, target_spacing=(2.0, 2.0, 2.0))
    with pytest.raises(PlanError, match="would be overwritten") as refused:
        _preprocess(workspace, "3d_fullres")
    assert ".json" not in refused.value.in_window and "data_identifier" not in refused.value.in_window
    assert "without a target spacing, and set the voxel size with 'Change a configuration'" in refused.value.in_window
    _plan(workspace, **resenc)
    base = workspace.preprocessed / DATASET
    plans = read_plans(base, "nnUNetResEncUNetMPlans")
    found = derive(plans, "3d_fullres", "thick", labels=2, spacing=(2.0, 2.0, 2.0))
    write_json(base / "nnUNetResEncUNetMPlans.json", entries_of(plans.raw, "thick", found))
    assert _preprocess(workspace, "3d_fullres").done == ()  # it shares what there is
    assert _preprocess(workspace, "thick").folders == (base / "nnUNetResEncUNetMPlans_thick",)


def test_two_configurations_for_one_folder(workspace):
    base = workspace.preprocessed / DATASET
    content = json.loads((base / "nnUNetPlans.json").read_text(encoding="utf-8"))
    content["configurations"]["thick"] = {"inherits_from": "3d_fullres", "spacing": [3.0, 1.0, 1.0]}
    write_json(base / "nnUNetPlans.json", content)
    request = PreprocessRequest(dataset=DATASET, configurations=("3d_fullres", "thick"))
    with pytest.raises(PlanError, match="'data_identifier' of its own in nnUNetPlans.json") as refused:
        drain(preprocess(workspace, request))
    assert "Untick thick, and make it again with 'Change a configuration', under" in refused.value.in_window
    assert ".json" not in refused.value.in_window


def test_folds_that_cannot_be_trained_are_made_anew(workspace):
    names = sorted(path.name.removesuffix(".nii.gz") for path in (workspace.raw / DATASET / "labelsTr").iterdir())
    request = TrainRequest(dataset=DATASET, configuration="3d_fullres", fold=0)
    for split, wrong in (
        ({"train": names, "val": names[:1]}, "in both training and validation"),
        ({"train": names, "val": []}, "both need some"),
        ({"train": names, "val": ["gone"]}, "is not preprocessed"),
    ):
        write_json(workspace.preprocessed / DATASET / "splits_final.json", [split])
        with pytest.raises(DatasetError, match=wrong) as refused:
            drain(check_training(workspace, [request]))
        assert "new folds with 'Folds…' in the Train dock" in refused.value.in_window.replace("Make", "make")


def test_a_class_that_a_fold_never_sees_is_moved_by_other_folds():
    facts = {name: CaseFacts((), labels={0: 9, value: 1}) for name, value in zip("abcd", (2, 2, 1, 1), strict=True)}
    scheme = LabelScheme(labels={"background": 0, "organ": 1, "tumour": 2})
    (problem,) = fold_problems(scheme, facts, [Split(("c", "d", "a"), ("b",)), Split(("c", "d"), ("a", "b"))])
    assert "splits_final.json" in problem.text and "splits_final.json" not in problem.in_window
    assert problem.in_window.endswith("Make other folds with 'Folds…' in the Train dock")
