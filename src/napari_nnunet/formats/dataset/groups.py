"""Which cases belong together (time points, both sides of a patient), by their names or by a table."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from napari_nnunet.errors import DatasetError, SettingsError, some
from napari_nnunet.formats.atomic import write_error, write_text
from napari_nnunet.formats.images.files import ENDINGS
from napari_nnunet.formats.tables import cell, without_marks
from napari_nnunet.schema.json_text import read_text

#: In a raw dataset: which cases somebody said belong together. Folds that are made go by it.
FILE = "groups.csv"
_SEPARATORS = ",;\t|"
#: Headings of the two columns; "Patient_ID" counts as patient, "file name" as file.
_CASE_HEADINGS = ("case", "name", "id", "identifier", "file", "image", "img", "scan", "volume")
_GROUP_HEADINGS = ("group", "patient", "pat", "subject", "subj", "sub", "participant", "person", "animal", "donor")
#: How names tell cases of one patient apart: sides, time points, slices and frames of one image, BIDS.
_USUAL = (
    r"^(sub-[A-Za-z0-9]+)",
    r"^(.+?)[ _.-]?(?i:left|right|lt|rt|od|os|links|rechts|gauche|droite)$",
    r"^(.*\d)(?i:l|r)$",
    r"^(?i:left|right|lt|rt|od|os|links|rechts|l|r)[ _.-](.+)$",
    r"^(.+?)[ _.-](?i:l|r|a|b|ed|es|bl|fu|pre|post|baseline|follow[ _-]?up\d*)$",
    r"^(.+?)[ _.-](?i:t|tp|time|timepoint|ses|session|visit|v|scan|day|d|week|w|month|m|year|y|fu)[ _.-]?\d+$",
    r"^(.+?)[ _.-](?i:slice|sl|z|frame|fr|tile|patch|crop|roi|fov|section)[ _.-]?\d+$",
    r"^(.+?)[ _.-](?:19|20)\d\d[ _.-]?[01]\d[ _.-]?[0-3]\d$",
    r"^(.+?)[ _.-]\d+[ _.-]?(?i:d|days?|w|weeks?|m|mo|months?|y|years?)$",
    r"^(.*\d)(?i:t|tp|v|visit)\d{1,2}$",
    r"^(?i:t|tp|time|timepoint|ses|session|visit|v)[ _.-]?\d+[ _.-](.+)$",
    r"^(.*\d)[_-]\d{1,2}$",
    r"^(.*\d)[_-]00\d$",
)


@dataclass(frozen=True)
class Groups:
    """The group of every case.

    Parameters
    ----------
    by : str
        The pattern, or the table's file.
    of : mapping of str to str
        Every case's group.
    alone : tuple of str
        Cases that the pattern or the table does not name; each is a group of its own.
    remark : str
        Which column of a table was taken for the groups, where its heading does not tell; else empty.
    """

    by: str
    of: Mapping[str, str]
    alone: tuple[str, ...] = ()
    remark: str = ""


def read_groups(cases: Sequence[str], by: str) -> Groups:
    """Return the groups of cases.

    Parameters
    ----------
    cases : sequence of str
        Their names.
    by : str
        A regular expression, which is searched in each name (its brackets are the group, or the whole match where it
        has none), or the path of a CSV file with the columns case and group. Further columns are passed over where the
        first line tells which are these two.

    Raises
    ------
    SettingsError
        If it is neither.
    DatasetError
        If it names no case, or one case twice.
    """
    table = by.lower().endswith((".csv", ".tsv")) or _is_path(by)
    found, remark = _read_table(Path(os.path.expanduser(by)), set(cases)) if table else (_search(cases, by), "")
    if not found:
        what = f"The table {by}" if table else f"The pattern {by!r}"
        raise DatasetError(f"{what} names none of the {len(cases)} cases, which are called {some(sorted(cases), 3)}.")
    groups = set(found.values())
    alone = tuple(sorted(name for name in cases if name not in found and name not in groups))
    # A case that is called like a group ("anna" beside "anna_left") belongs to it.
    return Groups(by, {name: found.get(name, name) for name in cases}, alone, remark)


def stored_groups(folder: Path) -> str | None:
    """Return the table of groups of a raw dataset, as ``by`` of :func:`read_groups`; None where it has none."""
    path = folder / FILE
    return str(path) if path.is_file() else None


def write_groups(folder: Path, of: Mapping[str, str]) -> None:
    """Keep the groups of cases in a raw dataset; cases without one, or with an empty one, stand alone."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("case", "group"))
    writer.writerows((cell(case), cell(group.strip())) for case, group in sorted(of.items()) if group.strip())
    path = folder / FILE
    if text.getvalue().count("\n") > 1:
        write_text(path, text.getvalue())
    else:
        path.unlink(missing_ok=True)


