"""Curves of sizes over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyqtgraph

_FEW = 3  # points that a line hardly shows


class SizeCurves(pyqtgraph.PlotWidget):
    """Sizes of objects or classes over time; hidden until there are some.

    Parameters
    ----------
    title : str
        What it shows, for people who do not see it.
    """

    def __init__(self, title: str) -> None:
        super().__init__(background=None)
        self.setFixedHeight(160)
        self.setAccessibleName(title)
        self.setMenuEnabled(False)
        self.setVisible(False)

    def show_curves(self, curves: Sequence[tuple[Any, Sequence[tuple[float, float]]]], size: str) -> None:
        """Draw curves.

        Parameters
        ----------
        curves : sequence of (colour, sequence of (float, float))
            Time points and sizes.
        size : str
            What the sizes are, with their unit.
        """
        self.clear()
        self.setLabel("left", size)
        self.setLabel("bottom", "time point")
        for colour, points in curves:
            self.plot(
                [time for time, _ in points],
                [value for _, value in points],
                pen=colour,
                symbol="o" if len(points) < _FEW else None,
                symbolSize=4,
            )
        self.setVisible(bool(curves))
