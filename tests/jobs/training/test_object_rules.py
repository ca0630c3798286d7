"""A training on numbered objects says how well it finds them, and how they are found best."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from trainings import SHORT, folder_of, of, run

from helpers import TRAINED, Recipe, make_trainable, write_nifti
from napari_nnunet.events import Note
from napari_nnunet.formats.dataset.objects import note_drawn
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.objects import ObjectRules

OBJECTS = {"kinds": {"cell": [1, 2]}, "width": 1.0, "unit": 1.0}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Preprocessed cases whose labels are cores and borders, with the objects beside them."""
    recipe = Recipe(spacing=(1.0,) * 3, labels={"background": 0, "cell core": 1, "cell border": 2})
    workspace = Workspace.at(make_trainable(tmp_path, recipe, napari_nnunet_objects=OBJECTS))
    raw = workspace.raw / TRAINED
    (raw / "objectsTr").mkdir()
    for path in sorted((raw / "labelsTr").iterdir()):
        labels, _ = read_labels(path)
        write_nifti(raw / "objectsTr" / path.name, ndimage.label(labels > 0)[0].astype(np.uint16))
    note_drawn(raw, [path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir()])
    return workspace


def test_rules_and_figures_are_written_with_the_validation(workspace: Workspace) -> None:
    result, events = run(workspace)
    fold = folder_of(workspace)
    rules = ObjectRules.model_validate(json.loads((fold.path / "object_rules.json").read_text()))
    figures = json.loads((fold.validation / "objects.json").read_text())
    assert set(rules.rules) == {"cell"}
    assert rules.cases == len(figures["cases"]) == 1
    assert 0 <= rules.score == pytest.approx(figures["all"]["AP"] or 0, abs=1e-5)
    assert any("Objects in 1 validation cases" in note.text for note in of(Note, events))
    assert result.validation is None or not list(fold.validation.glob("*.npz"))


def test_without_the_objects_the_training_goes_on_as_any_other(workspace: Workspace) -> None:
    for path in (workspace.raw / TRAINED / "objectsTr").iterdir():
        path.unlink()
    run(workspace, settings=SHORT.replace(epochs=1))
    assert not (folder_of(workspace).path / "object_rules.json").exists()
    assert (folder_of(workspace).validation / "summary.json").is_file()
