"""Which cases are finished, and from what: one JSON line per case, so that a killed job loses nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from napari_nnunet.formats.json_lines import append_lines, read_lines


class Journal:
    """A file of ``{"case": ..., "made_from": ...}`` lines; the last line of a case counts.

    Parameters
    ----------
    path : Path
        Next to the folder it describes, not in it: nnU-Net refuses folders with other files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, str]:
        """Return case and digest of what is finished."""
        found = {str(entry.get("case")): entry.get("made_from") for entry in read_lines(self.path)}
        return {case: digest for case, digest in found.items() if isinstance(digest, str)}

    def note(self, cases: Iterable[str], digest: str | None) -> None:
        """Append that cases are finished, or with None that they are being rewritten.

        Raises
        ------
        ResourceError
            If that cannot be written.
        """
        append_lines(self.path, (json.dumps({"case": case, "made_from": digest}) for case in cases))
