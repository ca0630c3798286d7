"""What an import shows before it writes: pairs with their pictures, and values with what they become."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QRadioButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.errors import NnunetError, SettingsError, counted
from napari_nnunet.events import CaseDone
from napari_nnunet.formats.masks.kinds import Recognised
from napari_nnunet.schema.requests.mask_words import read_values
from napari_nnunet.widgets.frame.parts import Sentence, Table
from napari_nnunet.widgets.frame.words import size_text, times_text

if TYPE_CHECKING:
    from napari_nnunet.jobs.dataset.import_case import PlannedCase
    from napari_nnunet.jobs.dataset.import_plan import ImportPlan, LeftOut

_SHOWN = 300  # pairs in the table; all are imported
_SIDE = 40  # of a picture
_BESIDE = 20  # pixels around it
_WIDEST = 280  # of the column of names, which tell cases apart


class PairTable(Table):
    """Pairs of images and masks, each with a tick; emits ``changed`` when one was left out or taken again."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__("Pairs of images and masks", ("Case", "Images", "Mask", "Size", "Left out because"), most=3)
        for column in (1, 2, 4):  # equal shares, long names are cut in their middle
            self.horizontalHeader().setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setIconSize(QSize(_SIDE, _SIDE))
        self.itemChanged.connect(self._ticked)

    def show_cases(
        self, cases: Sequence[PlannedCase], left_out: Sequence[LeftOut], problems: Mapping[str, NnunetError]
    ) -> None:
        """List cases, those that cannot be imported first, then files without a partner."""
        rows = [(name, "", "", "", error.in_window) for name, error in problems.items()]
        rows += [
            (case.name, " + ".join(p.name for p in case.pair.images), case.pair.mask_words, _size(case), "")
            for case in cases[:_SHOWN]
        ]
        files = [("", left.path.name, "", "", left.why) for left in left_out[:_SHOWN]]
        with QSignalBlocker(self):
            self.setRowCount(len(rows) + len(files))
            for r, row in enumerate((*rows, *files)):
                for c, text in enumerate(row):
                    item = QTableWidgetItem(text)
                    item.setToolTip(text)
                    self.setItem(r, c, item)
                if r < len(rows):
                    first = self.item(r, 0)
                    first.setFlags(first.flags() | Qt.ItemFlag.ItemIsUserCheckable)
                    first.setCheckState(Qt.CheckState.Checked)
                    self.setRowHeight(r, _SIDE + 4)
        self.setColumnHidden(4, not (problems or left_out))
        header = self.horizontalHeader()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Interactive)
        header.resizeSection(
            0, min(max(header.sectionSizeHint(0), self.sizeHintForColumn(0) + _SIDE + _BESIDE), _WIDEST)
        )
        self.fit()

    def show_picture(self, event: Any) -> None:
        """Show the picture of a case that was drawn."""
        if isinstance(event, CaseDone):
            for row in range(self.rowCount()):
                item = self.item(row, 0)
                if item is not None and item.text() == event.case:
                    with QSignalBlocker(self):
                        item.setIcon(QIcon(QPixmap(event.path)))

    def tick(self, names: Collection[str], ticked: bool) -> None:
        """Take cases, or leave them out; who does it says so."""
        with QSignalBlocker(self):
            for row in range(self.rowCount()):
                item = self.item(row, 0)
                if item is not None and item.text() in names:
                    item.setCheckState(Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)

    def left_out(self) -> tuple[str, ...]:
        """Return the cases that are not ticked."""
        items = [self.item(row, 0) for row in range(self.rowCount())]
        return tuple(
            item.text()
            for item in items
            if item is not None and item.text() and item.checkState() == Qt.CheckState.Unchecked
        )

    def _ticked(self, item: QTableWidgetItem) -> None:
        if item.column() == 0:
            self.changed.emit()


def _size(case: PlannedCase) -> str:
    spacing = "" if case.spacing is None else f", {size_text(case.spacing)}"
    turned = ", mask is reoriented" if case.turned else ""
    return f"{times_text(case.shape)}{spacing}{turned}"


