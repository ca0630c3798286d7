"""Names that become files: they come from files of other people and must not lead anywhere else."""

from __future__ import annotations

from typing import Literal

from napari_nnunet.errors import DatasetError, SettingsError

Fold = int | Literal["all"]
_FORBIDDEN = set('/\\:*?"<>|\0')


def is_plain(name: str) -> bool:
    """True if a name stays in the folder it is used in."""
    return bool(name) and name not in (".", "..") and not _FORBIDDEN & set(name)


def require_plain(name: str, what: str) -> str:
    """Return a name that can be part of a file's name; raises DatasetError for one that leads elsewhere."""
    if not is_plain(name):
        raise DatasetError(
            f"{what} is {name!r}, which cannot be part of a file name; use letters, digits, '.', '-', '_'."
        )
    return name


def parse_fold(text: str) -> Fold:
    """Return a fold given as text: a number or "all".

    Raises
    ------
    SettingsError
        If it is neither.
    """
    if text == "all":
        return "all"
    if not text.isdecimal():
        raise SettingsError(f"{text!r} is not a fold. Folds are 0, 1, 2, ... or 'all'.")
    return int(text)
