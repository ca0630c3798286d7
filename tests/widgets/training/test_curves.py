"""Curves of a training say which colour is what."""

from __future__ import annotations

from napari_nnunet.events import EpochDone
from napari_nnunet.widgets.training.views import Curves


def epoch(number):
    return EpochDone(
        epoch=number, epochs=5, train_loss=-0.1 * number, val_loss=-0.05 * number, dice=(0.5, 0.25),
        names=("organ", "core < 2 mm"), average=0.3, rate=0.01, seconds=1.0, waiting=0.0, seconds_left=1.0, best=True,
    )  # fmt: skip


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
