"""DICOM files with frames: enhanced CT, MR and PET, and others whose frames say where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError, NnunetError
from napari_nnunet.formats.dicom.extra import highdicom
from napari_nnunet.formats.dicom.syntax import check_lengths, syntax_of
from napari_nnunet.formats.room import require_room
from napari_nnunet.schema.geometry import Geometry

_STRAIGHT = 1e-6  # what the cosine between stack and normal may lack of 1: 0.08 degrees, or 0.4 mm in 300 mm
#: What highdicom says, and what it means.
_SAID = {
    "Multiple frames found": "Several of its frames have the same position. Was it taken at several times or with "
    "several settings? Export one image of each place.",
    "regularly-spaced": "Its frames do not form a straight stack with equal distances. Is one missing, or was the "
    "gantry tilted? Export it again with all its frames, or straighten it first, with dcm2niix for instance.",
    "(0020,9113)": "Its frames do not say where they lie. Export it again, as single slices for instance.",
    "ImageOrientationPatient": "Its frames do not say how they lie. Export it again, as single slices for instance.",
    "coordinate system": "Its frames do not say where they lie: it is a film or a scan of paper, not a volume.",
}


def read_frames(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Read a file with frames as a volume, in the order of their places along their normal.

    Parameters
    ----------
    path : Path
        Of the file.

    Returns
    -------
    tuple of (ndarray, Geometry)
        Array (1, Z, Y, X), of float64 where values are scaled by fractions, else of the stored type.

    Raises
    ------
    ImageError
        If the frames make no volume, or cannot be decoded.
    ResourceError
        If highdicom is not installed.
    """
    library = highdicom()
    if (syntax := syntax_of(path)) is not None:
        check_lengths(path, syntax)
    try:
        image = library.imread(path)
        require_room(path, [int(image.get(name) or 1) for name in ("NumberOfFrames", "Rows", "Columns")], 8)
        colours = int(image.get("SamplesPerPixel") or 1)
    except NnunetError:
        raise
    except Exception as error:
        why = _known(error) or f"The file may be damaged: {_one_line(error)}."
        raise ImageError(f"{path} cannot be read as a DICOM file with frames. {why}") from error
    if colours > 1:
        raise ImageError(f"{path} is in colour; export its channels one by one.")
    try:
        volume = image.get_volume(
            apply_real_world_transform=False,
            apply_presentation_lut=False,
            perpendicular_tol=_STRAIGHT,
            dtype=np.float64,
        )
    except Exception as error:
        raise ImageError(f"{path} cannot be read as a volume. {_reason(path, error)}") from error
    array, geometry = placed(volume)
    return _smallest(array)[None], geometry


def placed(volume: Any) -> tuple[NDArray[Any], Geometry]:
    """Return (array (Z, Y, X[, C]), geometry) of highdicom's volume, its first axis along the normal as of a series."""
    array = np.asarray(volume.array)
    affine = along_normal(volume.affine, len(array))
    if not np.array_equal(affine, volume.affine):
        array = array[::-1]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    geometry = Geometry(
        spacing=tuple(float(s) for s in spacing),
        origin=tuple(float(v) for v in affine[:3, 3]),
        direction=tuple(float(v) for v in (affine[:3, :3] / spacing)[:, ::-1].ravel()),
    )
    return np.ascontiguousarray(array), geometry


def along_normal(affine: NDArray[Any], depth: int) -> NDArray[np.float64]:
    """Return the affine (4, 4) of a stack of slices whose first axis leads along their normal, columns times rows.

    The library counts slices against it, ITK along it.
    """
    ahead = np.array(affine, dtype=float)
    slices, rows, columns = ahead[:3, :3].T
    if np.dot(np.cross(columns, rows), slices) < 0:
        ahead[:3, 3] += (depth - 1) * slices
        ahead[:3, 0] *= -1
    return ahead


def _smallest(array: NDArray[np.float64]) -> NDArray[Any]:
    """Return whole numbers as int16 or int32, as ITK has them; others as they are."""
    low, high = float(array.min()), float(array.max())
    if not np.array_equal(np.rint(array), array):  # true of NaN as well
        return array
    for kind in (np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return array.astype(kind)
    return array


def _reason(path: Path, error: Exception) -> str:
    known = _known(error)
    syntax = syntax_of(path)
    if not known and syntax is not None and syntax.compressed:
        known = (
            f"It is compressed ({syntax.compressed}), and there is no decoder for that here, or it is damaged. Export "
            "it without compression, or unpack it with dcmdjpeg or the raw mode of gdcmconv."
        )
    return known or _one_line(error)


def _known(error: Exception) -> str:
    """Return what an error of the library means; empty for one that is not known."""
    said = _one_line(error)
    return next((text for start, text in _SAID.items() if start in said), "")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
