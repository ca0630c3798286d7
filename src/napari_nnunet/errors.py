"""The family of errors a user may see: what came, what was allowed, what to do.

Every class derives from :class:`NnunetError`, so that a shell or a dock can show the sentence without a traceback and
let everything else (a bug) show its traceback.
"""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

_NEW_LINE = "\n"
_LONGEST_LINE = 1500  # characters of a message


class NnunetError(Exception):
    """Something the user can understand and fix.

    Parameters
    ----------
    message : str
        One or more sentences: what came, what was allowed, what to do.
    shell, window : str
        What to do in a shell (with the names of verbs and flags) and in a window (with the names of docks and
        buttons), where these differ.
    """

    def __init__(self, message: str, *, shell: str = "", window: str = "") -> None:
        self.message, self.in_window = (
            _shortened(f"{message}{'' if way.startswith(_NEW_LINE) else ' '}{way}".strip()) for way in (shell, window)
        )
        super().__init__(self.message)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # a terminal would obey them


def printable(text: str) -> str:
    """Return a text for a terminal, which would obey control characters in names: they are written out."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def some(names: Sequence[object], most: int = 5) -> str:
    """Return what a sentence lists: the first, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun in the singular or plural; with a verb, or an irregular one, both are given."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def of_all(number: int, total: int, one: str, many: str) -> str:
    """Return how many of all: "1 of 1 case has", "1 of 5 cases has", "2 of 5 cases have"; both with their verb."""
    noun, verb = (one if total == 1 else many).split(" ", 1)[0], (one if number == 1 else many).split(" ", 1)[1]
    return f"{number} of {total} {noun} {verb}"


def _shortened(text: str) -> str:
    """Return a message as it is shown, whatever a damaged or forged file put into it.

    Of lines that nobody reads the middle is left out; control characters are written out.
    """
    text = printable(text)
    return _NEW_LINE.join(
        line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE // 2]} ... {line[-_LONGEST_LINE // 2 :]}"
        for line in text.split(_NEW_LINE)
    )


class InternalError(NnunetError):
    """A fault of this program, told in one line.

    Parameters
    ----------
    message : str
        What happened.
    report : str
        The traceback, for those who can fix it; also a note of the exception, never part of the message.
    """

    def __init__(self, message: str, report: str = "") -> None:
        super().__init__(message)
        self.report = report
        if report:
            self.add_note(report)


class DatasetError(NnunetError):
    """A dataset.json, a case or a label does not hold what it should."""


class ImageError(NnunetError):
    """An image file or an array cannot be used as it is."""


class PlanError(NnunetError):
    """A plans.json asks for something unknown or contradictory."""


class ModelError(NnunetError):
    """A model folder or a checkpoint cannot be used."""


class ResourceError(NnunetError):
    """Not enough disk or memory, or no such device."""


class TrainingError(NnunetError):
    """A training cannot continue; what it saved last is kept."""


class SettingsError(NnunetError):
    """A setting or an argument is outside what is allowed."""


_LISTED = 20  # cases that failed, in one message

