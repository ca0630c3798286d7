"""The family of errors a user may see: what came, what was allowed, what to do.

Every class derives from :class:`NnunetError`, so that a shell or a dock can show the sentence without a traceback and
let everything else (a bug) show its traceback.
"""

from __future__ import annotations

import errno
import re


class NnunetError(Exception):
    """Something the user can understand and fix.

    Parameters
    ----------
    message : str
        One or more sentences: what came, what was allowed, what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


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
_ON_GPU = re.compile(r"\b(CUDA|HIP|MPS|cuBLAS|CUBLAS_\w+|CUDNN_\w+|XPU|CL_\w+)\b|\[GPU\]")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of any library means "out of memory", on the device or in the computer."""
    if isinstance(error, MemoryError) or any(c.__name__ == "OutOfMemoryError" for c in type(error).__mro__):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and _SAID.search(str(error)) is not None


def out_of_memory(error: BaseException, advice: str = "Close other programs.") -> ResourceError:
    """Return the sentence for an error that :func:`is_out_of_memory`.

    Parameters
    ----------
    error : BaseException
        Of any library; where it says how much was asked for, the sentence does too.
    advice : str
        What to do.
    """
    where = "GPU memory" if _ON_GPU.search(str(error)) else "main memory"
    asked = _ASKED.search(str(error))
    needed = f": another {float(asked[1]) * _UNITS[asked[2].lower()] / 1e9:,.1f} GB were needed" if asked else ""
    return ResourceError(f"Not enough {where}{needed}. {advice}")
