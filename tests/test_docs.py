"""The pages: each is in the site's navigation, links lead somewhere, commands are understood, names are current."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from napari_nnunet.cli import build_parser

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MADE = {"python.md", "messages.md"}  # when the site is built
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(page, language):
    return [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind in language]


def anchors(page):
    """Return the anchors of a page's headings, as Markdown's toc makes them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return {
        re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title.replace("`", "")).strip().lower())
        for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r"[\w-]+\.md", yaml.safe_dump(yaml.safe_load(text)["nav"]))
    assert len(named) == len(set(named))
    assert set(named) == {page.name for page in PAGES} | MADE


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text(encoding="utf-8"))):
        place, _, anchor = target.partition("#")
        if re.match(r"https?:", target):
            continue
        if Path(place).name in MADE:
            continue
        file = page.parent / place if place else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), target


def commands():
    for page in [*PAGES, ROOT / "README.md"]:
        text = "\n".join(blocks(page, ("sh", "bash"))).replace("\\\n", " ")
        inline = re.findall(r"`(napari-nnunet [^`]+)`", page.read_text(encoding="utf-8"))
        for line in [*text.splitlines(), *inline]:
            line = line.partition("  #")[0].strip()
            if line.startswith("napari-nnunet ") and "VERB" not in line:
                yield pytest.param(line, id=f"{page.name}: {line}"[:90])


@pytest.mark.parametrize("line", commands())
def test_every_command_in_the_pages_is_understood(line):
    words = shlex.split(line)[1:]
    if len(words) > 1:  # a verb that is only named needs no flags
        build_parser().parse_args(words)


SENTENCE = 40  # letters: what is longer is a message, a title, or stressed
#: What pages name and napari has, what a page says with figures of its own, and names that are made of two.
NOT_OURS = {"install/uninstall plugins", "save selected layers", "fold 0", "fold 1", "trash (1)", "case labels"}


def names_of_buttons(page):
    """Return what a page has in italics: by convention the names of docks, buttons, boxes and menus."""
    text = re.sub(r"`[^`]*`", "", BLOCK.sub("", page.read_text(encoding="utf-8")))
    for name in re.findall(r"(?<![*\w])\*([^\s*][^*]*)\*(?![*\w])", text):
        for part in re.split(r" > |: ", " ".join(name.split())) if len(name) < SENTENCE else ():
            yield re.sub(r"[.…]+$", "", part.strip()).casefold()


@pytest.fixture(scope="module")
def said():
    """All that the program says, and its comments; the manifest's titles."""
    package = ROOT / "src" / "napari_nnunet"
    files = [package / "napari.yaml", *(package / "widgets").rglob("*.py"), *(package / "schema").rglob("*.py")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files).replace("&", "").casefold()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_docks_and_buttons_are_called_in_the_pages_as_in_the_window(page, said):
    if page.name not in ("architecture.md", "benchmarks.md", "cli.md"):  # nobody presses anything there
        assert [name for name in names_of_buttons(page) if name and name not in said and name not in NOT_OURS] == []
