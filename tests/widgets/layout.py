"""Measures what a person would see cut: every visible part of a dock or dialog against the room it needs.

Where ``NAPARI_NNUNET_SCREENS`` names a folder, a picture of the window is written there at every look, in both themes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QDialog,
    QGroupBox,
    QLabel,
    QLineEdit,
    QListWidget,
    QPlainTextEdit,
    QPushButton,
    QScrollArea,
    QTableWidget,
    QWidget,
)
from superqt import QCollapsible


def cut_parts(dock: QWidget) -> list[str]:
    """Return a line for every visible widget of a dock that has less room than it needs."""
    content, room = _content(dock)
    below = [part for part in _seen(dock) if part is not content and not content.isAncestorOf(part)]
    cut = [line for part in _seen(content) for line in (*_faults(part, content, room), *_covered(part))]
    return cut if content is dock else cut + [line for part in below for line in _faults(part, dock, dock.width())]


def settle(dock: QWidget, qtbot) -> None:
    """Wait until a dock has said what it has to say, and is laid out."""
    later = getattr(dock, "_later", None)
    qtbot.waitUntil(lambda: later is None or not later.isActive(), timeout=300_000)
    for more in dock.findChildren(QCollapsible):
        more.expand(animate=False)
    qtbot.wait(100)


def check_layout(viewer, dock: QWidget, qtbot, name: str, themes=("light", "dark")) -> None:
    """Look at a dock or dialog in the themes: nothing is cut, and everything has a name."""
    settle(dock, qtbot)
    for theme in themes:
        viewer.theme = theme
        with contextlib.suppress(qtbot.TimeoutError):  # the layout follows a text that has just changed
            qtbot.waitUntil(lambda: not cut_parts(dock), timeout=30_000)
        _take_picture(viewer, dock, f"{name}-{theme}", qtbot)
        faults = cut_parts(dock) + unnamed_parts(dock)
        assert not faults, faults
    if isinstance(dock, QDialog):
        assert dock.height() <= 760 and dock.width() <= 1240


def show_in_themes(viewer, dock: QWidget, name: str, qtbot) -> None:
    """Take a picture of a dock or dialog in both themes, where somebody wants pictures; the theme is what it was."""
    if os.environ.get("NAPARI_NNUNET_SCREENS"):
        before = viewer.theme
        for theme in ("light", "dark"):
            viewer.theme = theme
            _take_picture(viewer, dock, f"{name}-{theme}", qtbot)
        viewer.theme = before


def _take_picture(viewer, dock: QWidget, name: str, qtbot) -> None:
    folder = os.environ.get("NAPARI_NNUNET_SCREENS")
    if folder:
        qtbot.wait(300)
        window = dock if isinstance(dock, QDialog) else viewer.window._qt_window
        window.grab().save(str(Path(folder) / f"{name}.png"))
        content, _ = _content(dock)
        if content is not dock:  # what lies below the lower edge, too
            content.grab().save(str(Path(folder) / f"{name}-whole.png"))


def _content(dock: QWidget) -> tuple[QWidget, int]:
    """Return what holds the parts of a dock or dialog, and how wide a part may reach."""
    scroll = None if isinstance(dock, QDialog) else dock.findChild(QScrollArea)
    return (dock, dock.width()) if scroll is None else (scroll.widget(), scroll.viewport().width())


def _seen(content: QWidget) -> Iterator[QWidget]:
    """Go through the visible parts of a dock; those below the lower edge count, those folded away do not."""
    folded = [more for more in content.findChildren(QCollapsible) if not more.isExpanded()]
    for part in content.findChildren(QWidget):
        own = part.window() is content.window()  # and not of a dialog that the dock opened
        if own and part.isVisible() and not any(more.content().isAncestorOf(part) for more in folded):
            yield part


def _faults(part: QWidget, content: QWidget, room: int) -> Iterator[str]:
    name = f"{type(part).__name__} {_text(part)!r}"
    if isinstance(part, QAbstractButton | QLabel | QComboBox | QGroupBox | QTableWidget):
        right = part.mapTo(content, QPoint(part.width(), 0)).x()
        if right > room:
            yield f"{name} ends at {right} of {room}"
    if isinstance(part, QPushButton | QCheckBox | QGroupBox):
        needed = part.minimumSizeHint() if isinstance(part, QGroupBox) else part.sizeHint()
        if part.width() < needed.width() or part.height() < part.minimumSizeHint().height():
            yield f"{name} has {part.width()} x {part.height()}, needs {needed.width()} x {needed.height()}"
    if isinstance(part, QLabel) and part.text():
        if part.wordWrap():
            if part.height() < part.heightForWidth(part.width()):
                yield f"{name} is {part.height()} high, needs {part.heightForWidth(part.width())}"
        elif part.width() < (needed := QLabel.sizeHint(part).width()):  # of the text that is shown
            yield f"{name} is {part.width()} wide, needs {needed}"
    if isinstance(part, QLineEdit) and not part.text() and not isinstance(part.parent(), QAbstractSpinBox | QComboBox):
        needed = part.fontMetrics().horizontalAdvance(part.placeholderText())
        if part.contentsRect().width() < needed:
            yield f"{name} has {part.contentsRect().width()}, its placeholder {part.placeholderText()!r} needs {needed}"
    if isinstance(part, QTableWidget):
        yield from _cut_heads(part, name)


def _covered(part: QWidget) -> Iterator[str]:
    """Name the buttons that lie over a part beside which they should lie."""
    place, parent = part.geometry(), part.parentWidget()
    if parent is None or parent.layout() is None or part.testAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents):
        return  # a frame that is drawn over others on purpose
    for other in parent.findChildren(QPushButton, options=Qt.FindChildOption.FindDirectChildrenOnly):
        if other is not part and other.isVisible() and place.intersects(other.geometry()):
            yield f"{type(part).__name__} {_text(part)!r} is covered by {_text(other)!r}"


def _cut_heads(table: QTableWidget, name: str) -> Iterator[str]:
    header = table.horizontalHeader()
    for column in range(table.columnCount()):
        item = table.horizontalHeaderItem(column)
        if item is None or table.isColumnHidden(column):
            continue
        needed = max(header.fontMetrics().horizontalAdvance(line) for line in item.text().split("\n"))
        if header.sectionSize(column) < needed:
            yield f"{name}: the head {item.text()!r} has {header.sectionSize(column)}"


def _text(part: QWidget) -> str:
    for name in ("text", "title", "accessibleName"):
        found = getattr(part, name, None)
        if callable(found) and found():
            return str(found())
    return ""


def in_sight(part: QWidget) -> bool:
    """Whether a part of a dock that scrolls is seen whole."""
    scroll = part.parentWidget()
    while not isinstance(scroll, QScrollArea):
        scroll = scroll.parentWidget()
    top = part.mapTo(scroll.viewport(), QPoint(0, 0)).y()
    return top >= 0 and top + part.height() <= scroll.viewport().height()


def unnamed_parts(dock: QWidget) -> list[str]:
    """Return the visible parts one can reach with the keyboard that a screen reader could not name."""
    kinds = QAbstractButton | QComboBox | QTableWidget | QListWidget | QLineEdit | QAbstractSpinBox | QPlainTextEdit
    return [
        f"{type(part).__name__} in {type(part.parent()).__name__}"
        for part in _seen(dock)
        if isinstance(part, kinds) and type(part) is not QAbstractButton  # the corner of a table
        if not (part.accessibleName() or (_text(part) and not isinstance(part, QLineEdit)))
        if not isinstance(part.parent(), QAbstractSpinBox | QComboBox)  # the line within is its owner's
    ]


def tabbed(dock: QWidget, qtbot) -> tuple[list[str], list[str]]:
    """Press Tab and Shift+Tab until the keyboard leaves a dock: what was not reached, and in which direction it stayed."""
    window = dock.window()
    kinds = QPushButton | QCheckBox | QComboBox | QTableWidget | QLineEdit
    wanted = [
        part
        for part in _seen(dock)
        if isinstance(part, kinds) and part.isEnabled() and part.focusPolicy() & Qt.FocusPolicy.TabFocus
        if part.focusProxy() is None and not isinstance(part.parent(), QAbstractSpinBox | QComboBox)
    ]
    seen: list[QWidget] = []
    stayed = []
    for key in (Qt.Key.Key_Tab, Qt.Key.Key_Backtab):
        wanted[0].setFocus()
        for _ in range(200):
            now = window.focusWidget()
            if now is None or not dock.isAncestorOf(now):
                break
            seen.append(now)
            qtbot.keyClick(now, key)
        else:
            stayed.append(key.name)
    return [f"{type(part).__name__} {_text(part)!r}" for part in wanted if part not in seen], stayed


def tab_order(dock: QWidget, qtbot) -> list[tuple[str, tuple[int, int]]]:
    """Press Tab from the first part of a dock until the keyboard leaves it: each part, and where its middle lies.

    That is 0 for what scrolls and 1 for what stands below it, and the height within that.
    """
    window, scroll = dock.window(), dock.findChild(QScrollArea)
    kinds = QPushButton | QCheckBox | QComboBox | QTableWidget | QLineEdit
    seen = [part for part in _seen(dock) if isinstance(part, kinds) and part.isEnabled()]
    next(part for part in seen if part.focusPolicy() & Qt.FocusPolicy.TabFocus).setFocus()
    walked: list[QWidget] = []
    while (now := window.focusWidget()) is not None and dock.isAncestorOf(now) and len(walked) < 200:
        walked.append(now)
        qtbot.keyClick(now, Qt.Key.Key_Tab)

    def places() -> list[tuple[str, tuple[int, int]]]:
        found = []
        for part in walked:
            scrolls = scroll is not None and scroll.isAncestorOf(part)
            middle = part.mapTo(scroll.widget() if scrolls else dock, QPoint(0, part.height() // 2)).y()
            found.append((f"{type(part).__name__} {_text(part)!r}", (0 if scrolls else 1, middle // 10)))
        return found

    before: list[tuple[str, tuple[int, int]]] = []
    while (now_there := places()) != before:  # what threads find moves what stands below it
        before = now_there
        qtbot.wait(300)
    return before
