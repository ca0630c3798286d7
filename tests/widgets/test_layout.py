"""Nothing in a dock is cut on a small screen, whatever it shows; docks are tabs of each other."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from layout import check_layout, settle, tabbed
from qtpy.QtWidgets import QDockWidget

from helpers import TRAINED, Recipe, make_dataset, make_trainable, smooth_image
from napari_nnunet.events import Ended, EpochDone, Stage, to_json
from napari_nnunet.formats.model.fold import FoldFolder

DOCKS = (
    "Segment",
    "Training cases",
    "Plan",
    "Train",
    "Next",
    "Ensemble",
    "Compare",
    "Models",
    "Check my computer",
)
_numbers = itertools.count()


@pytest.fixture(params=["dark", "light"])
def small(viewer, request):
    """A window of 1280 x 800 in both themes."""
    viewer.theme = request.param
    viewer.window.resize(1280, 800)
    return viewer


def open_dock(viewer, title):
    return viewer.window.add_plugin_dock_widget("napari-nnunet", title)[1]


def check(dock, qtbot):
    theme = dock.viewer.theme
    check_layout(dock.viewer, dock, qtbot, f"{type(dock).__name__}-{next(_numbers)}", (theme,))


def add_layers(viewer):
    painted = np.zeros((6, 20, 24), int)
    painted[1:3, 4:9, 4:9], painted[3:5, 12:16, 5:9] = 3, 9
    place = {"scale": (2, 0.5, 0.5), "units": ["mm"] * 3}
    viewer.add_image(smooth_image((6, 20, 24))[0], name="a brain with a rather long name of its layer", **place)
    viewer.add_labels(painted, name="painted", **place)


def trained(home):
    """Write what a finished training leaves, without training."""
    folder = FoldFolder(home / "nnUNet_results" / TRAINED / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "fold_0")
    folder.validation.mkdir(parents=True)
    folder.final.write_bytes(b"")
    for name in ("dataset.json", "plans.json"):
        source = home / "nnUNet_preprocessed" / TRAINED / name.replace("plans", "nnUNetPlans")
        (folder.path.parent / name).write_bytes(source.read_bytes())
    epochs = [
        EpochDone(
            epoch=i, epochs=12, train_loss=-0.1 * i, val_loss=-0.08 * i, dice=(0.1, 0.05 * i), names=("organ", "lesion"),
            average=0.05, rate=0.01, seconds=61.0, waiting=0.3, seconds_left=100.0, best=True,
        )
        for i in range(12)
    ]  # fmt: skip
    end = Ended(how="finished", text="Finished after 12 epochs. Mean validation Dice 0.2101.")
    folder.events.write_text("".join(to_json(e) + "\n" for e in (Stage(name="Epoch 1 of 12"), *epochs, end)))
    cases = [
        {
            "metrics": {"1": {"Dice": 0.1 * i}, "2": {"Dice": 0.05 * i}},
            "prediction_file": str(folder.validation / f"a_case_with_a_long_name_{i}.nii.gz"),
            "reference_file": f"a_case_with_a_long_name_{i}.nii.gz",
        }
        for i in range(4)
    ]
    (folder.validation / "summary.json").write_text(
        json.dumps({"foreground_mean": {"Dice": 0.2101}, "mean": {}, "metric_per_case": cases})
    )


@pytest.mark.parametrize("title", DOCKS)
def test_a_dock_that_is_opened_empty_is_not_cut(small, home, qtbot, title):
    check(open_dock(small, title), qtbot)


def test_a_dock_that_collects_cases_is_not_cut(small, home, qtbot):
    cases = open_dock(small, "Training cases")
    add_layers(small)
    check(cases, qtbot)
    raw = make_dataset(home, cases=3)
    cases.state.choose(dataset=raw.name)
    check(cases, qtbot)
    cases.problems.check()
    qtbot.waitUntil(lambda: cases.problems.title.isVisible())
    check(cases, qtbot)
    qtbot.waitUntil(lambda: not cases.cases._drawing.running)


def test_docks_that_show_plans_and_trainings_are_not_cut(small, home, qtbot):
    make_trainable(home, Recipe(spacing=(1.0, 1.0, 1.0)))
    trained(home)
    plan = open_dock(small, "Plan")
    for tab in range(plan.views.count()):
        plan.views.setCurrentIndex(tab)
        check(plan, qtbot)
    qtbot.waitUntil(lambda: not plan._costing.running)
    check(plan, qtbot)
    train = open_dock(small, "Train")
    qtbot.waitUntil(lambda: train.details.scores.isVisible())
    check(train, qtbot)
    assert "mean Dice 0.2101 (over cases, then over classes)" in train.details.scores_title.text()
    train.watch.stop()


@pytest.mark.parametrize("title", DOCKS)
def test_tab_goes_through_a_dock_and_leaves_it(viewer, home, qtbot, title):
    make_trainable(home, Recipe(spacing=(1.0, 1.0, 1.0)))
    dock = open_dock(viewer, title)
    add_layers(viewer)
    settle(dock, qtbot)
    assert tabbed(dock, qtbot) == ([], [])


def test_docks_are_tabs_of_each_other_and_each_is_there_once(viewer, home, qtbot):
    for title in DOCKS[:4]:
        open_dock(viewer, title)
    window = viewer.window._qt_window

    def ours():
        return [dock for dock in window.findChildren(QDockWidget) if dock.windowTitle() in DOCKS]

    qtbot.waitUntil(lambda: sorted(dock.windowTitle() for dock in ours()) == sorted(DOCKS[:4]))
    qtbot.waitUntil(lambda: len(window.tabifiedDockWidgets(ours()[0])) == 3)
    open_dock(viewer, "Train").watch.stop()
