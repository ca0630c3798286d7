"""Every dock has a "?" that opens the page that belongs to it, without internet."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from docks import open_dock
from qtpy.QtCore import QUrl

from napari_nnunet.widgets.pages.browser import HelpButton, Pages, page_text

ROOT = Path(__file__).parents[3]
PAGES = {
    "Segment": "segment.md", "Training cases": "training-data.md", "Plan": "training-data.md", "Train": "train.md", "Next": "labelling.md",
    "Ensemble": "ensemble.md", "Compare": "ensemble.md", "Models": "carried-models.md",
    "Check my computer": "start.md",
}  # fmt: skip


def shipped():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    return {Path(path).name for path in build["targets"]["wheel"]["force-include"]}


def test_the_pages_of_docks_come_with_the_package_and_are_small():
    assert set(PAGES.values()) <= shipped()
    assert sum((ROOT / "docs" / name).stat().st_size for name in shipped()) < 200_000
    for name in shipped():
        text = page_text(name)
        assert text.startswith("# ")
        assert "![" not in text and "<!--" not in text


@pytest.mark.gui
@pytest.mark.parametrize("dock", PAGES)
def test_the_question_mark_opens_the_page_of_the_dock(viewer, qtbot, dock):
    buttons = open_dock(viewer, dock).findChildren(HelpButton)
    button = next(button for button in buttons if button.page == PAGES[dock])
    button.click()
    title = page_text(button.page).splitlines()[0].removeprefix("# ")
    assert button.pages.windowTitle() == title
    assert title in button.pages.view.toPlainText()
    button.pages.close()


@pytest.mark.gui
def test_links_between_pages_are_followed_and_words_are_found(qtbot):
    pages = Pages(None)
    qtbot.addWidget(pages)
    pages.open_page("start.md")
    pages.view.anchorClicked.emit(QUrl("train.md"))
    assert pages.windowTitle() == "Train your first model"
    pages.view.anchorClicked.emit(QUrl("another.md"))
    assert pages.windowTitle() == "another.md is on the site only"
    pages.find.setText("Resume")
    pages.find.returnPressed.emit()
    assert pages.view.textCursor().selectedText().lower() == "resume"
