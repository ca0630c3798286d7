"""The figures of an attack: counted over all its tests; those of the whole one are written into docs/safety.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from tally import TRIES, Tally

_PAGE = Path(__file__).parents[2] / "docs" / "safety.md"


@pytest.fixture(scope="session")
def figures():
    """Where tests of the attack count what they tried."""
    tally = Tally()
    yield tally
    if TRIES:
        print(f"\n{tally.table()}\n")
        tally.write(_PAGE)
