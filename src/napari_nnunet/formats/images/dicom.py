"""DICOM: a folder with the slices of one series is read as a volume."""

from __future__ import annotations

import os
from collections.abc import Sequence
from heapq import nsmallest
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.schema.geometry import Geometry

_POSITION = "0020|0032"  # of a slice's first voxel, x\\y\\z in mm
_LOOKED_AT = 1000  # names in a folder: whoever opens something else there does not wait for us
_UNEVEN = 0.1  # of the distance of two slices; what is less is how scanners round


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
    with os.scandir(folder) as entries:
        few = islice((e.name for e in entries if not e.name.startswith(".") and e.is_file()), _LOOKED_AT)
        return any(is_dicom(folder / name) for name in nsmallest(3, few))


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
    reader.MetaDataDictionaryArrayUpdateOn()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0]))
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise ImageError(f"The DICOM series in {folder} cannot be read: {str(error).splitlines()[-1]}") from error
    _check_gaps(
        folder,
        [
            reader.GetMetaData(i, _POSITION)
            for i in range(len(reader.GetFileNames()))
            if reader.HasMetaDataKey(i, _POSITION)
        ],
    )
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise ImageError(f"The DICOM series in {folder} is in colour; export its channels one by one.")
    geometry = Geometry(
        spacing=tuple(float(s) for s in reversed(image.GetSpacing())),
        origin=tuple(float(v) for v in image.GetOrigin()),
        direction=tuple(float(v) for v in image.GetDirection()),
    )
    return np.asarray(sitk.GetArrayFromImage(image))[None], geometry


def _check_gaps(folder: Path, positions: Sequence[str]) -> None:
    """Refuse slices that lie unevenly: ITK gives all of them the mean distance, so that the volume is distorted."""
    try:
        places = np.array([[float(number) for number in text.split("\\")] for text in positions])
        gaps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    except ValueError:
        gaps = np.array([np.nan])
    if not np.isfinite(gaps).all():
        raise ImageError(
            f"The DICOM series in {folder} does not say where its slices lie (ImagePositionPatient is damaged). "
            "Export the series again."
        )
    if len(gaps) and np.ptp(gaps) > _UNEVEN * np.median(gaps):
        raise ImageError(
            f"The slices of the DICOM series in {folder} lie {gaps.min():.3g} to {gaps.max():.3g} mm apart. Is one "
            "missing, or there twice? Export the series again, with all its slices."
        )
