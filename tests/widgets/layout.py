"""Measures what a person would see cut: every visible part of a dock against the room it needs."""

from __future__ import annotations

from collections.abc import Iterator

from qtpy.QtCore import QPoint
from qtpy.QtWidgets import (
    QAbstractButton,
    QCheckBox,
    QComboBox,
    QGroupBox,
    QLabel,
    QPushButton,
    QScrollArea,
    QTableWidget,
    QWidget,
)
from superqt import QCollapsible, QElidingLabel


def cut_parts(dock: QWidget) -> list[str]:
    """Return a line for every visible widget of a dock that has less room than it needs."""
    content, room = _content(dock)
    return [line for part in _seen(content) for line in _faults(part, content, room)]


def _content(dock: QWidget) -> tuple[QWidget, int]:
    """Return what holds the parts of a dock, and how wide a part may reach."""
    scroll = dock.findChild(QScrollArea)
    return (dock, dock.width()) if scroll is None else (scroll.widget(), scroll.viewport().width())


def _seen(content: QWidget) -> Iterator[QWidget]:
    """Go through the visible parts of a dock; those below the lower edge count, those folded away do not."""
    folded = [more for more in content.findChildren(QCollapsible) if not more.isExpanded()]
    for part in content.findChildren(QWidget):
        if part.isVisible() and not any(more.content().isAncestorOf(part) for more in folded):
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
    if isinstance(part, QLabel) and not isinstance(part, QElidingLabel) and part.text():
        if part.wordWrap():
            if part.height() < part.heightForWidth(part.width()):
                yield f"{name} is {part.height()} high, needs {part.heightForWidth(part.width())}"
        elif part.width() < part.sizeHint().width():
            yield f"{name} is {part.width()} wide, needs {part.sizeHint().width()}"
    if isinstance(part, QTableWidget):
        yield from _cut_heads(part, name)


def _cut_heads(table: QTableWidget, name: str) -> Iterator[str]:
    header = table.horizontalHeader()
    for column in range(table.columnCount()):
        item = table.horizontalHeaderItem(column)
        if item is not None and header.sectionSize(column) < header.fontMetrics().horizontalAdvance(item.text()):
            yield f"{name}: the head {item.text()!r} has {header.sectionSize(column)}"


def _text(part: QWidget) -> str:
    for name in ("text", "title", "accessibleName"):
        found = getattr(part, name, None)
        if callable(found) and found():
            return str(found())
    return ""


def unnamed_parts(dock: QWidget) -> list[str]:
    """Return the visible parts one can reach with the keyboard that a screen reader could not name."""
    content, _ = _content(dock)
    kinds = QAbstractButton | QComboBox | QTableWidget
    return [
        f"{type(part).__name__} in {type(part.parent()).__name__}"
        for part in _seen(content)
        if isinstance(part, kinds) and type(part) is not QAbstractButton  # the corner of a table
        if not (part.accessibleName() or _text(part))
    ]
