"""ITK's readings of headers, kept for files that begin alike."""

from __future__ import annotations

import math
import os
import tempfile
import zlib
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import SimpleITK as sitk

from napari_nnunet.formats.images import nifti_file
from napari_nnunet.formats.images.oddities import Mended
from napari_nnunet.formats.images.text.headers import TextFacts, check_text
from napari_nnunet.formats.images.text.voxels import check_length


class Informed(NamedTuple):
    """ITK's reading of a header, and what it does not tell: the start of a NIfTI-1 file, or what words say."""

    grid: sitk.ImageFileReader
    start: bytes | None = None
    said: TextFacts = TextFacts()
    fix: Mended | None = None


def information(path: Path) -> Informed:
    """Return ITK's reading of a header, of a packed NIfTI file by that alone; raises RuntimeError where ITK does."""
    name = path.name.lower()
    if not name.endswith((".nii", ".nii.gz")):
        said = check_text(path)
        return Informed(known(path, said.header), said=said)
    start = None
    with suppress(zlib.error):
        look = nifti_file.glance_at(path)
        start = None if look.promise is None else look.start
        if start is not None and (name.endswith(".gz") or look.fix is not None):
            return Informed(grid_of(start), start, fix=look.fix)
        if start is not None and not look.odd:
            return Informed(known(path, start), start)
    return Informed(informed(path), start)


#: ITK would ask all its readers whether they know a file, whatever its name is, and some follow it to other files.
_READERS = {".nii.gz": "NiftiImageIO", ".nii": "NiftiImageIO", ".nrrd": "NrrdImageIO", ".mha": "MetaImageIO",
            ".mhd": "MetaImageIO", ".gipl": "GiplImageIO"}  # fmt: skip


def reader_of(path: Path) -> str:
    """Return ITK's name of the reader for a file by its ending."""
    found = next(reader for ending, reader in _READERS.items() if path.name.lower().endswith(ending))
    return nifti_file.first_version(path, found) if found == "NiftiImageIO" else found


def informed(path: Path) -> sitk.ImageFileReader:
    """Return ITK's reading of a header by the one reader that is meant; raises RuntimeError where that refuses it."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO(reader_of(path))
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def known(path: Path, header: bytes) -> sitk.ImageFileReader:
    """Return ITK's reading of a header, from its last reading where a file began with the same bytes."""
    kept = _kept(header) if header else []
    if not kept:
        kept.append(informed(path))
    return kept[0]


@lru_cache(maxsize=64)
def _kept(header: bytes) -> list[sitk.ImageFileReader]:
    return []


@lru_cache(maxsize=16)
def grid_of(header: bytes) -> sitk.ImageFileReader:
    """Return ITK's reading of the 352 bytes of a NIfTI header, which are enough for it; cases often have the same."""
    handle, name = tempfile.mkstemp(suffix=".nii")
    try:
        os.write(handle, header)
        os.close(handle)
        return informed(Path(name))
    finally:
        os.unlink(name)


@lru_cache(maxsize=64)
def value_bytes(kind: int, components: int) -> int:
    """Return the bytes per value of ITK's number of a type, which only an image of that type tells."""
    return int(sitk.Image([1] * 2, kind, components).GetSizeOfPixelComponent())


def whole(path: Path, reader: str, said: TextFacts) -> sitk.Image:
    """Return all of an image with a header in words; what ITK refuses since it is too short is told so."""
    try:
        return sitk.ReadImage(str(path), imageIO=reader)
    except RuntimeError:
        with suppress(RuntimeError, OSError):
            grid = known(path, said.header)
            each = value_bytes(grid.GetPixelID(), min(components := grid.GetNumberOfComponents(), 2))
            check_length(path, said, math.prod(grid.GetSize()) * components * each)
        raise
