"""Names that become files: they come from files of other people and must not lead anywhere else."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import unicodedata
from typing import Literal

from napari_nnunet.errors import DatasetError, SettingsError

Fold = int | Literal["all"]
_FORBIDDEN = set('/\\:*?"<>|')
_DATASET = re.compile(r"Dataset[0-9]{3,}_.+", re.DOTALL)
_DEVICE = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9\u00b9\u00b2\u00b3])", re.IGNORECASE)
_INVISIBLE = ("Cc", "Cs", "Zl", "Zp")  # control characters, bytes that are no text, line and paragraph separators
_TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # what follows is shown in another order
_MOST_DIGITS = 9  # of a fold
_LONGEST = 255  # bytes, of most file systems
MOST_BYTES = 200  # of a name that is made here: channel numbers, endings and marks are added to it


def fault_of(name: str, most: int = MOST_BYTES) -> str | None:
    """Return why a name cannot be that of a file on every system; None if it can.

    Parameters
    ----------
    name : str
        Without a folder.
    most : int
        Bytes it may have in UTF-8.
    """
    if not name or name.strip(". ") == "":
        return "it names no file"
    if _FORBIDDEN & set(name):
        return 'it holds one of / \\ : * ? " < > |'
    if any(unicodedata.category(c) in _INVISIBLE or unicodedata.bidirectional(c) in _TURNS for c in name):
        return "it holds a control character"
    if name[-1] in ". ":
        return "it ends in a dot or a blank"
    if _DEVICE.fullmatch(name.partition(".")[0].rstrip(" ")):
        return "Windows keeps it for a device"
    if len(name.encode()) > most:
        return f"it has {len(name.encode())} bytes, at most {most} are allowed"
    return None


def shown(name: str) -> str:
    """Return a name for a message, which control characters could break or colour."""
    return name if name.isprintable() else repr(name)


def typed(*words: object, windows: bool = os.name == "nt") -> str:
    """Return words as they are typed in a shell of this computer: quoted where they have blanks or signs of its own."""
    texts = [str(word) for word in words]
    return subprocess.list2cmdline(texts) if windows else shlex.join(texts)


def is_plain(name: str) -> bool:
    """True if a name stays in the folder it is used in, and can be used on every system."""
    return fault_of(name, _LONGEST) is None


def require_plain(name: str, what: str) -> str:
    """Return a name that can be part of a file's name; raises DatasetError for one that leads elsewhere."""
    fault = fault_of(name)
    if fault is not None:
        shown = name if len(name) <= MOST_BYTES else f"{name[:MOST_BYTES]}..."
        raise DatasetError(
            f"{what} is {shown!r}, which cannot be part of a file name: {fault}. Use letters, digits, '.', '-', '_'."
        )
    return name


def is_dataset_name(name: str) -> bool:
    """Whether a name is ``DatasetXXX_Name`` and can be that of a folder."""
    return _DATASET.fullmatch(name) is not None and fault_of(name) is None


def require_dataset_name(name: str) -> str:
    """Return ``DatasetXXX_Name``; raises DatasetError for what does not look like it, or leads elsewhere."""
    if _DATASET.fullmatch(name) is None:
        raise DatasetError(
            f"{name!r} is not of the form DatasetXXX_Name. Give a number of three digits and a name, such as "
            "Dataset004_Hippocampus."
        )
    return require_plain(name, "The name of the dataset")


def parse_fold(text: str) -> Fold:
    """Return a fold given as text: a number or "all".

    Raises
    ------
    SettingsError
        If it is neither.
    """
    if text == "all":
        return "all"
    if not (text.isdecimal() and text.isascii() and len(text) <= _MOST_DIGITS):
        raise SettingsError(f"{text!r:.80} is not a fold. Folds are 0, 1, 2, ... or 'all'.")
    return int(text)
