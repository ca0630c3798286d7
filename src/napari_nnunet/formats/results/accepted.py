"""accepted_labels.csv beside a dataset: what looked wrong in its labels, and was found right by somebody.

It can be read, and lines of it be taken out, with any program for tables.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.atomic import write_text
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.tables import read_rows, text_of

ACCEPTED_FILE = "accepted_labels.csv"
_NEEDED = ("case", "drawn", "seen", "voxels", "z", "y", "x", "labels")
_NUMBER = re.compile(r"[0-9]{1,15}")  # no digits of other scripts, and none that take a while to be read
_SPAN = re.compile(rf"({_NUMBER.pattern}) to ({_NUMBER.pattern})")
_PATIENCE = 10.0  # seconds; writing takes no time


@dataclass(frozen=True)
class Accepted:
    """A place, or a whole case, whose labels somebody found right although a network contradicts them.

    Parameters
    ----------
    case : str
        Its name.
    drawn, seen : int or None
        Values that are drawn there, and that the network saw; None for a whole case.
    voxels : int
        How many of them.
    box : tuple of (int, int)
        The first voxel and the one after the last along each axis; empty for a whole case.
    mark : str
        A digest of what was drawn in it then.
    what : str
        The same in words, for people.
    """

    case: str
    drawn: int | None
    seen: int | None
    voxels: int
    box: tuple[tuple[int, int], ...]
    mark: str
    what: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether the whole case was found right."""
        return not self.box

    def row(self) -> dict[str, Any]:
        """Return the line of the table."""
        spans = dict(zip("zyx"[3 - len(self.box) :], self.box, strict=True))
        places = {axis: f"{spans[axis][0]} to {spans[axis][1] - 1}" if axis in spans else "" for axis in "zyx"}
        drawn, seen = ("" if value is None else value for value in (self.drawn, self.seen))
        row = {"case": self.case, "what": self.what, "drawn": drawn, "seen": seen, "voxels": self.voxels}
        return {**row, **places, "labels": self.mark}


def read_accepted(folder: Path) -> tuple[Accepted, ...]:
    """Return what was found right in a dataset; nothing where there is no such file.

    Raises
    ------
    DatasetError
        If the file cannot be read; names the line.
    """
    path = folder / ACCEPTED_FILE
    if not path.is_file():
        return ()
    return tuple(_read(path, number, row) for number, row in read_rows(path, DatasetError, _NEEDED))


def _read(path: Path, number: int, row: dict[str, str]) -> Accepted:
    spans = [_SPAN.fullmatch(row[axis]) for axis in "zyx" if row[axis]]
    values = [row["drawn"], row["seen"]]
    whole = not spans and not any(values)
    part = len(spans) > 1 and all(spans) and all(_NUMBER.fullmatch(value) for value in values)
    if not (_NUMBER.fullmatch(row["voxels"]) and (whole or part)):
        raise DatasetError(
            f"{path}, line {number} is not as it was written: drawn, seen and voxels are numbers, z, y and x like "
            "'3 to 7', or drawn, seen, z, y and x are empty for a whole case. Take the line out."
        )
    box = tuple((int(span[1]), int(span[2]) + 1) for span in spans if span is not None)
    drawn, seen = (None, None) if whole else (int(values[0]), int(values[1]))
    return Accepted(row["case"], drawn, seen, int(row["voxels"]), box, row["labels"], row.get("what", ""))


def accept(folder: Path, entries: Sequence[Accepted]) -> Path:
    """Add what was found right to the file of a dataset; returns the file."""
    with _changing(folder) as path:
        before = [entry for entry in read_accepted(folder) if not _among(entry, entries)]
        _write(path, [*before, *entries])
    return path


def take_back(folder: Path, entries: Collection[Accepted]) -> Path:
    """Take what was found right out of the file of a dataset; returns the file, which is gone where nothing is left."""
    with _changing(folder) as path:
        _write(path, [entry for entry in read_accepted(folder) if not _among(entry, entries)])
    return path


def _among(entry: Accepted, entries: Iterable[Accepted]) -> bool:
    return any(entry.row() | {"what": ""} == other.row() | {"what": ""} for other in entries)


@contextmanager
def _changing(folder: Path) -> Iterator[Path]:
    path = folder / ACCEPTED_FILE
    with claimed(folder, f"{path} is already being written", part=ACCEPTED_FILE, patience=_PATIENCE):
        yield path


def _write(path: Path, entries: Sequence[Accepted]) -> None:
    if entries:
        write_text(path, text_of([entry.row() for entry in entries]))
    else:
        path.unlink(missing_ok=True)
