"""Small parts of docks: sentences that wrap, buttons that copy, tables as high as their rows."""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer, QUrl
from qtpy.QtGui import QColor, QDesktopServices, QIcon, QPaintEvent, QResizeEvent
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QHeaderView,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QTableWidget,
    QTableWidgetItem,
    QTabWidget,
    QWidget,
)
from superqt import QCollapsible, QElidingLabel

from napari_nnunet.widgets.frame.words import as_text, path_in

_MARKS = re.compile(r"&lt;(b|/b|br)&gt;")  # what sentences are marked with, escaped
_COPIED_MS = 1500
_BESIDE = 4  # pixels that a style leaves beside the text of a box
_AROUND = 10  # pixels that are left around a part that comes into sight
_NAME = (80, 140)  # pixels for the first column of a table that is wider than its dock


class Sentence(QLabel):
    """A text that wraps. Bold words and new lines are marked in it, and nothing else is.

    Names of classes, channels and files come from other people. Left alone, Qt takes a text with such a name for HTML,
    and loads the pictures it asks for, from whichever file or computer.

    Parameters
    ----------
    text : str
        What it shows first.
    marked : bool
        Whether ``<b>`` and ``<br>`` count as marks.
    """

    def __init__(self, text: str = "", *, marked: bool = True) -> None:
        super().__init__()
        self._marked = marked
        self.setWordWrap(True)
        self.setText(text)

    def setText(self, text: str | None) -> None:
        """Show a text."""
        self._said = text or ""
        plain = html.escape(self._said, quote=False)
        shown = _MARKS.sub(r"<\1>", plain) if self._marked else plain
        self.setTextFormat(Qt.TextFormat.PlainText if shown == plain else Qt.TextFormat.RichText)
        super().setText(self._said if shown == plain else shown)

    def text(self) -> str:
        """Return the text as it was given."""
        return self._said


def html_label() -> QLabel:
    """Return a label that wraps HTML; the names within have been escaped."""
    label = QLabel()
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.RichText)
    return label


def button(text: str, tip: str = "") -> QPushButton:
    """Return a button with a tool tip, whose name screen readers find."""
    made = QPushButton(text)
    made.setAccessibleName(text.rstrip("…"))
    made.setToolTip(tip)
    return made


def next_button(text: str, tip: str) -> QPushButton:
    """Return the button at the end of a dock that people press next, with what was chosen carried along."""
    made = button(text, tip)
    made.setMinimumHeight(32)
    make_next(made, on=True)
    return made


def make_next(made: QPushButton, *, on: bool) -> None:
    """Let a button look like the one that people press next, or like any other."""
    font = made.font()
    font.setBold(on)
    made.setFont(font)


def into_sight(part: QWidget) -> None:
    """Scroll the dock around a part so that it is seen."""
    above = part.parentWidget()
    while above is not None and not isinstance(above, QScrollArea):
        above = above.parentWidget()
    if above is not None:
        above.ensureWidgetVisible(part, 0, _AROUND)


def refresh_button(what: str) -> QPushButton:
    """Return the small button that looks for datasets or models again."""
    made = QPushButton("↻")
    made.setToolTip(f"Look for {what} again.")
    made.setAccessibleName(f"Look for {what} again")
    made.setFixedWidth(30)
    return made


def folded_away(title: str, content: QWidget) -> QCollapsible:
    """Return a part that is folded away behind its title; its arrow is text, which every theme colours."""
    made = QCollapsible(f"▸ {title}")
    for show in (made.setCollapsedIcon, made.setExpandedIcon):
        show(QIcon())
    for layout, above in ((made.layout(), 0), (made.content().layout(), 6)):
        if layout is not None:  # as wide as what is around it, and nothing below the title while it is folded
            layout.setContentsMargins(0, above, 0, 0)
            layout.setSpacing(0)
    made.toggled.connect(lambda shown: made.setText(f"{'▾' if shown else '▸'} {title}"))
    made.addWidget(content)
    return made


