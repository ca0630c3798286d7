"""What other people's files may hold: every value of a JSON file replaced by wrong ones, bytes changed, ends cut off."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**70, 0.5, -0.0, float("nan"), float("inf"), "", "x", "../x", [], [[]], {}, {"": 0}, [None], ["x"],
    [-1, 0], [1.5, float("nan")],
)  # fmt: skip


def places(content: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value in a JSON content, containers included."""
    if here:
        yield here
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in entries:
        yield from places(value, (*here, key))


def spoiled(content: Any, place: tuple[Any, ...], value: Any = ...) -> Any:
    """Return a copy with the value at a place replaced, or removed where none is given."""
    changed = copy.deepcopy(content)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return changed


def all_spoiled(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield what was done, and the content with one value missing or wrong, for all values and all wrong ones."""
    yield from ((f"all: {value!r}", value) for value in VALUES)
    for place in places(content):
        yield f"{place}: missing", spoiled(content, place)
        for value in VALUES:
            yield f"{place}: {value!r}", spoiled(content, place, value)


def write(path: Path, content: Any) -> Path:
    """Write JSON, with NaN and Infinity as Python and nnU-Net write them."""
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def damaged(data: bytes, *, seed: int = 0, count: int = 60) -> Iterator[bytes]:
    """Yield a file cut off at several places, and with bytes changed, doubled and left out here and there."""
    rng = np.random.default_rng(seed)
    for cut in {0, 1, len(data) // 3, len(data) // 2, len(data) - 1, len(data) - 4}:
        yield data[: max(cut, 0)]
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(0, len(changed)))
            changed[at] = int(rng.integers(0, 256))
        yield bytes(changed)
        begin, end = sorted(int(n) for n in rng.integers(0, len(data), 2))
        yield data[:begin] + data[end:]
        yield data[:end] + data[begin:]
