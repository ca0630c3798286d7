"""Our docks lie behind each other as tabs, each once, under one kind of title."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import QDockWidget, QLabel, QMainWindow, QTabBar, QWidget

from napari_nnunet.widgets.frame.ready import Remedy

if TYPE_CHECKING:
    import napari

_PLUGINS = ("napari-nnunet", "nnU-Net")  # napari names a dock by the one or the other, depending on who opens it


def open_dock(viewer: napari.viewer.Viewer, title: str) -> Any:
    """Show a dock of ours in front of the others, make it where it is not there yet; returns its widget."""
    there = viewer.window.dock_widgets
    widget = next((there[name] for plugin in _PLUGINS if (name := f"{title} ({plugin})") in there), None)
    if widget is None:
        _, widget = viewer.window.add_plugin_dock_widget("napari-nnunet", title)
    dock = _dock_of(widget)
    if dock is not None:
        dock.show()
        dock.raise_()
    return widget


def leads_to(viewer: napari.viewer.Viewer, title: str) -> Remedy:
    """Return the button that leads to the dock where something that is missing is made."""
    return Remedy(f"Open the {title} dock", lambda: open_dock(viewer, title))


def keep_together(widget: QWidget) -> None:
    """Let the dock of a widget become a tab of our other docks when it is first shown, and be titled by its job."""
    _Joiner(widget)


class _Joiner(QObject):
    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        widget.setProperty("nnunet", True)
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Wait for the first showing: napari places the dock before it."""
        if event is not None and event.type() == QEvent.Type.Show:
            self._widget.removeEventFilter(self)
            QTimer.singleShot(0, self._join)
        return False

    def _join(self) -> None:
        dock = _dock_of(self._widget)
        window = None if dock is None else dock.parent()
        if dock is None or not isinstance(window, QMainWindow):
            return
        title = dock.windowTitle().partition(" (")[0]
        for label in dock.titleBarWidget().findChildren(QLabel):
            label.setText(title if label.text() == dock.windowTitle() else label.text())
        dock.setWindowTitle(title)
        area = window.dockWidgetArea(dock)
        others = [
            other
            for other in window.findChildren(QDockWidget)
            if other is not dock and _is_ours(other) and not other.isHidden() and window.dockWidgetArea(other) == area
        ]
        if others and not dock.isFloating() and others[-1] not in window.tabifiedDockWidgets(dock):
            window.tabifyDockWidget(others[-1], dock)
            dock.raise_()
            for bar in window.findChildren(QTabBar, options=Qt.FindChildOption.FindDirectChildrenOnly):
                bar.setElideMode(Qt.TextElideMode.ElideNone)  # many docks are scrolled to, and keep their names
                bar.setUsesScrollButtons(True)


def _dock_of(widget: QWidget) -> QDockWidget | None:
    parent: QObject | None = widget
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parent()
    return parent


def _is_ours(dock: QDockWidget) -> bool:
    content = dock.widget()
    return content is not None and any(part.property("nnunet") for part in (content, *content.findChildren(QWidget)))
