"""A raw dataset is changed by one at a time: two that count, renumber or replace cases at once would lose some."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from napari_nnunet.formats.atomic import remove_leftovers
from napari_nnunet.formats.claim import claimed

P = ParamSpec("P")
R = TypeVar("R")

_PARTS = ("", "imagesTr", "labelsTr", "objectsTr", "kindsTr")


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Claim a raw dataset, which need not exist yet, while something is written into it.

    Raises
    ------
    SettingsError
        If another process, or another thread, changes it.
    ResourceError
        If nothing can be written there.
    """
    with claimed(folder, f"{folder} is already being changed"):
        _tidy(folder)
        try:
            yield
        finally:
            _tidy(folder)  # workers of a process that was killed end a little later than it


def _tidy(folder: Path) -> None:
    """Remove what processes that were killed left half written in a dataset."""
    for part in _PARTS:
        remove_leftovers(folder / part)


def one_at_a_time(change: Callable[Concatenate[Path, P], R]) -> Callable[Concatenate[Path, P], R]:
    """Let a function that changes a raw dataset, its first argument, claim it for as long as it runs."""

    @wraps(change)
    def claiming(folder: Path, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with changing(folder):
            return change(folder, *args, **kwargs)

    return claiming