# How libraries that know no class for it say that memory ran out: torch on CPUs and on Apple's GPUs, cuBLAS and cuDNN,
# OpenVINO on CPUs and on Intel's GPUs, ITK.
_SAID = re.compile(
    r"not enough memory|can't allocate memory|out of memory|_ALLOC_FAILED|bad[_ ]alloc|failed to allocate|"
    r"CL_OUT_OF_|MEM_OBJECT_ALLOCATION_FAILURE|exceeded max size of memory",
    re.IGNORECASE,
)
_ASKED = re.compile(r"(?:allocate|requested)\s+([\d.]+)\s*(bytes|[KMGTP]i?B)", re.IGNORECASE)
_UNITS = {"bytes": 1.0}
_UNITS |= {f"{p}{i}b": base ** (n + 1) for i, base in (("", 1e3), ("i", 1024.0)) for n, p in enumerate("kmgtp")}
#: What a system says of a file that somebody moved, removed or locked while it was in use, or of its disk.
_SYSTEM = {
    errno.ENOENT: "is not there any more. Was it moved or removed meanwhile?",
    errno.EACCES: "may not be read or written by you. Change its permissions.",
    errno.EPERM: "may not be changed by you. Change its permissions.",
    errno.EROFS: "is on a disk that cannot be written. Choose another folder.",
    errno.ENOSPC: "could not be written: no space is left. Free some disk space.",
    errno.EDQUOT: "could not be written: your share of the disk is used up. Free some disk space.",
    errno.EFBIG: "could not be written: it would be larger than is allowed.",
    errno.EIO: "could not be read or written: the disk reports an error.",
    errno.ENOTDIR: "lies below a file where a folder was. Was it replaced meanwhile?",
    errno.ENODEV: "is on a disk that is gone. Connect it again.",
    errno.ENXIO: "is on a disk that is gone. Connect it again.",
    errno.ENOTCONN: "is on a shared disk that is gone. Connect it again.",
    errno.ESTALE: "is on a shared disk that is gone. Connect it again.",
}
_ON_GPU = re.compile(r"\b(CUDA|HIP|MPS|cuBLAS|CUBLAS_\w+|CUDNN_\w+|XPU|CL_\w+)\b|\[GPU\]")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of any library means "out of memory", on the device or in the computer."""
    if isinstance(error, MemoryError) or any(c.__name__ == "OutOfMemoryError" for c in type(error).__mro__):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and _SAID.search(str(error)) is not None


def out_of_memory(
    error: BaseException, advice: str = "Close other programs.", *, shell: str = "", window: str = ""
) -> ResourceError:
    """Return the sentence for an error that :func:`is_out_of_memory`.

    Parameters
    ----------
    error : BaseException
        Of any library; where it says how much was asked for, the sentence does too.
    advice, shell, window : str
        What to do; more of that in a shell and in a window.
    """
    where = "GPU memory" if _ON_GPU.search(str(error)) else "main memory"
    asked = _ASKED.search(str(error))
    needed = f": another {float(asked[1]) * _UNITS[asked[2].lower()] / 1e9:,.1f} GB were needed" if asked else ""
    return ResourceError(f"Not enough {where}{needed}. {advice}", shell=shell, window=window)


@contextmanager
def memory_told(advice: str = "Close other programs.", *, shell: str = "", window: str = "") -> Iterator[None]:
    """Turn whatever means that memory ran out within the block into a :class:`ResourceError`."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(error, advice, shell=shell, window=window) from error


def for_people(error: Exception) -> NnunetError:
    """Return the error that a person is told: itself, what only a system knows, or a fault of this program."""
    if isinstance(error, NnunetError):
        return error
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return SettingsError(f"No file can have a name as long as {str(error.filename)[:60]!r}... Give a shorter one.")
    if isinstance(error, OSError) and error.filename is not None and error.errno in _SYSTEM:
        return ResourceError(f"{error.filename} {_SYSTEM[error.errno]}")
    if isinstance(error, ValueError) and "embedded null" in str(error):  # so says Python of a path that holds one
        return SettingsError("A path contains a null character, which no file name can have.")
    if is_out_of_memory(error):
        return out_of_memory(error)
    text = " ".join(str(error).split())
    return InternalError(f"Unexpected {type(error).__name__}: {text}", "".join(traceback.format_exception(error)))


def of_cases(failures: Mapping[str, NnunetError], total: int, verb: str) -> NnunetError:
    """Return one error for the cases that failed.

    Parameters
    ----------
    failures : mapping
        By case.
    total : int
        Cases in all.
    verb : str
        What could not be done with them: "measured".

    Returns
    -------
    NnunetError
        A ResourceError or an InternalError if all of them are, else a DatasetError.
    """
    message = f"{len(failures)} of {counted(total, 'case')} could not be {verb}:"
    shell = _listed({name: error.message for name, error in failures.items()})
    window = _listed({name: error.in_window for name, error in failures.items()})
    kinds = {type(error) for error in failures.values()}
    if kinds == {InternalError}:
        report = next(error.report for error in failures.values() if isinstance(error, InternalError))
        return InternalError(message + shell, report)
    return (ResourceError if kinds == {ResourceError} else DatasetError)(message, shell=shell, window=window)


def _listed(texts: Mapping[str, str]) -> str:
    lines = [f"{name}: {text}" for name, text in sorted(texts.items())]
    lines[_LISTED:] = [f"... and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return "".join(f"\n  {line}" for line in lines)
