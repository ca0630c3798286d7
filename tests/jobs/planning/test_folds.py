"""Folds are shown before training, made as they are asked for, and never exchanged under trained models."""

from __future__ import annotations

import json
import shutil

import pytest

from helpers import DATASET, make_dataset
from napari_nnunet.cli import main
from napari_nnunet.errors import DatasetError, SettingsError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.dataset.groups import Groups, write_groups
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.manage import rename_dataset
from napari_nnunet.jobs.planning.folds import _spelt_alike, fold_job, look_at_folds, settled_splits
from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
from napari_nnunet.schema.requests.planning import FoldSettings, FoldsRequest, PlanAndPreprocessRequest

pytestmark = pytest.mark.usefixtures("in_one_process")

NAMES = ("anna_left", "anna_right", "bob_left", "bob_right")
BY = "^(.+)_(left|right)$"
SIDES = "^([a-z]+)_"


@pytest.fixture
def workspace(tmp_path):
    folder = make_dataset(tmp_path, spacing=(1.0, 1.0, 1.0))
    for i, name in enumerate(NAMES):
        (folder / "imagesTr" / f"c{i}_0000.nii.gz").rename(folder / "imagesTr" / f"{name}_0000.nii.gz")
        (folder / "labelsTr" / f"c{i}.nii.gz").rename(folder / "labelsTr" / f"{name}.nii.gz")
    return Workspace.at(tmp_path)


def _file(workspace):
    return workspace.preprocessed / DATASET / "splits_final.json"


def _make(workspace, **asked):
    notes = []
    found = drain(fold_job(workspace, FoldsRequest(dataset=DATASET, **asked)), notes.append)
    return found, [note.text for note in notes if isinstance(note, Note)]


def test_the_folds_that_training_would_make_are_shown_and_nothing_is_written(workspace):
    found = look_at_folds(workspace, DATASET, FoldSettings())
    assert [(row.train, row.val) for row in found.rows] == [(3, 1)] * 4
    assert not found.stored
    assert not _file(workspace).exists()
    assert "look like images of one patient" in found.warnings[0].text
    assert "--group_by '" in found.warnings[0].text


def test_groups_stay_together_and_are_shown(workspace):
    found, notes = _make(workspace, group_by=SIDES)
    assert [row.held for row in found.rows] == [("anna",), ("bob",)]
    assert json.loads(_file(workspace).read_text(encoding="utf-8")) == [
        {"train": list(NAMES[2:]), "val": list(NAMES[:2])},
        {"train": list(NAMES[:2]), "val": list(NAMES[2:])},
    ]
    assert any("Made 2 folds of 4 cases in 2 groups" in note for note in notes)
    assert not look_at_folds(workspace, DATASET, FoldSettings()).warnings


def test_the_column_of_a_table_that_was_taken_for_the_groups_is_said(workspace, tmp_path):
    table = tmp_path / "sites.csv"
    table.write_text("\n".join(["case,hospital", *(f"{name},{name.partition('_')[0]}" for name in NAMES)]))
    found, notes = _make(workspace, group_by=str(table))
    assert f"{table}: the groups were taken from the column 'hospital'." in notes
    assert sorted(row.held for row in found.rows) == [("anna",), ("bob",)]


def test_groups_that_differ_in_spelling_only_are_pointed_out(workspace, tmp_path):
    table = tmp_path / "groups.csv"
    table.write_text(
        "case,group\n" + "".join(f"{n},{g}\n" for n, g in zip(NAMES, ("P7", "p07", "x", "x"), strict=True))
    )
    _, notes = _make(workspace, group_by=str(table))
    assert any(note.startswith("Are these one group? P7 and p07 differ in spelling only") for note in notes)
    table.write_text("case,group\n" + "".join(f"{name},all\n" for name in NAMES))
    with pytest.raises(DatasetError, match=r"All 4 cases are in one group \('all'\), so that none is left to validate"):
        _make(workspace, group_by=str(table))


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("7.0", "7", True),
        ("P-01", "p1", True),
        ("a_1_2", "A1-2", True),
        ("70", "7.0", False),
        ("P1_1", "P11", False),
        ("1.5", "15", False),
    ],
)
def test_spellings_of_one_group_are_told_from_two_groups(one, other, alike):
    assert bool(_spelt_alike(Groups("", {"a": one, "b": other}))) == alike


def test_several_brackets_tell_more_groups_apart(workspace):
    _, notes = _make(workspace, group_by=BY, folds=2)
    assert any("a group of its own for every case" in note for note in notes)


def test_one_case_can_be_left_out_at_a_time(workspace):
    found, _ = _make(workspace, folds="loo")
    assert sorted(row.held for row in found.rows) == [(name,) for name in NAMES]
    with pytest.raises(DatasetError, match="4 cases cannot be split into 7 folds"):
        look_at_folds(workspace, DATASET, FoldSettings(folds=7))
    with pytest.raises(SettingsError, match="is not a number of folds"):
        FoldSettings.of(folds="many")