class ValueTable(Table):
    """The values of masks, how often each occurs, and the class it becomes; emits ``changed``."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__("Values of the masks", ("Value", "Voxels", "Share", "Masks", "Becomes"), most=8)
        self.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        self.horizontalHeader().setSectionResizeMode(4, QHeaderView.ResizeMode.Stretch)  # what is typed
        self._recognised: Recognised | None = None
        self._asked = False
        self.setEditTriggers(QTableWidget.EditTrigger.AllEditTriggers)
        self.setToolTip("Type a class, 'background' or 'ignore'. Values with the same class become one.")
        self.itemChanged.connect(self._typed)

    def show_recognised(self, recognised: Recognised | None, *, asked: bool) -> None:
        """List values with the proposal; ``asked`` where that is not certain."""
        self._recognised, self._asked = recognised, asked
        rows = () if recognised is None else recognised.rows
        with QSignalBlocker(self):
            self.setRowCount(len(rows))
            for r, row in enumerate(rows):
                texts = (row.word, f"{row.voxels:,}", f"{100 * row.share:.2g} %", str(row.files), row.becomes)
                for c, text in enumerate(texts):
                    item = QTableWidgetItem(text)
                    if c < 4:
                        item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
                    if c == 0 and row.colour:
                        item.setData(Qt.ItemDataRole.DecorationRole, QColor(row.colour))
                    self.setItem(r, c, item)
        self.fit()

    def answers(self) -> dict[str, Any]:
        """Return what is said of the values, as fields of the request; nothing while that need not be asked."""
        found = self._recognised
        if found is None:
            return {}
        typed = {row: self._text(self.item(row, 4)).strip() for row in range(self.rowCount())}
        if any(typed[r] != row.becomes for r, row in enumerate(found.rows)):
            return {
                "mapping": {row.word: typed[r] for r, row in enumerate(found.rows) if typed[r] and _plain(row.word)}
            }
        if not self._asked:
            return {}
        mapping = {} if found.ignore is not None else dict(found.mapping)  # what is left then are classes by themselves
        return {"mapping": mapping, "ignore": found.ignore, "threshold": found.threshold}

    def _typed(self, item: QTableWidgetItem) -> None:
        if item.column() == 4:
            self.changed.emit()


class ColourChoice(QWidget):
    """What is done with pictures of which some are grey and some in colour; emits ``changed``."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.unlike: tuple[str, ...] = ()
        self.box = QComboBox()
        self.box.setAccessibleName("Colours")
        self.box.setToolTip("The pictures of a dataset are all grey or all in colour, also those segmented later.")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(Sentence("Colours"))
        row.addWidget(self.box, 1)
        self.box.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.offer(())

    def offer(self, cases: Sequence[PlannedCase], unlike: Sequence[str] = (), *, adds: bool = False) -> None:
        """Offer what can be done where there are colours; ``unlike`` are cases unlike most, ``adds`` to a dataset."""
        self.unlike = tuple(unlike)
        with QSignalBlocker(self.box):
            self.box.clear()
            for text, how in (
                ("As they are", "as_stored"),
                ("All as grey pictures (the brightness of the colours)", "grey"),
                ("All as colour pictures (grey becomes equal red, green and blue)", "rgb"),
                *([(f"Leave out the {counted(len(unlike), 'picture')} unlike most", "leave_out")] if unlike else []),
            ):
                self.box.addItem(text, how)
        self.setVisible(any(case.picture and (adds or case.channels > 1) for case in cases))

    @property
    def how(self) -> str:
        """What was chosen, as the request names it."""
        return str(self.box.currentData())


class ObjectChoice(QWidget):
    """Whether the values of masks are numbers of objects, or classes; emits ``changed``."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.each = QRadioButton()
        self.classes = QRadioButton()
        self.classes.setToolTip("The table says which; values with the same class become one.")
        self.name = QLineEdit()
        self.name.setAccessibleName("Kind of the objects")
        self.name.setPlaceholderText("object")
        self.name.setToolTip("What the objects are called, such as nucleus or particle.")
        row = QHBoxLayout()
        row.addWidget(self.each)
        row.addWidget(self.name, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(row)
        column.addWidget(self.classes)
        self.each.toggled.connect(self._chosen)
        self.name.textChanged.connect(lambda _: self.changed.emit())
        self.offer(None)

    def offer(self, recognised: Recognised | None) -> None:
        """Offer both meanings where masks may number their objects, with what they look like chosen."""
        kind = "" if recognised is None else recognised.kind
        whole = kind in ("classes", "unclear", "objects", "colours") and recognised is not None
        drawn = recognised is not None and recognised.drawn
        self.each.setText(f"Each {'colour' if drawn else 'number'} is an object of its own, a")
        kept = "Every piece of a colour gets a number" if drawn else "The numbers are kept"
        self.each.setToolTip(
            f"{kept}. nnU-Net learns the core and the border of objects, and tells apart those that touch."
        )
        with QSignalBlocker(self):
            one = kind == "objects"
            self.classes.setText("All of them are one class" if one else "The values are classes")
            (self.each if one else self.classes).setChecked(True)
        self.setVisible(whole)

    @property
    def kind(self) -> str | None:
        """What the objects are called; None where values are classes."""
        return (self.name.text().strip() or self.name.placeholderText()) if self.each.isChecked() else None

    def _chosen(self, each: bool) -> None:
        self.name.setEnabled(each)
        self.changed.emit()


def _plain(word: str) -> bool:
    """Whether a row stands for values that can be given a class."""
    try:
        read_values(word)
    except SettingsError:
        return False
    return True


def counts_text(plan: ImportPlan) -> str:
    """Return how many pairs there are, and what is left out."""
    left = f", {counted(len(plan.left_out), 'file')} left out" if plan.left_out else ""
    channels = "" if plan.unlike else f", {counted(len(plan.channels), 'channel')}"
    return f"<b>{counted(len(plan.cases), 'pair')}</b>{channels}{left}."


def obstacle(plan: ImportPlan) -> str | None:
    """Return what prevents an import, with what to do in this dialog."""
    if plan.problems:
        name, error = next(iter(plan.problems.items()))
        more = f" and {len(plan.problems) - 1} more" if len(plan.problems) > 1 else ""
        return f"{name}{more} cannot be imported: {error.in_window.rstrip('.')}. Untick what is to be left out."
    if not plan.cases:
        return "Nothing is left to import."
    if plan.question is not None:
        first, without = (text.partition("\n")[0] for text in (plan.question.in_window, plan.question.message))
        return first if first != without else f"{first} Say below what each value becomes."
    return None
