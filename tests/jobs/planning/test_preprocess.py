"""Preprocessing: nothing twice, nothing lost, nothing overwritten by mistake."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from helpers import DATASET, dataset_json, make_dataset
from napari_nnunet.errors import DatasetError, PlanError, ResourceError
from napari_nnunet.events import CaseFailed, Note, drain
from napari_nnunet.formats.pickles import read_pickle
from napari_nnunet.formats.preprocessed.cases import case_names, open_case
from napari_nnunet.formats.preprocessed.chunks import chunks_and_blocks, joined_slices
from napari_nnunet.formats.preprocessed.journal import Journal
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.planning import freshness
from napari_nnunet.jobs.planning import preprocess as module
from napari_nnunet.jobs.planning.move_plans import move_plans
from napari_nnunet.jobs.planning.plan import extract_fingerprint, plan_experiment
from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
from napari_nnunet.jobs.planning.preprocess import preprocess
from napari_nnunet.schema.requests.planning import (
    FingerprintRequest,
    MovePlansRequest,
    PlanAndPreprocessRequest,
    PlanRequest,
    PlanSettings,
    PreprocessRequest,
)


@pytest.fixture
def raw(tmp_path):
    return make_dataset(tmp_path)


@pytest.fixture
def workspace(raw):
    workspace = Workspace.at(raw.parents[1])
    drain(plan_and_preprocess(workspace, PlanAndPreprocessRequest(dataset=DATASET, configurations=())))
    return workspace


def _notes(events):
    return [event.text for event in events if isinstance(event, Note)]


def _run(workspace, **options):
    events, job = [], preprocess(workspace, PreprocessRequest(dataset=DATASET, **options))
    while True:
        try:
            events.append(next(job))
        except StopIteration as done:
            return done.value, events


def _change(raw, case):
    """Give a case the labels of another one."""
    label = raw / "labelsTr" / f"{case}.nii.gz"
    other = next(path for path in sorted(label.parent.glob("*.nii.gz")) if path.read_bytes() != label.read_bytes())
    label.write_bytes(other.read_bytes())


def test_a_workspace_that_was_copied_is_not_preprocessed_again(workspace, raw, tmp_path, monkeypatch):
    _run(workspace)
    copied = Workspace.at(tmp_path / "elsewhere")
    for old, new in zip((workspace.raw, workspace.preprocessed), (copied.raw, copied.preprocessed), strict=True):
        shutil.copytree(old, new, copy_function=shutil.copyfile)  # every file has a new time
    assert _run(copied)[0].done == ()
    monkeypatch.setattr(freshness, "content_of", None)  # noted: the files are not read once more
    assert _run(copied)[0].done == ()


def test_a_changed_patch_needs_no_preprocessing_and_shared_data_are_never_undone(workspace):
    _run(workspace)
    path = workspace.preprocessed / DATASET / "nnUNetPlans.json"
    plans = json.loads(path.read_text(encoding="utf-8"))
    full = plans["configurations"]["3d_fullres"]
    half = [max(d, side // 2 // d * d) for side, d in zip(full["patch_size"], (8, 8, 8), strict=True)]
    plans["configurations"]["half"] = {"inherits_from": "3d_fullres", "patch_size": half}
    plans["configurations"]["thick"] = {"inherits_from": "3d_fullres", "spacing": [3.0, 1.0, 1.0]}
    path.write_text(json.dumps(plans))
    assert _run(workspace, configurations=["half"])[0].done == ()
    assert _run(workspace, configurations=["3d_fullres", "half"])[0].done == ()
    with pytest.raises(PlanError, match=r"holds the data of nnUNetPlans \(3d_fullres\), which differ.*Give thick"):
        _run(workspace, configurations=["thick"])
    assert _run(workspace)[0].done == ()


def test_what_is_up_to_date_is_left_and_what_changed_is_made_again(workspace, raw):
    first, _ = _run(workspace)
    assert sorted(first.done) == ["c0", "c1", "c2", "c3"]
    again, events = _run(workspace)
    assert (again.done, sorted(again.skipped)) == ((), ["c0", "c1", "c2", "c3"])
    assert "4 of 4 cases are up to date." in _notes(events)
    _change(raw, "c2")
    assert _run(workspace)[0].done == ("c2",)
    (first.folders[0] / "c1.b2nd").unlink()
    assert _run(workspace)[0].done == ("c1",)
    assert len(_run(workspace, clean=True)[0].done) == 4


def test_other_plans_make_everything_again(workspace):
    _run(workspace, configurations=["2d"])
    path = workspace.preprocessed / DATASET / "nnUNetPlans.json"
    plans = json.loads(path.read_text(encoding="utf-8"))
    plans["configurations"]["2d"]["batch_size"] = 77
    path.write_text(json.dumps(plans))
    assert not _run(workspace, configurations=["2d"])[0].done  # the batch does not touch the data
    plans["configurations"]["2d"]["spacing"] = [1.3, 1.3]
    path.write_text(json.dumps(plans))
    assert len(_run(workspace, configurations=["2d"])[0].done) == 4


def test_cases_that_left_the_dataset_leave_the_data(workspace, raw):
    folder = _run(workspace)[0].folders[0]
    for name in ("imagesTr/c3_0000.nii.gz", "labelsTr/c3.nii.gz"):
        (raw / name).unlink()
    _, events = _run(workspace)
    assert any("1 case removed, no longer in the dataset (c3)" in text for text in _notes(events))
    assert case_names(folder) == ["c0", "c1", "c2"]
    assert sorted(p.name for p in (folder.parent / "gt_segmentations").iterdir()) == [f"c{i}.nii.gz" for i in range(3)]


def test_one_bad_case_is_named_and_the_others_finish(workspace, raw):
    _run(workspace)
    path = raw / "imagesTr" / "c1_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:500])
    result, events = _run(workspace)
    assert list(result.failed) == ["c1"]
    assert "truncated" in result.failed["c1"].message
    assert [event.case for event in events if isinstance(event, CaseFailed)] == ["c1"]
    for folder in result.folders:
        assert case_names(folder) == ["c0", "c2", "c3"]  # no stale c1 is left to train on


def test_arrays_are_what_is_documented(workspace):
    result, _ = _run(workspace)
    for folder in result.folders:
        assert {path.suffix for path in folder.iterdir()} == {".b2nd", ".pkl"}  # nnU-Net refuses anything else
        case = open_case(folder, "c0")
        assert (case.data.dtype, case.labels.dtype) == (np.float32, np.int16)
        assert case.data.shape[1:] == case.labels.shape[1:]
        assert case.data.shape[0] == case.labels.shape[0] == 1
        rows = case.read_properties()["class_locations"][1]
        assert (case.labels[:][tuple(rows.T)] == 1).all()
        np.testing.assert_array_equal(case.data[:, 3:5], case.data[:][:, 3:5])


def test_configurations_that_plans_lack(workspace):
    _, events = _run(workspace, configurations=["2d", "3d_lowres"])
    assert "nnUNetPlans has no configuration 3d_lowres for this dataset; skipped." in _notes(events)
    with pytest.raises(PlanError, match="have no configuration '3d_magic'. They have: 2d, 3d_fullres"):
        _run(workspace, configurations=["3d_magic"])
    with pytest.raises(PlanError, match="None of the configurations 3d_lowres is in nnUNetPlans"):
        _run(workspace, configurations=["3d_lowres"])
    with pytest.raises(PlanError, match=r"has no plans named 'Other' \(there: nnUNetPlans\)"):
        _run(workspace, plans="Other")


def test_data_of_other_plans_are_not_overwritten(workspace):
    """ResEnc planners with another spacing point to the default planner's folder."""
    _run(workspace)
    settings = PlanSettings(planner="nnUNetPlannerResEncM", target_spacing=(2.0, 2.0, 2.0))
    drain(plan_experiment(workspace, PlanRequest.like(settings, dataset=DATASET)))
    with pytest.raises(PlanError, match=r"nnUNetPlans_2d holds the data of nnUNetPlans \(2d\), which differ"):
        _run(workspace, plans="nnUNetResEncUNetMPlans")
    assert len(_run(workspace)[0].skipped) == 4  # their owner may go on
    path = workspace.preprocessed / DATASET / "nnUNetPlans.json"
    plans = json.loads(path.read_text(encoding="utf-8"))
    plans["configurations"]["thick"] = {"inherits_from": "3d_fullres", "spacing": [3.0, 1.0, 1.0]}
    path.write_text(json.dumps(plans))
    with pytest.raises(PlanError, match="would both write to nnUNetPlans_3d_fullres, but differ in spacing"):
        _run(workspace, configurations=["3d_fullres", "thick"])


