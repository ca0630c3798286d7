"""The page that belongs to a dock, without internet: the pages of the site come with the package."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QDialog, QLineEdit, QPushButton, QTextBrowser, QToolButton, QVBoxLayout, QWidget

_PICTURE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")
_COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
_SOURCES = Path(__file__).parents[4] / "docs"  # where the package runs from its sources


def page_text(name: str) -> str:
    """Return a page as Markdown, its pictures by what they show: those are on the site only.

    Parameters
    ----------
    name : str
        Such as "segment.md".
    """
    packed = files("napari_nnunet.resources") / "docs" / name
    text = (packed if packed.is_file() else _SOURCES / name).read_text(encoding="utf-8")
    return _COMMENT.sub("", _PICTURE.sub(r"*[\1]*", text))


def has_page(name: str) -> bool:
    """Whether a page is there."""
    return (files("napari_nnunet.resources") / "docs" / name).is_file() or (_SOURCES / name).is_file()


class Pages(QDialog):
    """Shows pages, follows the links between them, and finds words.

    Parameters
    ----------
    parent : QWidget
        The dock.
    """

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.resize(760, 640)
        self.view = QTextBrowser()
        self.view.setOpenLinks(False)
        self.view.setAccessibleName("Page")
        self.find = QLineEdit()
        self.find.setPlaceholderText("Find in this page (Enter: the next)")
        self.find.setAccessibleName("Find in this page")
        column = QVBoxLayout(self)
        self.tour = QPushButton("Take the tour")
        self.tour.setAccessibleName("Take the tour")
        self.tour.setToolTip("Two minutes in the dock itself, with the sample and its model.")
        column.addWidget(self.tour)
        column.addWidget(self.view)
        column.addWidget(self.find)
        self.tour.setVisible(False)
        self.view.anchorClicked.connect(self._follow)
        self.find.returnPressed.connect(self._next)

    def open_page(self, name: str) -> None:
        """Show a page from its beginning."""
        text = page_text(name)
        self.setWindowTitle(next((line[2:] for line in text.splitlines() if line.startswith("# ")), name))
        self.view.setMarkdown(text)

    def _follow(self, url: QUrl) -> None:
        """Open another page here, and what lies elsewhere in the browser."""
        if url.scheme() in ("http", "https"):
            QDesktopServices.openUrl(url)
        elif has_page(url.path()):
            self.open_page(url.path())
        else:
            self.setWindowTitle(f"{url.path()} is on the site only")

    def _next(self) -> None:
        if not self.view.find(self.find.text()):
            self.view.moveCursor(self.view.textCursor().MoveOperation.Start)
            self.view.find(self.find.text())


class HelpButton(QToolButton):
    """A question mark that opens a page.

    Parameters
    ----------
    page : str
        Such as "segment.md".

    Attributes
    ----------
    tour : callable, optional
        Begins the tour of the dock; the page's window has a button for it.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.page = page
        self.pages: Pages | None = None
        self.tour: Callable[[], object] | None = None
        self.setText("?")
        self.setAccessibleName("Help")
        self.setToolTip("What this dock does, step by step.")
        self.clicked.connect(self.show_page)

    def show_page(self) -> None:
        """Open the page, in the window that was opened before where there is one."""
        if self.pages is None:
            self.pages = Pages(self)
            self.pages.tour.setVisible(self.tour is not None)
            self.pages.tour.clicked.connect(self._begin_tour)
        self.pages.open_page(self.page)
        self.pages.show()
        self.pages.raise_()

    def _begin_tour(self) -> None:
        if self.pages is not None and self.tour is not None:
            self.pages.hide()
            self.tour()
