"""Reading the JSON files that values of this package come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from napari_nnunet.errors import NnunetError


def read_text(path: Path, error: type[NnunetError]) -> str:
    """Return the text of a file; raises ``error`` where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as reason:
        raise error(f"{path} cannot be read: {reason}.") from reason


def json_object(text: str, where: str, error: type[NnunetError]) -> dict[str, Any]:
    """Return the object a JSON text holds; raises ``error`` where it is damaged or something else."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as reason:
        raise error(f"{where} is not valid JSON: {reason}.") from reason
    if not isinstance(content, dict):
        raise error(f"{where} must hold a JSON object, not {type(content).__name__}.")
    return content
