"""Two napari windows, each a process of its own, on one dataset: each sees what the other does, and neither spoils it."""

from __future__ import annotations

import pytest
from docks import PATIENCE, add_image
from other_window import OtherWindow
from qtpy.QtWidgets import QMessageBox
from stick import come_back, end, nobody_answers, settle

from helpers import TRAINED, Recipe, make_model, make_trainable, smooth_image, write_nifti
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.processes.launch import end_training
from napari_nnunet.widgets.choosing.members import FOLDS
from napari_nnunet.widgets.frame.panel import RunState
from napari_nnunet.widgets.frame.state import state_of
from napari_nnunet.widgets.frame.tabs import open_dock

FOLD = "nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A workspace with a dataset that was planned and a model."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    make_trainable(tmp_path, Recipe(spacing=(1.0, 1.0, 1.0)))
    nobody_answers(monkeypatch)
    return Workspace.at(tmp_path)


@pytest.fixture
def other(place, qtbot):
    """The other window."""
    window = OtherWindow(qtbot)
    window(f"state.choose(dataset={TRAINED!r})")
    yield window
    window.close()


@pytest.fixture
def opened(viewer, place, other, qtbot):
    """Opens a dock in both windows; returns that of this one."""
    docks = []

    def open_both(title):
        docks.append(open_dock(viewer, title))
        state_of(viewer).choose(dataset=TRAINED)
        other(f"docks[{title!r}].show()")
        other.wait(f"not docks[{title!r}].busy")
        settle(docks[-1], qtbot)
        return docks[-1]

    yield open_both
    end(docks, qtbot)


def short(train):
    """Return a request for a training of short epochs that ends when it is asked to."""
    train.form.length_box.value = "Epochs"
    train.form.epochs_box.value = 5000
    request = train.form.request()
    changes = {"iterations": 8, "validation_iterations": 2, "workers": 1, "threads": 1}
    return type(request)(
        **{**request.__dict__, "settings": request.settings.replace(**changes), "folds": train.form.chosen_folds()}
    )


def test_a_training_of_one_window_is_paused_resumed_and_discarded_in_the_other(place, opened, other, qtbot):
    train = opened("Train")
    folder = FoldFolder(place.results / TRAINED / FOLD)
    try:
        train.starter.start(short(train))
        qtbot.waitUntil(lambda: train.chosen is not None and train.chosen.last is not None)
        other.wait("docks['Train'].chosen is not None and docks['Train'].chosen.status == 'running'")
        other("docks['Train'].stop()")
        qtbot.waitUntil(lambda: train.chosen.status == "stopped")
        other.wait("docks['Train'].chosen.status == 'stopped'")
        before = train.chosen  # as this window saw it last
        other("docks['Train'].resume()")
        qtbot.waitUntil(lambda: folder.runner() is not None)
        train.watch.find = lambda path: before if path == before.folder.path else None
        train.discard()
        qtbot.waitUntil(lambda: "is already being trained" in train.panel.status.text())
        del train.watch.find
        assert folder.latest.is_file()
        qtbot.waitUntil(lambda: train.chosen.status == "running")
        train.stop()
        other.wait("docks['Train'].chosen.status == 'stopped'")
        other("docks['Train'].discard()")
        qtbot.waitUntil(lambda: train.table.rowCount() == 0)
        assert not train.details.isVisible()
        come_back(train)
        qtbot.waitUntil(train.trash.isVisible)
    finally:
        runner = folder.runner()
        if runner is not None:
            end_training(runner)
        for process, _, _ in train.watch.started:
            process.terminate()
            process.wait(PATIENCE)


def test_a_model_that_one_window_removes_is_gone_in_the_other_and_comes_back(place, opened, other, viewer, qtbot):
    folder = make_model(place.results, Recipe(folds=(0, 1), name=TRAINED)).folder
    add_image(viewer)
    models, ensemble = opened("Models"), opened("Ensemble")
    for dock in (models, ensemble):
        come_back(dock)
    other("come_back(docks['Models'])")
    qtbot.waitUntil(lambda: models.list.count() == 1)
    other.wait("docks['Models'].list.count() == 1")
    ensemble.members.source_box.value = FOLDS
    ensemble.form.image.channel_boxes[0].value = viewer.layers[0]
    qtbot.waitUntil(ensemble.panel.button.isEnabled)
    other("docks['Models']._remove()")
    assert not folder.exists()
    models._quantize()  # this window has not looked since
    qtbot.waitUntil(lambda: models.panel.state is RunState.IDLE)
    ensemble.panel.button.click()
    qtbot.waitUntil(lambda: ensemble.panel.state is RunState.IDLE)
    for dock in (models, ensemble):
        said = dock.panel.status.text() + (dock.summary.text() if dock is ensemble else "")
        assert str(folder) in said and "Something went wrong" not in said
    come_back(models)
    qtbot.waitUntil(lambda: models.list.count() == 0 and models.trash.isVisible())
    models.trash.click()
    models.trash.dialog.back.click()
    models.trash.dialog.accept()
    assert folder.is_dir()
    other("come_back(docks['Models'])")
    other.wait("docks['Models'].list.count() == 1")


def test_both_windows_label_for_one_dataset(place, opened, other, qtbot, tmp_path):
    make_model(place.results, Recipe(folds=(0,), name=TRAINED))
    (tmp_path / "new").mkdir()
    for i in range(2):
        write_nifti(tmp_path / "new" / f"new_{i}_0000.nii.gz", smooth_image((12, 24, 22), seed=i)[0])
    following = opened("Next")
    following.source_box.value = tmp_path / "new"
    following.rows.widgets["budget"].value = "2"
    other(f"setattr(docks['Next'].source_box, 'value', {str(tmp_path / 'new')!r})")
    other("setattr(docks['Next'].rows.widgets['budget'], 'value', '2')")
    qtbot.waitUntil(following.panel.button.isEnabled)
    other.wait("docks['Next'].panel.button.isEnabled()")
    following.panel.button.click()
    other("docks['Next'].panel.button.click()")
    qtbot.waitUntil(lambda: following.panel.state is RunState.IDLE)
    other.wait("not docks['Next'].busy")
    for said in (following.panel.status.text(), other("docks['Next'].panel.status.text()")):
        assert said.startswith("2 of 2 places.")  # each has its own, and neither spoiled the other's
    qtbot.waitUntil(lambda: following._open is not None)
    other.wait("docks['Next']._open is not None")
    name = following._open.place.case
    assert other("docks['Next']._open.place.case") == name
    other("docks['Next'].take()")
    other.wait("not docks['Next'].busy")
    assert other("docks['Next'].panel.status.text()").startswith(f"Saved {name} in {TRAINED}")
    saved = place.raw / TRAINED / "labelsTr" / f"{name}.nii.gz"
    before = saved.read_bytes()
    QMessageBox.question.return_value = QMessageBox.StandardButton.No
    following.take()
    assert f"'{name}' were changed elsewhere since it was suggested" in QMessageBox.question.call_args.args[2]
    assert saved.read_bytes() == before and following._open.place.case == name
    QMessageBox.question.return_value = QMessageBox.StandardButton.Yes
    following.take()
    qtbot.waitUntil(lambda: following.panel.state is RunState.IDLE)
    assert following.panel.status.text().startswith(f"Saved {name} in {TRAINED}")
    assert [path for path in (place.raw / TRAINED).rglob(saved.name) if path != saved]  # in the trash
