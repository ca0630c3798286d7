"""What forms share: labelled rows, combo boxes that may shrink, names that differ, docks that scroll."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from magicgui.widgets import CheckBox
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QFormLayout, QScrollArea, QVBoxLayout, QWidget


def add_row(form: QFormLayout, widget: Any, at: int | None = None) -> None:
    """Add a magicgui widget with its label to a form, where screen readers find its name."""
    widget.native.setAccessibleName(widget.label)
    widget.native.setToolTip(widget.tooltip or "")
    row = form.rowCount() if at is None else at
    if isinstance(widget, CheckBox):
        form.insertRow(row, widget.native)  # over both columns: its text is its label
    else:
        form.insertRow(row, widget.label, widget.native)


def let_shrink(content: QWidget) -> None:
    """Let combo boxes be narrower than their longest entry, so that the dock fits beside the canvas."""
    own = [content] if isinstance(content, QComboBox) else []
    for box in (*own, *content.findChildren(QComboBox)):
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(6)


def distinct(choices: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Number equal names, so that none hides another in a combo box."""
    seen: dict[str, int] = {}
    out = []
    for name, value in choices:
        seen[name] = seen.get(name, 0) + 1
        out.append((name if seen[name] == 1 else f"{name} ({seen[name]})", value))
    return out


def scrolling(dock: QWidget, parts: Sequence[QWidget]) -> None:
    """Fill a dock with parts below each other; they scroll where the window is low."""
    content = QWidget()
    column = QVBoxLayout(content)
    for part in parts:
        column.addWidget(part)
    column.addStretch(1)
    scroll = QScrollArea()
    scroll.setWidgetResizable(True)
    scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll.setWidget(content)
    layout = QVBoxLayout(dock)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(scroll)
    dock.setMinimumWidth(360)
