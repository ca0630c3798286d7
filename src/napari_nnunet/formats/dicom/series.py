"""Series of DICOM: which there are in a folder, and their slices as a volume."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import nlargest, nsmallest
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError, some
from napari_nnunet.formats.dicom.frames import read_frames
from napari_nnunet.formats.dicom.planes import uneven_in_words
from napari_nnunet.formats.dicom.syntax import (
    check_lengths,
    numbers_between,
    series_uid,
    sizes_between,
    syntax_of,
)
from napari_nnunet.formats.dicom.syntax import (
    holds_segments as holds_segments,
)
from napari_nnunet.formats.dicom.syntax import (
    is_dicom_image as is_dicom_image,
)
from napari_nnunet.formats.dicom.syntax import (
    is_series as is_series,
)
from napari_nnunet.formats.regular import is_file
from napari_nnunet.formats.room import require_room
from napari_nnunet.schema.geometry import Geometry

_SERIES, _NUMBER, _MODALITY, _FRAMES = "0020|000e", "0020|0011", "0008|0060", "0028|0008"
_POSITION = "0020|0032"  # of a slice's first voxel, x\\y\\z in mm
_ORIENTATION = "0020|0037"
_PHOTOMETRY = "0028|0004"
_SCALE = ("0028|1053", "0028|1052")  # slope and intercept of the stored values
_SIZES = ("0028|0030", "0018|1164", "0018|2010")  # of pixels: in the patient, at the detector, of a scanned film
_THICKNESS = ("0018|0088", "0018|0050")  # distance of slices, and how thick one is
_NEAR = 2  # files before and after one by name
_UNEVEN = 0.1  # of the distance of two slices; what is less is how scanners round
_SAME_WAY = 1e-3  # of direction cosines, and of pixel sizes in mm
_DRIFT = 0.5  # pixels that the last slice may lie beside the first one


@dataclass(frozen=True)
class _Slice:
    """What is known of a file without its pixels."""

    path: Path
    series: str
    number: str
    modality: str
    frames: int
    position: str
    orientation: str
    scale: tuple[str, ...]
    size: tuple[int, ...]  # x, y
    spacing: tuple[float, ...]  # x, y in mm; empty if the file does not say
    thickness: float | None  # in mm; None if the file does not say


@dataclass(frozen=True)
class DicomSeries:
    """One image among the DICOM files of a folder.

    Parameters
    ----------
    uid : str
        SeriesInstanceUID; with the file's name where it is one of several files with frames.
    number : str
        The scanner's number of the series; empty if it is not known.
    modality : str
        "CT", "MR", ...
    files : tuple of Path
        One per slice, in no order, or one with all frames.
    frames : int
        Slices in the one file with all frames; 1 for files of one slice.
    """

    uid: str
    number: str
    modality: str
    files: tuple[Path, ...]
    frames: int = 1

    def __str__(self) -> str:
        count = max(self.frames, len(self.files))
        about = f"{self.modality or 'unknown modality'}, {count} slice{'s' if count > 1 else ''}"
        return f"series {self.number or 'without number'} ({about})"


def holds_volume(path: Path) -> bool:
    """True for a DICOM file that holds a whole volume: frames, a segmentation, or structures."""
    syntax = syntax_of(path)
    if syntax is None or syntax.is_beside:
        return syntax is not None and syntax.holds_segments
    return any(series.frames > 1 for series in series_in(path))


def series_in(path: Path) -> tuple[DicomSeries, ...]:
    """Return the images among the DICOM files of a folder, or the one in a file, in the order of their numbers.

    Reports, structures, segmentations and whatever else lies beside images is passed over.

    Raises
    ------
    ImageError
        If a file is damaged.
    """
    return tuple(series for series, _ in _listed(path))


def slices_of_one(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return those of some files that are slices of one series, each with a place of its own; empty if none are."""
    stacks: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in paths:
        try:
            listed = _listed(path)
        except ImageError:  # it is damaged, which is said when it is read
            continue
        for series, slices in listed:
            if series.frames == 1 and slices[0].position:
                stacks[series.uid].setdefault(slices[0].position, path)
    return next((tuple(found.values()) for found in stacks.values() if len(found) > 1), ())


def _listed(path: Path) -> list[tuple[DicomSeries, list[_Slice]]]:
    """Return the images of a folder or file with their slices; it is gone through once while it stays the same."""
    files = [path] if path.is_file() else []
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    return _grouped(tuple((file, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files))


@lru_cache(maxsize=64)
def _grouped(files: tuple[tuple[Path, int, int], ...]) -> list[tuple[DicomSeries, list[_Slice]]]:
    grouped: dict[str, list[_Slice]] = defaultdict(list)
    for found in _slices(file for file, _, _ in files):
        alone = found.frames > 1  # each file with frames is an image by itself
        grouped[f"{found.series}/{found.path.name}" if alone else found.series].append(found)
    listed = [
        (DicomSeries(uid, some[0].number, some[0].modality, tuple(s.path for s in some), some[0].frames), some)
        for uid, some in grouped.items()
    ]
    return sorted(listed, key=lambda entry: (len(entry[0].number), entry[0].number, entry[0].uid))


def _slices(files: Iterable[Path]) -> Iterator[_Slice]:
    """Yield the headers of what are images; what is no DICOM is passed over."""
    for file in files:
        syntax = syntax_of(file)
        if syntax is not None and syntax.is_beside:
            continue
        if syntax is not None:
            check_lengths(file, syntax)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(file))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            if syntax is None:
                continue
            if syntax.compressed:
                raise _undecoded(file.parent, {syntax.compressed}) from error
            raise ImageError(
                f"{file}, of the DICOM series in {file.parent}, is damaged: {_last_line(error)} Copy it again."
            ) from error
        yield _header(file, reader)


def _header(file: Path, reader: sitk.ImageFileReader) -> _Slice:
    def text(tag: str) -> str:
        return reader.GetMetaData(tag).strip("\0 ") if reader.HasMetaDataKey(tag) else ""

    frames = text(_FRAMES)
    return _Slice(
        path=file,
        series=text(_SERIES),
        number=text(_NUMBER),
        modality=text(_MODALITY),
        frames=int(frames) if frames.isdigit() else 1,
        position=text(_POSITION),
        orientation=text(_ORIENTATION),
        scale=(*map(text, _SCALE), text(_PHOTOMETRY)),
        size=tuple(int(n) for n in reader.GetSize()[:2]),
        spacing=tuple(reader.GetSpacing()[:2]) if any(sizes_between(text(tag)) for tag in _SIZES) else (),
        thickness=next((found[0] for tag in _THICKNESS if (found := sizes_between(text(tag)))), None),
    )


def read_series(path: Path, uid: str = "") -> tuple[NDArray[Any], Geometry]:
    """Read a series of DICOM, its slices in the order of their positions along their normal.

    Parameters
    ----------
    path : Path
        A folder with slices, or a file.
    uid : str
        Which series, where the folder holds several.

    Returns
    -------
    tuple of (ndarray, Geometry)
        Array (1, Z, Y, X).

    Raises
    ------
    ImageError
        If there is no series, more than one, or its slices do not make a volume.
    """
    series, slices = _chosen(path, uid)
    if series.frames > 1:
        return read_frames(series.files[0])
    return _by_itk(path, _in_order(path, slices))


def slice_files(path: Path, uid: str = "") -> tuple[Path, ...]:
    """Return the files of a series in the order in which :func:`read_series` stacks them."""
    series, slices = _chosen(path, uid)
    return series.files if series.frames > 1 else tuple(entry.path for entry in _in_order(path, slices))


def _chosen(path: Path, uid: str) -> tuple[DicomSeries, list[_Slice]]:
    listed = [entry for entry in _listed(path) if uid in ("", entry[0].uid)]
    if len(listed) == 1:
        return listed[0]
    if not listed:
        syntax = syntax_of(path) if path.is_file() else None
        raise ImageError(
            f"{path} holds no DICOM series" + (f"; it is {syntax.what}." if syntax else "; give one folder per series.")
        )
    shown = some([series for series, _ in listed], 10)
    raise ImageError(f"{path} holds {len(listed)} DICOM series; give one folder per series. Found: {shown}.")


def _in_order(path: Path, slices: Sequence[_Slice]) -> list[_Slice]:
    """Return the slices along their normal; refuses those that do not lie above each other on one grid."""
    if len(slices) == 1:
        return list(slices)
    for name, values in (
        ("size", {entry.size for entry in slices}),
        ("direction", {entry.orientation for entry in slices}),
        ("pixel size", {entry.spacing for entry in slices}),
    ):
        if len(values) > 1 and (name == "size" or _differ(values)):
            raise ImageError(
                f"The slices of the DICOM series in {path} differ in {name}; they do not form a volume. Are these "
                "scouts, or several series in one? Export each stack by itself."
            )
    positions, directions = (
        numbers_between([s.position for s in slices], 3),
        numbers_between([slices[0].orientation], 6),
    )
    if positions is None or directions is None:
        raise ImageError(
            f"The DICOM series in {path} does not say where its slices lie (ImagePositionPatient is damaged or "
            "missing). Export the series again."
        )
    normal = np.cross(directions[0][:3], directions[0][3:])
    order = np.argsort(positions @ normal, kind="stable")
    _check_gaps(path, positions[order], normal, min(slices[0].spacing, default=1.0))
    return [slices[i] for i in order]


def _differ(values: set[Any]) -> bool:
    """Whether texts or numbers differ by more than scanners round."""
    rows = [
        numbers_between([value], None) if isinstance(value, str) else np.asarray([value], float) for value in values
    ]
    known = [row for row in rows if row is not None]
    if len(known) < len(rows) or len({row.shape for row in known}) > 1:
        return True
    return bool(np.ptp(np.concatenate(known), axis=0).max(initial=0) > _SAME_WAY)


def _check_gaps(path: Path, positions: NDArray[np.float64], normal: NDArray[np.float64], pixel: float) -> None:
    """Refuse slices that lie unevenly or beside each other: ITK stacks them straight, one mean distance apart.

    Parameters
    ----------
    path : Path
        Of the series.
    positions : ndarray, shape (Z, 3)
        Of the slices along the normal, in mm.
    normal : ndarray, shape (3,)
        Of the slices.
    pixel : float
        Size of a pixel in mm.
    """
    steps = np.diff(positions, axis=0)
    gaps = steps @ normal
    repeats = Counter(Counter(np.round(positions @ normal, 3).tolist()).values())
    if len(repeats) == 1 and (times := next(iter(repeats))) > 1:
        raise ImageError(
            f"Every position in the DICOM series in {path} occurs {times} times. Was it taken at several times or "
            "with several settings, or exported twice? Export one image of each place."
        )
    if np.ptp(gaps) > _UNEVEN * np.median(gaps):
        raise ImageError(
            f"The slices of the DICOM series in {path} lie {gaps.min():.3g} to {gaps.max():.3g} mm apart. Is one "
            "missing, or is one doubled? Export the series again, with all its slices."
        )
    whole = positions[-1] - positions[0]
    beside = float(np.linalg.norm(whole - (whole @ normal) * normal))
    if beside > _DRIFT * pixel:
        angle = np.degrees(np.arctan2(beside, whole @ normal))
        raise ImageError(
            f"The slices of the DICOM series in {path} are not stacked straight, but lean by {angle:.1f} degrees: the "
            "gantry was tilted. Straighten the series first, with dcm2niix for instance."
        )


def _by_itk(path: Path, slices: Sequence[_Slice]) -> tuple[NDArray[Any], Geometry]:
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(entry.path) for entry in slices])
    require_room(slices[0].path, (len(slices), *reversed(slices[0].size)), 4)
    if len({entry.scale for entry in slices}) > 1:  # ITK would round to the type of the first slice
        reader.SetOutputPixelType(sitk.sitkFloat64)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        packed = {syntax.compressed for entry in slices if (syntax := syntax_of(entry.path))} - {""}
        if packed:
            raise _undecoded(path, packed) from error
        raise ImageError(f"The DICOM series in {path} cannot be read: {_last_line(error)}") from error
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise ImageError(f"The DICOM series in {path} is in colour; export its channels one by one.")
    remarks = []
    if any("MONOCHROME1" in entry.scale for entry in slices):
        remarks.append("its grey values are stored from white to black (MONOCHROME1) and were inverted")
    if path.is_file() and slices[0].position and _has_others(path, slices[0].series):
        remarks.append(
            "it is one slice of a series, of which more lie beside it, and was read alone; give their folder "
            f"({path.parent}) to have the volume"
        )
    remarks += uneven_in_words([entry.position for entry in slices], slices[0].orientation)
    spacing = [abs(float(s)) for s in reversed(image.GetSpacing())]
    if len(slices) == 1:  # whose thickness ITK does not look up
        spacing[0] = slices[0].thickness or 1.0
        remarks += [] if slices[0].thickness else ["it is one slice and says no thickness; 1 mm was used along z"]
    geometry = Geometry(
        spacing=tuple(spacing),
        origin=tuple(float(v) for v in image.GetOrigin()),
        direction=tuple(float(v) for v in image.GetDirection()),
        spacing_known=bool(slices[0].spacing),
        remarks=tuple(remarks),
    )
    return np.asarray(sitk.GetArrayFromImage(image))[None], geometry


def _has_others(path: Path, series: str) -> bool:
    """Whether a file next to a slice by its name is of the same series; few are looked at, for each slice asks that."""
    try:
        with os.scandir(path.parent) as entries:
            names = [e.name for e in entries if not e.name.startswith(".") and is_file(e)]
    except OSError:  # a folder that may not be listed
        return False
    near = nsmallest(_NEAR, (n for n in names if n > path.name)) + nlargest(_NEAR, (n for n in names if n < path.name))
    return bool(series) and any(series_uid(path.parent / name) == series for name in near)


def _undecoded(path: Path, packed: set[str]) -> ImageError:
    return ImageError(
        f"The DICOM series in {path} cannot be read: it is compressed ({', '.join(sorted(packed))}), and there is no "
        "decoder for that here, or a file is damaged. Export it without compression, or unpack it with dcmdjpeg or "
        "the raw mode of gdcmconv."
    )


def _last_line(error: Exception) -> str:
    return str(error).splitlines()[-1]
