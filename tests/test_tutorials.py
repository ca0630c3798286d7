"""The tutorials, carried out: every command and all Python of a page, in order, in a workspace of its own.

What precedes a block in the page says where that cannot be: ``<!-- not run: REASON -->``.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from napari_nnunet.cli import main
from napari_nnunet.engine.planning.planner import PLANNERS
from napari_nnunet.engine.synthetic import make_volume
from napari_nnunet.jobs import demo, demo_objects
from napari_nnunet.jobs.training import train as training
from worlds import SHAPE, WORLDS, Kept, described

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"(?:<!-- not run: ([^>]*) -->\n+)?^ *```(\w+)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
OURS, INSTALLED = "napari-nnunet ", ("pip install ",)


def tutorials():
    """Return the names of the pages that the site calls tutorials, and of the one before them."""
    navigation = yaml.safe_load(
        re.search(r"^nav:.*", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[0]
    )
    titles = next(entry["Tutorials"] for entry in navigation["nav"] if "Tutorials" in entry)
    return ["start.md", *(page for entry in titles for page in entry.values())]


def blocks(page):
    """Return reason not to run, language and text of every block of a page."""
    return BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return Kept(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def here(tmp_path, monkeypatch, in_one_process, narrow_networks, known_arithmetic):
    """A workspace in the current folder, where trainings of hours take two epochs, and networks and samples are small."""
    monkeypatch.chdir(tmp_path)
    for part in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(part, str(tmp_path / part))
    whole = training.make_order

    def short(workspace, request, **more):
        length = {"epochs": 2} if request.time_budget is None else {"time_budget": 0.5}
        request = request.replace(iterations=2, validation_iterations=1, workers=0, **length)
        return (yield from whole(workspace, request, **more))

    monkeypatch.setattr(training, "make_order", short)
    for name, planner in PLANNERS.items():
        monkeypatch.setitem(PLANNERS, name, replace(planner, width=4))
    for job in (demo, demo_objects):
        monkeypatch.setattr(job, "_TRAINING_SEEDS", range(100, 105))
        monkeypatch.setattr(job, "_SEEDS", (1,))
    monkeypatch.setattr(demo, "make_volume", lambda seed: make_volume(seed, SHAPE))
    return tmp_path


def carry_out(line, here, capsys):
    """Carry out one line of a shell."""
    words = shlex.split(line, comments=True)
    if line.startswith(INSTALLED):
        return
    if line.startswith(OURS):
        status = main(words[1:])
        assert status == 0, f"{line}\n{capsys.readouterr().err[-3000:]}\n{described(here)}"
        return
    assert words[0] == "python", f"{line}: who carries that out?"
    if not Path(words[1]).exists():  # a program that the zip before it holds
        for found in here.glob("*.zip"):
            zipfile.ZipFile(found).extractall(here)
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"


def test_every_tutorial_is_carried_out():
    with_blocks = [page for page in tutorials() if any(kind in ("sh", "bash", "python") for _, kind, _ in blocks(page))]
    assert sorted(WORLDS) == sorted(with_blocks)


@pytest.mark.slow
@pytest.mark.parametrize("page", WORLDS)
def test_what_a_tutorial_says_works_line_by_line(page, here, kept, capsys):
    names = WORLDS[page](here, kept)
    for reason, kind, text in blocks(page):
        if reason or kind not in ("sh", "bash", "python"):
            continue
        if kind == "python":
            exec(compile(text, page, "exec"), names)
            continue
        for line in text.replace("\\\n", " ").splitlines():
            if line.strip():
                carry_out(line.strip(), here, capsys)
