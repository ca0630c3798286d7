"""What is folded away, or has nothing to say, takes no room."""

from __future__ import annotations

import pytest
from qtpy.QtWidgets import QGroupBox, QLabel, QVBoxLayout

from napari_nnunet.widgets.frame.panel import RunPanel
from napari_nnunet.widgets.frame.parts import folded_away


@pytest.fixture
def folded(qtbot):
    """A folded part in a box of its own, what it holds, and the box, which would go otherwise."""
    box = QGroupBox("3  Quality")
    content = QLabel("\n".join("abcdef"))
    part = folded_away("Advanced", content)
    QVBoxLayout(box).addWidget(part)
    qtbot.addWidget(box)
    box.show()
    return part, content, box


def test_a_part_that_is_folded_away_is_as_high_as_its_title_and_as_wide_as_its_box(folded, qtbot):
    part, content, _ = folded
    title = part.toggleButton()
    qtbot.waitUntil(lambda: part.height() == title.height() and title.width() == part.width())
    part.expand(animate=False)
    qtbot.waitUntil(lambda: content.height() >= content.sizeHint().height())


def test_the_arrow_is_text_which_every_theme_colours(folded):
    part, *_ = folded
    title = part.toggleButton()
    assert title.icon().isNull() and title.text() == "▸ Advanced"
    part.expand(animate=False)
    assert title.icon().isNull() and title.text() == "▾ Advanced"


def test_a_panel_with_nothing_to_say_has_no_empty_line_below_its_button(qtbot):
    panel = RunPanel("Compare")
    qtbot.addWidget(panel)
    panel.show()
    assert not panel.status.isVisible()
    panel.say("Cancelled.")
    assert panel.status.isVisible()
    panel.say("")
    assert not panel.status.isVisible()
