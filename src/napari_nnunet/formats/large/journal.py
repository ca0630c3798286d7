"""Which blocks of a large image are finished, so that a killed job continues where it was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from napari_nnunet.errors import SettingsError
from napari_nnunet.formats.json_lines import append_lines, read_lines

NAME = ".napari-nnunet.jsonl"


class BlockJournal:
    """A file of lines in an unfinished result: what is computed, what was found out of the image, and finished blocks.

    Parameters
    ----------
    folder : Path
        The unfinished result.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME

    def begin(self, work: Mapping[str, Any]) -> None:
        """Note what is computed: model, settings, image."""
        append_lines(self._path, [json.dumps({"work": dict(work)})])

    def note(self, kind: str, content: Mapping[str, Any]) -> None:
        """Note something that was found out, or that a block is finished."""
        append_lines(self._path, [json.dumps({kind: dict(content)})])

    def all(self, kind: str) -> Iterable[Mapping[str, Any]]:
        """Return what was noted of a kind."""
        return [entry[kind] for entry in read_lines(self._path) if isinstance(entry.get(kind), dict)]

    def require_same(self, work: Mapping[str, Any]) -> None:
        """Raise SettingsError if something else was begun here, saying what differs."""
        known = next(iter(self.all("work")), None)
        if known is None:
            raise SettingsError(
                f"{self._path.parent} is not the beginning of a result of this program. Choose another name, or "
                "delete it."
            )
        differs = [key for key in {**known, **work} if known.get(key) != json.loads(json.dumps(work.get(key)))]
        if differs:
            raise SettingsError(
                f"{self._path.parent} was begun with another {' and '.join(sorted(differs))}. Continue with the same, "
                "or delete it to begin again."
            )

    def remove(self) -> None:
        """Delete the file: the result is complete."""
        self._path.unlink(missing_ok=True)
