"""A setting that says it has a row is in the form of its dock: title, tool tip, limits, and its value is used."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from docks import open_dock
from magicgui.widgets import FileEdit
from qtpy.QtWidgets import QLabel, QWidget

from helpers import Recipe, make_trainable
from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.requests.option import Request, option
from napari_nnunet.schema.requests.training import parse_duration
from napari_nnunet.widgets.frame.forms import FieldRows
from napari_nnunet.widgets.frame.ready import NotReadyError
from napari_nnunet.widgets.sharing.export_dialog import ExportDialog


class Wishes(Request):
    memory: float | None = option(
        "Memory", "--memory GB", "At most.", default=None, gt=0, otherwise="what is free", row=True
    )
    stop: int | None = option("Stop", "--stop N", "After N.", default=None, ge=1, row=True)
    time: float | None = option("Time", "--time TIME", "As long.", default=None, reads=parse_duration, row=True)
    size: tuple[float, float, float] | None = option(
        "Size (mm)", "--size", "Of voxels.", default=None, axes=("Z", "Y", "X"), row=True
    )
    weights: Path | None = option("Weights", "--weights FILE", "To begin with.", default=None, row=True)
    fast: bool = option("Fast", "--fast", "Sooner.", default=False, row=True)
    hidden: int = option("Hidden", "--hidden N", "For shells.", default=1)


@pytest.fixture
def rows(qapp):
    return FieldRows(Wishes)


def test_rows_left_as_they_are_say_what_the_request_says_by_itself(rows):
    assert set(rows.widgets) == set(Wishes.model_fields) - {"hidden"}
    assert Wishes.of(**rows.values()) == Wishes()
    assert rows.widgets["memory"].native.placeholderText() == "what is free"
    assert type(rows.widgets["weights"]) is FileEdit


def test_what_is_typed_into_rows_is_read_as_a_shell_would(rows):
    typed = {"memory": "2.5", "stop": " 7 ", "time": "1h30m", "size": "2 1 1", "weights": "/a.pth", "fast": True}
    for name, value in typed.items():
        rows.widgets[name].value = value
    assert Wishes.of(**rows.values()) == Wishes(
        memory=2.5, stop=7, time=5400, size=(2, 1, 1), weights=Path("/a.pth"), fast=True
    )


@pytest.mark.parametrize(
    ("name", "text", "error", "said"),
    [
        ("memory", "-1", SettingsError, "The setting 'Memory' cannot be '-1': Input should be greater than 0."),
        ("stop", "soon", SettingsError, "The setting 'Stop' cannot be 'soon'"),
        ("time", "soon", SettingsError, "'soon' is not a duration"),
        ("size", "1 2", NotReadyError, "The voxel size '1 2' cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named_as_the_form_names_it(rows, name, text, error, said):
    rows.widgets[name].value = text
    with pytest.raises(error) as raised:
        Wishes.of(**rows.values())
    assert said in getattr(raised.value, "in_window", str(raised.value))


def _plan(viewer):
    dock = open_dock(viewer, "Plan")
    return dock, dock.request


def _train(viewer):
    dock = open_dock(viewer, "Train")
    return dock, lambda: dock.form.request().settings


def _export(viewer):
    dialog = ExportDialog(viewer.window._qt_window, Path("Dataset001_X/model"), [])
    return dialog, dialog.settings


def _segment(viewer):
    dock = open_dock(viewer, "Segment")
    return dock, dock.form.settings


@pytest.mark.gui
@pytest.mark.parametrize(
    ("module", "name", "opened"),
    [
        ("prediction.form", "PredictSettings", _segment),
        ("planning.plan_dock", "PlanSettings", _plan),
        ("training.form", "TrainSettings", _train),
        ("sharing.export_dialog", "ExportSettings", _export),
    ],
    ids=["Segment", "Plan", "Train", "Export"],
)
def test_a_field_added_to_a_request_is_a_row_of_its_dock(viewer, tmp_path, monkeypatch, module, name, opened):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    make_trainable(tmp_path, Recipe(spacing=(1.0, 1.0, 1.0)))
    module = importlib.import_module(f"napari_nnunet.widgets.{module}")

    class More(getattr(module, name)):
        sharpness: float = option("Sharpness", "--sharpness S", "How sharp.", default=0.5, ge=0, le=4, row=True)

    monkeypatch.setattr(module, name, More)
    dock, request = opened(viewer)
    row = next(w for w in dock.findChildren(QWidget) if w.accessibleName() == "Sharpness")
    assert row.toolTip() == "How sharp."
    assert "Sharpness" in [label.text() for label in dock.findChildren(QLabel)]
    assert (row.minimum(), row.maximum(), row.value()) == (0, 4, 0.5)
    row.setValue(2.0)
    assert request().sharpness == 2.0
