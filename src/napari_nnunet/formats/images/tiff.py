"""Stacks of TIFF pages, with the spacing (z, y, x) in a JSON file next to them, or in their own words."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError, some
from napari_nnunet.formats.atomic import write_json
from napari_nnunet.formats.images.header import Header, size_is_given
from napari_nnunet.formats.images.label_note import NOTE_KEY, LabelNote
from napari_nnunet.formats.images.pages.chain import open_tiff, opened
from napari_nnunet.formats.images.pages.series import Pages, looked_through, pages_of
from napari_nnunet.formats.images.pixel_sizes import UNITS, sizes_of
from napari_nnunet.schema.geometry import BESIDE, Geometry
from napari_nnunet.schema.json_text import read_object

_ASSUMED = "napari_nnunet_assumed"  # key beside a size that nobody said; nnU-Net, which needs the file, passes over it
_WANTED = 'Write {"spacing": [z, y, x]}, three numbers of mm, or remove the file.'
_UNIT_KEYS = ("unit", "units", "spacing_unit", "spacing_units")
_NO_SLICES = {
    "TYX": "time points (T)",
    "CYX": "channels (C)",
    "SYX": "colours (S)",
}  # axes whose first one nnU-Net takes for z all the same


def sidecar(path: Path) -> Path:
    """Return the spacing file of an image or label file: its name without ``_0000`` and ending, plus .json."""
    stem = re.sub(r"\.tiff?$", "", path.name, flags=re.IGNORECASE)
    own = path.with_name(f"{stem}.json")
    shared = path.with_name(re.sub(r"_\d{4}$", "", stem) + ".json")
    return shared if shared.is_file() or not own.is_file() else own


def read(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Return (array (C, Z, Y, X), geometry); channels only where the file names an axis so."""
    with opened(path) as file:
        pages = pages_of(file, path)
        order, _ = _order(pages, path)
        pages = looked_through(pages, path)
        array = pages.read(path)
        return array.transpose(order) if order else array[None], _geometry(path, file, pages)


def header(path: Path) -> Header:
    """Return what the file says without its voxels: shape (C, Z, Y, X), bytes per value, geometry."""
    with opened(path) as file:
        pages = pages_of(file, path, voxels=False)
        return Header(_order(pages, path)[1], int(pages.dtype.itemsize), _geometry(path, file, pages))


