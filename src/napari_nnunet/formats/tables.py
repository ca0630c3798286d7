"""Tables as CSV: those that are written here, and those that people fill in and give back.

People open them with programs that carry out what begins like a formula. Names of cases and classes come from other
people, so an apostrophe stands before such a text, by which those programs know it for a text; reading takes it off.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_nnunet.errors import NnunetError
from napari_nnunet.schema.json_text import read_text

_FORMULA = re.compile(r"(^|[;\t\r\n])(?=\s*[=+\-@])")  # where a cell begins as one, whichever mark divides cells
_AS_TEXT = re.compile(r"(^|[;\t\r\n])'(?=[\s']*[=+\-@])")
_LARGEST = 64 << 20  # bytes; a line for each of a million objects has half of that


def cell(value: Any) -> Any:
    """Return a value as it is written: a text that is no number is never a formula."""
    if not isinstance(value, str) or _FORMULA.search(value) is None:
        return value
    try:
        float(value)
    except ValueError:
        return _FORMULA.sub(r"\1'", value)
    return value


def without_marks(text: str) -> str:
    """Return a text as it was before :func:`cell`, without blanks around it."""
    return _AS_TEXT.sub(r"\1", text.strip()).strip()


def text_of(table: Sequence[Mapping[str, Any]]) -> str:
    """Return a table as CSV; figures with seven digits."""
    columns = list(dict.fromkeys(name for row in table for name in row)) or ["case", "object"]
    return text_of_rows([columns, *([row.get(name, "") for name in columns] for row in table)])


def text_of_rows(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows, of which the first has the heads, as CSV; figures with seven digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([f"{value:.7g}" if isinstance(value, float) else cell(value) for value in row])
    return text.getvalue()


def read_rows(
    path: Path, error: type[NnunetError], needed: Sequence[str], *, separators: str = ",;\t"
) -> list[tuple[int, dict[str, str]]]:
    """Return the lines of a table with their numbers in the file; empty lines are passed over.

    Parameters
    ----------
    path : Path
        The file.
    error : type
        What is raised where it cannot be read, is no table, lacks a column, or has one twice.
    needed : sequence of str
        Columns it must have.
    separators : str
        What may divide cells: commas, semicolons or tabs, as programs for tables write them in different countries;
        whichever the first line has most of does.

    Returns
    -------
    list of (int, dict of str to str)
        Cells by the names in the first line, without blanks around them; empty where a line ends before.
    """
    text = read_text(path, error, largest=_LARGEST)
    separator = max(separators, key=text.partition("\n")[0].count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        read = ([without_marks(text) for text in row] for row in rows)
        lines = [(rows.line_num, row) for row in read if any(row)]
    except csv.Error as reason:
        raise error(
            f"{path}, line {rows.line_num} is not a line of a table: {reason}. Save it again as CSV."
        ) from reason
    (_, columns), *others = lines or [(0, [])]
    if missing := [name for name in needed if name not in columns]:
        raise error(f"{path} has no column {', '.join(missing)}; it must have the columns {', '.join(needed)}.")
    if twice := [name for name, times in Counter(columns).items() if name and times > 1]:
        raise error(f"{path} has the column {', '.join(twice)} more than once. Leave one of each.")
    for number, row in others:
        if any(row[len(columns) :]):
            raise error(f"{path}, line {number} has {len(row)} cells, and there are {len(columns)} columns.")
    return [(number, {**dict.fromkeys(columns, ""), **dict(zip(columns, row, strict=False))}) for number, row in others]
