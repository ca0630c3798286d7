"""Tables as CSV: those that are written here, and those that people fill in and give back."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_nnunet.errors import NnunetError
from napari_nnunet.schema.json_text import read_text

_LARGEST = 64 << 20  # bytes; a line for each of a million objects has half of that


def text_of(table: Sequence[Mapping[str, Any]]) -> str:
    """Return a table as CSV; figures with seven digits."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in table for name in row)) or ["case", "object"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in table:
        writer.writerow({name: f"{v:.7g}" if isinstance(v, float) else v for name, v in row.items()})
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
        lines = [(rows.line_num, [cell.strip() for cell in row]) for row in rows if any(map(str.strip, row))]
    except csv.Error as reason:
        raise error(f"{path}, line {rows.line_num} is no line of a table: {reason}. Save it again as CSV.") from reason
    (_, columns), *others = lines or [(0, [])]
    if missing := [name for name in needed if name not in columns]:
        raise error(f"{path} has no column {', '.join(missing)}; it must have the columns {', '.join(needed)}.")
    if twice := [name for name, times in Counter(columns).items() if name and times > 1]:
        raise error(f"{path} has the column {', '.join(twice)} more than once. Leave one of each.")
    for number, row in others:
        if any(row[len(columns) :]):
            raise error(f"{path}, line {number} has {len(row)} cells, and there are {len(columns)} columns.")
    return [(number, {**dict.fromkeys(columns, ""), **dict(zip(columns, row, strict=False))}) for number, row in others]
