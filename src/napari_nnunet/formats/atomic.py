"""Files are written beside and renamed: a reader sees the old file or the whole new one, never a part."""

from __future__ import annotations

import errno
import glob
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from napari_nnunet.errors import ResourceError
from napari_nnunet.formats.computer import mark

_MARK = ".partial-"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LONGEST = 200  # bytes; file systems take 255
FORGOTTEN = 7 * 24 * 3600.0  # seconds since a file of another computer was touched, whose process cannot be looked at
_GIVEN_ANEW = 3600.0  # seconds by which a process is younger than a file that another one of its number wrote


def partial_name(name: str) -> str:
    """Return the name of a temporary file next to ``name``: hidden, with its owner's process number and computer.

    Long names are cut, so that whatever a file may be called, its temporary file can be.
    """
    short = name.encode()[:_LONGEST].decode(errors="ignore")
    return f".{short}{_MARK}{os.getpid()}-{mark()}-{secrets.token_hex(3)}"


@contextmanager
def written_beside(
    path: Path, *, suffix: str = "", staging: Path | None = None, durable: bool = True
) -> Iterator[Path]:
    """Give a temporary path in the same folder; on success it takes the place of ``path``.

    Parameters
    ----------
    path : Path
        Final name.
    suffix : str
        Ending the temporary name must have, for writers that look at it.
    staging : Path, optional
        Folder on the same disk for the temporary file, where a leftover in the folder itself would do harm.
    durable : bool
        Wait until the disk has it, so that it also survives a power cut; not for what can be made again.

    Raises
    ------
    ResourceError
        If the folder cannot be written or the disk is full; nothing is left behind.
    """
    temporary = (staging or path.parent) / (partial_name(path.name) + suffix)
    with opened_folder(temporary.parent) as home:
        placed = False
        try:
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise write_error(path, "it is a device or a pipe, and a file would take its place")
            _tidy(temporary.parent)
            yield temporary
            if not temporary.exists():
                raise write_error(path, "the writer produced no file")
            if durable:
                _wait_for_disk(temporary)
            os.replace(temporary, path)
            placed = True
        except OSError as error:
            raise write_error(path, error) from error
        finally:
            if not placed:
                _unlink(temporary, home)


