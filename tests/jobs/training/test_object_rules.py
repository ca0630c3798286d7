"""A training on numbered objects says how well it finds them, and how they are found best."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from trainings import SHORT, folder_of, of, run

from helpers import TRAINED, make_objects_trainable
from napari_nnunet.engine.objects.decode import decode
from napari_nnunet.events import Note
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.objects.find import rule_of
from napari_nnunet.jobs.training import object_rules
from napari_nnunet.schema.objects import ObjectRules


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Cases with numbered objects."""
    return make_objects_trainable(tmp_path)


def test_rules_figures_and_numbered_objects_are_written_with_the_validation(workspace: Workspace) -> None:
    result, events = run(workspace)
    fold = folder_of(workspace)
    rules = ObjectRules.model_validate(json.loads((fold.path / "object_rules.json").read_text(encoding="utf-8")))
    figures = json.loads((fold.validation / "objects.json").read_text(encoding="utf-8"))
    assert set(rules.rules) == {"cell"}
    assert rules.cases == len(figures["cases"]) == 1
    assert 0 <= rules.score == pytest.approx(figures["all"]["AP"] or 0, abs=1e-5)
    assert any("Objects in 1 validation cases" in note.text for note in of(Note, events))
    assert result.validation is None or not list(fold.validation.glob("*.npz"))
    (name,) = figures["cases"]
    found, _ = read_labels(fold.validation / "objects" / f"{name}.nii.gz")
    assert found.max() == figures["cases"][name]["predictions"]
    assert [path for path in fold.validation.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("room", [8 << 30, 0], ids=["probabilities wait", "no room to wait"])
def test_rules_are_chosen_on_the_first_cases_and_every_case_is_decoded_by_them(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(object_rules, "_MOST", 1)
    monkeypatch.setattr(object_rules, "_ROOM", room)
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (workspace.raw / TRAINED / "labelsTr").iterdir())
    splits = [{"train": cases[3:], "val": cases[:3]}]
    (workspace.preprocessed / TRAINED / "splits_final.json").write_text(json.dumps(splits))
    run(workspace, settings=SHORT.replace(probabilities=True))
    fold = folder_of(workspace)
    stored = ObjectRules.model_validate(json.loads((fold.path / "object_rules.json").read_text(encoding="utf-8")))
    figures = json.loads((fold.validation / "objects.json").read_text(encoding="utf-8"))
    assert stored.cases == 1
    assert list(figures["cases"]) == cases[:3]
    rule = stored.rules["cell"]
    for name in cases[:3]:
        probabilities = np.load(fold.validation / f"{name}.npz")["probabilities"]
        again = decode(probabilities[1], probabilities[1] + probabilities[2], rule_of(rule, width=1.0), (1.0, 1.0, 1.0))
        found, _ = read_labels(fold.validation / "objects" / f"{name}.nii.gz")
        np.testing.assert_array_equal(found, again)
    summary = json.loads((fold.validation / "summary.json").read_text(encoding="utf-8"))
    assert [Path(case["prediction_file"]).name for case in summary["metric_per_case"]] == [
        f"{name}.nii.gz" for name in cases[:3]
    ]


def test_validation_cases_without_objects_are_named(workspace: Workspace) -> None:
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (workspace.raw / TRAINED / "labelsTr").iterdir())
    splits = [{"train": cases[2:], "val": cases[:2]}]
    (workspace.preprocessed / TRAINED / "splits_final.json").write_text(json.dumps(splits))
    (workspace.raw / TRAINED / "objectsTr" / f"{cases[1]}.nii.gz").unlink()
    _, events = run(workspace, settings=SHORT.replace(epochs=1))
    (said,) = [note.text for note in of(Note, events) if "are not known" in note.text]
    assert said.startswith(
        f"The objects of 1 of 2 validation cases are not known: objectsTr has no file of {cases[1]}."
    )
    assert (folder_of(workspace).path / "object_rules.json").exists()


def test_without_the_objects_the_training_goes_on_as_any_other(workspace: Workspace) -> None:
    for path in (workspace.raw / TRAINED / "objectsTr").iterdir():
        path.unlink()
    validation = folder_of(workspace).validation
    (validation / "objects").mkdir(parents=True)
    (validation / "objects.json").write_text("{}")  # of a training before
    _, events = run(workspace, settings=SHORT.replace(epochs=1))
    (said,) = [note.text for note in of(Note, events) if "validation cases are not known" in note.text]
    assert "objectsTr is missing or holds no file" in said
    assert "cannot be chosen; predictions use the usual thresholds of 0.5" in said
    assert not (validation / "objects").exists() and not (validation / "objects.json").exists()
    assert not (folder_of(workspace).path / "object_rules.json").exists()
    assert (folder_of(workspace).validation / "summary.json").is_file()
