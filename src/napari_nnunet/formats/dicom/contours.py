"""Labels as radiotherapy structures (RTSTRUCT): contours along the edges of voxels, in the slices of their series."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_nnunet.formats.atomic import written_beside
from napari_nnunet.formats.dicom.codes import Code
from napari_nnunet.formats.dicom.extra import highdicom, pydicom
from napari_nnunet.formats.dicom.planes import PointsInSpace, SlicePlanes
from napari_nnunet.formats.dicom.segmentation import (
    MAY_BE_EMPTY,
    DicomSegment,
    require_shape,
    series_number,
    source_header,
)
from napari_nnunet.version import __version__

#: What a file says that is made here: its contours are drawn in every slice where a structure is.
MODEL_NAME = "napari-nnunet"
_STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"
_STUDY = "1.2.840.10008.3.1.2.3.1"  # the kind that PS3.3, C.8.8.5 gives a referenced study
_IMPLICIT = "1.2.840.10008.1.2"  # explicit lengths of contours have 16 bits, which long ones do not fit into
_SERIES_AFTER = 2000  # structures of series 3 are series 2003
_DATA = 0x30060050  # ContourData
_BESIDE_CENTRES = 0.25  # of a voxel: a channel between two contours runs through no centre and along no edge
_COLOURS = ((230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240))


def write_structures(
    labels: NDArray[Any], path: Path, *, source: Sequence[Path], segments: Sequence[DicomSegment]
) -> None:
    """Write labels as an RTSTRUCT that references the series they were made of.

    A contour follows the edges of voxels. A hole is connected with the contour around it by a channel without width (a
    keyhole), as PS3.3, C.8.8.6.3 has it, so that programs that know no other holes read it.

    Parameters
    ----------
    labels : ndarray of int, shape (Z, Y, X)
        On the grid of the series.
    path : Path
        To write; the file appears only when it is complete.
    source : sequence of Path
        The files of the series, in the order of the slices, or the one with all frames.
    segments : sequence of DicomSegment
        What the labels mean; those that are nowhere are structures without contours. Where each has one value of its
        own, that is its number in the file; else they are numbered in their order.

    Raises
    ------
    ImageError
        If the series lacks what must be repeated, does not say where it lies, or has other slices than the labels.
    ResourceError
        If pydicom is not installed, or the disk is full.
    """
    highdicom()  # pydicom comes with it; the sentence about the extra is the same
    headers = [source_header(file) for file in source]
    require_shape(labels, headers, source[0].parent)
    planes = SlicePlanes.of_headers(headers, source)
    made = _file(headers[0])
    images = [_item(ReferencedSOPClassUID=h.SOPClassUID, ReferencedSOPInstanceUID=h.SOPInstanceUID) for h in headers]
    _reference(made, headers[0], images)
    boxes = ndimage.find_objects(labels)
    for number, segment in zip(_numbers(segments), segments, strict=True):
        around = [box for value in segment.values if value <= len(boxes) and (box := boxes[value - 1]) is not None]
        contours = [
            _contour(planes.in_mm(z, points), images[z] if len(images) > 1 else None)
            for z, points in (outlines_within(labels, segment.values, around) if around else ())
        ]
        _add(made, number, segment, contours)
    with written_beside(path, suffix=".dcm") as temporary:
        made.save_as(temporary, enforce_file_format=True)


def _numbers(segments: Sequence[DicomSegment]) -> Sequence[int]:
    """Return the numbers of structures: their values, so that labels come back as they were, or else their order."""
    values = [value for segment in segments for value in segment.values]
    each_its_own = all(len(segment.values) == 1 for segment in segments) and len(set(values)) == len(values)
    return values if each_its_own else range(1, len(segments) + 1)


def _item(**elements: Any) -> Any:
    item = pydicom().Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    return item


def _file(header: Any) -> Any:
    """Return a file with all that is not about its structures; of the series' own, patient and study only."""
    library = pydicom("pydicom.dataset")
    unique = pydicom("pydicom.uid").generate_uid
    meta = library.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = _STRUCTURES, unique()
    meta.TransferSyntaxUID = _IMPLICIT
    made = library.FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    made.SpecificCharacterSet = "ISO_IR 192"  # UTF-8, whatever the series has
    for name in MAY_BE_EMPTY:
        setattr(made, name, str(header.get(name) or ""))
    now = datetime.datetime.now()
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    made.SOPClassUID, made.SOPInstanceUID = _STRUCTURES, meta.MediaStorageSOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID = header.StudyInstanceUID, unique()
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = header.FrameOfReferenceUID, ""
    made.Modality, made.SeriesNumber, made.InstanceNumber = "RTSTRUCT", series_number(header, _SERIES_AFTER), 1
    made.SeriesDescription, made.OperatorsName = "Segmentation by nnU-Net", ""
    made.Manufacturer, made.ManufacturerModelName, made.SoftwareVersions = "napari-nnunet", MODEL_NAME, __version__
    made.StructureSetLabel, made.StructureSetName = "SEGMENTATION", "Segmentation by nnU-Net"
    made.InstanceCreationDate = made.SeriesDate = made.StructureSetDate = date
    made.InstanceCreationTime = made.SeriesTime = made.StructureSetTime = time
    made.StructureSetROISequence, made.ROIContourSequence, made.RTROIObservationsSequence = [], [], []
    return made


