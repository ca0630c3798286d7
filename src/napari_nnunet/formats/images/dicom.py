"""DICOM: a folder with the slices of one series is read as a volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.schema.geometry import Geometry


def is_dicom(path: Path) -> bool:
    """True if a file has DICOM's mark after its preamble."""
    try:
        with path.open("rb") as file:
            file.seek(128)
            return file.read(4) == b"DICM"
    except OSError:
        return False


def is_series(folder: Path) -> bool:
    """True if the first files of a folder are DICOM slices."""
    if not folder.is_dir():
        return False
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return any(is_dicom(path) for path in files[:3])


def read_series(folder: Path) -> tuple[NDArray[Any], Geometry]:
    """Return (array (1, Z, Y, X), geometry) of the one series in a folder, slices in the order of their positions.

    Raises
    ------
    ImageError
        If there is no series, more than one, or its slices do not make a volume.
    """
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        found = f"{len(series)} DICOM series" if series else "no DICOM series"
        raise ImageError(f"{folder} holds {found}; give one folder per series.")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0]))
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise ImageError(f"The DICOM series in {folder} cannot be read: {str(error).splitlines()[-1]}") from error
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise ImageError(f"The DICOM series in {folder} is in colour; export its channels one by one.")
    geometry = Geometry(
        spacing=tuple(float(s) for s in reversed(image.GetSpacing())),
        origin=tuple(float(v) for v in image.GetOrigin()),
        direction=tuple(float(v) for v in image.GetDirection()),
    )
    return np.asarray(sitk.GetArrayFromImage(image))[None], geometry
