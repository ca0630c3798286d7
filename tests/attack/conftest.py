"""The figures of an attack: counted over all its tests; those of the whole one are written into docs/safety.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from tally import FIGURES, TRIES, Tally
from works import make_world

_PAGE = Path(__file__).parents[2] / "docs" / "safety.md"
_LEFT_OUT = pytest.StashKey[bool]()


def pytest_deselected(items):
    """Note that this is a part of the attack (-k, -m), whose figures are no table of the whole one."""
    for item in items[:1]:
        item.config.stash[_LEFT_OUT] = True


@pytest.fixture(scope="session")
def figures(request):
    """Where tests of the attack count what they tried."""
    tally = Tally()
    yield tally
    tally.partial = not FIGURES and request.config.stash.get(_LEFT_OUT, False)
    if TRIES:
        if FIGURES:
            tally.gather(Path(FIGURES))
        print(f"\n{tally.table()}\n\n{tally.write(_PAGE)}")


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The world in which jobs are killed, and begun twice at once; copied for each try."""
    root = tmp_path_factory.mktemp("made") / "world"
    make_world(root)
    return root
