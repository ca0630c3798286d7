"""Tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any


def text_of(table: Sequence[Mapping[str, Any]]) -> str:
    """Return a table as CSV; figures with seven digits."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in table for name in row)) or ["case", "object"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in table:
        writer.writerow({name: f"{v:.7g}" if isinstance(v, float) else v for name, v in row.items()})
    return text.getvalue()