def change_groups(folder: Path, cases: Sequence[str], changed: Mapping[str, str]) -> None:
    """Change the groups of some cases in the table of a raw dataset; other lines and columns stay.

    Parameters
    ----------
    folder : Path
        The raw dataset.
    cases : sequence of str
        All of its cases, so that the table is understood.
    changed : mapping of str to str
        Case to its group, which is empty for cases that stand alone.

    Raises
    ------
    SettingsError
        If there is a table that cannot be read; it stays as it is.
    """
    path = folder / FILE
    if not path.is_file():
        write_groups(folder, changed)
        return
    _read_table(path, set(cases))  # what cannot be read is not written either
    separator, read, meant = _lines(path, set(cases))
    headed, case, group, _ = _columns(path, meant, set(cases))
    new = {name: cell(word.strip()) for name, word in changed.items()}
    kept = read[:headed]
    for row, names in zip(read[headed:], meant[headed:], strict=True):
        name = names[case] if case < len(names) else ""
        if name not in new:
            kept.append(row)
        elif new[name] or len(row) > 2:  # what else is said of a case does not go with its group
            kept.append([new[name] or cell(name) if i == group else text for i, text in enumerate(row)])
    there = {names[case] for names in meant[headed:] if case < len(names)}
    width = max(map(len, read), default=2)
    for name, word in sorted(new.items()):
        if word and name not in there:
            kept.append([{case: cell(name), group: word}.get(i, "") for i in range(width)])
    if len(kept) == headed:
        path.unlink()
        return
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows(kept)
    write_text(path, text.getvalue())


def put_aside(folder: Path) -> Path:
    """Give the table of groups of a raw dataset another name, such as groups_before.csv; returns its place.

    Raises
    ------
    ResourceError
        If it cannot be renamed.
    """
    names = ("groups_before.csv", *(f"groups_before_{i}.csv" for i in range(2, 10_000)))
    target = next(folder / name for name in names if not (folder / name).exists())
    try:
        os.rename(folder / FILE, target)
    except OSError as error:
        raise write_error(target, error) from error
    return target


def _is_path(by: str) -> bool:
    """Whether a pattern is a file or folder that there is; a name without a folder is a pattern first."""
    if not re.search(r"[\\/]|\.(?:txt|xlsx?|ods|json)$", by, re.IGNORECASE):
        return False
    with suppress(OSError, ValueError):  # too long for a name
        return os.path.exists(os.path.expanduser(by))
    return False