class ElidingButton(QPushButton):
    """A button that a long text does not make wider than its dock; the tool tip has all of it."""

    _whole = ""

    def show_text(self, text: str) -> None:
        """Show a text, or its beginning and end."""
        self._whole = text
        self.setAccessibleName(text)
        self.setToolTip(as_text(text))
        self.setText(text)
        self._elide()

    def minimumSizeHint(self) -> QSize:
        """Return the height alone."""
        return QSize(0, super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Show as much as fits now."""
        super().resizeEvent(event)
        self._elide()

    def _elide(self) -> None:
        frame = self.sizeHint().width() - self.fontMetrics().horizontalAdvance(self.text())
        self.setText(self.fontMetrics().elidedText(self._whole, Qt.TextElideMode.ElideMiddle, self.width() - frame))


class ElidingLabel(QElidingLabel):
    """A line of text of which as much is shown as fits, also after the theme has changed the size of its letters."""

    def changeEvent(self, event: QEvent | None) -> None:
        """Look again how much fits."""
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self._measure()
            self.setText(self.full_text())

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Show as much as fits now."""
        self._measure()
        super().resizeEvent(event)

    def _measure(self) -> None:
        """Tell the label how much of its width its frame takes, which it takes for nothing."""
        frame = QLabel.sizeHint(self).width() - self.fontMetrics().horizontalAdvance(QLabel.text(self))
        self.setEllipsesWidth(frame)


class NameBox(QComboBox):
    """A box of long names: where one does not fit, its middle is left out, and the tool tip has it whole."""

    def shown(self) -> str:
        """Return what of the chosen name is to be seen."""
        return _shown_in(self, self._option())

    def paintEvent(self, _: QPaintEvent | None) -> None:
        """Draw the box with as much of the name as fits."""
        _draw(self, self._option(), self.shown())

    def _option(self) -> QStyleOptionComboBox:
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        return option


def _shown_in(box: QComboBox, option: QStyleOptionComboBox) -> str:
    style, part = box.style(), QStyle.SubControl.SC_ComboBoxEditField
    assert style is not None
    room = style.subControlRect(QStyle.ComplexControl.CC_ComboBox, option, part, box).width() - _BESIDE
    return box.fontMetrics().elidedText(box.currentText(), Qt.TextElideMode.ElideMiddle, room)


def _draw(box: QComboBox, option: QStyleOptionComboBox, text: str) -> None:
    option.currentText = text
    painter = QStylePainter(box)
    painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
    painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
    painter.end()


class _MiddleLeftOut(QObject):
    """Draws a box that somebody else made as a :class:`NameBox` is."""

    def eventFilter(self, box: QObject | None, event: QEvent | None) -> bool:
        """Draw instead of the box itself."""
        if event is None or event.type() != QEvent.Type.Paint or not isinstance(box, QComboBox) or box.isEditable():
            return False
        option = QStyleOptionComboBox()
        box.initStyleOption(option)
        _draw(box, option, _shown_in(box, option))
        return True


def leave_out_middle(box: QComboBox) -> None:
    """Let a box leave out the middle of a name that does not fit: what tells names apart often stands at their end."""
    if not isinstance(box, NameBox) and box.findChild(_MiddleLeftOut) is None:
        box.installEventFilter(_MiddleLeftOut(box))


class FolderButton(QPushButton):
    """Opens the folder of the file that a sentence names; hidden where it names none."""

    def __init__(self) -> None:
        super().__init__("Open folder")
        self.setAccessibleName("Open folder")
        self.setVisible(False)
        self.folder: Path | None = None
        self.clicked.connect(self._open)

    def follow(self, text: str) -> None:
        """Look whether a sentence names a file or folder that exists."""
        found = path_in(text)
        self.folder = found if found is None or found.is_dir() else found.parent
        self.setToolTip("" if self.folder is None else as_text(str(self.folder)))
        self.setVisible(self.folder is not None)

    def _open(self) -> None:
        if self.folder is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.folder)))


class CopyButton(QPushButton):
    """Copies a text, and says so for a moment.

    Parameters
    ----------
    label : str
        Of the button.
    text : callable
        Returns what to copy.
    """

    def __init__(self, label: str, text: Callable[[], str]) -> None:
        super().__init__(label)
        self._label, self._copied_text = label, text
        self.setAccessibleName(label)
        self.clicked.connect(self._copy)

    def _copy(self) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self._copied_text())
            self.setText("Copied")
            QTimer.singleShot(_COPIED_MS, self._restore)

    def _restore(self) -> None:
        with contextlib.suppress(RuntimeError):  # the dock may be gone by now
            self.setText(self._label)


