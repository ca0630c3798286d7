"""What the files of a preprocessed case held when they were written: Blosc2 has no checksums of its own.

Size and time are compared first, so that files are read again only where these differ. What a disk changes without
a new time is not noticed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from napari_nnunet.formats.preprocessed.cases import preprocessed_files
from napari_nnunet.formats.preprocessed.journal import FilesFacts
from napari_nnunet.formats.regular import regular
from napari_nnunet.formats.workspace import stamp


def facts_of_files(folder: Path, name: str) -> FilesFacts:
    """Return size, time and digest of the files of a case; those that cannot be read are left out."""
    found = {}
    for path in preprocessed_files(folder, name):
        state, digest = stamp(path), _digest(path)
        if state is not None and digest is not None:
            found[path.name] = (state[1], state[0], digest)
    return found


def is_touched(folder: Path, written: FilesFacts) -> bool:
    """Whether a file has another size or time than when it was written, or is gone."""
    return any((state := stamp(folder / name)) is None or (state[1], state[0]) != facts[:2]
               for name, facts in written.items())  # fmt: skip


def changed_files(written: FilesFacts, now: FilesFacts) -> list[str]:
    """Return the files that hold something else than when they were written, or are gone."""
    return [name for name, facts in written.items() if name not in now or now[name][2:] != facts[2:]]


def _digest(path: Path) -> str | None:
    try:
        with regular(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
