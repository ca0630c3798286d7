"""What a training looks like: a list of all of them, curves, the validation cases from the worst on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyqtgraph
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHeaderView, QTableWidget, QTableWidgetItem, QVBoxLayout, QWidget

from napari_nnunet.events import EpochDone
from napari_nnunet.formats.results.summary import CaseScore
from napari_nnunet.processes.follow import TrainingView
from napari_nnunet.schema.colours import class_colour

_STATES = {
    "running": "running",
    "waiting": "waiting",
    "finished": "finished",
    "stopped": "stopped",
    "failed": "failed",
    "interrupted": "interrupted",
}
_ROWS = 5  # seen without scrolling
_TRAIN, _VAL = "#8c8c8c", "#ff8c00"


class TrainingTable(QTableWidget):
    """All trainings of the workspace; emits ``chosen`` with the fold's path."""

    chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__(0, 4)
        self.setHorizontalHeaderLabels(["Training", "State", "Epoch", "Dice"])
        self.setAccessibleName("Trainings")
        self.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        self.setSelectionMode(QTableWidget.SelectionMode.SingleSelection)
        self.verticalHeader().setVisible(False)
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.setWordWrap(True)
        self.itemSelectionChanged.connect(self._selected)

    def show_trainings(self, rows: Sequence[tuple[TrainingView, str]]) -> None:
        """Fill the table with trainings and their states; the selection stays."""
        before = self.current()
        self.blockSignals(True)
        self.setRowCount(len(rows))
        for i, (view, status) in enumerate(rows):
            last = view.last
            epoch = "–" if last is None else f"{last.epoch + 1}/{last.epochs}"
            dice = "–" if last is None else _mean(last)
            for column, text in enumerate((view.title, _STATES[status], epoch, dice)):
                item = QTableWidgetItem(text)
                item.setToolTip(f"{view.title}\n{view.folder.path}" if column == 0 else text)
                item.setData(Qt.ItemDataRole.UserRole, str(view.folder.path))
                self.setItem(i, column, item)
            if str(view.folder.path) == before:
                self.selectRow(i)
        self.resizeRowsToContents()
        heights = [self.rowHeight(row) for row in range(min(len(rows), _ROWS))]
        self.setFixedHeight(self.horizontalHeader().sizeHint().height() + max(sum(heights), 30) + 4)
        self.blockSignals(False)

    def current(self) -> str | None:
        """Return the path of the chosen fold."""
        items = self.selectedItems()
        return str(items[0].data(Qt.ItemDataRole.UserRole)) if items else None

    def choose(self, path: str) -> None:
        """Select a training by the path of its fold."""
        for row in range(self.rowCount()):
            item = self.item(row, 0)
            if item is not None and item.data(Qt.ItemDataRole.UserRole) == path:
                self.selectRow(row)
                return

    def _selected(self) -> None:
        path = self.current()
        if path is not None:
            self.chosen.emit(path)


class Curves(QWidget):
    """Losses above, Dice per class below."""

    def __init__(self) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.losses = self._plot("Loss", legend=(-4, 4))
        self.dice = self._plot("Pseudo Dice", legend=(-4, -4))
        self.dice.setYRange(0, 1)
        self.dice.setLabel("bottom", "epoch")
        self.dice.setFixedHeight(175)
        layout.addWidget(self.losses)
        layout.addWidget(self.dice)
        self._shown: tuple[float, ...] = ()

    @staticmethod
    def _plot(title: str, *, legend: tuple[int, int]) -> pyqtgraph.PlotWidget:
        plot = pyqtgraph.PlotWidget(background=None)
        plot.setFixedHeight(150)
        plot.setTitle(title, size="9pt")
        plot.setMouseEnabled(x=False, y=False)
        plot.hideButtons()
        plot.setMenuEnabled(False)
        plot.setAccessibleName(title)
        plot.addLegend(offset=legend, labelTextSize="8pt", verSpacing=-6)
        return plot

    def show_epochs(self, epochs: Sequence[EpochDone]) -> None:
        """Draw anew, if there is anything new."""
        key = (len(epochs), epochs[-1].time) if epochs else ()
        if key == self._shown:
            return
        self._shown = key
        self.losses.clear()
        self.dice.clear()
        if not epochs:
            return
        x = [epoch.epoch + 1 for epoch in epochs]
        for name, colour, values in (
            ("training", _TRAIN, [epoch.train_loss for epoch in epochs]),
            ("validation", _VAL, [epoch.val_loss for epoch in epochs]),
        ):
            self._draw(self.losses, x, values, name, colour)
        for c, name in enumerate(epochs[-1].names):
            values = [_number(epoch.dice[c]) if c < len(epoch.dice) else math.nan for epoch in epochs]
            self._draw(self.dice, x, values, name, class_colour(c + 1))
        self._draw(self.dice, x, [_number(epoch.average) for epoch in epochs], "mean, smoothed", _TRAIN, dashed=True)

    @staticmethod
    def _draw(
        plot: pyqtgraph.PlotWidget,
        x: Sequence[int],
        values: Sequence[float],
        name: str,
        colour: str,
        *,
        dashed: bool = False,
    ) -> None:
        style = Qt.PenStyle.DashLine if dashed else Qt.PenStyle.SolidLine
        plot.plot(
            x,
            values,
            name=name,
            connect="finite",
            pen=pyqtgraph.mkPen(colour, width=2, style=style),
            symbol="o" if len(x) < 3 else None,
            symbolSize=5,
            symbolBrush=colour,
        )


def _mean(epoch: EpochDone) -> str:
    known = [value for value in epoch.dice if value is not None]
    return f"{sum(known) / len(known):.3f}" if known else "–"


def _number(value: float | None) -> float:
    return math.nan if value is None else value


class ScoreTable(QTableWidget):
    """Validation cases, worst first; emits ``opened`` with the row on a double click."""

    opened = Signal(int)

    def __init__(self) -> None:
        super().__init__(0, 0)
        self.scores: list[CaseScore] = []
        self.setAccessibleName("Validation cases, worst first")
        self.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        self.verticalHeader().setVisible(False)
        self.setMinimumHeight(160)
        self.setToolTip("Double click opens the case with reference, result and their differences.")
        self.cellDoubleClicked.connect(lambda row, _: self.opened.emit(row))

    def show_scores(self, scores: Sequence[CaseScore], names: dict[str, str]) -> None:
        """Fill the table; ``names`` are those of the labels."""
        self.scores = list(scores)
        labels = list(self.scores[0].dice) if self.scores else []
        self.setColumnCount(2 + len(labels))
        self.setHorizontalHeaderLabels(["Case", "Dice", *(names.get(label, label) for label in labels)])
        self.setRowCount(len(self.scores))
        for row, score in enumerate(self.scores):
            values = [score.mean, *(score.dice[label] for label in labels)]
            texts = [score.name, *("–" if math.isnan(value) else f"{value:.3f}" for value in values)]
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setToolTip(text)
                self.setItem(row, column, item)
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
