"""A tour of two minutes: what to press, in which order, with the sample and the model that are included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QFrame, QHBoxLayout, QVBoxLayout, QWidget

from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.atomic import make_folder, write_json
from napari_nnunet.widgets.frame.parts import Sentence, button, into_sight

_OFFER = "New here? A tour of two minutes segments a sample, and shows the way to a model of your own."


@dataclass(frozen=True)
class Stop:
    """One step of a tour.

    Parameters
    ----------
    title, text : str
        What is shown, in words.
    part : QWidget
        The part of the dock that it is about; a frame is drawn around it.
    act : (str, callable), optional
        What a button does that belongs to the step, and is called.
    """

    title: str
    text: str
    part: QWidget
    act: tuple[str, Callable[[], object]] | None = None


def _path() -> Path:
    return Path(platformdirs.user_config_dir("napari-nnunet", appauthor=False)) / "tour.json"


def was_offered() -> bool:
    """Whether this user took the tour, or did not want it."""
    return _path().is_file()


def offer_no_more() -> None:
    """Remember that the tour need not be offered; where that cannot be written, it is offered again."""
    with suppress(NnunetError, OSError):
        make_folder(_path().parent)
        write_json(_path(), {"offered": True})


class Tour(QWidget):
    """Offers a tour once; then shows step after step. Enter leads on, Esc ends it.

    Parameters
    ----------
    stops : sequence of Stop
        The steps.
    """

    def __init__(self, stops: Sequence[Stop]) -> None:
        super().__init__()
        self._stops = stops
        self.at: int | None = None  # the step that is shown
        self.text, self._frame = Sentence(), _Frame()
        self.act = button("")
        self.back = button("Back", "The step before.")
        self.next = button("Next", "The next step (Enter).")
        self.skip = button("Skip", "End the tour (Esc). '?' above offers it again.")
        row = QHBoxLayout()
        for part in (self.back, self.next, self.skip):
            row.addWidget(part)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 6)
        column.addWidget(self.text)
        column.addWidget(self.act)
        column.addLayout(row)
        self.act.clicked.connect(self._act)
        self.back.clicked.connect(lambda: self._show((self.at or 0) - 1))
        self.next.clicked.connect(self.go_on)
        self.skip.clicked.connect(self.end)
        self.text.setText(_OFFER)
        self.next.setText("Take the tour")
        self.skip.setText("No, thanks")
        self.act.hide()
        self.back.hide()
        self.setVisible(not was_offered())

    def begin(self) -> None:
        """Show the first step."""
        self._show(0)

    def go_on(self) -> None:
        """Show the next step; after the last one the tour is over."""
        following = 0 if self.at is None else self.at + 1
        if following < len(self._stops):
            self._show(following)
        else:
            self.end()

    def end(self) -> None:
        """Close the tour, and offer it no more."""
        self.at = None
        self._frame.surround(None)
        self.hide()
        offer_no_more()

    def _show(self, number: int) -> None:
        offer_no_more()
        self.at, stop = number, self._stops[number]
        last = number == len(self._stops) - 1
        self.text.setText(f"<b>{number + 1} of {len(self._stops)}: {stop.title}</b><br>{stop.text}")
        self.act.setVisible(stop.act is not None)
        if stop.act is not None:
            self.act.setText(stop.act[0])
            self.act.setAccessibleName(stop.act[0])
        self.back.setVisible(True)
        self.back.setEnabled(number > 0)
        self.next.setText("Finish" if last else "Next")
        self.next.setAccessibleName(self.next.text())
        self.skip.setText("Skip")
        self.skip.setAccessibleName("Skip the tour")
        self.skip.setVisible(not last)
        self.show()
        self._frame.surround(stop.part)
        into_sight(stop.part)
        (self.act if stop.act is not None else self.next).setFocus()

    def _act(self) -> None:
        act = None if self.at is None else self._stops[self.at].act
        if act is not None:
            act[1]()
            self.next.setFocus()

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Lead on with Enter and end with Esc; Ctrl+Enter still runs the dock."""
        if event is not None and event.modifiers() in (
            Qt.KeyboardModifier.NoModifier,
            Qt.KeyboardModifier.KeypadModifier,
        ):
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                focused = next((b for b in (self.act, self.back, self.skip) if b.hasFocus()), self.next)
                focused.click()
                return
            if event.key() == Qt.Key.Key_Escape:
                self.end()
                return
        super().keyPressEvent(event)


class _Frame(QFrame):
    """A frame around a part of a dock; it takes no clicks."""

    def __init__(self) -> None:
        super().__init__()
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setObjectName("tour")
        self.setStyleSheet("#tour { border: 2px solid palette(highlight); background: transparent; }")
        self._part: QWidget | None = None

    def surround(self, part: QWidget | None) -> None:
        """Move around another part; None takes the frame away."""
        if self._part is not None:
            self._part.removeEventFilter(self)
        self._part = part
        self.setParent(part)
        self.setVisible(part is not None)
        if part is not None:
            part.installEventFilter(self)
            self.setGeometry(part.rect())
            self.raise_()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Stay as large as the part."""
        if self._part is not None and event is not None and event.type() == QEvent.Type.Resize:
            self.setGeometry(self._part.rect())
        return False
