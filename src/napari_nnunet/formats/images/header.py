"""What an image file says of itself before its voxels are read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from napari_nnunet.errors import ImageError
from napari_nnunet.schema.geometry import Geometry

#: What is said of complex numbers.
COMPLEX = "{name} holds complex numbers. Save their magnitude, or their real part, as the image."


class Header(NamedTuple):
    """Size and place of an image.

    Parameters
    ----------
    shape : tuple of int
        (C, [Z,] Y, X); axes that a reader turns come in the order of the file.
    itemsize : int
        Bytes per value.
    geometry : Geometry
        Where the voxels lie, with the source of their size.
    """

    shape: tuple[int, ...]
    itemsize: int
    geometry: Geometry


def no_pipe(path: Path) -> None:
    """Raise ImageError if a path leads to a pipe or a device: to open them may never end."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ImageError(f"{path} is a pipe or a device; an image file is expected.")


def require_file(path: Path, what: str) -> None:
    """Raise ImageError if a path leads to no file, with what is there instead; ``what`` it should be ("image file")."""
    if path.is_file():
        return
    no_pipe(path)
    if path.is_dir():
        raise ImageError(f"{path} is a folder; the {what} is expected.")
    raise ImageError(f"The {what} {_missing(path)} does not exist.")


def _missing(path: Path) -> str:
    """Return a path that is not there, and where it leads if it is a link."""
    return f"{path} (a link to {os.readlink(path)})" if path.is_symlink() else str(path)


def require_channels(paths: Sequence[Path]) -> None:
    """Raise ImageError if files of channels are not there; all of them are named."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        if missing[0].exists():
            require_file(missing[0], "channel file")
        raise ImageError(f"Missing channel file{'s' if len(missing) > 1 else ''}: {', '.join(map(_missing, missing))}.")


def check_labels(path: Path) -> None:
    """Raise ImageError if a file of labels is not there, or of a format that changes them."""
    require_file(path, "label file")
    if path.name.lower().endswith((".jpg", ".jpeg")):
        raise ImageError(
            f"{path.name} is a JPEG, which changes the values of labels. Save labels as .png or .tif from where they "
            "were drawn.",
            shell="Masks that exist as JPEG only can be imported with import_folders --threshold.",
        )


def as_named(geometry: Geometry, reader: str | None) -> Geometry:
    """Return what nnU-Net's class of that name makes of a grid: its reader of pictures knows no size of a pixel."""
    if reader != "NaturalImage2DIO" or not geometry.spacing_known:
        return geometry
    return Geometry(spacing=(1.0, 1.0), spacing_known=False, remarks=geometry.remarks)


KEPT: ContextVar[dict[Path, Any] | None] = ContextVar("KEPT", default=None)
"""Files that stay open, each first in a tuple with what is known of it, by path."""

_SIZE_GIVEN: ContextVar[bool] = ContextVar("_SIZE_GIVEN", default=False)


@contextmanager
def size_given(spacing: object) -> Iterator[None]:
    """Read images whose size of a voxel was given (not None): a file beside them that says none ends nothing."""
    token = _SIZE_GIVEN.set(spacing is not None)
    try:
        yield
    finally:
        _SIZE_GIVEN.reset(token)


def size_is_given() -> bool:
    """Whether somebody gave the size of the voxels that are being read."""
    return _SIZE_GIVEN.get()


_Args = ParamSpec("_Args")
_Returned = TypeVar("_Returned")


def opened_once(function: Callable[_Args, _Returned]) -> Callable[_Args, _Returned]:
    """Let a TIFF that a function looks at, to find who can read it, stay open until it is read."""

    @wraps(function)
    def reading(*args: _Args.args, **named: _Args.kwargs) -> _Returned:
        if KEPT.get() is not None:  # it is called by another one
            return function(*args, **named)
        kept: dict[Path, Any] = {}
        token = KEPT.set(kept)
        try:
            return function(*args, **named)
        finally:
            KEPT.reset(token)
            for file, *_ in kept.values():
                file.close()

    return reading


def one_line(error: Exception) -> str:
    """Return the last line of what an error says, as a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".") + "."