def test_a_full_disk_is_known_before_work_starts(workspace, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(ResourceError, match=r"will write about .* GB .* but only 0.0 GB are free"):
        _run(workspace)


def test_regions_and_ignore_are_located(tmp_path):
    raw = make_dataset(tmp_path)
    dataset_json(raw, labels={"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, regions_class_order=[1, 2])
    workspace = Workspace.at(tmp_path)
    result = drain(plan_and_preprocess(workspace, PlanAndPreprocessRequest(dataset=DATASET))).cases
    locations = open_case(result.folders[0], "c0").read_properties()["class_locations"]
    assert list(locations) == [(1, 2), (2,), (-1, 0, 1, 2)]
    assert locations[2,] == []


def test_a_killed_job_is_resumed_and_leaves_nothing_unfinished(tmp_path):
    make_dataset(tmp_path, cases=24, shape=(40, 64, 64))
    base = tmp_path / "nnUNet_preprocessed" / DATASET
    finished = next(found for _ in range(5) if len(found := _killed(tmp_path, base)) < 24)  # it may be over before that
    assert len(finished) >= 3
    for name in finished:
        assert open_case(base / "nnUNetPlans_3d_fullres", name).data[:].size
    result = drain(preprocess(Workspace.at(tmp_path), PreprocessRequest(dataset=DATASET)))
    assert finished <= set(result.skipped)
    assert len(result.done) + len(result.skipped) == 24
    for folder in result.folders:
        assert len(case_names(folder)) == 24
        assert {path.suffix for path in folder.iterdir()} == {".b2nd", ".pkl"}


def _killed(root, base):
    """Preprocess a dataset from nothing and kill that when three cases are finished; returns the finished ones."""
    shutil.rmtree(base, ignore_errors=True)
    command = [sys.executable, "-m", "napari_nnunet", "plan_and_preprocess", "-d", "5", "--workspace", str(root),
               "-np", "2", "--events", str(root / "events.jsonl")]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = Journal(base / "nnUNetPlans_3d_fullres.cases.jsonl")
    while len(journal.read()) < 3 and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.wait()
    return set(journal.read())


def test_the_journal_survives_a_torn_line(tmp_path):
    journal = Journal(tmp_path / "x.jsonl")
    journal.note(["a"], "1")
    with journal.path.open("a") as file:
        file.write('{"case": "b", "ma')
    again = Journal(journal.path)
    again.note(["c"], "3")
    again.note(["a"], None)
    assert again.read() == {"c": "3"}


def test_plans_of_another_dataset_and_preprocessing_with_them(workspace, tmp_path):
    other = make_dataset(tmp_path, name="Dataset006_Other", spacing=(1.5, 1.0, 1.0))
    path = move_plans(
        workspace, MovePlansRequest(source=DATASET, target=other.name, plans="nnUNetPlans", new_name="fromTest")
    )
    moved = json.loads(path.read_text(encoding="utf-8"))
    assert (moved["dataset_name"], moved["plans_name"]) == ("Dataset006_Other", "fromTest")
    assert moved["configurations"]["2d"]["data_identifier"] == "fromTest_2d"
    result = drain(
        preprocess(workspace, PreprocessRequest(dataset=other.name, plans="fromTest"))
    )  # nnU-Net fails here: no dataset.json
    assert len(result.done) == 4
    with pytest.raises(PlanError, match="has no plans named 'none'"):
        move_plans(workspace, MovePlansRequest(source=DATASET, target=other.name, plans="none"))


def test_steps_say_what_is_missing(raw):
    workspace = Workspace.at(raw.parents[1])
    drain(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET)))
    with pytest.raises(PlanError, match=r"has no plans named 'nnUNetPlans' \(there: none\). Run 'plan_experiment'"):
        _run(workspace)
    with pytest.raises(DatasetError, match="does not exist. Preprocess the dataset first"):
        case_names(raw / "nowhere")


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/napari-nnunet-was-here",)


def test_pickles_of_others_execute_nothing(tmp_path):
    path = tmp_path / "case.pkl"
    path.write_bytes(pickle.dumps({"spacing": [np.float64(1)], "class_locations": {1: np.zeros((3, 4), np.int64)}}))
    assert read_pickle(path)["class_locations"][1].shape == (3, 4)
    for protocol in (2, 4, 5):
        path.write_bytes(pickle.dumps(np.arange(5, dtype=np.int64), protocol=protocol))
        assert read_pickle(path).tolist() == [0, 1, 2, 3, 4]
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DatasetError, match=r"was refused: it asks for posix.system. Only plain values"):
        read_pickle(path)
    path.write_bytes(b"\x80\x04")
    with pytest.raises(DatasetError, match="is damaged"):
        read_pickle(path)


