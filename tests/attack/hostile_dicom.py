"""DICOM files with something wrong in their bytes or in an element."""

from __future__ import annotations

import io
import struct

import numpy as np
import pydicom
from hostile import damage
from pydicom.dataelem import RawDataElement

from dicom_files import write_enhanced, write_series
from napari_nnunet.errors import ImageError
from napari_nnunet.formats.dicom.codes import codes_of
from napari_nnunet.formats.dicom.segmentation import DicomSegment, read_segmentation, write_segmentation
from napari_nnunet.formats.dicom.series import holds_volume, is_dicom_image, read_series, series_in, slice_files

_SLICES = np.arange(3 * 12 * 14, dtype=np.int16).reshape(3, 12, 14)
_WILD = ("", "0", "-1", "1e9", "nan", "9" * 40, "a", "1\\2", "1\\2\\3", "\\", "0\\0", "1e308\\1", "../../x")
_NUMBERS = (0, 1, -1, 3, 7, 8, 255, 2**15, 2**16 - 1, 2**31 - 1)


def dicoms(chance, folder):
    """Give bytes of a slice, of a file with frames and of a segmentation, one thing wrong in each; for ever."""
    series = write_series(folder / "series", _SLICES)
    slices = slice_files(series)
    write_enhanced(folder / "frames.dcm", _SLICES)
    segments = [DicomSegment("organ", (1,), codes_of("organ", 1)), DicomSegment("lesion", (2,), codes_of("lesion", 2))]
    write_segmentation(_SLICES % 3, folder / "seg.dcm", source=slices, segments=segments)
    wholes = [path.read_bytes() for path in (slices[1], folder / "frames.dcm", folder / "seg.dcm")]
    while True:
        whole = chance.choice(wholes)
        yield ".dcm", chance.choice((damage, _wild_element, _wild_length))(whole, chance)


def _wild_element(data, chance):
    """Return a file with an element changed, or left out."""
    file = pydicom.dcmread(io.BytesIO(data))
    items = list(_items(file))
    item = chance.choice(items)
    element = chance.choice([e for e in item if e.VR != "SQ"] or list(item))
    if chance.random() < 0.3:
        del item[element.tag]
    else:
        if element.VR in ("US", "SS", "UL", "SL"):
            value = struct.pack("<i", chance.choice(_NUMBERS))[: 2 if element.VR[1] == "S" else 4]
        elif element.VR in ("OB", "OW", "UN", "SQ"):
            value = b"\0\1" * chance.choice((0, 1, 50, 5_000))
        else:
            value = chance.choice(_WILD).encode()
        value += b" " * (len(value) % 2)
        # As bytes, for values are checked when they are written.
        item[element.tag] = RawDataElement(element.tag, element.VR, len(value), value, 0, False, True)
    target = io.BytesIO()
    file.save_as(target)
    return target.getvalue()


def _items(dataset):
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _items(item)


def _wild_length(data, chance):
    """Return a file in which the numbers of rows, columns, bits or bytes are others."""
    tag = chance.choice((b"\x28\x00\x10\x00", b"\x28\x00\x11\x00", b"\x28\x00\x02\x00", b"\x28\x00\x00\x01", b"\x28\x00\x03\x01",
                         b"\xe0\x7f\x10\x00", b"\x02\x00\x10\x00", b"\x28\x00\x08\x00"))  # fmt: skip
    at = data.find(tag)
    if at < 0:
        return damage(data, chance)
    changed, place = bytearray(data), chance.choice((4, 6, 8))
    changed[at + place : at + place + 2] = chance.choice((0, 1, 9, 64, 2**15, 2**16 - 1)).to_bytes(2, "little")
    return bytes(changed)


def read_dicom(path):
    """Read a DICOM file as every job does that takes one: as a file, as a slice of a series, as a segmentation."""
    series = path.with_name("series")
    found = []
    for act in (lambda: _read_alone(path), lambda: _read_in(series, path), lambda: read_segmentation(path)):
        try:
            act()
        except ImageError as error:
            found.append(error)
    if len(found) == 3:
        raise found[0]


def _read_alone(path):
    if is_dicom_image(path):
        series_in(path)
        holds_volume(path)
    read_series(path)


def _read_in(series, path):
    """Read a series of which a slice is this file."""
    series.mkdir(exist_ok=True)
    for whole in (path.parent / "whole" / "series").iterdir():
        (series / whole.name).write_bytes(whole.read_bytes())
    sorted(series.iterdir())[1].write_bytes(path.read_bytes())
    array, _ = read_series(series)
    assert array.size < 1 << 24
