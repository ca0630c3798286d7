"""made_of.jsonl beside segmentations: of which image, and by what, each was made. What counts is what files hold.

Size and times of files are noted too, so that they are read again only where these differ: after they were copied, say.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.dicom.series import slice_files
from napari_nnunet.formats.images.tiff import sidecar
from napari_nnunet.formats.json_lines import append_lines, read_lines
from napari_nnunet.formats.regular import regular

_KEYS = ("by", "image", "result")
_BETWEEN = ":"
_HEADER = 1 << 20  # bytes of a header that names other files, at most
_LONGEST = 200  # letters of a name in it; a longer line says something else


@dataclass(frozen=True)
class Record:
    """What a segmentation was made of.

    Parameters
    ----------
    by : str
        A digest of what made it: weights and settings.
    image, result : str
        Of the files of the image, and of the segmentation itself; see :class:`Files`.
    """

    by: str
    image: str
    result: str


class Files:
    """Files as they are now, in their order; which of them are read depends on what they are compared with.

    Parameters
    ----------
    paths : sequence of Path
        They are there.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    @cached_property
    def seen(self) -> str:
        """A digest of the sizes and times of the files."""
        states = [path.stat() for path in self._paths]
        return _digest(f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}" for state in states)

    @cached_property
    def content(self) -> str:
        """A digest of what the files hold."""
        found = []
        for path in self._paths:
            with regular(path).open("rb") as file:
                found.append(hashlib.file_digest(file, "sha256").hexdigest())
        return _digest(found)

    @property
    def noted(self) -> str:
        """Both, as a record has them."""
        return f"{self.seen}{_BETWEEN}{self.content}"

    def agree(self, noted: str) -> bool:
        """Whether files that were noted hold what these do."""
        seen, _, content = noted.partition(_BETWEEN)
        return self.seen == seen or self.content == content

    def noted_again(self, noted: str) -> str:
        """Return what to note of files that agree with what was noted; they are not read for it where nothing moved."""
        seen, _, content = noted.partition(_BETWEEN)
        return noted if self.seen == seen else f"{self.seen}{_BETWEEN}{content}"

    @property
    def newest(self) -> int:
        """When the latest of them was written, in ns."""
        return max(path.stat().st_mtime_ns for path in self._paths)


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def record_file(folder: Path, part: int = 0, parts: int = 1) -> Path:
    """Return the file of records in a folder; each part of one that is shared out has its own."""
    return folder / ("made_of.jsonl" if parts == 1 else f"made_of_{part}.jsonl")


def read_records(folder: Path) -> Mapping[str, list[Record]]:
    """Return the records of a folder by case, the last one first; lines that are damaged are passed over."""
    found: dict[str, list[Record]] = defaultdict(list)
    for path in sorted(folder.glob("made_of*.jsonl")):
        for line in read_lines(path):
            values = [line.get(key) for key in _KEYS]
            if isinstance(line.get("case"), str) and all(isinstance(value, str) for value in values):
                found[line["case"]].insert(0, Record(*map(str, values)))
    return found


def note_record(path: Path, case: str, record: Record) -> None:
    """Append what the segmentation of a case was made of; raises ResourceError where it cannot be written."""
    append_lines(path, [json.dumps({"case": case, **record.__dict__})])


def files_behind(path: Path, series: str | None) -> list[Path]:
    """Return all files that are read for an image: itself, and those it takes its voxels or its voxel size from.

    Parameters
    ----------
    path : Path
        A file, or where a DICOM series lies.
    series : str or None
        UID of that series, empty where there is one; None for other files.
    """
    if series is not None:
        with suppress(NnunetError):
            return list(slice_files(path, series))
        return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    lowered, found = path.name.lower(), [path]
    if lowered.endswith((".tif", ".tiff")):
        found += [beside] if (beside := sidecar(path)).is_file() else []
    if lowered.endswith((".mhd", ".mha", ".nrrd")):
        found += _named_in_header(path)
    return found


def _named_in_header(path: Path) -> list[Path]:
    """Return the files below an image's folder that its header names, and those that fit numbered names."""
    with suppress(OSError):
        with regular(path).open("rb") as file:
            header: Any = re.split(rb"\n\r?\n|ElementDataFile\s*=\s*LOCAL", file.read(_HEADER), maxsplit=1)[0]
        lines = header.decode("utf-8", "replace").splitlines()
        words = {line.split("=")[-1].split(": ")[-1].strip().replace("\\", "/") for line in lines}
        named = {path.parent / word for word in words if 0 < len(word) <= _LONGEST}
        for word in words:
            if re.search(r"%\d*d", word):
                pattern = path.parent / re.sub(r"%\d*d", "*", word.split()[0])
                named |= {p for p in pattern.parent.glob("*") if fnmatch(p.name, pattern.name)}
        return sorted(p for p in named if p != path and p.is_file())
    return []
