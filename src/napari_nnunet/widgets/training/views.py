"""What a training looks like: a list of all of them, curves, the validation cases from the worst on."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyqtgraph
from qtpy.QtCore import QEvent, QModelIndex, QSignalBlocker, Qt, Signal
from qtpy.QtGui import QPainter
from qtpy.QtWidgets import (
    QLabel,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableWidget,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.events import EpochDone
from napari_nnunet.formats.results.summary import CaseScore
from napari_nnunet.jobs.choosing.evaluate_objects import worst_first
from napari_nnunet.processes.follow import Training
from napari_nnunet.schema.colours import class_colour
from napari_nnunet.schema.model_name import label_of
from napari_nnunet.widgets.frame.parts import Table, html_label
from napari_nnunet.widgets.frame.words import as_text, telling_parts
from napari_nnunet.widgets.training.words import state_word

_ROWS = 5  # seen without scrolling
_MARGINS = 8  # pixels beside the text of a cell
_MOST_CURVES = 100
_LARGEST = 1e30  # of what is drawn; no loss of use comes near it
_OBJECT_HEADS = {  # narrow, so that a dock shows them all
    "AP\n@0.5": "Average precision at an IoU of 0.5: found / (found + missed + invented).",
    "Found,\nmissed,\ninvented": (
        "Objects of the reference that were found, those that were not, and objects where the reference has none."
    ),
    "Split,\nmerged": "Objects of the reference that were found as several, and those that were found as one.",
}
_TRAIN, _VAL = "#8c8c8c", "#ff8c00"
_LOSS, _DICE, _SMOOTHED = "Loss", "Pseudo Dice", "mean, smoothed"
_PSEUDO = (
    "An early estimate: mean over the classes on random patches of the validation cases, of the last epoch. What "
    "counts is the Dice of whole cases, in the validation at the end."
)
_Curve: TypeAlias = tuple[str, str, list[float]]  # name, colour, values


class TrainingTable(Table):
    """All trainings of the workspace; emits ``chosen`` when another one is selected."""

    chosen = Signal()

    def __init__(self) -> None:
        super().__init__("Trainings", ["Training", "State,\nepoch", "Pseudo\nDice"], most=_ROWS)
        self._wanted: Path | None = None
        self.setSelectionMode(QTableWidget.SelectionMode.SingleSelection)
        self.horizontalHeaderItem(2).setToolTip(_PSEUDO)
        self.itemSelectionChanged.connect(self.chosen)

    def show_trainings(self, trainings: Sequence[Training]) -> None:
        """Fill the table; the selection stays, or goes to the one that was wanted, or to the first."""
        paths = [training.folder.path for training in trainings]
        wanted = next((path for path in (self._wanted, self.current(), *paths) if path in paths), None)
        self._wanted = None if wanted == self._wanted else self._wanted
        with QSignalBlocker(self):
            names = [_name(training) for training in trainings]
            names = [_name(own, whole=names.count(n) > 1) for own, n in zip(trainings, names, strict=True)]
            self.fill([_row(name, training) for name, training in zip(names, trainings, strict=True)])
            for row, training in enumerate(trainings):
                item = self.item(row, 0)
                if item is not None:
                    item.setData(Qt.ItemDataRole.UserRole, training.folder.path)
                    item.setToolTip(as_text(f"{training.title}\n{training.folder.path}"))
            if wanted is not None:
                self.selectRow(paths.index(wanted))

    def fit(self) -> None:
        """Be as high as the rows with the lines of their names."""
        self.resizeRowsToContents()
        super().fit()

    def current(self) -> Path | None:
        """Return the folder of the chosen fold."""
        row = self.currentRow()
        item = self.item(row, 0) if self.selectedItems() else None
        return None if item is None else item.data(Qt.ItemDataRole.UserRole)

    def choose_when_there(self, path: Path) -> None:
        """Select a training as soon as it is listed."""
        self._wanted = path


def _row(name: str, training: Training) -> list[str]:
    last = training.last
    if last is None:
        return [name, state_word(training), "–"]
    known = [value for value in last.dice if value is not None]
    dice = f"{sum(known) / len(known):.3f}" if known else "–"
    return [name, f"{state_word(training)}\n{last.epoch + 1}/{last.epochs}", dice]


def _name(training: Training, *, whole: bool = False) -> str:
    """Return what a training is called, in lines that fit beside the other columns: the table wraps none of them.

    ``whole`` says the number of the dataset, too: another one may have its name.
    """
    model = training.folder.path.parent
    configuration, _, others = label_of(model.name).partition(" (")
    dataset = model.parent.name.removeprefix("Dataset") if whole else model.parent.name.partition("_")[2]
    lines = (f"{dataset} fold {training.folder.fold}", configuration, others.removesuffix(")"))
    return "\n".join(line for line in lines if line)


class Curves(QWidget):
    """Losses above, Dice per class below; what the colours mean stands over each plot, where it covers no curve."""

    def __init__(self) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.plots: dict[str, pyqtgraph.PlotWidget] = {}
        self.legends: dict[str, QLabel] = {}
        for title in (_LOSS, _DICE):
            self.legends[title] = html_label()
            self.plots[title] = _plot(title)
            layout.addWidget(self.legends[title])
            layout.addWidget(self.plots[title])
        self.plots[_DICE].setYRange(0, 1)
        self.legends[_DICE].setToolTip(_PSEUDO)
        self._shown: tuple[float, ...] = ()

    def changeEvent(self, event: QEvent | None) -> None:
        """Take the ground of another theme; a plot keeps a picture of its own."""
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.StyleChange, QEvent.Type.PaletteChange):
            for plot in self.plots.values():
                plot.resetCachedContent()
                plot.viewport().update()

    def show_epochs(self, epochs: Sequence[EpochDone]) -> None:
        """Draw anew, if there is anything new."""
        key = (len(epochs), epochs[-1].time) if epochs else ()
        if key == self._shown:
            return
        self._shown = key
        losses: list[_Curve] = []
        dice: list[_Curve] = []
        if epochs:
            losses = [
                ("training", _TRAIN, [_number(epoch.train_loss) for epoch in epochs]),
                ("validation", _VAL, [_number(epoch.val_loss) for epoch in epochs]),
            ]
            for c, name in enumerate(epochs[-1].names[:_MOST_CURVES]):
                values = [_number(epoch.dice[c]) if c < len(epoch.dice) else math.nan for epoch in epochs]
                dice.append((name, class_colour(c + 1), values))
            dice.append((_SMOOTHED, _TRAIN, [_number(epoch.average) for epoch in epochs]))
        x = [epoch.epoch + 1 for epoch in epochs]
        self._draw(_LOSS, x, losses)
        self._draw(_DICE, x, dice)

    def _draw(self, title: str, x: Sequence[int], curves: Sequence[_Curve]) -> None:
        plot = self.plots[title]
        plot.clear()
        keys = "   ".join(f"<font color='{colour}'>■</font>&nbsp;{html.escape(name)}" for name, colour, _ in curves)
        self.legends[title].setText(f"<b>{title}</b> by epoch: {keys}")
        for name, colour, values in curves:
            style = Qt.PenStyle.DashLine if name == _SMOOTHED else Qt.PenStyle.SolidLine
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


class _Epochs(pyqtgraph.AxisItem):
    """An axis of whole numbers: there is no epoch 1.5."""

    def tickSpacing(self, minVal: float, maxVal: float, size: float) -> list[tuple[float, float]]:
        """Leave out what lies between epochs."""
        return [level for level in super().tickSpacing(minVal, maxVal, size) if level[0] >= 1] or [(1.0, 0.0)]


def _plot(title: str) -> pyqtgraph.PlotWidget:
    plot = pyqtgraph.PlotWidget(background=None, axisItems={"bottom": _Epochs("bottom")})
    plot.setFixedHeight(140)
    plot.setMouseEnabled(x=False, y=False)
    plot.hideButtons()
    plot.setMenuEnabled(False)
    plot.setAccessibleName(title)
    return plot


def _number(value: float | None) -> float:
    """Return what can be drawn: NaN for what is not known, or so large that nothing else would be seen."""
    return math.nan if value is None or abs(value) > _LARGEST else value


class ScoreTable(Table):
    """Validation cases, worst first; emits ``opened`` with the row on a double click."""

    opened = Signal(int)

    def __init__(self) -> None:
        super().__init__("Validation cases, worst first")
        self.scores: list[CaseScore] = []
        self.setTextElideMode(Qt.TextElideMode.ElideLeft)  # names that begin alike differ at their end
        self._drawn = _Names(self)
        self.setItemDelegateForColumn(0, self._drawn)
        self.setToolTip("Double-click opens the case with reference, result and their differences.")
        self.cellDoubleClicked.connect(lambda row, _: self.opened.emit(row))

    def show_scores(self, scores: Sequence[CaseScore], names: dict[str, str]) -> None:
        """Fill the table; ``names`` are those of the labels."""
        self.scores = list(scores)
        labels = list(self.scores[0].dice) if self.scores else []
        self.set_heads(["Case", "Mean", *(names.get(label, label) for label in labels)])
        self.horizontalHeaderItem(1).setToolTip(
            "Mean Dice over the classes that occur in this case. The mean of all cases above is taken class by class."
        )
        self.fill([[score.name, *map(_dice_text, (score.mean, *score.dice.values()))] for score in self.scores])
        self._name_whole()

    def show_objects(self, cases: Sequence[CaseScore], figures: Mapping[str, Mapping[str, Any]]) -> None:
        """Fill the table with what became of the objects of every case, the lowest AP first.

        Parameters
        ----------
        cases : sequence of CaseScore
            All that were validated.
        figures : mapping of str to mapping
            Of each case of which the objects are known, what objects.json says.
        """
        known = {case.name: case for case in cases}
        order = [name for name, _ in worst_first({name: own for name, own in figures.items() if name in known})]
        self.scores = [known[name] for name in order] + [case for case in cases if case.name not in figures]
        self.set_heads(["Case", *_OBJECT_HEADS])
        for column, meaning in enumerate(_OBJECT_HEADS.values(), start=1):
            self.horizontalHeaderItem(column).setToolTip(meaning)
        self.fill([[score.name, *_object_cells(figures.get(score.name))] for score in self.scores])
        self._name_whole()

    def _name_whole(self) -> None:
        self._drawn.forget()
        for row, score in enumerate(self.scores):
            item = self.item(row, 0)
            if item is not None:
                item.setToolTip(as_text(score.name))


class _Names(QStyledItemDelegate):
    """Draws of names that are wider than their column what tells them apart."""

    _room: int | None = None  # pixels, while a name is drawn

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._told: dict[str, str] = {}  # of all names, as they are many and drawn one by one
        self._told_for: tuple[int, str] | None = None  # the room and the font

    def forget(self) -> None:
        """Look at the names again: there are others."""
        self._told_for = None

    def paint(self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Draw a name."""
        self._room = option.rect.width() - _MARGINS
        super().paint(painter, option, index)
        self._room = None

    def initStyleOption(self, option: QStyleOptionViewItem | None, index: QModelIndex) -> None:
        """Say what is drawn; a size that is asked for is that of the whole name."""
        super().initStyleOption(option, index)
        model, room = index.model(), self._room
        if option is None or model is None or room is None:
            return
        measure = option.fontMetrics.horizontalAdvance
        if measure(option.text) > room:
            if self._told_for != (room, option.font.key()):
                names = [str(model.index(row, 0).data()) for row in range(model.rowCount())]
                self._told = telling_parts(names, lambda text: measure(text) <= room)
                self._told_for = (room, option.font.key())
            option.text = self._told.get(str(index.data()), option.text)


def _object_cells(figures: Mapping[str, Any] | None) -> list[str]:
    if figures is None:
        return ["–"] * len(_OBJECT_HEADS)
    value = figures["AP@0.5"]
    counts = (", ".join(str(figures[fate]) for fate in head.lower().split(",\n")) for head in list(_OBJECT_HEADS)[1:])
    return [_dice_text(math.nan if value is None else value), *counts]


def _dice_text(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
