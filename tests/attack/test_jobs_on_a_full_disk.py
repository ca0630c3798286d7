"""A disk that fills up under a job: what was whole stays whole, the disk is named, and with room the same command ends the same.

The quick part takes a few jobs; ``tox run -e attack`` all, each with as little room as its seed says.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess

import pytest
from runs import start
from tally import SEED, TRIES, numbers
from works import WORKS, broken, left_behind, state

from helpers import TRAINED, Recipe, make_model

QUICK = ("import", "ensemble", "export", "carry", "carry openvino", "dataset.json", "trash model")
SIZE = 24  # MB of the disk
PATIENCE = 30.0  # seconds
FREE = (0, 4_096, 12_288, 40_960, 150_000, 400_000, 1_500_000)  # bytes that are left


@pytest.fixture
def disk(tmp_path):
    """A real disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}m", "tmpfs", str(folder)], capture_output=True, check=False
    ).returncode:  # fmt: skip
        pytest.skip("only an administrator can make a disk of its own; test_full_disk limits the size of files instead")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


#: Cases that could not be preprocessed anew are taken away: what an earlier run made of them may be of other images.
_MADE_AGAIN = "nnUNet_preprocessed/"


def fill(disk, left):
    """Leave so many bytes of a disk."""
    there = os.statvfs(disk)
    free = there.f_bavail * there.f_frsize
    with (disk / "filled").open("wb") as file:
        for _ in range(max(0, free - left) // there.f_frsize):
            file.write(bytes(there.f_frsize))


def _trained(world, root):
    """Return the world for a job that moves what a training made: one in which somebody trained."""
    shutil.copytree(world, root)
    make_model(root / "nnUNet_results", Recipe(name=TRAINED))
    return root


@pytest.mark.parametrize("name", WORKS)
def test_a_job_whose_disk_fills_up_loses_nothing_says_so_and_is_run_again(tmp_path, world, disk, figures, name):
    if not TRIES and name not in QUICK:
        pytest.skip("in the whole attack only")
    work, chance, root = WORKS[name], random.Random(f"{SEED} {name}"), disk / "root"
    world = _trained(world, tmp_path / "trained") if name == "trash model" else world
    shutil.copytree(world, root)
    whole = start(work.line(root), tmp_path / "said")
    assert whole.wait() == 0, whole.text
    before, expected = state(world), state(root)
    rooms = chance.sample(FREE, len(FREE))
    for number in numbers("full disk", len(WORKS), len(FREE), 1):
        (disk / "filled").unlink(missing_ok=True)
        shutil.rmtree(root)
        shutil.copytree(world, root)
        what, problem = _filled_up(work, root, rooms[number], tmp_path / "said", before, expected)
        figures.note("full disk", what, f"{name} with {rooms[number]} bytes: {problem}")
    figures.require_none()


def _filled_up(work, root, room, said, before, expected):
    """Carry out a job with so little room, and once more with enough; return what came of it, and what is wrong."""
    fill(root.parent, room)
    first = start(work.line(root), said)
    if first.wait(PATIENCE) is None and "trying again" in first.text:  # a training waits for room
        (root.parent / "filled").unlink()
        first.wait()
    if first.fault:
        first.kill()
        return "hang" if "hang" in first.fault else "traceback", f"{first.fault} {first.text[-300:]}"
    if found := broken(root):
        return "lost", f"half files: {found[:3]}"
    left = state(root)
    kept = {name: data for name, data in before.items() if not name.startswith(_MADE_AGAIN)}
    if lost := [name for name, data in kept.items() if left.get(name) not in (data, expected.get(name))]:
        return "lost", f"it cost files: {lost[:5]}"
    if first.status and not re.search(r"space|disk", first.text):
        return "lost", f"the disk is not named: {first.text[-300:]}"
    if "best checkpoint could not be saved" in first.text:  # that of an epoch that is gone is said, and not made up for
        left, expected = ({n: d for n, d in all_.items() if not n.endswith("_best.pth")} for all_ in (left, expected))
    if first.status == 0 and left != expected:
        return (
            "lost",
            f"status 0, but it differs: {[n for n in {**left, **expected} if left.get(n) != expected.get(n)][:5]}",
        )
    (root.parent / "filled").unlink(missing_ok=True)
    if first.status == 0:
        return "harmless", None
    if not (work.once and set(left) != set(before)):
        again = start(work.line(root, *work.again), said)
        if again.wait() != 0:
            return "lost", f"again: status {again.status}: {again.text[-400:]}"
    found = {name: data for name, data in state(root).items() if name in expected or "/trash/" not in name}
    if differ := [name for name in {**found, **expected} if found.get(name) != expected.get(name)]:
        return "lost", f"again differs: {differ[:5]}"
    hidden = left_behind(root)
    return ("lost", f"left behind: {hidden[:5]}") if hidden else ("refused", None)
