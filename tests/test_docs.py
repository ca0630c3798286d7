"""The pages: each is in the site's navigation, links lead somewhere, commands and Python in them work."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers import make_model, smooth_image, write_nifti
from napari_nnunet.cli import build_parser

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MADE = {"python.md", "messages.md"}  # when the site is built
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(r"(<!-- run -->\n)?```(\w+)\n(.*?)```", re.DOTALL)


def blocks(page, language, *, run=None):
    found = [
        (bool(mark), text) for mark, kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind in language
    ]
    return [text for mark, text in found if run is None or mark == run]


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


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, ("python",), run=True)], ids=lambda page: page.name
)
def test_python_in_the_pages_runs(page, tmp_path, monkeypatch):
    model = make_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    write_nifti(tmp_path / "image_0000.nii.gz", smooth_image((8, 16, 18))[0])
    for text in blocks(page, ("python",), run=True):
        exec(re.sub(r"Dataset004_Hippocampus/\w+", str(model.folder), text), {})


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, ("sh",), run=True)], ids=lambda page: page.name
)
def test_commands_in_the_pages_run_one_after_the_other(page, tmp_path):
    for line in "".join(blocks(page, ("sh",), run=True)).splitlines():
        words = [sys.executable, "-c", "import sys; from napari_nnunet.cli import main; sys.exit(main())"]
        words += shlex.split(line)[1:]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"
