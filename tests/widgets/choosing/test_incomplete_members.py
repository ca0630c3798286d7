"""Members of an ensemble that lack a fold or a file are named, and names that are alike told apart; in a real window."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from docks import add_image, open_dock, wait_until_said
from test_ensemble_dock import _write_best

from helpers import Recipe, make_model
from napari_nnunet.errors import ModelError
from napari_nnunet.formats.model.known_models import remember_model
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.widgets.choosing import complete
from napari_nnunet.widgets.choosing.members import BEST, FOLDS, MODELS
from napari_nnunet.widgets.frame.words import telling_names

TINY = "Dataset001_Tiny"
FULL, FLAT = (f"nnUNetTrainer__nnUNetPlans__{name}" for name in ("3d_fullres", "2d"))


def rows(ensemble):
    return [row[0] for row in ensemble.members.table.texts()[1:]]


def test_a_fold_without_its_checkpoint_is_named(ensemble, workspace):
    model = workspace.results / TINY / FULL
    (model / "fold_2").mkdir()
    ensemble.members.refresh()
    said = "fold 2 has no checkpoint_final.pth and is left out. Finish the training in the Train dock to include it."
    assert ensemble.members.note.text() == f"{TINY} / 3d_fullres: {said}"
    ensemble.members.source_box.value = FOLDS
    ensemble.members.of_box.value = model
    assert "Fold 2 has no checkpoint_final.pth" in ensemble.members.note.text()
    assert rows(ensemble) == ["fold 0", "fold 1"]


@pytest.mark.parametrize("lost", ["plans.json", "checkpoint_final.pth"])
def test_a_model_that_lacks_a_file_is_left_out_and_the_others_stay(viewer, ensemble, workspace, qtbot, lost):
    make_model(workspace.results, Recipe(configuration="3d_lowres"), seed=8)
    add_image(viewer)
    ensemble.members._source_chosen()
    wait_until_said(qtbot, ensemble)
    for path in (workspace.results / TINY / FLAT).rglob(lost):
        path.unlink()
    ensemble.members.refresh()
    assert len(rows(ensemble)) == 2 and not any(name.startswith("2d") for name in rows(ensemble))
    said = ensemble.members.note.text()
    assert said.startswith(f"Left out: {TINY} / 2d. ")
    assert ("it lacks plans.json" in said) if lost == "plans.json" else ("has no checkpoint at all" in said)
    wait_until_said(qtbot, ensemble)


def test_the_best_is_refused_where_a_model_lacks_a_fold_that_was_compared(viewer, ensemble, workspace, qtbot):
    add_image(viewer)
    _write_best(workspace, Cleaning())
    ensemble.members.source_box.value = BEST
    wait_until_said(qtbot, ensemble)
    shutil.rmtree(workspace.results / TINY / FLAT / "fold_0")
    ensemble.members.refresh()
    wait_until_said(qtbot, ensemble, "The best that was found needs 2d, which is not whole by now.")
    assert "Compare all its models" in ensemble.summary.text() and not ensemble.panel.button.isEnabled()


def test_models_of_one_name_are_told_apart_wherever_they_are_offered(viewer, ensemble, workspace, tmp_path):
    other = make_model(tmp_path / "friend" / "results", Recipe(folds=(0, 1)), seed=9).folder
    remember_model(other)
    names = {f"{TINY} / 3d_fullres (friend)", f"{TINY} / 3d_fullres (w)"}
    ensemble.members._source_chosen()
    assert {f"{TINY} (friend)", f"{TINY} (w)"} <= {name for name, _ in choices(ensemble.members.of_box)}
    ensemble.members.of_box.value = next(
        value for name, value in choices(ensemble.members.of_box) if name.startswith(f"{TINY}") and " + " in name
    )
    assert len(set(rows(ensemble))) == len(rows(ensemble)) == 3
    ensemble.members.source_box.value = FOLDS
    assert names <= {name for name, _ in choices(ensemble.members.of_box)}
    assert names <= {name for name, _ in choices(open_dock(viewer, "Segment").form.model_box)}
    listed = open_dock(viewer, "Models").list
    assert names <= {listed.item(row).text() for row in range(listed.count())}
    ensemble.members.source_box.value = MODELS


def choices(box):
    native = box.native
    return [(native.itemText(i), native.itemData(i)) for i in range(native.count())]


def test_the_shortest_part_of_a_path_that_tells_is_said():
    name = "nnUNetTrainer__nnUNetPlans__2d"
    one, two, three = (Path("/data") / place / "Dataset001_A" / name for place in ("x/results", "y/results", "y/old"))
    assert telling_names([one, two]) == ["Dataset001_A / 2d (x)", "Dataset001_A / 2d (y)"]
    assert telling_names([two, three]) == ["Dataset001_A / 2d (results)", "Dataset001_A / 2d (old)"]
    ends = [str(Path(*path.parts[-4:])) for path in (one, two, three)]
    assert telling_names([one, two, three]) == [f"Dataset001_A / 2d ({end})" for end in ends]
    assert telling_names([one, Path("/data/Dataset002_B") / name]) == ["Dataset001_A / 2d", "Dataset002_B / 2d"]


def test_the_best_is_refused_where_a_disk_fails(monkeypatch, workspace):
    def fails(folder):
        raise OSError(errno.EIO, "Input/output error", str(folder))

    monkeypatch.setattr(complete, "load_model", fails)
    best = SimpleNamespace(models=[SimpleNamespace(folder=f"{TINY}/{FLAT}", configuration="2d")], folds=(0,))
    with pytest.raises(ModelError, match=f"needs 2d, which is not whole by now.*{FLAT}.*Train what is missing"):
        complete.models_of_best(workspace.results, best)
