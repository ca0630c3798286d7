"""Radiotherapy structures (RTSTRUCT): contours that were drawn in the slices of a series, as segments on its voxels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError, NnunetError, some
from napari_nnunet.formats.dicom.contours import MODEL_NAME
from napari_nnunet.formats.dicom.extra import highdicom, pydicom
from napari_nnunet.formats.dicom.planes import SlicePlanes
from napari_nnunet.formats.dicom.segmentation import StoredSegments, read_segmentation
from napari_nnunet.formats.dicom.series import holds_segments, read_series, series_in, slice_files
from napari_nnunet.formats.dicom.syntax import check_lengths, syntax_of
from napari_nnunet.formats.room import require_room
from napari_nnunet.schema.geometry import Geometry

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")  # PS3.3, C.8.8.6: kinds of contours that have an inside
_BETWEEN = 0.25  # of the distance of two slices: how far a contour may lie off its slice
_LISTED = 6


@dataclass(frozen=True, eq=False)
class _Structure:
    """What was drawn of one structure: the number and name of a region, and (points, 3) x, y, z in mm per contour."""

    number: int
    name: str
    contours: tuple[NDArray[np.float64], ...]


def read_segments(path: Path, images: Iterable[Path] = ()) -> StoredSegments:
    """Read a DICOM-SEG, or radiotherapy structures on the voxels of the series they were drawn in.

    See :func:`read_segmentation` and :func:`read_structures`.
    """
    syntax = syntax_of(path)
    return read_structures(path, images) if syntax is not None and syntax.is_structures else read_segmentation(path)


def segments_in(folder: Path) -> tuple[Path, ...]:
    """Return the DICOM-SEG and radiotherapy structures among the files of a folder."""
    files = (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))
    return tuple(filter(holds_segments, files))


def read_structures(path: Path, images: Iterable[Path] = ()) -> StoredSegments:
    """Fill the contours of an RTSTRUCT on the voxels of the series they were drawn in.

    A voxel belongs to a structure where its centre lies within, or on, an odd number of the contours that the structure
    has in the voxel's slice: a contour within another one is a hole, one in that an island.

    Parameters
    ----------
    path : Path
        The file.
    images : iterable of Path
        Where its series may be: folders with slices, or files with frames. The folder of the file is looked at, too.

    Returns
    -------
    StoredSegments
        Numbers and names are those of the file. What has no inside, such as points, is left out; the remarks of the
        geometry say so, and which structures go beyond the series.

    Raises
    ------
    ImageError
        If it holds none, its series is not there, or contours lie between or across its slices, or in every second
        slice only.
    ResourceError
        If pydicom is not installed.
    """
    highdicom()  # pydicom comes with it; the sentence about the extra is the same
    syntax = syntax_of(path)
    if syntax is None or not syntax.is_structures:
        raise ImageError(
            f"{path} holds no radiotherapy structures{'' if syntax is None else f'; it is {syntax.what}'}."
        )
    check_lengths(path, syntax)
    try:
        file = pydicom().dcmread(path)
        structures, remarks = _drawn(path, file)
        series = _series_of(file)
    except NnunetError:
        raise
    except Exception as error:
        raise ImageError(
            f"{path} cannot be read as radiotherapy structures: {' '.join(str(error).split())}. Export it again."
        ) from error
    place = _place_of(path, series, images)
    array, geometry = read_series(*place)
    shape: tuple[int, ...] = array.shape[1:]
    planes = _planes(slice_files(*place), geometry, shape[0])
    placed = {s.number: [_in_slices(path, s, contour, planes) for contour in s.contours] for s in structures}
    for structure in structures:
        if file.get("ManufacturerModelName") != MODEL_NAME:  # what was written here lacks no slice
            _require_every_slice(path, structure, {z for z, _ in placed[structure.number]})
    outside = [s.name for s in structures if any(_leaves(z, points, shape) for z, points in placed[s.number])]
    if outside:
        remarks.append(f"{some(outside, _LISTED)} go beyond the series, and were cut off there")
    geometry = geometry.model_copy(update={"remarks": (*geometry.remarks, *remarks)})
    names = {structure.number: structure.name for structure in structures}
    labels, overlap = np.zeros(shape, np.int32), False
    for number in names:
        inside = _filled(placed[number], shape)
        overlap = overlap or bool(labels[inside].any())
        labels[inside] = number
    if not overlap:
        return StoredSegments(names, geometry, labels)
    require_room(path, (len(names), *shape), 1)
    return StoredSegments(names, geometry, None, tuple((n, _filled(placed[n], shape)) for n in names))


def _drawn(path: Path, file: Any) -> tuple[list[_Structure], list[str]]:
    """Return the structures that have an inside, and remarks about the others."""
    names = _names_in(path, file)
    structures, without, renamed = list[_Structure](), list[str](), list[str]()
    for drawn in file.get("ROIContourSequence") or ():
        number = int(drawn.ReferencedROINumber)
        name = names.get(number) or f"structure {number}"
        contours = list(drawn.get("ContourSequence") or ())
        closed = [contour for contour in contours if str(contour.ContourGeometricType) in _CLOSED]
        if not closed:
            without.append(name)
            continue
        if len(closed) < len(contours):
            without.append(f"parts of {name}")
        points = tuple(np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3) for contour in closed)
        if not all(np.isfinite(each).all() for each in points):
            raise ImageError(f"{path} has contours of {name!r} whose points are not numbers. Export it again.")
        if number < 1:  # which no label is
            old, number = number, max(0, *names, *(structure.number for structure in structures)) + 1
            renamed.append(f"{name} has the number {old} in the file, which no label can have, and got {number}")
        structures.append(_Structure(number, name, points))
    if not structures:
        raise ImageError(f"{path} holds no closed contours, so that none of its structures has an inside.")
    left_out = [f"{some(without, _LISTED)} have no closed contours and were left out"] if without else []
    return structures, renamed + left_out


def _names_in(path: Path, file: Any) -> dict[int, str]:
    """Return the names of structures by their numbers; raises ImageError where two have one, for one would be lost."""
    listed = [int(roi.ROINumber) for roi in file.StructureSetROISequence]
    drawn = [int(each.ReferencedROINumber) for each in file.get("ROIContourSequence") or ()]
    twice = sorted({n for numbers in (listed, drawn) for n, count in Counter(numbers).items() if count > 1})
    if twice:
        raise ImageError(
            f"{path} has several structures of the number {some(list(map(str, twice)), _LISTED)}, so that nobody "
            "knows which is which. Export it again."
        )
    names = [" ".join(str(roi.ROIName).split()) for roi in file.StructureSetROISequence]
    return {**dict.fromkeys(drawn, ""), **dict(zip(listed, names, strict=True))}


def _series_of(file: Any) -> list[str]:
    """Return the UIDs of the series in which contours were drawn."""
    return [
        str(series.SeriesInstanceUID)
        for frame in file.get("ReferencedFrameOfReferenceSequence") or ()
        for study in frame.get("RTReferencedStudySequence") or ()
        for series in study.get("RTReferencedSeriesSequence") or ()
    ]


def _place_of(path: Path, wanted: Sequence[str], images: Iterable[Path]) -> tuple[Path, str]:
    """Return where the series lies, and which of those that lie there it is."""
    if not wanted:
        raise ImageError(
            f"{path} does not say in which series its structures were drawn; a program that removed names may have "
            "removed that. Export them again, or as DICOM-SEG or NIfTI."
        )
    places = [*images, path.parent]
    for place in places:
        for series in series_in(place):
            if series.uid.partition("/")[0] in wanted:
                return place, series.uid
    looked = " and ".join(dict.fromkeys(str(place) for place in places))
    raise ImageError(
        f"{path} holds structures that were drawn in the series {', '.join(wanted)}, which is not in {looked}.",
        shell="Choose that series as their image, or put it beside them.",
        window="Open that series first, or put it beside them.",
    )


def _planes(files: Sequence[Path], geometry: Geometry, count: int) -> SlicePlanes:
    """Return where each slice lies by its own header, for series are stacked straight when they are read."""
    try:
        headers = [pydicom().dcmread(file, stop_before_pixels=True) for file in files]
        return SlicePlanes.of_headers(headers, files)
    except ImageError:  # a single slice without a place, or pixels of a detector
        return SlicePlanes.of_geometry(geometry, count)


def _in_slices(
    path: Path, structure: _Structure, contour: NDArray[np.float64], planes: SlicePlanes
) -> tuple[int, NDArray[np.float64]]:
    """Return the slice of a contour, and its points (points, 2) as y, x in voxels."""
    depth, points = planes.in_voxels(contour)
    z = int(np.rint(depth.mean()))
    if np.ptp(depth) > _BETWEEN:
        raise ImageError(
            f"The contours of {structure.name!r} in {path} are not drawn in the slices of the series, but across them. "
            "Export the structures on the series' own slices, or as DICOM-SEG."
        )
    off = float(np.abs(depth - z).max())
    if off > _BETWEEN:
        raise ImageError(
            f"A contour of {structure.name!r} in {path} lies {off:.2g} slice distances beside the nearest "
            "slice. Was it drawn in another series? Export the structures on the series' own slices, or as DICOM-SEG."
        )
    return z, points


def _require_every_slice(path: Path, structure: _Structure, slices: set[int]) -> None:
    """Refuse a structure that was drawn in every second or third slice only: those between would be background."""
    steps = np.diff(sorted(slices))
    if len(steps) > 1 and steps.min() > 1:
        few = ", ".join(map(str, sorted(slices)[:3]))
        raise ImageError(
            f"{structure.name!r} in {path} is drawn in some slices only ({few}, ...; counted from 0), and never in two "
            "that lie next to each other. Interpolate the slices between in the program that drew it."
        )


def _leaves(z: int, points: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    """Whether a contour goes beyond the outer edges of the voxels."""
    within = np.array(shape[1:]) - 0.5
    return not (0 <= z < shape[0] and (points >= -0.5).all() and (points <= within).all())


def _filled(placed: Sequence[tuple[int, NDArray[np.float64]]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return where a structure is, shape (Z, Y, X)."""
    from skimage.draw import polygon  # only contours need it

    mask = np.zeros(shape, dtype=bool)
    for z, points in placed:
        if 0 <= z < shape[0]:
            mask[z][polygon(points[:, 0], points[:, 1], shape[1:])] ^= True
    return mask
