"""Names of classes, channels and files come from other people: Qt shows them as they are, and loads nothing for them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from qtpy.QtCore import QUrl
from qtpy.QtGui import QTextDocument
from qtpy.QtWidgets import QLabel

import napari_nnunet.widgets
from napari_nnunet.widgets.frame.parts import Sentence
from napari_nnunet.widgets.frame.words import as_text

HOSTILE = [
    '<img src="file:///etc/passwd">', '<img src="//evil.example/share/x.png">', "< img src='x.png'>", "&lt;<img src=x.png>",
    "<b onclick=x><img src=x.png>", "<IMG SRC=x.png>", "<br><img src=x.png>", "<a href='http://evil.example'>liver</a>",
    "<table background='x.png'><tr><td>liver", "<?xml version='1.0'?><img src=x.png>", "<style>@import 'x.css';</style>",
]  # fmt: skip


class Document(QTextDocument):
    """Notes what is asked for while a text is shown."""

    def __init__(self, text):
        super().__init__()
        self.asked = []
        self.setHtml(text)
        self.size()

    def loadResource(self, kind, name: QUrl):
        """Note and refuse."""
        self.asked.append(name.toString())


@pytest.mark.parametrize("name", HOSTILE)
def test_a_sentence_shows_names_as_they_are(qtbot, name):
    for text in (name, f"<b>Will segment</b> '{name}'.<br>It finds {name}"):
        label = Sentence(text)
        qtbot.addWidget(label)
        assert label.text() == text
        shown = Document(QLabel.text(label))
        if text == name and not name.startswith("<br>"):
            assert label.textFormat().name == "PlainText"
        else:
            assert shown.asked == []
            plain = shown.toPlainText().replace("\n", "<br>")
            assert re.sub(r"\s+", " ", name) in plain.replace("\u2028", "<br>")


@pytest.mark.parametrize("name", HOSTILE)
def test_tool_tips_and_notifications_take_no_name_for_html(qtbot, name):
    for text in (as_text(name), as_text(f"The channel {name} is missing.")):
        assert Document(text).asked == []
        assert text.replace("\u2060", "") in (name, f"The channel {name} is missing.")


def test_whoever_shows_a_text_uses_a_sentence():
    for path in Path(napari_nnunet.widgets.__file__).parent.rglob("*.py"):
        if path.name not in ("parts.py", "models_dock.py"):  # a picture
            assert not re.search(r"\bQLabel\(", path.read_text(encoding="utf-8")), path
