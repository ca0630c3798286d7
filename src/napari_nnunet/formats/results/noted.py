"""Labels with their note: what a viewer knows of them comes back when the file is opened again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError, NnunetError
from napari_nnunet.formats.images.files import ADAPTERS, adapter_for, ending_of, read_labels, read_volume
from napari_nnunet.formats.images.header import one_line
from napari_nnunet.formats.images.label_note import LabelNote
from napari_nnunet.formats.images.pages.chain import opened
from napari_nnunet.formats.images.pages.series import looked_through, pages_of
from napari_nnunet.formats.regular import regular


def nifti_reader(path: Path) -> str | None:
    """Return the reader that treats .nii like .nii.gz, wherever it can; None leaves the choice to the file."""
    alike = "SimpleITKIO"
    return alike if ending_of(path) == ".nii" and ADAPTERS[alike].accepts(path) else None


def read_note(path: Path) -> LabelNote | None:
    """Return the note of a label file; None for files without one, and for files that cannot be read."""
    try:
        return LabelNote.of_text(adapter_for(path).note(path))
    except Exception:  # of many kinds: whoever reads the voxels finds the words for a damaged file
        return None


def read_noted(path: Path, note: LabelNote) -> tuple[NDArray[Any], LabelNote] | None:
    """Return labels and their note with the place that the file has now.

    Parameters
    ----------
    path : Path
        A label file.
    note : LabelNote
        From :func:`read_note`.

    Returns
    -------
    tuple of (ndarray, LabelNote) or None
        Labels, of the shape that the note names; None if the file holds another number of voxels by now.

    Raises
    ------
    ImageError
        If the file cannot be read.
    """
    if path.name.lower().endswith((".tif", ".tiff")):
        labels, geometry = _pages(path), note.geometry
    elif "T" in note.axes:
        volume = read_volume([path], reader=nifti_reader(path), as_stored=True)
        labels, geometry = np.asarray(volume.array), volume.geometry
    else:
        labels, geometry = read_labels(path, reader=nifti_reader(path))
    if labels.size != np.prod(note.shape):
        return None
    if geometry.origin is not None or geometry.affine is not None:
        own = geometry.planar() if note.geometry.ndim == 2 else geometry
        note = note.model_copy(update={"geometry": own})
    return labels.reshape(note.shape), note


def _pages(path: Path) -> NDArray[Any]:
    """Return the array in a TIFF, as it is stored; raises ImageError if it cannot be read."""
    try:
        with opened(regular(path)) as file:
            return looked_through(pages_of(file, path), path).read(path)
    except NnunetError:
        raise
    except Exception as error:  # of many kinds: tifffile trusts what a file says of itself
        raise ImageError(f"{path} cannot be read: {one_line(error)} Copy or export it again.") from error
