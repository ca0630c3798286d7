"""A target spacing at which images vanish or grow beyond every disk is a sentence with both sizes, before any work."""

from __future__ import annotations

import json

import pytest

from choices import notes
from helpers import DATASET, make_dataset
from napari_nnunet.errors import NnunetError, PlanError, ResourceError
from napari_nnunet.events import drain
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
from napari_nnunet.jobs.planning.preprocess import preprocess
from napari_nnunet.schema.requests.planning import PlanAndPreprocessRequest, PreprocessRequest

pytestmark = pytest.mark.usefixtures("in_one_process")

OLD = "20 x 24 x 22 voxels"


@pytest.fixture
def planned(tmp_path):
    """Return a function that gives the planned configurations another spacing, and preprocesses them."""
    make_dataset(tmp_path, cases=2)
    workspace = Workspace.at(tmp_path)
    drain(plan_and_preprocess(workspace, PlanAndPreprocessRequest(dataset=DATASET, configurations=())))
    path = workspace.preprocessed / DATASET / "nnUNetPlans.json"

    def run(name, *spacing):
        content = json.loads(path.read_text())
        content["configurations"][name]["spacing"] = list(spacing)
        path.write_text(json.dumps(content))
        return notes(preprocess(workspace, PreprocessRequest(dataset=DATASET, configurations=(name,))))

    return run


@pytest.mark.parametrize(("name", "axes", "left"), [("3d_fullres", 3, "1 x 1 x 1"), ("2d", 2, "20 x 1 x 1")])
def test_cases_of_which_nothing_would_be_left_fail_with_both_sizes(planned, name, axes, left):
    result, _ = planned(name, *[1e6] * axes)
    assert not result.done and sorted(result.failed) == ["c0", "c1"]
    for error in result.failed.values():
        assert error.message.startswith(f"Resampled from {OLD} of 1 x 0.8 x 0.8 mm to voxels of ")
        assert f"1e+06 mm, the image would have {left} voxels. Is the voxel size of {name} right?" in error.message


def test_an_axis_that_becomes_one_voxel_is_said(planned):
    result, said = planned("3d_fullres", 100.0, 0.8, 0.8)
    assert sorted(result.done) == ["c0", "c1"]
    assert "c0, c1: At the model's voxel size of 100 x 0.8 x 0.8 mm this image would be thinner than one voxel" in said


@pytest.mark.parametrize(("name", "axes", "grown"), [
    ("3d_fullres", 3, "1e-06 x 1e-06 x 1e-06 mm, so that 20 x 24 x 22 voxels become 20000000 x 19200000 x 17600000"),
    ("2d", 2, "1 x 1e-06 x 1e-06 mm, so that 20 x 24 x 22 voxels become 20 x 19200000 x 17600000"),
])  # fmt: skip
def test_a_spacing_that_no_disk_holds_is_refused_with_both_sizes(planned, name, axes, grown):
    with pytest.raises(ResourceError) as told:
        planned(name, *[1e-6] * axes)
    assert f"{name} resamples voxels of 1 x 0.8 x 0.8 mm to {grown}. Is its spacing right?" in told.value.message


@pytest.mark.parametrize(("spacing", "after"), [
    ((1e6, 1e6, 1e6), "1e+06 x 1e+06 x 1e+06 mm, the median image would have 0 x 0 x 0 voxels"),
    ((1e-6, 1e-6, 1e-6), "1e-06 x 1e-06 x 1e-06 mm, the median image would have 20000000 x 19200000 x 17600000 voxels"),
    ((0.8, 1e6, 1), "1e+06 x 0.8 x 1 mm, the median image would have 0 x 25 x 18 voxels"),
])  # fmt: skip
def test_a_target_spacing_without_voxels_or_with_too_many_is_refused_before_anything_is_planned(
    tmp_path, spacing, after
):
    make_dataset(tmp_path, cases=2)
    workspace = Workspace.at(tmp_path)
    request = PlanAndPreprocessRequest(dataset=DATASET, target_spacing=spacing, plans_name="Other")
    with pytest.raises(NnunetError) as told:
        drain(plan_and_preprocess(workspace, request))
    assert isinstance(told.value, PlanError) and f"voxels of {after}." in told.value.message
    assert "-overwrite_target_spacing 1 0.8 0.8" in told.value.message
    assert not (workspace.preprocessed / DATASET / "Other.json").exists()
