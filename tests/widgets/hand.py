"""What a person does in a window: press real buttons, type, answer questions, look; every action is counted."""

from __future__ import annotations

import contextlib

from layout import cut_parts, show_in_themes
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QDialog, QInputDialog, QMessageBox, QScrollArea

from napari_nnunet.widgets.frame.panel import RunState
from napari_nnunet.widgets.frame.tabs import open_dock


class Hand:
    """Presses real buttons, types and opens, and counts how often."""

    def __init__(self, viewer, qtbot):
        self.viewer, self.qtbot, self.actions, self.asked = viewer, qtbot, [], []
        self._looks = 0

    def press(self, button):
        self.qtbot.waitUntil(lambda: button.isVisible() and button.isEnabled())
        self.actions.append(button.text())
        self.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)

    def fill(self, widget, value):
        self.actions.append(f"type {value}")
        if hasattr(widget, "setText"):
            widget.setText(str(value))
        else:
            widget.value = value

    def menu(self, title):
        self.actions.append(title)
        return open_dock(self.viewer, title)

    def wait(self, panel, timeout=300_000):
        self.qtbot.waitUntil(lambda: panel.state is RunState.IDLE, timeout=timeout)

    def answer(self, name, value=None):
        """Answer the question that comes next, whenever it comes: a number, or yes."""

        def look():
            dialog = QApplication.activeModalWidget()
            if not isinstance(dialog, QInputDialog | QMessageBox) or not dialog.isVisible():
                return
            timer.stop()
            self.look(dialog, name)
            self.actions.append(f"answer {name}")
            if isinstance(dialog, QInputDialog):
                self.asked.append(dialog.labelText())
                dialog.setIntValue(value)
                dialog.accept()
            else:
                self.asked.append(dialog.text())
                dialog.button(QMessageBox.StandardButton.Yes).click()

        timer = QTimer(self.viewer.window._qt_window)
        timer.timeout.connect(look)
        timer.start(50)

    def look(self, dock, name):
        """Look at a dock or dialog as it is, in both themes, at its top and its end: nothing is cut."""
        self._looks += 1
        name = f"{self._looks:02}-{name}"
        with contextlib.suppress(self.qtbot.TimeoutError):
            self.qtbot.waitUntil(lambda: not cut_parts(dock), timeout=30_000)
        show_in_themes(self.viewer, dock, name, self.qtbot)
        assert not cut_parts(dock), (name, cut_parts(dock))
        scroll = None if isinstance(dock, QDialog) else dock.findChild(QScrollArea)
        bar = None if scroll is None else scroll.verticalScrollBar()
        if bar is not None and bar.value() < bar.maximum():
            before = bar.value()
            bar.setValue(bar.maximum())
            show_in_themes(self.viewer, dock, f"{name}-end", self.qtbot)
            bar.setValue(before)
            self.qtbot.waitUntil(lambda: not cut_parts(dock))
