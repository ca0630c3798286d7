"""A napari viewer with the plugin, and waiting without sleeping."""

from __future__ import annotations

import gc
import os
import sys

import pytest
from layout import check_layout
from pytestqt.qtbot import QtBot

from helpers import Recipe, make_model
from napari_nnunet.formats import speed
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs import arithmetic, network_speed
from napari_nnunet.jobs.prediction import estimate
from napari_nnunet.widgets.tour import offer_no_more

pytestmark = pytest.mark.gui
_compared, _rates = {}, {}  # what was measured of this computer
_looked = 0  # modules that were there when the collector last looked at them


def pytest_collection_modifyitems(items):
    for item in items:
        if "widgets" in str(item.path):
            item.add_marker(pytest.mark.gui)


@pytest.fixture(autouse=True)
def _modules_are_no_garbage():
    """Spare the collector what modules hold: napari has it look at everything whenever a layer or a window goes."""
    global _looked
    if len(sys.modules) > _looked + 20:
        _looked = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def _computer_is_measured_once(_own_folders, monkeypatch):
    """Remember for all tests how fast this computer is: measuring it takes seconds, and every test has caches of its own."""
    compare, measure = arithmetic.time_apart, network_speed.measure_speed

    def time_apart(purpose, architecture):
        name = arithmetic.measurement_name(purpose, architecture)
        if name not in _compared:
            _compared[name] = compare(purpose, architecture)
        return list(_compared[name])

    def measure_speed(choice):
        names = network_speed.start_key(choice), network_speed._rate_key(choice)
        if speed.seconds_per_run(names[-1]) is not None:
            return
        if names not in _rates:
            measure(choice)
            found = [speed.seconds_per_run(name) for name in names]
            if None not in found:  # a test may let no cache be written
                _rates[names] = found
        else:
            for name, seconds in zip(names, _rates[names], strict=True):
                speed.remember(name, seconds)

    monkeypatch.setattr(arithmetic, "time_apart", time_apart)
    monkeypatch.setattr(estimate, "measure_speed", measure_speed)


@pytest.fixture
def viewer(make_napari_viewer, npe2pm):
    """A real viewer that knows this plugin and no other."""
    with npe2pm.tmp_plugin(package="napari_nnunet"):
        yield make_napari_viewer(show=True)


@pytest.fixture(autouse=True)
def _toured(_own_folders):
    """Whoever runs these tests knows the docks; what a first start offers is in test_tour.py."""
    offer_no_more()


class Patient(QtBot):
    """Waits five minutes by default: beside other tests a window may be slow, and patience costs nothing."""

    def waitUntil(self, callback, *, timeout=300_000):
        super().waitUntil(callback, timeout=timeout)

    def waitSignal(self, signal, *, timeout=300_000, **keywords):
        return super().waitSignal(signal, timeout=timeout, **keywords)


@pytest.fixture
def qtbot(qapp, request):
    return Patient(request)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder of the workspace that docks open."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


@pytest.fixture
def dock(viewer, qtbot):
    """The Segment dock in the viewer."""
    from napari_nnunet.widgets.prediction.segment_dock import SegmentWidget

    _, widget = viewer.window.add_plugin_dock_widget("napari-nnunet", "Segment")
    assert isinstance(widget, SegmentWidget)
    yield widget
    widget.panel.cancel()
    qtbot.waitUntil(lambda: not widget.busy)
    if widget._estimator is not None and widget._estimator.is_running:
        qtbot.waitUntil(lambda: not widget._estimator.is_running)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """nnU-Net's variables lead here, and a dataset with two models lies in it."""
    workspace = Workspace.at(tmp_path / "w")
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(getattr(workspace, name)))
    make_model(workspace.results, Recipe(folds=(0, 1)))
    make_model(workspace.results, Recipe(configuration="2d", patch=(16, 16), spacing=(1.0, 1.0)), seed=7)
    return workspace


@pytest.fixture
def look(viewer, qtbot):
    """Look at a dock or dialog in a small window, in both themes where somebody wants pictures."""
    viewer.window.resize(1280, 800)
    themes = ("light", "dark") if os.environ.get("NAPARI_NNUNET_SCREENS") else ("dark",)
    return lambda dock, name: check_layout(viewer, dock, qtbot, name, themes)
