"""Curves of a training say which colour is what."""

from __future__ import annotations

import math

from napari_nnunet.events import EpochDone
from napari_nnunet.widgets.training.views import Curves


def epoch(number, **more):
    known = EpochDone(
        epoch=number, epochs=5, train_loss=-0.1 * number, val_loss=-0.05 * number, dice=(0.5, 0.25),
        names=("organ", "core < 2 mm"), average=0.3, rate=0.01, seconds=1.0, waiting=0.0, seconds_left=1.0, best=True,
    )  # fmt: skip
    return known.model_copy(update=more)


def test_the_legend_over_each_plot_names_every_curve_in_its_colour(qtbot):
    curves = Curves()
    qtbot.addWidget(curves)
    curves.show_epochs([epoch(i) for i in range(3)])
    names = {"Loss": ["training", "validation"], "Pseudo Dice": ["organ", "core < 2 mm", "mean, smoothed"]}
    assert {title: [item.name() for item in plot.listDataItems()] for title, plot in curves.plots.items()} == names
    for title, plot in curves.plots.items():
        said = curves.legends[title].text().replace("&lt;", "<")
        for item in plot.listDataItems():
            colour = item.opts["pen"].color().name()
            assert f"<font color='{colour}'>■</font>&nbsp;{item.name()}" in said


def test_losses_that_cannot_be_drawn_leave_a_gap(qtbot):
    curves = Curves()
    qtbot.addWidget(curves)
    odd = [math.inf, -math.inf, 1e300, math.nan, 0.25]
    curves.show_epochs([epoch(i, train_loss=value, average=value) for i, value in enumerate(odd)])
    for title, name in (("Loss", "training"), ("Pseudo Dice", "mean, smoothed")):
        (item,) = (item for item in curves.plots[title].listDataItems() if item.name() == name)
        assert [math.isnan(value) for value in item.getData()[1]] == [True] * 4 + [False]
    curves.grab()


def test_no_more_classes_are_drawn_than_can_be_told_apart(qtbot):
    curves = Curves()
    qtbot.addWidget(curves)
    names = tuple(map(str, range(4000)))
    curves.show_epochs([epoch(0, names=names, dice=(0.5,) * 4000)])
    assert len(curves.plots["Pseudo Dice"].listDataItems()) == 101


def test_epochs_are_whole_numbers(qtbot):
    """There is no epoch 1.5."""
    curves = Curves()
    qtbot.addWidget(curves)
    curves.resize(330, 300)
    for count in (1, 2, 3, 60):
        curves.show_epochs([epoch(i, time=float(count)) for i in range(count)])
        curves.grab()
        axis = curves.plots["Loss"].getAxis("bottom")
        ticks = [value for _, values in axis.tickValues(*axis.range, axis.size().width()) for value in values]
        assert ticks and all(float(value).is_integer() for value in ticks), (count, ticks)
