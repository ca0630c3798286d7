"""Tab goes through a dock from top to bottom, whatever came into it after it was made."""

from __future__ import annotations

import itertools

import pytest
from docks import add_image, open_dock
from layout import settle, tab_order

from helpers import TRAINED, Recipe, make_model, make_trainable


@pytest.fixture
def filled(viewer, home):
    """A workspace with a dataset, plans and a model; a viewer with an image and labels."""
    make_trainable(home, Recipe(spacing=(1.0, 1.0, 1.0)))
    make_model(home / "nnUNet_results", Recipe(folds=(0, 1)))
    image = add_image(viewer)
    for name in ("one", "two"):
        viewer.add_labels((image.data > image.data.mean()).astype(int), name=name, units=image.units)
    return viewer


def goes_down(dock, qtbot):
    settle(dock, qtbot)
    order = tab_order(dock, qtbot)
    assert len(order) > 3
    steps = itertools.pairwise(order)
    assert [f"{name} after {before}" for (before, above), (name, below) in steps if below < above] == []


@pytest.mark.parametrize("title", ["Training cases", "Plan", "Train", "Next", "Ensemble", "Compare", "Models"])
def test_tab_goes_down_a_dock_that_shows_a_dataset_and_its_models(filled, qtbot, title):
    dock = open_dock(filled, title)
    if hasattr(dock, "state"):
        dock.state.choose(dataset=TRAINED)
    goes_down(dock, qtbot)


def test_tab_goes_down_the_segment_dock_when_a_model_is_chosen(filled, dock, home, new_model, qtbot):
    dock.add_model(new_model().folder)
    goes_down(dock, qtbot)
    two = new_model(name="Dataset002_Two", channels=("T1", "T2"))
    dock.add_model(two.folder)
    goes_down(dock, qtbot)