class Tabs(QTabWidget):
    """Tabs as high as the one that is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Maximum)
        self.currentChanged.connect(self.fit)

    def sizeHint(self) -> QSize:
        """Return the room of the seen tab; Qt would take that of the highest."""
        return QSize(super().sizeHint().width(), self.minimumSizeHint().height())

    def fit(self, _: int = 0) -> None:
        """Be as high as the tab that is seen; to be called where its height changed."""
        for i in range(self.count()):
            page = self.widget(i)
            if page is not None:
                seen = QSizePolicy.Policy.Preferred if i == self.currentIndex() else QSizePolicy.Policy.Ignored
                page.setSizePolicy(QSizePolicy.Policy.Preferred, seen)
        self.updateGeometry()


class Table(QTableWidget):
    """A table to read, as high as its rows up to a limit; Tab leaves it.

    Parameters
    ----------
    name : str
        For screen readers.
    heads : sequence of str
        Of the columns; the first takes the room that is left.
    most : int
        Rows that are shown without scrolling.
    """

    _most = 8

    def __init__(self, name: str, heads: Sequence[str] = (), *, most: int = 8) -> None:
        super().__init__(0, len(heads))
        self._most = most
        self.setAccessibleName(name)
        self.setTabKeyNavigation(False)
        self.setWordWrap(False)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # what tells long names apart often stands at their end
        self.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        self.verticalHeader().setVisible(False)
        self.set_heads(heads)

    def set_heads(self, heads: Sequence[str]) -> None:
        """Give the columns other heads."""
        self.setColumnCount(len(heads))
        self.setHorizontalHeaderLabels(list(heads))
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        if heads:
            header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)

    def fill(self, rows: Sequence[Sequence[str]], *, colours: Sequence[str] = ()) -> None:
        """Show rows of texts, all but the first column to the right; ``colours`` mark the first column."""
        self.setRowCount(len(rows))
        for r, row in enumerate(rows):
            for c, text in enumerate(row):
                item = QTableWidgetItem(text)
                if c:
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                elif colours:
                    item.setData(Qt.ItemDataRole.DecorationRole, QColor(colours[r]))
                self.setItem(r, c, item)
        self.fit()

    def fit(self) -> None:
        """Be as high as the rows; to be called where cells were set one by one."""
        self._share_width()
        rows = sum(self.rowHeight(r) for r in range(min(self.rowCount(), self._most)))
        bar = self.horizontalScrollBar()
        wide = bar.sizeHint().height() if bar is not None and bar.maximum() > 0 else 0
        self.setFixedHeight(self.horizontalHeader().sizeHint().height() + rows + wide + 2 * self.frameWidth() + 4)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Share the width anew."""
        super().resizeEvent(event)
        self._share_width()

    def _share_width(self) -> None:
        """Give the first column what is left, or where that is too little for names, let the table scroll."""
        header, viewport = self.horizontalHeader(), self.viewport()
        others = range(1, self.columnCount())
        if viewport is None or any(header.sectionResizeMode(c) is QHeaderView.ResizeMode.Stretch for c in others):
            return
        left = viewport.width() - sum(header.sectionSize(c) for c in others)
        (least, most), needed = _NAME, self.sizeHintForColumn(0)
        if left >= min(least, needed):
            header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        else:
            header.setSectionResizeMode(0, QHeaderView.ResizeMode.Interactive)
            header.resizeSection(0, min(max(least, needed), most))

    def event(self, event: QEvent | None) -> bool:
        """Be as high as the rows again when the theme, which decides how high rows are, came or changed."""
        handled = bool(super().event(event))
        if event is not None and event.type() in (QEvent.Type.Polish, QEvent.Type.Show, QEvent.Type.StyleChange):
            self.fit()
        return handled

    def texts(self) -> list[list[str]]:
        """Return heads and rows as they are shown."""
        heads = [self._text(self.horizontalHeaderItem(c)) for c in range(self.columnCount())]
        rows = [[self._text(self.item(r, c)) for c in range(self.columnCount())] for r in range(self.rowCount())]
        return [heads, *rows]

    @staticmethod
    def _text(item: Any) -> str:
        return "" if item is None else str(item.text())
