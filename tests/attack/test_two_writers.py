"""Any two that write, begun at once: each does its work or says why not, and nothing is lost.

The quick part takes those that want the same folder; ``tox run -e attack`` every pair, in commands or in Python (an odd
seed turns which), as long as their share of the time lasts: all of them want an hour (``NAPARI_NNUNET_ATTACK_MINUTES``).
"""

from __future__ import annotations

import itertools
import random
import shutil

import pytest
from runs import start, start_in_python
from tally import SEED, TRIES, numbers
from works import WORKS, broken, left_behind, state

#: What writes into the same folders.
TOGETHER = (
    ("import", "import 20", "convert v1", "convert MSD", "install"),
    ("dataset.json", "fingerprint", "plan", "preprocess", "folds", "move plans", "train", "train 1", "rename dataset",
     "remove dataset", "drop case", "set spacing", "trash model"),
    ("predict", "ensemble", "postprocess"),
    ("determine", "evaluate"),
    ("accumulate", "calibrate", "find best", "export", "trash tiny", "predict", "label errors", "carry"),
    ("derive_objects",),
    ("track", "ensemble"),
    ("quantize", "export", "trash tiny"),
    ("suggest", "trash tiny"),
    ("predict image",),
)  # fmt: skip
PAIRS = tuple(dict.fromkeys(pair for works in TOGETHER for pair in itertools.combinations_with_replacement(works, 2)))
QUICK = (("rename dataset", "folds"), ("convert v1", "convert v1"), ("ensemble", "postprocess"), ("install", "install"),
         ("find best", "accumulate"))  # fmt: skip


class Worlds:
    """What comes of works that are carried out one after the other, each order once."""

    def __init__(self, world, folder):
        self._world, self._folder, self._known = world, folder, {(): state(world)}

    def after(self, *names):
        """Return the state of a world in which some works were done, whether or not they could be."""
        if names not in self._known:
            root = self.copy()
            for name in names:
                start(WORKS[name].line(root), self._folder / "said").wait()
            self._known[names] = state(root)
        return self._known[names]

    def copy(self):
        """Return a world of its own."""
        root = self._folder / "root"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self._world, root)
        return root


@pytest.fixture(scope="module")
def worlds(world, tmp_path_factory):
    return Worlds(world, tmp_path_factory.mktemp("pairs"))


def in_shells(lines, folder):
    """Begin two commands at once; return their statuses, and what must never be."""
    runs = [start(line, folder / f"said{i}") for i, line in enumerate(lines)]
    for run in runs:
        run.wait()
    faults = [run.fault for run in runs if run.fault]
    for run in runs:
        run.kill()
    return [run.status for run in runs], faults, [run.text for run in runs]


def in_python(lines, folder):
    """Begin two jobs at once in threads of one process; return the same."""
    run = start_in_python(lines, folder / "said")
    run.wait()
    fault, words = run.fault, run.text.rpartition("ended ")[2].split()
    run.kill()
    ends = [int(word) if word.isdecimal() else None for word in words][-2:]
    return ends, [fault] if fault else [] if len(ends) == 2 else [run.text[-600:]], [run.text]


def carried_out(worlds, pair, act, folder):
    """Carry out two works at once; return what is wrong, None if nothing is."""
    root = worlds.copy()
    ends, faults, said = act([WORKS[name].line(root) for name in pair], folder)
    if faults:
        return "hang" if "hang" in faults else "traceback", faults[0]
    if found := broken(root):
        return "lost", f"half files: {found[:3]}"
    if found := left_behind(root):
        return "lost", f"left behind: {found[:3]}"
    found = state(root)
    done = [name for name, status in zip(pair, ends, strict=True) if status == 0]
    allowed = [worlds.after(*order) for order in ([done, done[::-1]] if len(done) > 1 else [done])]
    if found in allowed:
        return ("harmless" if len(done) == 2 else "refused"), None
    refused = [name for name in pair if name not in done]
    orders = [order for name in refused for order in ((*done, name), (name, *done))]
    if refused and _explained(found, allowed[0], [worlds.after(*order) for order in orders]):
        return "refused", None
    nearest = min(allowed, key=lambda other: len(_differing(found, other)))
    return "lost", f"{ends}: {_differing(found, nearest)[:6]} {[text[-300:] for text in said]}"


def _explained(found, done, refused):
    """Whether all that differs from what was done is a whole step of what was refused later: planned, say, but no more.

    ``refused`` has what is there where that one came before or after the other.
    """
    return all(any(found.get(name) == other.get(name) for other in refused) for name in _differing(found, done))


def _differing(one, other):
    return sorted(name for name in {**one, **other} if one.get(name) != other.get(name))


@pytest.mark.parametrize("act", [in_shells, in_python])
def test_two_at_once_lose_nothing_and_are_honest(worlds, tmp_path, figures, act):
    pairs = list(PAIRS if TRIES else QUICK)
    if TRIES:
        pairs = pairs[(SEED + (act is in_python)) % 2 :: 2]
        random.Random(f"{SEED} {act.__name__}").shuffle(pairs)
    for number in numbers("two at once", 2, len(pairs), len(pairs)):
        what, why = carried_out(worlds, pairs[number], act, tmp_path)
        figures.note("two at once", what, f"{pairs[number]} {act.__name__}: {why}")
    figures.require_none()