def test_the_earlier_format_is_read(tmp_path):
    data, labels = np.ones((1, 4, 5, 6), np.float32), np.zeros((1, 4, 5, 6), np.int16)
    np.savez(tmp_path / "old.npz", data=data, seg=labels)
    (tmp_path / "old.pkl").write_bytes(pickle.dumps({"class_locations": {}}))
    assert case_names(tmp_path) == ["old"]
    np.testing.assert_array_equal(open_case(tmp_path, "old").data, data)
    np.save(tmp_path / "old.npy", 2 * data)
    np.save(tmp_path / "old_seg.npy", labels)
    assert open_case(tmp_path, "old").data[0, 0, 0, 0] == 2


def test_slices_share_chunks_but_keep_blocks_of_their_own():
    chunks, blocks = chunks_and_blocks((1, 100, 512, 512), (512, 512), 4)
    assert chunks == (1, 1, 512, 512)
    assert blocks[1] == 1
    assert joined_slices((1, 100, 512, 512), (512, 512), chunks, 4) == (1, 6, 512, 512)
    assert joined_slices((1, 100, 512, 512), (32, 64, 64), (1, 48, 96, 96), 4) == (1, 48, 96, 96)


def test_the_python_door(raw):
    from napari_nnunet import plan_and_preprocess as go
    from napari_nnunet import verify_dataset

    heard = []
    assert verify_dataset("5", workspace=raw.parents[1], on_event=heard.append).errors == ()
    assert heard
    planned = go(DATASET, workspace=raw.parents[1], configurations=["2d"], workers=1)
    assert planned.plans.name == "nnUNetPlans.json"
    assert sorted(planned.cases.done) == ["c0", "c1", "c2", "c3"]


