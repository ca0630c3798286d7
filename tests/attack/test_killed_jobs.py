"""kill -9 at any instant: what was saved is whole, and the same command ends with the same files.

The quick part kills a few jobs once; ``tox run -e attack`` kills each twenty times (``NAPARI_NNUNET_ATTACK_KILLS``), at
instants that are spread over all its run, several worlds beside each other, as long as its share of the time lasts.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from runs import start
from tally import SEED, TRIES, numbers
from works import WORKS, broken, left_behind, state

KILLS = int(os.environ.get("NAPARI_NNUNET_ATTACK_KILLS", "20"))
BESIDE = min(os.cpu_count() or 1, 4) if TRIES else 1  # worlds
#: Those that take long come last: what the others leave of the time is theirs.
KILLED = ("preprocess", "plan", "import", "install", "find best", "ensemble", "convert v1",
          "convert MSD", "evaluate", "postprocess", "determine", "derive_objects", "accumulate", "calibrate", "export",
          "fingerprint", "folds", "move plans", "carry", "measure", "track", "label errors", "predict",
          "predict image", "suggest", "quantize", "train")  # fmt: skip
QUICK = ("import", "ensemble", "find best", "derive_objects", "postprocess")


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of POSIX")
@pytest.mark.parametrize("name", KILLED)
def test_a_job_that_was_killed_is_run_again_and_ends_the_same(tmp_path, world, figures, name):
    if not TRIES and name not in QUICK:
        pytest.skip("in the whole attack only; test_resuming and the tests of each job kill it, too")
    begun = time.monotonic()
    chance, kill = random.Random(f"{SEED} {name}"), _Kill(WORKS[name], world, tmp_path)
    instants = ((n, (n + chance.random()) / KILLS) for n in chance.sample(range(KILLS), KILLS))
    tries = zip(numbers("killed", len(KILLED), KILLS, 1, begun), instants, strict=False)
    with ThreadPoolExecutor(BESIDE) as places:
        while batch := [instant for _, instant in itertools.islice(tries, BESIDE)]:
            for (number, instant), problem in zip(batch, places.map(kill.at, batch), strict=True):
                about = f"{name}, number {number}, after {instant:.3f} of its run: {problem}"
                figures.note("killed", "harmless" if problem is None else "lost", about)
    figures.require_none()


class _Kill:
    """Kills a job, each time in a world of its own.

    Parameters
    ----------
    work : Work
        The job.
    world : Path
        What it finds.
    folder : Path
        For its worlds.
    """

    def __init__(self, work, world, folder):
        self._work, self._world, self._folder = work, world, folder
        root, said = self._copy("whole")
        begun = time.monotonic()
        whole = start(work.line(root), said)
        assert whole.wait() == 0, whole.text
        self._lasted, self._before, self._expected = time.monotonic() - begun, state(world), state(root)
        shutil.rmtree(root)

    def _copy(self, name):
        root = self._folder / name
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self._world, root)
        return root, self._folder / f"{name} said"

    def at(self, instant):
        """Kill it after a part of its run, and run it again; return what is wrong, None if nothing is."""
        number, part = instant
        while True:  # sooner where it ended before that
            root, said = self._copy(str(number))
            first = start(self._work.line(root), said)
            if first.wait(part * self._lasted) is None:
                first.kill()
                break
            part *= 0.8
        try:
            return self._wrong(root, said)
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def _wrong(self, root, said):
        left = state(root)
        if found := broken(root, self._world):
            return f"left half files: {found[:3]}"
        expected = self._expected
        if lost := [name for name, data in self._before.items() if left.get(name) not in (data, expected.get(name))]:
            return f"it cost files: {lost[:5]}"
        if self._work.once and set(left) != set(self._before):
            return None if left == expected else f"left a part: {sorted(set(left) ^ set(expected))[:5]}"
        again = start(self._work.line(root, *self._work.again), said)
        if again.wait() != 0:
            return f"again: status {again.status}: {again.text[-400:]}"
        found = state(root)
        if differ := [name for name in {**found, **expected} if found.get(name) != expected.get(name)]:
            return f"again differs: {differ[:5]}"
        hidden = left_behind(root)
        return f"left behind: {hidden[:5]}" if hidden else None
