"""The words users read: idiomatic English, without phrases that only this house would say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "napari_nnunet"

RETIRED = {
    r"\bgo(es|ing)? on\b": "continue",
    r"\b(is|are|be) told\b": "is set, could not be determined",
    r"\bspeaks? (of|for)\b": "mention, have, define",
    r"\bsuffic(e|es|ient)\b": "not enough",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\b(take|takes|taken|taking|took) in\b": "install",
    r"\b(take|takes|taken|taking|took) over\b": "import",
    r"\bcalled off\b": "cancelled",
    r"\bholds? nothing but\b": "contains only",
    r"\bhard to believe\b": "implausible",
    r"\bdoes not know\b": "does not define",
    r"\bbegin(s|ning)? anew\b": "start from scratch",
    r"\b(exists?|is there) already\b": "already exists",
    r"\banew\b": "again",
    r"\b(?<!there )(is|are) no (?!longer\b|more\b)": "is not a",
    r"\bpass(es|ed|ing)? over\b": "ignore",
    r"\b(is|are) wanted\b": "is expected",
    r"\bbeside 0\b": "besides 0",
    r"\b(drawn|was made) of\b": "from",
}


def sentences(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of every literal that a person may read: not docstrings, and more than one word."""
    tree = ast.parse(source)
    quiet: set[ast.AST] = {n.value for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            quiet |= {part for part in ast.walk(node) if part is not node}
    for node in ast.walk(tree):
        if node in quiet:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = (str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
            text = "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if " " in text.strip():
            yield node.lineno, text


def retired(source: str) -> list[str]:
    """Return what to say instead, one line for every retired phrase of a module."""
    return [
        f"{line}: {found[0]!r} in {text!r}; say {better!r}"
        for line, text in sentences(source)
        for phrase, better in RETIRED.items()
        if (found := re.search(phrase, text, re.IGNORECASE))
    ]


@pytest.mark.parametrize(
    "line",
    [
        'raise ModelError(f"{path} is not the file its card speaks of.")',
        'yield Note(text="Main memory does not suffice.")',
        'label.setText("Nothing to " "mend.")',
        'parser.add_argument("--c", help=f"{what} goes on")',
        'raise ImageError(f"{path} is no NIfTI file.")',
    ],
)
def test_retired_phrases_are_found(line):
    assert len(retired(line)) == 1


def test_docstrings_comments_and_single_words_are_left_alone():
    assert not retired('def f():\n    """Speaks of what goes on."""\n    return "mend"  # is told')


def test_nothing_that_users_read_has_a_retired_phrase():
    found = [
        f"{path.relative_to(SOURCE)}:{sentence}"
        for path in sorted(SOURCE.rglob("*.py"))
        for sentence in retired(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


#: Pages of nnU-Net's documentation.
OF_NNUNET = {"dataset_format.md", "explanation_plans_files.md"}
#: What napari's own menus say, and what is put together from the name of a case.
NOT_OURS = ("Save Selected Layers", "CASE labels")


@pytest.mark.parametrize("page", ["train", "training-data", "segment", "ensemble"])
def test_a_page_calls_buttons_and_rows_what_they_are_called(page):
    """Words in italics are those of the docks; messages with figures in them are only quoted in part."""
    ours = [*SOURCE.rglob("*.py"), *SOURCE.rglob("*.yaml")]
    said = re.sub(r'"\s*\n\s*f?"', "", "".join(path.read_text(encoding="utf-8") for path in ours))
    text = " ".join((SOURCE.parents[1] / "docs" / f"{page}.md").read_text(encoding="utf-8").split())
    quoted = {part for words in re.findall(r"(?<!\*)\*([A-Z][^*]{1,80})\*(?!\*)", text) for part in words.split(" > ")}
    named = {part.removesuffix(" …").rstrip(".") for part in quoted if not re.search(r"\d|… ", part)}
    assert len(named) > 5
    assert not [part for part in named for word in part.split(": ") if word not in said and word not in NOT_OURS]


def test_what_is_cited_is_here_or_public():
    """A comment that names a page of ours sends the reader to a file; a number of a section alone helps nobody."""
    root = SOURCE.parents[1]
    texts = [*SOURCE.rglob("*.py"), *(root / "docs").glob("*.md"), *root.glob("*.md")]
    made = set(re.findall(r'"([\w-]+\.md)"', (root / "scripts" / "docs_pages.py").read_text(encoding="utf-8")))
    pages = {path.name for path in (*(root / "docs").glob("*.md"), *root.glob("*.md"))} | OF_NNUNET | made
    for path in texts:
        text = path.read_text(encoding="utf-8")
        assert not set(re.findall(r"\b[\w-]+\.md\b", text)) - pages, path
        assert not re.search(r"\bfacts \d", text), path
