"""highdicom and pydicom, an extra: what it takes to read files with frames and to write DICOM-SEG."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from napari_nnunet.errors import ResourceError


def highdicom() -> Any:
    """Return the library.

    Raises
    ------
    ResourceError
        If it is not installed.
    """
    try:
        import_module("highdicom.seg")
        return import_module("highdicom")
    except ImportError as error:
        raise ResourceError(
            "DICOM files with several frames, and DICOM-SEG, need highdicom, which is not installed. Install it with "
            "'pip install napari-nnunet[dicom]'."
        ) from error


def pydicom(module: str = "pydicom") -> Any:
    """Return a module of pydicom, which comes with highdicom."""
    return import_module(module)