def _order(pages: Pages, path: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return how axes are put into the order C, Z, Y, X (empty where there are no channels), and the shape then.

    Three axes are a stack, whatever their names, as for nnU-Net, whose stacks of three or four slices look like colours
    in planes; but for colours side by side. With four axes, one must be named as channels.
    """
    shape, axes = pages.shape, pages.axes
    if len(shape) == 3 and axes.endswith("S"):
        raise ImageError(
            f"{path.name} is a picture in colours ({axes}: {' x '.join(map(str, shape))}), and has {len(shape)} "
            "dimensions; a stack has 3 (z, y, x). Save every colour as a stack of its own (CASE_0000, CASE_0001, ...), "
            "or use a model of pictures."
        )
    if len(shape) == 3:
        return (), (1, *shape)
    if len(shape) == 4 and sorted(axes) == sorted("CZYX") and axes.endswith("YX"):
        order = tuple(axes.index(letter) for letter in "CZYX")
        return order, tuple(shape[axis] for axis in order)
    advice = " Save every channel and every time point as a stack of its own (CASE_0000, CASE_0001, ...)."
    raise ImageError(
        f"{path.name} has {len(shape)} dimensions; a stack has 3 (z, y, x), this file has {axes}: "
        f"{' x '.join(map(str, shape))}.{advice if len(shape) > 2 else ''}"
    )


def _geometry(path: Path, file: tifffile.TiffFile, pages: Pages) -> Geometry:
    """Return the grid: the file beside wins over what the TIFF says itself."""
    remarks = pages.remarks
    if (named := _NO_SLICES.get(pages.axes)) is not None:
        remarks = (*remarks, f"its planes are named {named}, and were read as the slices of a stack (z)")
    elif len(pages.axes) == 3 and not pages.axes.endswith("YX"):
        remarks = (*remarks, f"its axes are named {pages.axes}, and were read as z, y, x")
    return sized(path, file, 3, remarks)


def sized(path: Path, file: tifffile.TiffFile, ndim: int, remarks: tuple[str, ...] = ()) -> Geometry:
    """Return the grid of a stack, or of a picture (``ndim`` 2): what the file beside a stack says, else the TIFF."""
    if ndim == 3 and (beside := sidecar(path)).is_file():
        try:
            return _from_beside(beside, remarks)
        except ImageError:
            if not size_is_given():
                raise
    found = sizes_of(file, ndim)
    if found is None:
        return Geometry(spacing=(1.0,) * ndim, spacing_known=False, remarks=remarks)
    return Geometry(spacing=found[0], spacing_source=found[1], remarks=remarks)


def _from_beside(beside: Path, remarks: tuple[str, ...]) -> Geometry:
    """Return the grid that the file beside a stack says; raises ImageError if it says none."""
    content = read_object(beside, ImageError)
    if "spacing" not in content:
        came = f"it has {some(sorted(content), 4)}" if content else "it is empty"
        raise ImageError(f"{beside} has no 'spacing'; {came}. {_WANTED}")
    entries = content["spacing"]
    if not isinstance(entries, list):
        raise ImageError(f"{beside} has the spacing {entries!r:.80}. {_WANTED}")
    spacing = tuple(float(v) for v in entries if isinstance(v, int | float) and not isinstance(v, bool))
    if len(entries) != 3:
        raise ImageError(f"{beside} has {len(entries)} spacings; a stack needs three (z, y, x).")
    if len(spacing) != 3:
        raise ImageError(f"{beside} has the spacing {entries!r:.80}; write numbers of mm, without quotation marks.")
    if not all(0 < v < math.inf for v in spacing):
        raise ImageError(f"{beside} has the spacing {entries}; every voxel size must be a positive number of mm.")
    named = next((content[key] for key in _UNIT_KEYS if isinstance(content.get(key), str)), "mm")
    if UNITS.get(named.strip().lower()) != 1.0:
        remark = f"{beside.name} says that its sizes are in {named!r:.40}, but they were taken as mm, as nnU-Net does"
        remarks = (*remarks, remark)
    if content.get(_ASSUMED) in (True, entries):  # True in files of earlier versions; numbers mended by hand are known
        return Geometry(spacing=spacing, spacing_known=False, remarks=remarks)
    return Geometry(spacing=spacing, spacing_source=BESIDE, remarks=remarks)


def about(axes: str, note: LabelNote | None) -> dict[str, str]:
    """Return the metadata of a stack: the names of the axes, which tell few slices from colours, and a note."""
    return {"axes": axes} if note is None else {"axes": note.axes, NOTE_KEY: note.text()}


def note(path: Path) -> str | None:
    """Return the text of the note in a TIFF."""
    with open_tiff(path, _multifile=False) as file:
        entries = file.shaped_metadata
    return entries[0].get(NOTE_KEY) if entries else None


def write(labels: NDArray[Any], geometry: Geometry, path: Path, note: LabelNote | None = None) -> None:
    """Write labels (Z, Y, X) compressed; the spacing goes next to them under the final name."""
    if labels.ndim != 3 and note is None:
        raise ImageError(f"{path.name} has {labels.ndim} dimensions; a stack has 3 (z, y, x).")
    stack = np.ascontiguousarray(labels)
    tifffile.imwrite(path, stack, compression="zlib", photometric="minisblack", metadata=about("ZYX", note))
    if labels.ndim != geometry.ndim:
        return  # of a time series the note has the spacing
    # The temporary name is ".NAME.tif.partial-...": the sidecar belongs to NAME.
    final = re.sub(r"^\.(.*)\.partial-.*$", r"\1", path.name)
    stem = re.sub(r"\.tiff?$", "", final, flags=re.IGNORECASE)
    spacing = list(geometry.spacing)
    assumed = {} if geometry.spacing_known else {_ASSUMED: spacing}
    write_json(path.with_name(f"{stem}.json"), {"spacing": spacing, **assumed})
