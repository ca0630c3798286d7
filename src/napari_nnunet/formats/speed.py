"""A notebook of how fast this computer ran which network, so that the next run can say how long it will take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import platformdirs

from napari_nnunet.errors import ResourceError
from napari_nnunet.formats.atomic import write_text
from napari_nnunet.formats.json_lines import append_lines, read_lines

_LONGEST = 1e6  # seconds of one network run; more was never measured
_LARGEST = 1e15  # bytes
_KEPT = 200  # entries; the oldest go


def _path() -> Path:
    return Path(platformdirs.user_cache_dir("napari-nnunet", appauthor=False)) / "speed.jsonl"


def seconds_per_run(key: str) -> float | None:
    """Return the measured seconds of one network run, None if it never ran here."""
    return _number(key, _LONGEST)


def bytes_per_run(key: str) -> float | None:
    """Return the measured memory of one network run, None if it never ran here."""
    return _number(key, _LARGEST)


def comparisons() -> dict[str, object]:
    """Return what :func:`remember` noted as lists, whatever is in them: key to list."""
    return {key: value for key, value in _read().items() if isinstance(value, list)}


def remember(key: str, seconds: float | Sequence[object]) -> None:
    """Note the seconds or bytes of one network run, or several things that were compared.

    A notebook that cannot be written is no reason to fail.
    """
    with suppress(ResourceError):
        append_lines(_path(), [_line(key, seconds)])
        if len(_lines()) > 2 * _KEPT:
            write_text(_path(), "".join(_line(*entry) + "\n" for entry in list(_read().items())[-_KEPT:]))


def _number(key: str, limit: float) -> float | None:
    value = _read().get(key)
    return float(value) if isinstance(value, int | float) and 0 < value < limit else None


def _line(key: str, seconds: object) -> str:
    return json.dumps({"key": key, "seconds": seconds})


def _read() -> dict[str, object]:
    return {str(entry.get("key")): entry.get("seconds") for entry in _lines()}


def _lines() -> tuple[dict[str, Any], ...]:
    try:
        status = _path().stat()
    except OSError:
        return ()
    return _lines_of(_path(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1)
def _lines_of(path: Path, size: int, mtime: int) -> tuple[dict[str, Any], ...]:
    """Read the notebook, once as long as size and time of the file stay: a prediction asks it many times."""
    return tuple(read_lines(path))