def _search(cases: Iterable[str], pattern: str) -> dict[str, str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SettingsError(
            f"The pattern {pattern!r} is not a valid regular expression ({error}). Write it like "
            "'(.+)_(?:left|right)', or name a .csv file with the columns case, group."
        ) from error
    matches = {name: compiled.search(name) for name in cases}
    found = {
        name: " ".join(part for part in (match.groups() if compiled.groups else (match.group(),)) if part)
        for name, match in matches.items()
        if match is not None
    }
    return {name: group for name, group in found.items() if group}


def _read_table(path: Path, cases: set[str]) -> tuple[dict[str, str], str]:
    """Return the groups of a table, and which column they were taken from, where its heading does not tell."""
    _, read, meant = _lines(path, cases)
    rows = [[without_marks(text) for text in row] for row in read]
    headed, case, group, told = _columns(path, meant, cases)
    found: dict[str, str] = {}
    for row, names in zip(rows[headed:], meant[headed:], strict=True):
        name, word = (cells[i] if i < len(cells) else "" for cells, i in ((names, case), (row, group)))
        if not word:
            raise SettingsError(f"{path}: {','.join(row)!r} has no group. Each line must be: case,group.")
        if name in cases and found.setdefault(name, word) != word:
            raise DatasetError(f"{path} puts {name} into two groups, {found[name]} and {word}.")
    return found, "" if told else f"{path}: the groups were taken from the column {rows[0][group]!r}"


def _lines(path: Path, cases: Collection[str]) -> tuple[str, list[list[str]], list[list[str]]]:
    """Return the separator of a table, its lines that are not empty as they are, and with cases for their files."""
    if path.suffix.lower() in (".xls", ".xlsx", ".ods"):
        raise SettingsError(f"{path} is a spreadsheet. Save it as CSV, with the columns case and group.")
    lines = [line for line in read_text(path, SettingsError).splitlines() if line.strip()]
    separator = max(_SEPARATORS, key=lambda sign: lines[0].count(sign)) if lines else ","
    try:
        read = [row for row in csv.reader(lines, delimiter=separator) if any(map(without_marks, row))]
    except csv.Error as error:
        raise SettingsError(f"{path} is not a table: {error}. Each line must be: case,group.") from error
    # of the column of cases only: "A/1" is a group
    return separator, read, [[_case_of(without_marks(text), cases) for text in row] for row in read]


def _case_of(text: str, cases: Collection[str]) -> str:
    """Return the case that a cell means, also by one of its files; what means none stays as it is."""
    if text in cases:
        return text
    name = re.split(r"[\\/]", text)[-1]
    ending = next((end for end in ENDINGS if name.lower().endswith(end)), "")
    name = name[: len(name) - len(ending)]
    return next((found for found in (name, re.sub(r"_\d{4}$", "", name)) if found in cases), text)


def _columns(path: Path, rows: Sequence[Sequence[str]], cases: set[str]) -> tuple[bool, int, int, bool]:
    """Return whether the first line names the columns, which has the cases, which the groups, and if its heading tells.

    Of two columns with the names of cases in the first alone, the other one has the groups, whatever it is called.
    """
    width = max((i + 1 for row in rows for i, text in enumerate(row) if text), default=0)
    head = rows[0][:width] if rows else ()
    named, grouped = _headed(head, _CASE_HEADINGS), _headed(head, _GROUP_HEADINGS)
    first, second = ({row[i] for row in rows if i < len(row)} & cases for i in (0, 1))
    plain = width == 2 and bool(first) and not second
    told = "case" in [text.lower() for text in head] or "group" in [text.lower() for text in head]
    if plain and not told and not (named == [0] and grouped == [1]):
        # The first case may be gone, and be called like a heading, but then with a number.
        heading = [*named, *grouped] == [0] and not re.search(r"[0-9]", head[0])
        return heading, 0, 1, not heading
    if cases.intersection(head) or not (named or grouped):
        if width > 2:
            raise SettingsError(
                f"{path} has {width} columns, and its first line ({', '.join(head)}) does not tell which of them has "
                "the cases and which the groups. Write case over the one and group over the other."
            )
        return False, 0, 1, True
    holding = [i for i in named if any(row[i] in cases for row in rows if i < len(row))]
    named = _headed(head, ("case",), whole=True) or (holding if len(named) > 1 and holding else named)
    grouped = _headed(head, ("group",), whole=True) or grouped
    if plain and named == [0] and not grouped:
        return True, 0, 1, False
    if width == 2 and not named:
        named = [1 - i for i in grouped]
    if len(named) != 1 or len(grouped) != 1:
        what = "cases" if len(named) != 1 else "groups"
        raise SettingsError(
            f"{path} has the columns {', '.join(map(repr, head))}, which do not tell where the {what} are. "
            "Write case over the names of cases, and group over what belongs together, such as the patient."
        )
    return True, named[0], grouped[0], True


def _headed(head: Sequence[str], words: Sequence[str], *, whole: bool = False) -> list[int]:
    """Return the columns with one of some headings: as a whole, or with "id" or "name" behind it."""
    plain = [re.sub(r"[^a-z]", "", text.lower()) for text in head]
    return [
        i
        for i, text in enumerate(plain)
        if text in words or (not whole and re.sub(r"(id|name|number|no|s)$", "", text) in words)
    ]


def likely_pattern(cases: Sequence[str]) -> str | None:
    """Return a pattern that finds groups in names that look like several images of one patient; None if none does.

    At least half of the cases must share their group with another one, and there must be two such groups.
    """
    for pattern in _USUAL:
        sizes = Counter(_search(cases, pattern).values())
        shared = [size for size in sizes.values() if size > 1]
        if len(shared) > 1 and 2 * sum(shared) >= len(cases):
            return pattern
    return None
