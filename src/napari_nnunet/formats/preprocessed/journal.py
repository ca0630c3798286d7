"""Which cases are finished, and from what: one JSON line per case, so that a killed job loses nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from napari_nnunet.formats.atomic import write_error


class Journal:
    """A file of ``{"case": ..., "made_from": ...}`` lines; the last line of a case counts.

    Parameters
    ----------
    path : Path
        Next to the folder it describes, not in it: nnU-Net refuses folders with other files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole = False  # whether the file is known to end with a line break

    def read(self) -> dict[str, str]:
        """Return case and digest of what is finished; a line torn by a kill or a full disk is skipped."""
        found: dict[str, str | None] = {}
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    found[str(entry["case"])] = entry["made_from"]
                except (ValueError, KeyError, TypeError):
                    continue
        return {case: digest for case, digest in found.items() if isinstance(digest, str)}

    def note(self, case: str, digest: str | None) -> None:
        """Append that a case is finished, or with None that it is being rewritten; see :meth:`note_all`."""
        self.note_all([case], digest)

    def note_all(self, cases: Iterable[str], digest: str | None) -> None:
        """Append the same for several cases.

        Raises
        ------
        ResourceError
            If the lines cannot be written.
        """
        lines = "".join(json.dumps({"case": case, "made_from": digest}) + "\n" for case in cases)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                if not self._whole and file.tell() > 0 and not self._ends_well():
                    file.write("\n")  # a kill tore the last line
                self._whole = True
                file.write(lines)
        except OSError as error:
            raise write_error(self.path, error) from error

    def _ends_well(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) == b"\n"
