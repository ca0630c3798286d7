"""Measuring and planning: what is said when something is missing, and what is done twice."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from helpers import DATASET, dataset_json, make_dataset, smooth_image
from napari_nnunet.cli import main
from napari_nnunet.engine.planning.topology import topology
from napari_nnunet.errors import DatasetError, PlanError
from napari_nnunet.events import Note, Progress, drain
from napari_nnunet.formats.images.files import read_volume
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.planning.plan import extract_fingerprint, plan_experiment
from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
from napari_nnunet.schema.requests.planning import FingerprintRequest, PlanAndPreprocessRequest, PlanRequest


@pytest.fixture
def workspace(tmp_path):
    make_dataset(tmp_path, spacing=(1.0, 1.0, 1.0))
    return Workspace.at(tmp_path)


def _events(job):
    return list(job)


def test_a_dataset_is_measured_once_and_again_when_it_changed(workspace):
    first = _events(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET)))
    assert [event.done for event in first if isinstance(event, Progress)][-1] == 4
    again = _events(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET)))
    assert [e.text for e in again if isinstance(e, Note)] == [f"{DATASET}: the fingerprint is up to date."]
    path = workspace.raw / DATASET / "imagesTr" / "c1_0000.nii.gz"
    os.utime(path, ns=(1, 1))
    touched = _events(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET)))
    assert [e.text for e in touched if isinstance(e, Note)] == [f"{DATASET}: the fingerprint is up to date."]
    path.write_bytes((path.parent / "c2_0000.nii.gz").read_bytes())
    changed = _events(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET)))
    assert any("the data changed" in e.text for e in changed if isinstance(e, Note))


def test_voxels_without_a_size_are_said_before_anything_is_planned(workspace, tmp_path):
    raw = make_dataset(tmp_path, cases=5, name="Dataset031_Stacks")
    for path in sorted(raw.rglob("*.nii.gz")):
        tifffile.imwrite(path.with_name(path.name.replace(".nii.gz", ".tif")), read_volume([path]).array[0])
        path.unlink()
    dataset_json(raw, file_ending=".tif")
    (raw / "imagesTr" / "c2.json").write_text(json.dumps({"spacing": [1, 1, 1]}))
    said = [
        e for e in _events(extract_fingerprint(workspace, FingerprintRequest(dataset=raw.name))) if isinstance(e, Note)
    ]
    assert [event.text for event in said if event.level == "warning"] == [
        "c0, c1, c3, c4: no voxel size in the files; 1 mm is assumed in every direction. Beside a TIFF, CASE.json says "
        'it: {"spacing": [z, y, x]}.'
    ]


def test_a_fingerprint_that_nnunet_took_is_not_overwritten(workspace):
    drain(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET)))
    folder = workspace.preprocessed / DATASET
    (folder / "dataset_fingerprint_sources.json").unlink()
    before = (folder / "dataset_fingerprint.json").stat().st_mtime_ns
    drain(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET)))
    assert (folder / "dataset_fingerprint.json").stat().st_mtime_ns == before


def test_exact_figures_are_those_of_an_equal_weight_mixture(workspace):
    found = drain(
        extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET))
    ).foreground_intensity_properties_per_channel["0"]
    parts = [smooth_image((20, 24, 22), seed=i)[0] for i in range(4)]
    parts = [part[part > 120].astype(np.float64) for part in parts]
    mean = np.mean([part.mean() for part in parts])
    assert found.mean == pytest.approx(mean, rel=1e-6)
    assert found.std == pytest.approx(np.sqrt(np.mean([np.square(part).mean() for part in parts]) - mean**2), rel=1e-6)
    assert found.min == pytest.approx(min(part.min() for part in parts))


def test_all_bad_cases_are_named_at_once(workspace):
    for name in ("c0", "c2"):
        path = workspace.raw / DATASET / "imagesTr" / f"{name}_0000.nii.gz"
        path.write_bytes(path.read_bytes()[:800])
    with pytest.raises(DatasetError, match=r"2 of \d cases could not be measured:\n  c0: .*\n  c2: "):
        drain(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET)))


def test_missing_labels_empty_foreground_and_other_shapes_are_explained(workspace):
    labels = workspace.raw / DATASET / "labelsTr"
    (labels / "c3.nii.gz").rename(labels / "other.nii.gz")
    with pytest.raises(DatasetError, match=r"c3: labelsTr/c3.nii.gz is missing"):
        drain(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET)))
    (labels / "other.nii.gz").rename(labels / "c3.nii.gz")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 3, 3), np.uint8)), str(labels / "c3.nii.gz"))
    with pytest.raises(DatasetError, match=r"The image has \(20, 24, 22\) voxels, its labels have \(3, 3, 3\)"):
        drain(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET)))
    for i in range(4):
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((20, 24, 22), np.uint8)), str(labels / f"c{i}.nii.gz"))
    with pytest.raises(DatasetError, match="No case has any foreground"):
        drain(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET)))


def test_planning_needs_a_fingerprint_of_these_cases_and_a_known_planner(workspace):
    with pytest.raises(DatasetError, match="has no fingerprint yet; run 'napari-nnunet extract_fingerprint' first"):
        drain(plan_experiment(workspace, PlanRequest(dataset=DATASET)))
    drain(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET)))
    with pytest.raises(PlanError, match="Unknown planner 'Magic'. Known: ExperimentPlanner"):
        drain(plan_experiment(workspace, PlanRequest(dataset=DATASET, planner="Magic")))
    for name in ("imagesTr/c9_0000.nii.gz", "labelsTr/c9.nii.gz"):
        source = workspace.raw / DATASET / name.replace("c9", "c1")
        (workspace.raw / DATASET / name).write_bytes(source.read_bytes())
    with pytest.raises(DatasetError, match="measured on 4 cases, but there are 5 now"):
        drain(plan_experiment(workspace, PlanRequest(dataset=DATASET)))


def test_own_configurations_survive_planning_again(workspace):
    drain(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET)))
    path = drain(plan_experiment(workspace, PlanRequest(dataset=DATASET)))
    content = json.loads(path.read_text(encoding="utf-8"))
    content["configurations"]["mine"] = {"inherits_from": "2d", "batch_size": 3}
    content["configurations"]["2d"]["batch_size"] = 999
    path.write_text(json.dumps(content))
    drain(plan_experiment(workspace, PlanRequest(dataset=DATASET)))
    after = json.loads(path.read_text(encoding="utf-8"))["configurations"]
    assert after["mine"]["batch_size"] == 3
    assert after["2d"]["batch_size"] != 999


def test_the_verbs_work_from_the_shell(workspace, tmp_path, capsys):
    assert main(["extract-fingerprint", "-d", "5", "--workspace", str(tmp_path), "-np", "2"]) == 0
    words = ["plan_experiment", "-d", DATASET, "--workspace", str(tmp_path), "-pl", "nnUNetPlannerResEncM",
             "-gpu_memory_target", "6", "-overwrite_plans_name", "Mine", "-overwrite_target_spacing", "2", "1", "1"]  # fmt: skip
    assert main(words) == 0
    path = workspace.preprocessed / DATASET / "Mine.json"
    assert str(path) in capsys.readouterr().out
    plans = json.loads(path.read_text(encoding="utf-8"))
    assert plans["configurations"]["3d_fullres"]["spacing"] == [2.0, 1.0, 1.0]
    assert plans["experiment_planner_used"] == "nnUNetPlannerResEncM"
    assert (path.parent / "dataset.json").is_file()


def test_a_recorded_topology():
    # As nnU-Net plans for a median case of 9.5 x 63 x 58 voxels of 5 x 1 x 1.05 mm
    found = topology((5, 1, 1.05), (9.5, 63, 58))
    assert found.patch == (10, 64, 64)
    assert found.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (1, 2, 2))
    assert found.kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))


def test_what_a_person_added_is_kept_and_what_is_stale_goes(workspace):
    drain(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET)))
    path = drain(plan_experiment(workspace, PlanRequest(dataset=DATASET)))
    content = json.loads(path.read_text(encoding="utf-8"))
    content["configurations"]["3d_lowres"] = content["configurations"]["3d_fullres"]
    content["configurations"]["mine"] = {"inherits_from": "3d_fullres", "batch_size": 3}
    content["configurations"]["lost"] = {"inherits_from": "3d_lowres", "batch_size": 3}
    path.write_text(json.dumps(content))
    events = _events(plan_experiment(workspace, PlanRequest(dataset=DATASET)))
    assert list(json.loads(path.read_text(encoding="utf-8"))["configurations"]) == ["2d", "3d_fullres", "mine", "lost"]
    assert [e.text for e in events if isinstance(e, Note)] == [
        "lost inherits from 3d_lowres, which this dataset no longer has; remove it or change 'inherits_from'."
    ]


def test_splits_of_the_raw_dataset_are_used(workspace):
    splits = [{"train": ["c0", "c1"], "val": ["c2", "c3"]}]
    (workspace.raw / DATASET / "splits_final.json").write_text(json.dumps(splits))
    drain(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET)))
    drain(plan_experiment(workspace, PlanRequest(dataset=DATASET)))
    assert json.loads((workspace.preprocessed / DATASET / "splits_final.json").read_text(encoding="utf-8")) == splits


def test_damaged_plans_are_not_overwritten(workspace):
    drain(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET)))
    path = workspace.preprocessed / DATASET / "nnUNetPlans.json"
    path.write_text("{")
    with pytest.raises(PlanError, match="is not valid JSON"):
        drain(plan_experiment(workspace, PlanRequest(dataset=DATASET)))


def test_all_files_that_are_gone_are_named_before_anything_is_measured(tmp_path):
    raw = make_dataset(tmp_path)
    for path in (raw / "imagesTr" / "c2_0000.nii.gz", raw / "labelsTr" / "c3.nii.gz"):
        path.unlink()
        path.symlink_to(tmp_path / "gone.nii.gz")
    with pytest.raises(DatasetError) as caught:
        drain(extract_fingerprint(Workspace.at(tmp_path), FingerprintRequest(dataset=raw.name, workers=1)))
    assert "2 files, links that lead nowhere, cannot be found: imagesTr/c2_0000.nii.gz, labelsTr/c3.nii.gz" in str(
        caught.value
    )


def test_what_is_odd_in_dataset_json_is_said_once(workspace):
    dataset_json(workspace.raw / DATASET, channel_names={"1": "MRI"})
    for check in (True, False):
        request = PlanAndPreprocessRequest(dataset=DATASET, configurations=(), measure_workers=1, check=check)
        said = [e.text for e in plan_and_preprocess(workspace, request) if isinstance(e, Note)]
        assert sum("has the keys 1 where 0, 1" in text for text in said) == 1
