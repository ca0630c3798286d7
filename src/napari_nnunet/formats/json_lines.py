"""Files that grow by whole lines of JSON, whoever is killed meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from napari_nnunet.formats.atomic import make_folder, write_error
from napari_nnunet.schema.json_text import MESSAGE


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
    with path.open("rb") as file:
        for line in _lines(file):
            try:
                entry = json.loads(line.decode("utf-8", errors="replace"))
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict):
                yield entry


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Give the lines of a file but those that no program of this package wrote, for their length."""
    while line := file.readline(MESSAGE):
        if line.endswith(b"\n") or len(line) < MESSAGE:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MESSAGE)
