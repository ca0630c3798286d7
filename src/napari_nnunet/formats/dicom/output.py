"""DICOM beside the segmentations of a model: what its classes are there, and which series each belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from napari_nnunet.formats.dicom.codes import ClassCodes, codes_of, read_codes, refuse_unknown, text_of_codes
from napari_nnunet.formats.dicom.contours import write_structures
from napari_nnunet.formats.dicom.extra import highdicom
from napari_nnunet.formats.dicom.segmentation import DicomSegment, write_segmentation
from napari_nnunet.formats.dicom.series import slice_files
from napari_nnunet.schema.dataset import IGNORE, LabelScheme
from napari_nnunet.schema.objects import ObjectScheme

SEG, STRUCTURES = "DICOM-SEG", "RTSTRUCT"
#: What is written beside segmentations, and how its name ends.
DICOM_ENDINGS = {SEG: ".dcm", STRUCTURES: ".rtstruct.dcm"}


@dataclass(frozen=True)
class SegmentationOutput:
    """How the segmentations of a model become DICOM.

    Parameters
    ----------
    values : dict of str to tuple of int
        Classes, regions or kinds of objects, and the label values that make each up; none for kinds.
    codes : dict of str to ClassCodes
        What each is.
    kinds : tuple of str
        What is written, of :data:`DICOM_ENDINGS`.
    """

    values: Mapping[str, tuple[int, ...]]
    codes: Mapping[str, ClassCodes]
    kinds: tuple[str, ...] = (SEG,)

    @classmethod
    def of(
        cls, scheme: LabelScheme, objects: ObjectScheme | None, table: Path | None, kinds: tuple[str, ...] = (SEG,)
    ) -> Self:
        """Return the output for a model's labels.

        Parameters
        ----------
        scheme : LabelScheme
            Of the model; regions become segments that may overlap.
        objects : ObjectScheme, optional
            Where the labels are numbered objects: each becomes a segment of its kind.
        table : Path, optional
            A table of codes.
        kinds : tuple of str
            What is written.

        Raises
        ------
        ResourceError, SettingsError
            If highdicom is not installed, or the table cannot be used.
        """
        highdicom()
        values: dict[str, tuple[int, ...]] = {}
        if objects is not None:
            values = dict.fromkeys(objects.kinds, ())
        elif scheme.has_regions:
            for name, value in scheme.labels.items():
                if value in scheme.regions and name != IGNORE:
                    values[name] = value if isinstance(value, tuple) else (value,)
        else:
            values = {name: (value,) for value, name in scheme.names.items() if value != 0}
        own = None if table is None else read_codes(table)
        if own is not None and table is not None:
            refuse_unknown(own, values, table)
        return cls(values, {name: codes_of(name, number, own) for number, name in enumerate(values, start=1)}, kinds)

    @property
    def table(self) -> str:
        """The codes as a CSV file that can be filled in and given again."""
        return text_of_codes(self.codes)

    @property
    def unknown(self) -> list[str]:
        """The classes for which there is no code that others know."""
        return [name for name, codes in self.codes.items() if codes.is_local]

    def write(
        self, labels: NDArray[Any], path: Path, *, source: Path, series: str, kinds: Mapping[int, str] | None
    ) -> None:
        """Write a segmentation (Z, Y, X) of the series in a folder or file, as DICOM-SEG, RTSTRUCT, or both.

        Parameters
        ----------
        labels : ndarray of int, shape (Z, Y, X)
            On the grid of the series.
        path : Path
            Of the DICOM-SEG: CASE.dcm; an RTSTRUCT is CASE.rtstruct.dcm beside it.
        source : Path
            The folder of the series, or the file with all frames.
        series : str
            Which series, where the folder holds several.
        kinds : dict of int to str, optional
            The kind of each object, where labels are numbered objects.

        Raises
        ------
        ImageError, ResourceError
            As :func:`~napari_nnunet.formats.dicom.segmentation.write_segmentation`.
        """
        segments = [DicomSegment(name, values, self.codes[name]) for name, values in self.values.items()]
        if kinds is not None:
            segments = [DicomSegment(f"{kind} {number}", (number,), self.codes[kind]) for number, kind in kinds.items()]
        if not segments:  # no object was found: the first kind stands for none
            name = next(iter(self.codes))
            segments = [DicomSegment(name, (1,), self.codes[name])]
        for kind in self.kinds:
            write = write_segmentation if kind == SEG else write_structures
            named = path.with_name(path.name.removesuffix(DICOM_ENDINGS[SEG]) + DICOM_ENDINGS[kind])
            write(labels, named, source=slice_files(source, series), segments=segments)
