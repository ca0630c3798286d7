"""What was replaced or removed lies in trash folders, by its name and the time; from there it can be brought back."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from napari_nnunet.formats.atomic import make_folder, write_error

TRASH = "trash"
TIME = "%Y-%m-%d %H.%M.%S"
_ENTRY = re.compile(r"(?P<name>.+) (?P<when>\d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d)(?: \((?P<number>\d+)\))?")


@dataclass(frozen=True)
class Trashed:
    """Something in a trash folder.

    Parameters
    ----------
    name : str
        What it was called.
    when : str
        The second it was put there, as ``2026-11-25 21.36.20``.
    number : int
        Which of several of that second, from 1.
    path : Path
        Its folder.
    """

    name: str
    when: str
    number: int
    path: Path

    @property
    def time(self) -> str:
        """When it was put there, for people."""
        return self.when[:-3].replace(".", ":")


def trash_path(trash: Path, name: str) -> Path:
    """Return where something goes in a trash folder, which is made: its name and the time, and a number if needed."""
    dated = make_folder(trash) / f"{name} {time.strftime(TIME)}"
    path, number = dated, 2
    while path.exists():
        path, number = dated.with_name(f"{dated.name} ({number})"), number + 1
    return path


def trashed(trash: Path) -> list[Trashed]:
    """Return what lies in a trash folder, the latest first; nothing where there is none."""
    if not trash.is_dir():
        return []
    matches = ((path, _ENTRY.fullmatch(path.name)) for path in trash.iterdir() if path.is_dir())
    found = [Trashed(m["name"], m["when"], int(m["number"] or 1), path) for path, m in matches if m is not None]
    return sorted(found, key=lambda entry: (entry.when, entry.number), reverse=True)


def exchange(entry: Trashed, home: Path) -> None:
    """Bring a folder back from the trash; what is there now goes to the same trash instead.

    Parameters
    ----------
    entry : Trashed
        The folder.
    home : Path
        Where it was, on the same disk.

    Raises
    ------
    ResourceError
        If it cannot be moved; everything stays as it is then.
    """
    aside = trash_path(entry.path.parent, entry.name) if home.exists() else None
    try:
        if aside is not None:
            os.rename(home, aside)
        os.rename(entry.path, make_folder(home.parent) / home.name)
    except OSError as error:
        if aside is not None and aside.exists() and not home.exists():
            os.rename(aside, home)
        raise write_error(home, error) from error
