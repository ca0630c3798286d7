"""What is opened for reading is a file: to open a pipe waits until somebody writes, and some devices never end."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from functools import lru_cache
from pathlib import Path


def no_folder(path: Path) -> str:
    """Return what to say of a path that is no folder where one is needed."""
    return f"{path} is a file; a folder is expected." if path.is_file() else f"The folder {path} does not exist."


def regular(path: Path) -> Path:
    """Return a path that leads to a file; whatever opens paths by itself is given them through here.

    Raises
    ------
    OSError
        If there is nothing, a folder, a pipe or a device.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device; a file is expected", str(path))
    return path


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is a file, or leads to one."""
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, remembered as long as size and time of the file stay."""
    status = path.stat()
    return _hash(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=128)
def _hash(path: Path, size: int, mtime: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