def _wait_for_disk(path: Path) -> None:
    # Windows writes what it holds back only for who may write; elsewhere a file may be one that nobody may write to
    how = os.O_RDWR if os.name == "nt" else os.O_RDONLY
    handle = os.open(path, how | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unlink(path: Path, home: int | None) -> None:
    """Delete a file, also where somebody moved its folder, whose handle this is, meanwhile."""
    with suppress(OSError):  # a name that is too long cannot be removed either
        if home is None or os.unlink not in os.supports_dir_fd:
            path.unlink()
        else:
            os.unlink(path.name, dir_fd=home)


def write_error(path: Path, cause: OSError | str) -> ResourceError:
    """Return the sentence for a failed write: what, where, what to do; of a copy, it may be the source that is gone."""
    source = _source_of(path, cause)
    if source is not None and isinstance(cause, FileNotFoundError):
        return ResourceError(f"{source} does not exist any more. If its disk was removed, connect it again.")
    if source is not None and isinstance(cause, OSError):
        return ResourceError(f"{source} could not be read: {cause.strerror}.")
    if isinstance(cause, OSError) and cause.errno in _FULL:
        return ResourceError(f"No space left while writing {path}. Free some disk space, or choose another folder.")
    if isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ResourceError(f"No permission to write {path}. Choose a folder you may write to.")
    if isinstance(cause, IsADirectoryError):
        return ResourceError(f"{path} is a folder, but a file is expected. Choose another name, or remove the folder.")
    if isinstance(cause, FileExistsError | NotADirectoryError):
        return ResourceError(f"{path} is a file or lies below one, but a folder is expected. Choose another.")
    return ResourceError(f"{path} could not be written: {cause}.")


def _source_of(path: Path, cause: OSError | str) -> Path | None:
    """Return the file that a failure is about where that lies apart from what was to be written."""
    if not isinstance(cause, OSError) or not isinstance(cause.filename, str):
        return None
    # A copy names both files, whichever failed; and what is written has the name of a temporary file.
    if cause.filename2 is not None or cause.errno in (*_FULL, errno.EROFS) or _MARK in cause.filename:
        return None
    about, target = (Path(os.path.realpath(one.parent), one.name) for one in (Path(cause.filename), path))
    within = about.is_relative_to(target.parent) or target.is_relative_to(about)
    return None if within else Path(cause.filename).absolute()


def make_folder(path: Path) -> Path:
    """Create a folder with its parents and make sure it can be written to.

    Raises
    ------
    ResourceError
        If it cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    if not os.access(path, os.W_OK):
        raise ResourceError(f"No permission to write to {path}. Choose a folder you may write to.")
    return path


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a folder; of it and the folders above that were made with it, those that are empty after the block go."""
    new = [path for path in (folder, *folder.parents) if not path.is_dir()]
    make_folder(folder)
    try:
        yield
    finally:
        with suppress(OSError):  # with something in it, it stays
            for path in new:
                path.rmdir()


@contextmanager
def opened_folder(folder: Path) -> Iterator[int | None]:
    """Give a handle of a folder, which stays its own wherever it is moved; None where the system has none."""
    home = None
    with suppress(OSError):  # Windows opens no folders
        home = os.open(folder, os.O_RDONLY)
    try:
        yield home
    finally:
        if home is not None:
            os.close(home)


def is_at(home: int, folder: Path) -> bool:
    """Whether a folder that was opened still lies at its place."""
    try:
        return os.path.samestat(os.fstat(home), folder.stat())
    except FileNotFoundError:
        return False


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Delete temporary files and folders that a killed process left in a folder; those of running processes stay.

    Whether a process of another computer or container runs cannot be seen: what it left stays for a week.

    Parameters
    ----------
    folder : Path
        Where they lie.
    name : str
        Of the file that they were to become; all by default.
    """
    for path in folder.glob(f".{name}{_MARK}*"):
        if _is_abandoned(path):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


@lru_cache(maxsize=1024)
def _tidy(folder: Path) -> None:
    """Delete what killed processes left in a folder, when this one writes there for the first time."""
    with suppress(OSError):
        remove_leftovers(folder)


def _is_abandoned(path: Path) -> bool:
    """Whether nobody will finish a temporary file."""
    owner, *more = path.name.rpartition(_MARK)[2].split("-")
    if not (owner.isdecimal() and owner.isascii()):
        return False
    if len(more) > 1 and more[0] != mark():
        with suppress(OSError):
            return time.time() - path.lstat().st_mtime > FORGOTTEN
        return False
    return not _runs(int(owner)) or _is_of_another(path, int(owner))


def _runs(number: int) -> bool:
    """Whether a process of this number runs; one that ended and was not asked how (a zombie) does not."""
    with suppress(psutil.NoSuchProcess):
        try:
            return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
        except psutil.AccessDenied:
            return True
    return False


def _is_of_another(path: Path, number: int) -> bool:
    """Whether the process of a number began long after a file was written: its writer was another one."""
    if os.name == "nt":  # does not note when a file got its name
        return False
    try:
        status = path.lstat()
        return psutil.Process(number).create_time() > max(status.st_mtime, status.st_ctime) + _GIVEN_ANEW
    except (psutil.Error, OSError):
        return False


def write_json(path: Path, content: Mapping[str, Any] | list[Any], *, sort_keys: bool = False) -> None:
    """Write JSON with an indent of 4, as nnU-Net does."""
    remove_leftovers(path.parent, glob.escape(path.name))
    with written_beside(path) as temporary:
        temporary.write_text(json.dumps(content, indent=4, sort_keys=sort_keys), encoding="utf-8")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text; names of files that the locale could not read are written as the disk has them."""
    remove_leftovers(path.parent, glob.escape(path.name))
    with written_beside(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def copy_file(source: Path, target: Path, *, durable: bool = False) -> None:
    """Copy a file; the copy appears when it is complete."""
    with written_beside(target, durable=durable) as temporary:
        shutil.copyfile(source, temporary)


def replace_folder(new: Path, target: Path) -> None:
    """Put a finished folder in the place of an older one; if that fails, the older one stays.

    Parameters
    ----------
    new : Path
        On the same disk.
    target : Path
        What was there is deleted afterwards.
    """
    old = target.with_name(partial_name(target.name))
    try:
        if target.exists():
            os.rename(target, old)
        os.rename(new, target)
    except OSError as error:
        if old.exists() and not target.exists():
            os.rename(old, target)
        raise write_error(target, error) from error
    shutil.rmtree(old, ignore_errors=True)