def test_other_folds_are_kept_beside_the_new_ones_unless_a_model_was_trained_with_them(workspace):
    _make(workspace, folds=2)
    before = _file(workspace).read_text(encoding="utf-8")
    _, notes = _make(workspace, group_by=SIDES)
    assert (workspace.preprocessed / DATASET / "splits_before_1.json").read_text(encoding="utf-8") == before
    assert any("kept in splits_before_1.json" in note for note in notes)
    fold = workspace.results / DATASET / "nnUNetTrainer__nnUNetPlans__2d" / "fold_1"
    fold.mkdir(parents=True)
    (fold / "checkpoint_latest.pth").write_bytes(b"")
    with pytest.raises(DatasetError, match="nnUNetTrainer__nnUNetPlans__2d/fold_1 was trained with them"):
        _make(workspace, folds=2)
    _make(workspace, group_by=SIDES)  # those that are there may be asked for again


def test_folds_of_the_raw_dataset_are_not_overruled(workspace):
    splits = [{"train": list(NAMES[:3]), "val": [NAMES[3]]}]
    (workspace.raw / DATASET / "splits_final.json").write_text(json.dumps(splits))
    with pytest.raises(DatasetError, match="says which folds there are"):
        _make(workspace, folds=2)


def test_a_case_in_no_fold_is_named(workspace):
    _file(workspace).parent.mkdir(parents=True)
    _file(workspace).write_text(json.dumps([{"train": list(NAMES[:2]), "val": [NAMES[2]]}]))
    warnings = look_at_folds(workspace, DATASET, FoldSettings()).warnings
    assert any("1 of 4 cases is in no fold and never used: bob_right" in note.text for note in warnings)


def test_planning_makes_the_folds_that_are_asked_for_and_says_first_what_cannot_be(workspace):
    with pytest.raises(DatasetError, match="names none of the 4 cases"):
        drain(plan_and_preprocess(workspace, PlanAndPreprocessRequest(dataset=DATASET, group_by="x")))
    assert not (workspace.preprocessed / DATASET / "dataset_fingerprint.json").exists()
    request = PlanAndPreprocessRequest(dataset=DATASET, group_by=SIDES, preprocess=False)
    drain(plan_and_preprocess(workspace, request))
    assert len(json.loads(_file(workspace).read_text(encoding="utf-8"))) == 2


def test_the_shell_shows_a_line_per_fold(workspace, capsys):
    where = ["folds", "-d", DATASET, "--workspace", str(workspace.raw.parent)]
    assert main([*where, "--group-by", SIDES, "--dry_run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "fold 0: 2 train, 2 validate: anna",
        "fold 1: 2 train, 2 validate: bob",
        "These folds are not written yet.",
    ]
    assert main([*where, "--folds", "loo"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    shutil.rmtree(workspace.raw)
    _file(workspace).unlink()
    assert main(where) == 1


@pytest.mark.parametrize("asked", [{"folds": 2}, {}])
def test_no_folds_are_left_under_the_old_name_of_a_dataset_that_is_renamed_meanwhile(workspace, asked):
    drain(plan_and_preprocess(workspace, PlanAndPreprocessRequest(dataset=DATASET, preprocess=False)))
    making = settled_splits(workspace, DATASET, NAMES, FoldSettings(**asked))  # which cases there are is known
    drain(rename_dataset(workspace, DATASET, "Other"))
    with pytest.raises(DatasetError, match=f"{DATASET} was renamed or removed"):
        drain(making)
    assert not _file(workspace).parent.exists()


def test_groups_that_somebody_gave_the_dataset_are_kept_together_without_being_asked_for(workspace):
    raw = workspace.raw / DATASET
    write_groups(raw, {"anna_left": "A", "anna_right": "A", "bob_left": "B", "bob_right": " "})
    found = look_at_folds(workspace, DATASET, FoldSettings())
    assert found.groups is not None and found.groups.alone == ("bob_right",)
    assert [row.held for row in found.rows] == [("A",), ("B",), ("bob_right",)]
    _file(workspace).parent.mkdir(parents=True)
    assert tuple(drain(settled_splits(workspace, DATASET, NAMES, FoldSettings()))) == found.splits  # as training does
    write_groups(raw, {"anna_left": "one", "bob_left": "one", "anna_right": "two", "bob_right": "two"})
    (warning,) = look_at_folds(workspace, DATASET, FoldSettings()).warnings
    assert warning.text.startswith("2 groups have cases in training and validation at once (one, two)")
    write_groups(raw, {})
    assert not (raw / "groups.csv").exists()
