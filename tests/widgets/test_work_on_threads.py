"""What takes long is not done in the window's thread: checkpoints and all files of a dataset are read elsewhere."""

from __future__ import annotations

import json
import threading
from functools import lru_cache

import pytest
from docks import add_image, open_dock, wait_until_said

from helpers import make_dataset
from napari_nnunet.formats.model import checkpoint
from napari_nnunet.formats.model.folder import weights_in
from napari_nnunet.jobs.choosing.calibrate import calibration_path
from napari_nnunet.widgets.planning import plan_dock

pytestmark = pytest.mark.usefixtures("known_arithmetic")


def _watched(monkeypatch, module, name):
    """Return the threads that call a function from now on."""
    threads, function = [], getattr(module, name)

    def watched(*args):
        threads.append(threading.current_thread())
        return function(*args)

    monkeypatch.setattr(module, name, watched)
    return threads


def _reading(monkeypatch):
    """Return the threads that read checkpoints to tell their weights from now on; nothing is known of any before."""
    monkeypatch.setattr(checkpoint, "_weights_of", checkpoint._weights_of.__wrapped__)
    threads = _watched(monkeypatch, checkpoint, "_weights_of")
    monkeypatch.setattr(checkpoint, "_weights_of", lru_cache(checkpoint._weights_of))
    return threads


def _elsewhere(threads):
    return bool(threads) and threading.main_thread() not in threads


def test_the_ensemble_dock_compares_weights_with_a_calibration_on_a_thread(viewer, workspace, qtbot, monkeypatch):
    models = sorted((workspace.results / "Dataset001_Tiny").glob("nnUNet*"))
    path = calibration_path(models, (0,))
    path.parent.mkdir(parents=True)
    weights = weights_in(models[0].parent, [f"{model.name}/fold_0" for model in models])
    path.write_text(json.dumps({"temperature": 2.5, "folds": ["0"], "weights": weights}))
    read = _reading(monkeypatch)
    add_image(viewer)
    dock = open_dock(viewer, "Ensemble")
    wait_until_said(qtbot, dock)
    assert "The uncertainty is calibrated" in dock.summary.text() and dock.request().vote.temperature == 2.5
    assert _elsewhere(read) and not dock.calibrate.isVisible()


def test_the_segment_dock_compares_weights_with_measured_presets_on_a_thread(
    viewer, workspace, dock, qtbot, monkeypatch
):
    model = next(path for path in dock.form.model_box.choices if str(path).startswith(str(workspace.results)))
    about = {"presets": {"fast": {"dice": 0.75}}, "weights": weights_in(model, ["fold_0"])}
    (model / "inference_presets.json").write_text(json.dumps(about))
    read = _reading(monkeypatch)
    add_image(viewer)
    dock.form.model_box.value = model
    box = dock.form.preset_box.native
    qtbot.waitUntil(lambda: any("Dice 0.750" in box.itemText(i) for i in range(box.count())))
    assert _elsewhere(read)


def test_the_plan_dock_looks_at_the_files_of_all_cases_on_a_thread(viewer, home, qtbot, monkeypatch):
    make_dataset(home, shape=(20, 24, 22))
    listed, looked = (_watched(monkeypatch, plan_dock, name) for name in ("survey", "class_warning"))
    dock = open_dock(viewer, "Plan")
    qtbot.waitUntil(lambda: bool(looked) and not dock._looking.running)
    dock.state.written.emit()
    qtbot.waitUntil(lambda: len(looked) > 1 and not dock._looking.running)
    assert _elsewhere(listed) and _elsewhere(looked)
    assert dock.about.text().startswith("4 cases. ")


def test_a_dataset_that_goes_while_the_plan_dock_looks_at_it_is_said(viewer, home, qtbot, monkeypatch):
    def gone(raw):
        raise FileNotFoundError(2, "No such file or directory", str(raw))

    make_dataset(home, shape=(20, 24, 22))
    monkeypatch.setattr(plan_dock, "survey", gone)
    dock = open_dock(viewer, "Plan")
    qtbot.waitUntil(lambda: "was it moved or removed" in dock.about.text().lower())
    qtbot.waitUntil(lambda: "Not ready" in dock.summary.text())
    assert dock.cases is None and not dock.panel.button.isEnabled()
