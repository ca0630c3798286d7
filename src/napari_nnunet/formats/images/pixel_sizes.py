"""How large the pixels of TIFF and PNG files are, as far as these say: OME, ImageJ, tifffile, resolution tags, pHYs."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple
from xml.etree import ElementTree

import tifffile

from napari_nnunet.errors import ImageError
from napari_nnunet.schema.geometry import IMAGEJ, OME, RESOLUTION

Found = tuple[tuple[float, ...], str]

_INCH = 25.4
#: Lengths in mm, by the names that ImageJ, OME and people write; both signs for "micro" are in use.
UNITS: dict[str, float] = {
    **{
        name: factor
        for sign, word, factor in (
            ("km", "kilo", 1e6),
            ("m", "", 1e3),
            ("dm", "deci", 100.0),
            ("cm", "centi", 10.0),
            ("mm", "milli", 1.0),
            ("um", "micro", 1e-3),
            ("nm", "nano", 1e-6),
            ("pm", "pico", 1e-9),
            ("fm", "femto", 1e-12),
        )
        for name in (sign, *(f"{word}{metre}" for metre in ("meter", "metre", "meters", "metres")))
    },
    **dict.fromkeys(("µm", "μm", "micron", "microns"), 1e-3),
    **dict.fromkeys(("å", "angstrom", "angstroms"), 1e-7),
    **dict.fromkeys(("in", "inch", "inches"), _INCH),
    **dict.fromkeys(("thou",), _INCH / 1000),
    **dict.fromkeys(("ft", "foot", "feet"), 12 * _INCH),
    **dict.fromkeys(("yd", "yard", "yards"), 36 * _INCH),
    **dict.fromkeys(("mi", "mile", "miles"), 63360 * _INCH),
}
_OTHER_CASE = ("Mm", "Pm")  # OME's mega- and petametres: no pixel's size, and neither mm nor pm
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296  # TIFF 6.0; by number, as tifffile finds names slowly
_TAG_UNITS = {2: _INCH, 3: 10.0, 4: 1.0, 5: 1e-3}  # the last two (mm, um) are no TIFF 6.0, but are written
#: Dots per inch that programs write when nobody measured anything: of screens, printers, scanners' defaults.
_SCREEN = (
    *(72, 75, 90, 96, 100, 110, 120, 144, 150, 160, 175, 180, 192, 200, 204, 216, 220, 225, 240, 250, 264, 288, 300),
    *(320, 326, 350, 360, 400, 450, 480, 500, 600, 640, 720, 800, 900, 960, 1000, 1200, 1440, 2400, 4800),
)
_ROUNDING = 5e-4  # PNG stores whole pixels per metre: 72 dpi become 2835
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # per pixel, by colour type; a palette becomes colours
_LONGEST = 1 << 20  # bytes looked through for pHYs, which stands before the pixels
_LARGEST = 10.0  # mm; 1 pixel per inch or centimetre is what writers put where nothing is known


def tells_pixel_size(pixel: float) -> bool:
    """Whether a resolution says how large a pixel (mm) is, and is not one of those that programs write by default."""
    if not 0 < pixel < _LARGEST:
        return False
    dots = _INCH / pixel
    return not any(abs(dots - default) <= _ROUNDING * default for default in _SCREEN)


def sizes_of(file: tifffile.TiffFile, ndim: int) -> Found | None:
    """Return (spacing ([z,] y, x) in mm, source) that a TIFF says of itself, None if it says nothing usable.

    Parameters
    ----------
    file : TiffFile
        Open.
    ndim : int
        2 for a picture, 3 for a stack; a stack without a distance of slices says nothing.
    """
    for source, look in ((OME, _ome), (IMAGEJ, _imagej), (RESOLUTION, _resolution)):
        found = look(file)
        if found is not None and len(found) >= ndim and all(0 < v < math.inf for v in found[-ndim:]):
            return tuple(found[-ndim:]), source
    return None


def _ome(file: tifffile.TiffFile) -> tuple[float, ...] | None:
    text = file.ome_metadata if file.is_ome else None
    if not text:
        return None
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None
    pixels = next((element for element in root.iter() if element.tag.endswith("}Pixels")), None)
    if pixels is None:
        return None
    sizes = [_ome_size(pixels.attrib, axis) for axis in "ZYX"]
    known = [size for size in sizes if size is not None]
    return tuple(known) if len(known) == 3 or sizes[0] is None else None


def _ome_size(entries: Mapping[str, str], axis: Literal["Z", "Y", "X"] | str) -> float | None:
    name = entries.get(f"PhysicalSize{axis}Unit", "µm")  # µm is OME's own default
    unit = None if name.strip() in _OTHER_CASE else _unit(name)
    try:
        size = float(entries[f"PhysicalSize{axis}"])
    except (KeyError, ValueError):
        return None
    return size * unit if unit is not None and size > 0 else None


def _imagej(file: tifffile.TiffFile) -> tuple[float, ...] | None:
    """Return the sizes that ImageJ writes: pixels per unit in the tags, unit and distance of slices in words."""
    entries = _words(file)
    unit = _unit(entries.get("unit"))
    resolution = None if unit is None else _per_pixel(file)
    if unit is None or resolution is None:
        return None
    units = [_unit(entries.get(f"{axis}unit") or entries["unit"]) for axis in "zy"]  # an empty one says nothing
    if units[1] is None:  # pixels, say
        return None
    y, x = resolution
    y, x = y * units[1], x * unit
    if unit in (_INCH, 10.0) and not (tells_pixel_size(y) and tells_pixel_size(x)):
        return None
    if units[0] is None:  # slices are counted, or lie apart in time
        return y, x
    # ImageJ leaves the distance of slices out where it is one unit.
    try:
        z = abs(float(entries.get("spacing", 1.0)))
    except (TypeError, ValueError):  # "0,5"
        return None
    return z * units[0], y, x


def _words(file: tifffile.TiffFile) -> Mapping[str, Any]:
    if file.is_imagej and file.imagej_metadata:
        return file.imagej_metadata
    text = file.pages.first.shaped_description
    if text and '"unit"' in text and file.shaped_metadata:  # tifffile writes the same words as JSON
        entries = file.shaped_metadata[0]
        return entries if isinstance(entries.get("spacing"), int | float) else {}
    return {}


def _unit(name: Any) -> float | None:
    if not isinstance(name, str):
        return None
    return UNITS.get(re.sub(r"\\u(00[bB]5|03[bB][cC])", "µ", name).strip().lower())


def _per_pixel(file: tifffile.TiffFile) -> tuple[float, float] | None:
    """Return the size of a pixel (y, x) in units of the resolution tags, whatever these are."""
    tags = file.pages.first.tags
    sizes = []
    for code in (_Y_RESOLUTION, _X_RESOLUTION):
        value = tags.valueof(code)
        if not isinstance(value, tuple) or len(value) != 2 or not all(value):
            return None
        sizes.append(value[1] / value[0])
    return sizes[0], sizes[1]


def _resolution(file: tifffile.TiffFile) -> tuple[float, ...] | None:
    tags = file.pages.first.tags
    unit = _TAG_UNITS.get(int(tags.valueof(_RESOLUTION_UNIT, default=0)))
    found = None if unit is None else _per_pixel(file)
    if unit is None or found is None:
        return None
    y, x = found[0] * unit, found[1] * unit
    return (y, x) if tells_pixel_size(y) and tells_pixel_size(x) else None


class PngFacts(NamedTuple):
    """Shape (Y, X, samples), bytes per sample, and the spacing (y, x) in mm with its source where it was measured."""

    shape: tuple[int, int, int]
    itemsize: int
    spacing: tuple[tuple[float, ...], str] | None


def png_facts(file: BinaryIO, path: Path) -> PngFacts:
    """Return what a PNG says before its pixels (W3C PNG, chunks IHDR and pHYs); raises ImageError if it is no PNG."""
    if file.read(8) != _SIGNATURE or len(start := file.read(25)) < 25 or start[4:8] != b"IHDR":
        raise ImageError(f"{path.name} is not a PNG, whatever its name says.")
    width, height, depth, colour = struct.unpack(">IIBB", start[8:18])
    spacing = None
    while file.tell() < _LONGEST and len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"IDAT", b"IEND"):
            break
        if kind == b"pHYs" and length == 9:
            spacing = _png_spacing(file.read(9))
            break
        file.seek(length + 4, 1)  # content and checksum
    return PngFacts((height, width, _SAMPLES.get(colour, 4)), 2 if depth == 16 else 1, spacing)


def _png_spacing(content: bytes) -> tuple[tuple[float, ...], str] | None:
    """Return the size (y, x) of a pixel in mm; None where only a ratio is known, or a screen's resolution."""
    if len(content) < 9:
        return None
    x, y, unit = struct.unpack(">IIB", content)
    if unit != 1 or not x or not y:
        return None
    found = (1000.0 / y, 1000.0 / x)
    return (found, RESOLUTION) if all(tells_pixel_size(size) for size in found) else None
