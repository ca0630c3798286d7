"""What would be lost with napari's window: whoever closes it is asked first.

napari itself asks about layers as such, until it is told not to ask in future.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QApplication, QMainWindow, QMessageBox, QWidget

from napari_nnunet.errors import some
from napari_nnunet.widgets.frame.words import as_text

if TYPE_CHECKING:
    import napari

#: Layers that are asked about as soon as they are no more as they were opened or saved, which no dock has to know.
_NOTED: WeakKeyDictionary[Labels, tuple[str, str]] = WeakKeyDictionary()
_SAVED: dict[str, Path] = {}  # where labels were written, by their digests
_QUITS = "_quit_app"  # of napari's windows: that with this one, all close
_NOBODY = "Then select the layer and press File > Save Selected Layers: no Next dock holds it any more."
_TITLE = "Corrections that are not saved"
_SAVE, _DISCARD, _CANCEL = (
    QMessageBox.StandardButton.Save,
    QMessageBox.StandardButton.Discard,
    QMessageBox.StandardButton.Cancel,
)


def labels_digest(labels: NDArray[Any]) -> str:
    """Return a checksum that tells labels from others."""
    return hashlib.sha1(np.ascontiguousarray(labels).data, usedforsecurity=False).hexdigest()


def digest_beside(labels: NDArray[Any], box: Sequence[tuple[int, int]]) -> str:
    """Return the same of what lies outside of a box."""
    beside = np.array(labels)
    beside[tuple(slice(lo, hi) for lo, hi in box)] = 0
    return labels_digest(beside)


def note_saved(labels: NDArray[Any], path: Path) -> None:
    """Remember labels that were written to a file: they are not lost with their layer."""
    _SAVED[labels_digest(labels)] = path


def is_saved(labels: NDArray[Any]) -> bool:
    """Whether labels were written to a file as they are, wherever that was."""
    path = _SAVED.get(labels_digest(labels))
    return path is not None and path.exists()


@dataclass(frozen=True)
class Unsaved:
    """Work that is in no file.

    Parameters
    ----------
    name : str
        Of its layer.
    save : callable, optional
        Saves it at once; returns why it could not, "" where it could. None where only a dock can.
    how : str
        What to press to save it.
    """

    name: str
    save: Callable[[], str] | None
    how: str


def differs(labels: NDArray[Any], digest: str) -> bool:
    """Whether labels are not those of a digest, and in no file either."""
    return labels_digest(labels) != digest and not is_saved(labels)


def note_state(layer: Labels, digest: str, how: str = _NOBODY) -> None:
    """Note the digest of labels as they were opened or saved last, and what to press to save others."""
    own = getattr(layer, "__wrapped__", layer)  # layers come to docks in wrappers that nobody keeps
    _NOTED[own] = (digest, how)


def changed_layers(viewer: napari.viewer.Viewer) -> list[Unsaved]:
    """Return the noted layers of a viewer that are not as they were opened or saved."""
    layers = [layer for layer in viewer.layers if isinstance(layer, Labels) and layer in _NOTED]
    return [Unsaved(one.name, None, _NOTED[one][1]) for one in layers if differs(one.data, _NOTED[one][0])]


class CloseGuard(QObject):
    """Asks before a window closes.

    Parameters
    ----------
    window : QMainWindow
        napari's.
    """

    def __init__(self, window: QMainWindow) -> None:
        super().__init__(window)
        self._window = window
        self._known: dict[str, Callable[[], Iterable[Unsaved]]] = {}
        window.installEventFilter(self)

    def add(self, key: str, unsaved: Callable[[], Iterable[Unsaved]]) -> None:
        """Ask about what a function returns; another one with the same key takes its place."""
        self._known[key] = unsaved
        watch_all()

    def eventFilter(self, _: QObject | None, event: QEvent | None) -> bool:
        """Keep the window open where somebody wants that."""
        if event is not None and event.type() == QEvent.Type.WindowDeactivate:
            watch_all()  # somebody turns to another window, which may quit napari
        if event is None or event.type() != QEvent.Type.Close:
            return False
        quits = bool(getattr(self._window, _QUITS, False))
        # napari quits by emptying and closing each window: what is in the others is asked about before the first
        others = [guard for guard in watch_all() if guard is not self] if quits else []
        if all(guard.may_close() for guard in (self, *others)):
            return False
        if quits:
            setattr(self._window, _QUITS, False)  # else closing this window alone would quit later
        event.ignore()
        return True

    def may_close(self) -> bool:
        """Ask, if there is something to ask about."""
        unsaved = (one for known in self._known.values() for one in known())
        found = list({one.name: one for one in unsaved}.values())  # a layer may be known to several docks
        if not found:
            return True
        answer = self._asked(found)
        if answer == _DISCARD:
            return True
        if answer != _SAVE:
            return False
        failed = [f"'{one.name}': {why}" for one in found if one.save is not None and (why := one.save())]
        if failed:
            QMessageBox.warning(self._window, _TITLE, as_text(" ".join(failed)))
        return not failed

    def _asked(self, found: Sequence[Unsaved]) -> QMessageBox.StandardButton:
        names = some([f"'{one.name}'" for one in found])
        several = len(found) > 1
        text = f"{names} {'were' if several else 'was'} corrected and {'are' if several else 'is'} not saved."
        buttons = _DISCARD | _CANCEL
        if all(one.save is not None for one in found):
            text += " Save before napari closes?"
            buttons |= _SAVE
        else:
            ways = " ".join(dict.fromkeys(one.how for one in found))
            text += f" Close napari and lose that? To save it, cancel. {ways}"
        return QMessageBox.question(self._window, _TITLE, as_text(text), buttons, _CANCEL)


def ask_before_closing(part: QWidget, key: str, unsaved: Callable[[], Iterable[Unsaved]]) -> None:
    """Let napari's window ask about unsaved work before it closes.

    Parameters
    ----------
    part : QWidget
        A widget in that window; in none, nothing is asked.
    key : str
        Of whose work it is; the same again replaces what was said before.
    unsaved : callable
        Returns what is not saved now.
    """
    window: QWidget | None = part
    while isinstance(window, QWidget) and not isinstance(window, QMainWindow):
        window = window.parentWidget()
    if not isinstance(window, QMainWindow):
        return
    _guard_of(window).add(key, unsaved)


def watch_all() -> list[CloseGuard]:
    """Return the guards of all windows of napari; those that had none get one, as each of them can quit napari."""
    return [_guard_of(one) for one in QApplication.topLevelWidgets() if isinstance(one, QMainWindow) and _napari(one)]


def _napari(window: QMainWindow) -> bool:
    return hasattr(window, _QUITS)


def _guard_of(window: QMainWindow) -> CloseGuard:
    return window.findChild(CloseGuard) or CloseGuard(window)
