"""A notebook of how fast this computer ran which network, so that the next run can say how long it will take."""

from __future__ import annotations

import json
from pathlib import Path

import platformdirs

from napari_nnunet.errors import ResourceError
from napari_nnunet.formats.atomic import make_folder, write_json

_KEPT = 200  # entries; the oldest go


def _path() -> Path:
    return Path(platformdirs.user_cache_dir("napari-nnunet", appauthor=False)) / "speed.json"


def seconds_per_run(key: str) -> float | None:
    """Return the measured seconds of one network run, None if it never ran here."""
    value = _read().get(key)
    return float(value) if isinstance(value, int | float) and value > 0 else None


def remember(key: str, seconds: float) -> None:
    """Note the seconds of one network run; a notebook that cannot be written is no reason to fail."""
    entries = {**{k: v for k, v in _read().items() if k != key}, key: seconds}
    try:
        make_folder(_path().parent)
        write_json(_path(), dict(list(entries.items())[-_KEPT:]))
    except ResourceError:
        return


def _read() -> dict[str, object]:
    try:
        content = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
