"""A table says of which kind every object is; masks of kinds are drawn from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from napari_nnunet.errors import DatasetError, SettingsError, counted, some
from napari_nnunet.events import Job, Note, Progress, Stage
from napari_nnunet.formats.atomic import make_folder
from napari_nnunet.formats.dataset.case_trash import KINDS
from napari_nnunet.formats.dataset.objects import kinds_file, read_objects
from napari_nnunet.formats.images.files import write_labels
from napari_nnunet.formats.tables import read_rows
from napari_nnunet.schema.objects import ObjectScheme

_COLUMNS = ("case", "object", "kind")
_NUMBER = re.compile(r"[0-9]{1,10}")


def kinds_from_table(
    folder: Path, table: Path, files: Mapping[str, Path], scheme: ObjectScheme | None
) -> Job[dict[int, str]]:
    """Draw the masks of kinds of a dataset from a table.

    Parameters
    ----------
    folder : Path
        The raw dataset, claimed by whoever calls this.
    table : Path
        CSV with the columns case, object (its number) and kind; others are passed over.
    files : dict of str to Path
        Numbered objects by case.
    scheme : ObjectScheme or None
        What dataset.json said of the objects before.

    Returns
    -------
    dict of int to str
        Kinds by their values in kindsTr, in the order in which the table names them.

    Raises
    ------
    DatasetError
        If the table cannot be read, says two things of an object, or nothing of one.
    SettingsError
        If there are masks of kinds that were not drawn from a table: they may hold classes.
    """
    told = read_kinds(table)
    drawn_before = scheme is not None and bool(scheme.values) and not scheme.classes and scheme.ignore is None
    there = [case for case in files if kinds_file(folder, case) is not None]
    if there and not drawn_before:
        raise SettingsError(
            f"{counted(len(there), 'case')} of {folder.name} {'has' if len(there) == 1 else 'have'} masks in {KINDS} "
            "already. Use these, without a table, or move them away first."
        )
    values = {kind: i for i, kind in enumerate(dict.fromkeys(told.values()), start=1)}
    yield Stage(name="Drawing kinds", total=len(files))
    count = sum(_told_of(case, path, told, table.name) for case, path in files.items())  # before anything is written
    for i, (case, path) in enumerate(files.items()):
        objects, geometry = read_objects(path)
        numbers, place = np.unique(objects, return_inverse=True)
        own = np.array([values[told[case, int(n)]] if n else 0 for n in numbers], dtype=np.uint16)
        write_labels(own[place.reshape(objects.shape)], geometry, make_folder(folder / KINDS) / path.name)
        yield Progress(done=i + 1, total=len(files))
    if len(told) > count:
        yield Note(level="warning", text=f"{len(told) - count} lines of {table.name} name objects that no mask has.")
    return {value: kind for kind, value in values.items()}


def _told_of(case: str, path: Path, told: Mapping[tuple[str, int], str], table: str) -> int:
    """Return how many objects a case has; raises DatasetError unless the table tells the kind of all."""
    numbers = [int(n) for n in np.unique(read_objects(path)[0]) if n]
    missing = [n for n in numbers if (case, n) not in told]
    if missing:
        raise DatasetError(f"{table} does not say of which kind the objects {some(missing)} of {case} are.")
    return len(numbers)


def read_kinds(table: Path) -> dict[tuple[str, int], str]:
    """Return the kind of every object by case and number; raises DatasetError if the table does not say them."""
    found: dict[tuple[str, int], str] = {}
    for line, row in read_rows(table, DatasetError, _COLUMNS):
        case, number, kind = (row[name] for name in _COLUMNS)
        if _NUMBER.fullmatch(number) is None:
            raise DatasetError(
                f"{table}, line {line}: the column 'object' must hold the numbers of objects, not {number!r:.40}."
            )
        if not kind:
            raise DatasetError(f"{table}, line {line}: object {number} of {case} has no kind.")
        if found.setdefault((case, int(number)), kind) != kind:
            known = found[case, int(number)]
            raise DatasetError(f"{table}, line {line}: object {number} of {case} is said to be {known} and {kind}.")
    if not found:
        raise DatasetError(f"{table} has no lines.")
    return found
