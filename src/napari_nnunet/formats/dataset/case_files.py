"""Cases in a folder of images: CASE_0000.ext, CASE_0001.ext, one file per channel (documentation/dataset_format.md)."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from napari_nnunet.errors import DatasetError
from napari_nnunet.schema.names import fault_of, is_plain, shown


@dataclass(frozen=True)
class Case:
    """One case: its name and one file per channel."""

    name: str
    files: tuple[Path, ...]


def find_cases(folder: Path, *, ending: str, channels: int) -> list[Case]:
    """Return the cases of a folder, sorted by name.

    Parameters
    ----------
    folder : Path
        Holds ``CASE_0000<ending>`` and so on.
    ending : str
        With the leading dot.
    channels : int
        Files every case must have. A picture with several colours is one file; where every case has exactly one file,
        that is accepted and the number of channels is checked after reading.

    Raises
    ------
    DatasetError
        If the folder has no such files, names do not follow the pattern, or channel files are missing; all problems
        at once.
    """
    if not folder.is_dir():
        raise DatasetError(f"The input folder {folder} does not exist.")
    names = sorted(p.name for p in folder.iterdir() if p.name.endswith(ending) and not p.name.startswith("."))
    if not names:
        others = sorted({"".join(p.suffixes[-2:]) for p in folder.iterdir() if p.is_file()})[:6]
        raise DatasetError(
            f"{folder} has no files ending in {ending}, which is what the model was trained on"
            + (f"; it has {', '.join(others)}." if others else ".")
        )
    pattern = re.compile(rf"(.+)_(\d{{4}}){re.escape(ending)}", re.DOTALL)
    grouped: dict[str, dict[int, Path]] = defaultdict(dict)
    problems = []
    for name in names:
        match = pattern.fullmatch(name)
        if match is None:
            problems.append(f"{shown(name)}: the name must end in _0000{ending} (the channel number)")
        else:
            grouped[match[1]][int(match[2])] = folder / name
    expected = set(range(channels))
    one_each = all(len(files) == 1 for files in grouped.values())
    for case, files in grouped.items():
        if not is_plain(case):
            problems.append(f"{shown(case)} cannot name a case: {fault_of(case)}; rename the file")
        missing = sorted(expected - set(files))
        if missing and not (one_each and 0 in files):
            listed = ", ".join(f"{case}_{c:04d}{ending}" for c in missing)
            problems.append(f"{case}: missing {listed} (the model has {channels} channels)")
    if problems:
        more = f"\n  ... and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise DatasetError("The input is not complete:\n  " + "\n  ".join(problems[:20]) + more)
    return [Case(case, tuple(files[c] for c in sorted(files))) for case, files in sorted(grouped.items())]
