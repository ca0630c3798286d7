"""A disk that is pulled out and put back, hands that press whatever is there meanwhile, and docks until they are idle."""

from __future__ import annotations

import errno
import io
import os
from unittest.mock import Mock

from magicgui.backends._qtpy.widgets import QFILE_DIALOG_MODES
from magicgui.types import FileDialogMode
from qtpy.QtCore import QCoreApplication, QEvent, QThreadPool
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QApplication, QDialog, QFileDialog, QInputDialog, QMessageBox, QPushButton

from napari_nnunet.widgets.frame.head import Head
from napari_nnunet.widgets.frame.state import state_of

GONE, REPLACED, UNREADABLE = "gone", "replaced by a file", "unreadable"


class Stick:
    """A folder that can be taken away.

    It is gone; or nothing can be made in its place either, as for a system that lets only itself mount disks; or it is
    there, and every look at it is an error, as for a disk that was pulled out a moment ago.
    """

    def __init__(self, folder, monkeypatch, how=GONE):
        self.folder, self.how, self._patch = folder, how, monkeypatch
        self._away = folder.with_name(f"{folder.name} (away)")
        self.out = False

    def pull(self):
        self.out = True
        if self.how == UNREADABLE:
            self._refuse()
            return
        self.folder.rename(self._away)
        if self.how == REPLACED:
            self.folder.touch()

    def plug(self):
        self.out = False
        if self.how == UNREADABLE:
            return
        if self.how == REPLACED:
            self.folder.unlink()
        self._away.rename(self.folder)

    def _refuse(self):
        """Let the system's functions fail for every path below, for as long as the stick is out."""
        for module, name in ((os, "stat"), (os, "lstat"), (os, "scandir"), (os, "listdir"), (os, "open"), (io, "open"),
                             (os, "mkdir"), (os, "rename"), (os, "replace"), (os, "unlink")):  # fmt: skip
            self._patch.setattr(module, name, self._refusing(getattr(module, name)))
        self._patch.setattr("builtins.open", io.open)

    def _refusing(self, function):
        def call(path=".", *args, **keywords):
            if self.out and isinstance(path, str | os.PathLike) and str(path).startswith(str(self.folder)):
                raise OSError(errno.EIO, "Input/output error", str(path))
            return function(path, *args, **keywords)

        return call


def nobody_answers(monkeypatch):
    """Close every question at once: no file is chosen, no number typed; what is asked with yes or no is yes."""
    for dialog, name, answer in (
        (QFileDialog, "getExistingDirectory", ""), (QFileDialog, "getOpenFileName", ("", "")),
        (QFileDialog, "getSaveFileName", ("", "")), (QInputDialog, "getInt", (1, True)),
        (QInputDialog, "getText", ("x", True)), (QInputDialog, "getItem", ("x", True)),
        (QMessageBox, "question", QMessageBox.StandardButton.Yes), (QDialog, "exec", 0),
    ):  # fmt: skip
        monkeypatch.setattr(dialog, name, Mock(return_value=answer))
    monkeypatch.setattr(QDesktopServices, "openUrl", Mock())
    for mode in list(QFILE_DIALOG_MODES):  # magicgui took the functions when it was imported
        monkeypatch.setitem(QFILE_DIALOG_MODES, mode, Mock(return_value=("", "")))
    folder = Mock(return_value="")
    monkeypatch.setitem(QFILE_DIALOG_MODES, FileDialogMode.EXISTING_DIRECTORY, folder)


def press_everything(dock, qtbot, *, but=()):
    """Press every button of a dock that can be pressed, wait for what it does, close what it opens; returns texts."""
    pressed = []
    for button in dock.findChildren(QPushButton):
        if button in but or not button.isVisibleTo(dock) or not button.isEnabled() or button.menu() is not None:
            continue
        pressed.append(button.text())
        button.click()
        qtbot.waitUntil(lambda: not dock.busy)
        for dialog in dock.findChildren(QDialog):
            qtbot.wait(20)
            dialog.reject()
    QApplication.processEvents()
    return pressed


def settle(dock, qtbot):
    """Wait until a dock has listed what there is and said what it will do."""
    qtbot.waitUntil(lambda: not dock.busy)
    qtbot.waitUntil(lambda: getattr(dock, "_later", None) is None or not dock._later.isActive())
    qtbot.waitUntil(lambda: not state_of(dock.viewer)._looking.running)
    costing = getattr(dock, "_costing", None)
    qtbot.waitUntil(lambda: costing is None or not costing.running)
    drawing = getattr(getattr(dock, "cases", None), "_drawing", None)  # of pictures, which are written beside labels
    qtbot.waitUntil(lambda: drawing is None or not drawing.running)


def come_back(dock):
    """Let the window come to the front, as when somebody comes back from another program."""
    QCoreApplication.sendEvent(dock.findChild(Head), QEvent(QEvent.Type.WindowActivate))


def end(docks, qtbot):
    """End what docks do."""
    for dock in docks:
        for panel in dock.panels:
            panel.cancel()
        if hasattr(dock, "watch"):
            dock.watch.stop()
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0)
