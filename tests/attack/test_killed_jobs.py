"""kill -9 at any instant: what was saved is whole, and the same command ends with the same files.

The quick part kills a few jobs once; ``tox run -e attack`` kills each twenty times (``NAPARI_NNUNET_ATTACK_KILLS``), as
long as its share of the time lasts: all twenty want an hour and more (``NAPARI_NNUNET_ATTACK_MINUTES``).
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import time

import pytest
from runs import start
from tally import SEED, TRIES, numbers
from works import WORKS, broken, left_behind, state

KILLS = int(os.environ.get("NAPARI_NNUNET_ATTACK_KILLS", "20"))
KILLED = ("train", "preprocess", "plan", "predict", "import", "install", "find best", "ensemble", "convert v1",
          "convert MSD", "evaluate", "postprocess", "determine", "derive_objects", "accumulate", "calibrate", "export",
          "fingerprint", "folds", "move plans", "carry", "measure", "track", "label errors", "quantize",
          "predict image", "suggest")  # fmt: skip
QUICK = ("import", "ensemble", "find best", "derive_objects", "postprocess")


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of POSIX")
@pytest.mark.parametrize("name", KILLED)
def test_a_job_that_was_killed_is_run_again_and_ends_the_same(tmp_path, world, figures, name):
    if not TRIES and name not in QUICK:
        pytest.skip("in the whole attack only; test_resuming and the tests of each job kill it, too")
    work, chance, root = WORKS[name], random.Random(f"{SEED} {name}"), tmp_path / "root"
    shutil.copytree(world, root)
    begun = time.monotonic()
    whole = start(work.line(root), tmp_path / "said")
    assert whole.wait() == 0, whole.text
    lasted, before, expected = time.monotonic() - begun, state(world), state(root)
    for number in numbers("killed", len(KILLED), KILLS, 1):
        shutil.rmtree(root)
        shutil.copytree(world, root)
        after = chance.uniform(0.0, 1.0) * lasted
        problem = _killed(work, root, after, tmp_path / "said", before, expected)
        about = f"{name}, number {number}, after {after:.2f} s: {problem}"
        figures.note("killed", "harmless" if problem is None else "lost", about)
    figures.require_none()


def _killed(work, root, after, said, before, expected):
    """Kill a job and run it again; return what is wrong, None if nothing is."""
    first = start(work.line(root), said)
    first.wait(after)
    first.kill()
    left = state(root)
    if found := broken(root):
        return f"left half files: {found[:3]}"
    if lost := [name for name, data in before.items() if left.get(name) not in (data, expected.get(name))]:
        return f"it cost files: {lost[:5]}"
    if work.once and set(left) != set(before):
        return None if left == expected else f"left a part: {sorted(set(left) ^ set(expected))[:5]}"
    again = start(work.line(root, *work.again), said)
    if again.wait() != 0:
        return f"again: status {again.status}: {again.text[-400:]}"
    found = state(root)
    if differ := [name for name in {**found, **expected} if found.get(name) != expected.get(name)]:
        return f"again differs: {differ[:5]}"
    hidden = left_behind(root)
    return f"left behind: {hidden[:5]}" if hidden else None
