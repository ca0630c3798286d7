"""Files that grow by whole lines of JSON, whoever is killed meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from napari_nnunet.formats.atomic import make_folder, write_error


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Append lines of JSON to a file, which is made; a line that a kill or a full disk tore is closed off before.

    Raises
    ------
    ResourceError
        If they cannot be written.
    """
    try:
        with make_folder(path.parent).joinpath(path.name).open("a+b") as file:
            torn = file.tell() > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
            file.write(b"\n" * torn + "".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise write_error(path, error) from error


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Give the objects in a file, none where there is no file; lines that are torn or something else are skipped."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry
