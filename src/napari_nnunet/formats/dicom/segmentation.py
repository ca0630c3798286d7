"""DICOM-SEG: labels as an object of the study they belong to, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError, NnunetError
from napari_nnunet.formats.atomic import written_beside
from napari_nnunet.formats.dicom.codes import ClassCodes, Code
from napari_nnunet.formats.dicom.extra import highdicom, pydicom
from napari_nnunet.formats.dicom.frames import along_normal, placed
from napari_nnunet.formats.dicom.planes import SlicePlanes, geometry_of_frames
from napari_nnunet.formats.dicom.syntax import check_lengths, syntax_of
from napari_nnunet.formats.room import require_room
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.version import __version__

_MOST_SEGMENTS = 65535
_FAMILY = Code("123110", "DCM", "Artificial Intelligence")  # PS3.16, CID 7162
_LONGEST = 64  # characters of a label
_SERIES_AFTER = 1000  # the segmentation of series 3 is series 1003
#: What must be in every DICOM file but may be empty; programs that remove names remove it altogether.
MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")


@dataclass(frozen=True)
class DicomSegment:
    """A class or object of a DICOM-SEG.

    Parameters
    ----------
    name : str
        What a viewer shows.
    values : tuple of int
        The label values that make it up; segments may share values.
    codes : ClassCodes
        What it is.
    """

    name: str
    values: tuple[int, ...]
    codes: ClassCodes

    @property
    def short_name(self) -> str:
        """The name as DICOM has room for it."""
        return self.name if len(self.name) <= _LONGEST else self.name[: _LONGEST - 1] + "…"


@dataclass(frozen=True, eq=False)
class StoredSegments:
    """What a DICOM-SEG holds.

    Parameters
    ----------
    names : dict of int to str
        Segments by their numbers.
    geometry : Geometry
        Of the grid that all segments share.
    masks : sequence of (int, ndarray of bool)
        Number and voxels ([Z, Y, X]) of each segment where segments overlap; else empty.
    labels : ndarray of int32, shape (Z, Y, X), optional
        The number of the segment of each voxel; None where segments overlap.
    """

    names: dict[int, str]
    geometry: Geometry
    labels: NDArray[Any] | None
    masks: tuple[tuple[int, NDArray[np.bool_]], ...] = ()


def write_segmentation(
    labels: NDArray[Any], path: Path, *, source: Sequence[Path], segments: Sequence[DicomSegment]
) -> None:
    """Write labels as a DICOM-SEG that references the series they were made of.

    Patient and study are those of the series, so that an archive finds the segmentation; private elements are not
    taken over.

    Parameters
    ----------
    labels : ndarray of int, shape (Z, Y, X)
        On the grid of the series.
    path : Path
        To write; the file appears only when it is complete.
    source : sequence of Path
        The files of the series, in the order of the slices, or the one with all frames.
    segments : sequence of DicomSegment
        What the labels mean; labels in none of them are left out, as the background is.

    Raises
    ------
    ImageError
        If the series lacks what DICOM-SEG needs, or has other slices than the labels.
    ResourceError
        If highdicom is not installed, or the disk is full.
    """
    library = highdicom()
    if not 0 < len(segments) <= _MOST_SEGMENTS:
        raise ImageError(
            f"{path.name} would have {len(segments)} segments; DICOM-SEG holds 1 to {_MOST_SEGMENTS}. Save numbered "
            "objects as .nii.gz."
        )
    headers = [source_header(file) for file in source]
    frames = int(headers[0].get("NumberOfFrames") or 1)
    require_shape(labels, headers, source[0].parent)
    if frames == 1 and "SharedFunctionalGroupsSequence" not in headers[0]:  # enhanced files say it by frame
        SlicePlanes.of_headers(headers, source)  # highdicom has no sentence for a header that does not say it
    array, marks = _with_ends(_encoded(labels, segments))
    made = library.seg.Segmentation(
        source_images=headers,
        pixel_array=_on_frames(library, source[0], array) if frames > 1 else array,
        segmentation_type="BINARY",
        segment_descriptions=[_described(library, number, own) for number, own in enumerate(segments, start=1)],
        series_instance_uid=library.UID(),
        series_number=series_number(headers[0], _SERIES_AFTER),
        sop_instance_uid=library.UID(),
        instance_number=1,
        manufacturer="napari-nnunet",
        manufacturer_model_name="napari-nnunet",
        software_versions=__version__,
        device_serial_number="0",
        content_label="SEGMENTATION",
        content_description="Segmentation by nnU-Net",
    )
    made.SeriesDescription = "Segmentation by nnU-Net"
    made.SpecificCharacterSet = "ISO_IR 192"  # UTF-8, whatever the series has
    _clear(made, marks)
    with written_beside(path, suffix=".dcm") as temporary:
        made.save_as(temporary)


def require_shape(labels: NDArray[Any], headers: Sequence[Any], folder: Path) -> None:
    """Check that labels (Z, Y, X) have the voxels of the series with these headers; raises ImageError if not."""
    frames = int(headers[0].get("NumberOfFrames") or 1)
    shape = (frames if frames > 1 else len(headers), int(headers[0].Rows), int(headers[0].Columns))
    if labels.shape != shape:
        raise ImageError(
            f"The labels have {' x '.join(map(str, labels.shape))} voxels, the DICOM series {folder} has "
            f"{' x '.join(map(str, shape))}. Save them as .nii.gz."
        )


def _on_frames(library: Any, file: Path, array: NDArray[Any]) -> Any:
    """Return labels as a volume that says where it lies: a file has its frames in any order."""
    geometry = geometry_of_frames(file)
    affine = along_normal(geometry.affine, len(array))
    more = {"channels": {"SegmentNumber": list(range(1, array.shape[-1] + 1))}} if array.ndim == 4 else {}
    return library.Volume(
        array,
        affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=geometry.frame_of_reference_uid,
        **more,
    )


def source_header(file: Path) -> Any:
    """Return a file of the source without its pixels; what may be empty is, where it was removed."""
    try:
        header = pydicom().dcmread(file, stop_before_pixels=True)
    except Exception as error:
        raise ImageError(f"{file} cannot be read as DICOM: {error}") from error
    for name in MAY_BE_EMPTY:
        if name not in header:
            setattr(header, name, "")
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        raise ImageError(
            f"{file} lacks {', '.join(missing)}, which DICOM-SEG and RTSTRUCT must repeat. Was it removed to make the "
            "series anonymous? Replace it instead, or leave these out."
        )
    return header


def series_number(header: Any, after: int) -> int:
    """Return the number of a series that was made of another one."""
    number = header.get("SeriesNumber")
    return after + (int(number) if number is not None and 0 < int(number) < 2**31 - after else 0)


def _encoded(labels: NDArray[Any], segments: Sequence[DicomSegment]) -> NDArray[Any]:
    """Return numbers of segments (Z, Y, X), or (Z, Y, X, segment) of 0 and 1 where segments share values."""
    highest = max(int(labels.max(initial=0)), max(value for own in segments for value in own.values))
    together = [value for own in segments for value in own.values]
    if len(set(together)) == len(together):
        table = np.zeros(highest + 1, np.uint8 if len(segments) < 256 else np.uint16)
        for number, own in enumerate(segments, start=1):
            table[list(own.values)] = number
        return table[labels]
    return np.stack([np.isin(labels, own.values).astype(np.uint8) for own in segments], axis=-1)


def _with_ends(array: NDArray[Any]) -> tuple[NDArray[Any], list[int]]:
    """Mark a voxel of the first and the last slice where they are empty, for empty frames are not written.

    Without them, a reader would take the first slice that has anything in it for the first one of the grid. The marks
    are taken out again (:func:`_clear`) when frames are there.

    Returns
    -------
    tuple of (ndarray, list of int)
        The array, and the slices that were marked.
    """
    marks = [z for z in sorted({0, len(array) - 1}) if not array[z].any()]
    if marks:
        array = array.copy()
        first = (0, 0) if array.ndim == 3 else (0, 0, 0)
        for z in marks:
            array[(z, *first)] = 1
    return array, marks


def _clear(made: Any, marks: Sequence[int]) -> None:
    """Take the marks out: the only voxels of the first segment's lowest or highest frame."""
    if not marks:
        return
    way = np.reshape(made.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3))
    places = sorted(
        (float(np.dot(np.cross(*way), frame.PlanePositionSequence[0].ImagePositionPatient)), number)
        for number, frame in enumerate(made.PerFrameFunctionalGroupsSequence)
        if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1
    )
    # Frames are packed to bits, one after the other, the lowest bit first (PS3.5, 8.1.1).
    bits, size = bytearray(made.PixelData), int(made.Rows) * int(made.Columns)
    for z in marks:
        at = places[0 if z == 0 else -1][1] * size
        bits[at // 8] &= 0xFF ^ (1 << at % 8)
    made.PixelData = bytes(bits)


def _described(library: Any, number: int, segment: DicomSegment) -> Any:
    described = library.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.short_name,
        segmented_property_category=_coded(segment.codes.category),
        segmented_property_type=_coded(segment.codes.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=library.AlgorithmIdentificationSequence(
            name="nnU-Net", version=__version__, family=_coded(_FAMILY)
        ),
    )
    if segment.codes.side is not None:
        side = pydicom().Dataset()
        side.CodeValue, side.CodingSchemeDesignator = segment.codes.side.value, segment.codes.side.scheme
        side.CodeMeaning = segment.codes.side.meaning
        described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    return described


def _coded(code: Code) -> Any:
    return pydicom("pydicom.sr.coding").Code(code.value, code.scheme, code.meaning)


def read_segmentation(path: Path) -> StoredSegments:
    """Read a DICOM-SEG.

    Returns
    -------
    StoredSegments
        Labels, or a mask for each segment where segments overlap.

    Raises
    ------
    ImageError
        If it is none, holds fractions instead of segments, or its frames make no volume.
    ResourceError
        If highdicom is not installed.
    """
    library = highdicom()
    syntax = syntax_of(path)
    if syntax is None or not syntax.is_segmentation:
        raise ImageError(f"{path} is not a DICOM-SEG{'' if syntax is None else f', but {syntax.what}'}.")
    check_lengths(path, syntax)
    try:
        stored = library.seg.segread(path)
        require_room(path, [int(stored.get(name) or 1) for name in ("NumberOfFrames", "Rows", "Columns")], 2)
        if stored.segmentation_type.value == "FRACTIONAL":
            raise ImageError(f"{path} holds probabilities instead of segments. Export it as a binary segmentation.")
        names = {n: str(stored.get_segment_description(n).SegmentLabel) for n in stored.segment_numbers}
        whole = {"allow_missing_positions": True, "dtype": np.uint16}
        try:
            array, geometry = placed(stored.get_volume(combine_segments=True, **whole))
            return StoredSegments(names, geometry, array.astype(np.int32))
        except RuntimeError as error:
            if "overlap" not in str(error):
                raise
        array, geometry = placed(stored.get_volume(**whole | {"dtype": np.uint8}))
    except NnunetError:
        raise
    except Exception as error:
        raise ImageError(f"{path} cannot be read as a DICOM-SEG: {' '.join(str(error).split())}") from error
    return StoredSegments(names, geometry, None, tuple((n, array[..., i] > 0) for i, n in enumerate(names)))


def overlap_of(path: Path, found: StoredSegments) -> str:
    """Return a sentence about the first two segments that overlap."""
    for at, (one, first) in enumerate(found.masks):
        for other, second in found.masks[at + 1 :]:
            if count := int(np.count_nonzero(first & second)):
                return (
                    f"The segments '{found.names[one]}' and '{found.names[other]}' of {path.name} overlap in {count} "
                    "voxels, and labels hold one class per voxel."
                )
    return ""