def _reference(made: Any, header: Any, images: Sequence[Any]) -> None:
    """Say of which study, series and images the structures are."""
    series = _item(SeriesInstanceUID=header.SeriesInstanceUID, ContourImageSequence=list(images))
    study = _item(
        ReferencedSOPClassUID=_STUDY,
        ReferencedSOPInstanceUID=header.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    made.ReferencedFrameOfReferenceSequence = [
        _item(FrameOfReferenceUID=header.FrameOfReferenceUID, RTReferencedStudySequence=[study])
    ]


def _add(made: Any, number: int, segment: DicomSegment, contours: Sequence[Any]) -> None:
    """Add a structure with its contours, and what it is."""
    made.StructureSetROISequence.append(
        _item(
            ROINumber=number,
            ReferencedFrameOfReferenceUID=made.FrameOfReferenceUID,
            ROIName=segment.short_name,
            ROIGenerationAlgorithm="AUTOMATIC",
            ROIGenerationDescription="nnU-Net",
        )
    )
    drawn = _item(ROIDisplayColor=list(_COLOURS[(number - 1) % len(_COLOURS)]), ReferencedROINumber=number)
    if contours:
        drawn.ContourSequence = list(contours)
    made.ROIContourSequence.append(drawn)
    observed = _item(ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType="", ROIInterpreter="")
    observed.RTROIIdentificationCodeSequence = [_coded(segment.codes.type)]
    if segment.codes.side is not None:
        modifier = _coded(segment.codes.side)
        observed.RTROIIdentificationCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
    made.RTROIObservationsSequence.append(observed)


def _coded(code: Code) -> Any:
    return _item(CodeValue=code.value, CodingSchemeDesignator=code.scheme, CodeMeaning=code.meaning)


def _contour(points: PointsInSpace, image: Any) -> Any:
    contour = _item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=len(points))
    text = "\\".join([f"{value:.5f}" for value in points.ravel()]).encode()
    text += b" " * (len(text) % 2)
    # As bytes: there are many numbers, and the library would read and check each.
    contour[_DATA] = pydicom("pydicom.dataelem").RawDataElement(_DATA, "DS", len(text), text, 0, True, True)
    if image is not None:  # of frames, the place says which
        contour.ContourImageSequence = [image]
    return contour


def outlines_within(
    labels: NDArray[Any], values: Sequence[int], boxes: Sequence[tuple[slice, ...]]
) -> Iterator[tuple[int, PointsInSpace]]:
    """Yield slice and outlines, as :func:`outlines`, of some values of labels (Z, Y, X), which lie within boxes."""
    box = tuple(slice(min(s.start for s in sides), max(s.stop for s in sides)) for sides in zip(*boxes, strict=True))
    for z, points in outlines(np.isin(labels[box], values)):
        yield z + box[0].start, points + [side.start for side in box[1:]]


def outlines(mask: NDArray[np.bool_]) -> Iterator[tuple[int, PointsInSpace]]:
    """Yield slice and outline of every piece of a mask (Z, Y, X) in every slice: (n, 2), y and x in voxels.

    Pieces hang together by the edges of their voxels. An outline follows the edges, with holes as keyholes.
    """
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        pieces, _ = ndimage.label(mask[z])
        for number, box in enumerate(ndimage.find_objects(pieces), start=1):
            rings = _rings(pieces[box] == number)
            yield int(z), _joined(rings) + [side.start for side in box]


def _rings(piece: NDArray[np.bool_]) -> list[PointsInSpace]:
    """Return the edges of the voxels of a piece: the outer ring first, then its holes from left to right."""
    find_contours = import_module("skimage.measure").find_contours  # which only contours need

    rings = []
    for line in find_contours(np.pad(piece, 1).astype(np.float32), 0.5):
        # Each step of the line lies between four voxels; that between them is the corner that the edges turn at.
        corners = np.floor((line[1:] + line[:-1]) / 2) - 0.5
        before, after = corners - np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0) - corners
        rings.append(corners[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]])
    rings.sort(key=lambda ring: float(ring[:, 1].min()))
    return rings


def _joined(rings: list[PointsInSpace]) -> PointsInSpace:
    """Return a piece's rings as one: each hole is connected with what lies to the left of it."""
    whole = rings[0]
    for hole in rings[1:]:
        left = hole[hole[:, 1] == hole[:, 1].min()]
        height = float(left[:, 0].min()) + 0.5 + _BESIDE_CENTRES
        whole = _connected(whole, hole, height)
    return whole


def _connected(whole: PointsInSpace, hole: PointsInSpace, height: float) -> PointsInSpace:
    at, x = _crossing(hole, height, np.inf, leftmost=True)
    where, edge = _crossing(whole, height, x, leftmost=False)
    here, there = np.array([[height, x]]), np.array([[height, edge]])
    around = np.concatenate([here, hole[at + 1 :], hole[: at + 1], here])
    return np.concatenate([whole[: where + 1], there, around, there, whole[where + 1 :]])


def _crossing(ring: PointsInSpace, height: float, before: float, *, leftmost: bool) -> tuple[int, float]:
    """Return the first or last edge of a ring that crosses a height to the left of a place, and where it does."""
    starts, ends = ring, np.roll(ring, -1, axis=0)
    crosses = ((starts[:, 0] < height) != (ends[:, 0] < height)) & (starts[:, 1] < before)
    found = np.flatnonzero(crosses)
    at = int(found[np.argmin(ring[found, 1]) if leftmost else np.argmax(ring[found, 1])])
    return at, float(ring[at, 1])
