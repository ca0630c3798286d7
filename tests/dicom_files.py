"""Small DICOM files as scanners write them, made in the tests."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"
STRUCTURES, FILM = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.5.1.4.1.1.3.1"
PATIENT = "Doe^Jane"  # where an output has it that is no DICOM, private data got out
SECRET = "a private note"
STUDY, FRAME = generate_uid(entropy_srcs=["study"]), generate_uid(entropy_srcs=["frame of reference"])


def header(kind, *, uid=None, series=None):
    """Return a file without pixels, of a patient with a name, with a private element."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, uid or generate_uid()
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, "1.2.3"
    file = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    file.StudyInstanceUID, file.SeriesInstanceUID, file.FrameOfReferenceUID = STUDY, series or generate_uid(), FRAME
    file.PatientName, file.PatientID, file.PatientBirthDate, file.PatientSex = PATIENT, "4711", "19700101", "F"
    file.StudyID, file.AccessionNumber, file.ReferringPhysicianName = "7", "A7", "Who^Doctor"
    file.StudyDate, file.StudyTime, file.SeriesNumber, file.InstanceNumber = "20260102", "101112", 3, 1
    file.Modality, file.Manufacturer, file.SeriesDescription = "CT", "Maker", "axial"
    file.private_block(0x0029, "MAKER", create=True).add_new(0x10, "LO", SECRET)
    return file


def fill(file, planes):
    """Put int16 planes ([Z,] Y, X) into a file."""
    file.Rows, file.Columns = planes.shape[-2:]
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.PixelData = np.ascontiguousarray(planes, "<i2").tobytes()


def save(file, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)
    return path


def write_series(folder, array, *, spacing=(2.0, 0.6, 0.5), origin=(-7.0, 9.0, 5.0), direction=(1, 0, 0, 0, 1, 0),
                 lean=0.0, series=None, name="s{:03d}.dcm", change=None):  # fmt: skip
    """Write int16 slices (Z, Y, X), the lowest first, one file each.

    ``lean`` shifts every slice along its columns in mm, as a tilted gantry does; ``change(file, z)`` has the last word.
    """
    series = series or generate_uid()
    row, column = np.array(direction[:3], float), np.array(direction[3:], float)
    step = np.cross(row, column) * spacing[0] + column * lean
    for z, plane in enumerate(array):
        file = header(CT, series=series)
        file.InstanceNumber = len(array) - z
        file.ImagePositionPatient = [f"{v:.6f}" for v in np.array(origin) + z * step]
        file.ImageOrientationPatient, file.SliceThickness = [*direction], spacing[0]
        file.PixelSpacing, file.RescaleSlope, file.RescaleIntercept = [spacing[1], spacing[2]], 1, 0
        fill(file, plane)
        if change is not None:
            change(file, z)
        save(file, folder / name.format(z))
    return folder


def write_enhanced(path, array, *, spacing=(2.0, 0.6, 0.5), origin=(-7.0, 9.0, 5.0), order=None, lean=0.0, slopes=None,
                   change=None):  # fmt: skip
    """Write int16 slices (Z, Y, X) as one enhanced CT, its frames in an order of their own."""
    order = [*range(len(array))] if order is None else order
    file = header(ENHANCED_CT)
    file.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    fill(file, array[order])
    file.NumberOfFrames = len(order)
    dimension = generate_uid()
    file.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=dimension)]
    index = _item(
        DimensionOrganizationUID=dimension, DimensionIndexPointer=0x00200032, FunctionalGroupPointer=0x00209113
    )
    file.DimensionIndexSequence = [index]
    file.SharedFunctionalGroupsSequence = [
        _item(
            PlaneOrientationSequence=[_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelMeasuresSequence=[_item(PixelSpacing=[spacing[1], spacing[2]], SliceThickness=spacing[0])],
        )
    ]
    file.PerFrameFunctionalGroupsSequence = [
        _item(
            PlanePositionSequence=[
                _item(ImagePositionPatient=[origin[0], origin[1] + z * lean, origin[2] + z * spacing[0]])
            ],
            FrameContentSequence=[_item(DimensionIndexValues=[z + 1])],
            PixelValueTransformationSequence=[
                _item(RescaleSlope=1 if slopes is None else slopes[z], RescaleIntercept=0, RescaleType="HU")
            ],
        )
        for z in order
    ]
    if change is not None:
        change(file)
    return save(file, path)


def square(z, low, high):
    """Return a contour around the voxels [low, high) of y and x, in voxels: z, y, x."""
    (y0, x0), (y1, x1) = np.array(low) - 0.5, np.array(high) - 0.5
    return [(z, y0, x0), (z, y0, x1), (z, y1, x1), (z, y1, x0)]


def boxed(low, high):
    """Return contours of a box of voxels."""
    return [square(z, low[1:], high[1:]) for z in range(low[0], high[0])]


def _in_mm(points, spacing, direction):
    row, column = np.array(direction[:3]), np.array(direction[3:])
    axes = np.stack([np.cross(row, column), column, row])  # of z, y, x
    return np.array((-7.0, 9.0, 5.0)) + (np.array(points, float) * spacing) @ axes


def write_structures(path, series, drawn, *, spacing=(2.0, 0.6, 0.5), direction=(1, 0, 0, 0, 1, 0),
                     kind="CLOSED_PLANAR", change=None):  # fmt: skip
    """Write structures, name to contours in voxels of a series of :func:`write_series`, as planning systems do."""
    file = header(STRUCTURES)
    file.Modality = "RTSTRUCT"
    referenced = [_item(SeriesInstanceUID=uid) for uid in ([series] if series else [])]
    file.ReferencedFrameOfReferenceSequence = [
        _item(RTReferencedStudySequence=[_item(RTReferencedSeriesSequence=referenced)])
    ]
    file.StructureSetROISequence = [_item(ROINumber=i, ROIName=name) for i, name in enumerate(drawn, start=3)]
    file.ROIContourSequence = [
        _item(
            ReferencedROINumber=number,
            ContourSequence=[
                _item(
                    ContourGeometricType=kind,
                    NumberOfContourPoints=len(points),
                    ContourData=[f"{v:.4f}" for v in _in_mm(points, spacing, direction).ravel()],
                )
                for points in contours
            ],
        )
        for number, contours in enumerate(drawn.values(), start=3)
    ]
    if change is not None:
        change(file)
    return save(file, path)


def _item(**elements):
    item = Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    return item