def test_a_script_needs_no_guard_for_worker_processes(raw, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from napari_nnunet import plan_and_preprocess\n"
        f"print(len(plan_and_preprocess('5', workspace={str(raw.parents[1])!r}).cases.done))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "4\n"


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "a\\b", ".."])
def test_names_from_files_lead_nowhere_else(workspace, raw, name):
    path = workspace.preprocessed / DATASET / "nnUNetPlans.json"
    plans = json.loads(path.read_text(encoding="utf-8"))
    plans["configurations"]["2d"]["data_identifier"] = name
    path.write_text(json.dumps(plans))
    with pytest.raises(PlanError, match="'data_identifier' is .* cannot be part of a file name"):
        _run(workspace, configurations=["2d"])
    entry = {"images": ["imagesTr/c0_0000.nii.gz"], "label": "labelsTr/c0.nii.gz"}
    dataset_json(raw, dataset={name: entry})
    with pytest.raises(DatasetError, match="this case name cannot be part of a file name"):
        _run(workspace)
    dataset_json(raw, dataset=None, file_ending=f"{name}/x.nii.gz")
    with pytest.raises(DatasetError, match="'file_ending' is .* cannot be part of a file name"):
        _run(workspace)
    dataset_json(raw, file_ending=".nii.gz")
    with pytest.raises(DatasetError, match="The name of the plans is"):
        drain(plan_experiment(workspace, PlanRequest(dataset=DATASET, plans_name=name)))
    with pytest.raises(DatasetError, match="The name of the plans is"):
        move_plans(workspace, MovePlansRequest(source=DATASET, target=DATASET, plans="nnUNetPlans", new_name=name))


@pytest.mark.skipif(sys.platform == "win32", reason="the size of files is limited by Unix' rlimit")
def test_an_array_that_the_disk_refuses_is_a_sentence_and_leaves_nothing(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from napari_nnunet.errors import ResourceError\n"
        "from napari_nnunet.formats.preprocessed.cases import store_case\n"
        "place = Path(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "data = np.random.default_rng(0).normal(size=(1, 40, 64, 64)).astype(np.float32)\n"
        "try:\n"
        "    store_case(place, 'a', data, data.astype(np.int16), {}, patch=(40, 64, 64), staging=place)\n"
        "except ResourceError as error:\n"
        "    print(error.message)\n"
    )
    target = tmp_path / "out"
    target.mkdir()
    done = subprocess.run([sys.executable, str(script), str(target)], capture_output=True, text=True, check=True)
    assert "a.b2nd could not be written: the disk is full, or refuses the file" in done.stdout
    assert not list(target.iterdir())


def test_cases_that_were_made_by_voxels_are_made_anew_without_that(workspace):
    configurations = ["3d_fullres"]
    result = _run(workspace, configurations=configurations, ignore_geometry=True)[0]
    assert len(result.done) == 4
    assert len(_run(workspace, configurations=configurations, ignore_geometry=True)[0].skipped) == 4
    assert len(_run(workspace, configurations=configurations)[0].done) == 4
    assert len(_run(workspace, configurations=configurations)[0].skipped) == 4


def test_a_reader_that_does_not_exist_is_said_once_and_costs_no_case(workspace):
    _run(workspace, configurations=("2d",), workers=1)
    base = workspace.preprocessed / DATASET
    path, made = base / "nnUNetPlans.json", sorted(base.rglob("*.b2nd"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "image_reader_writer": "MyIO"}))
    with pytest.raises(PlanError, match=r"nnUNetPlans.json: 'image_reader_writer' is 'MyIO'. Known readers: Natural"):
        _run(workspace, configurations=("2d",), workers=1, clean=True)
    assert made
    assert sorted(base.rglob("*.b2nd")) == made
