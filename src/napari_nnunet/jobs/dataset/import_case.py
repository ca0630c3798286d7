"""One case of an import: what its files hold, found in a worker process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.dataset.pairs import ImagePair
from napari_nnunet.formats.dicom import series as dicom
from napari_nnunet.formats.images.files import read_header, read_volume
from napari_nnunet.formats.masks.facts import MaskFacts, Pieces, facts_of
from napari_nnunet.formats.masks.stored import StoredMask, inside_of, joined_classes, read_mask
from napari_nnunet.grid import Grid, Turned, WhenApart, channels_together, onto, relation
from napari_nnunet.jobs.case_size import SMALL
from napari_nnunet.processes.pool import Task
from napari_nnunet.schema.geometry import GIVEN
from napari_nnunet.volume import Volume

_GLANCE = 20_000  # voxels of an image that are looked at, evenly spaced
_HANDFUL = 8


@dataclass(frozen=True)
class PlannedCase:
    """A case as it will be imported.

    Parameters
    ----------
    pair : ImagePair
        Its name and files.
    shape : tuple of int
        ``([Z,] Y, X)``.
    spacing : tuple of float, optional
        In mm, array order; None where the files do not say it.
    channels : int
        Of the image.
    eight_bit : bool
        Whether the image holds whole numbers from 0 to 255.
    turned : bool
        Whether the mask is stored in another order of voxels and will be turned onto the image.
    facts : MaskFacts
        The values of the mask.
    few_values : bool
        Whether the image, at a glance, has a handful of whole values, as masks have.
    notes : tuple of str
        What was done with channels that lie on other grids.
    sized_by : {"", "given", "mask"}
        Who says the voxel size, if not the image.
    """

    pair: ImagePair
    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    channels: int
    eight_bit: bool
    turned: bool
    facts: MaskFacts
    few_values: bool = False
    notes: tuple[str, ...] = ()
    sized_by: Literal["", "given", "mask"] = ""

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.pair.name


def task(pair: ImagePair, *more: object) -> Task:
    """Return the call for a pair, with the memory that it takes."""
    return Task(pair.name, (pair, *more), partial(_bytes, pair))


def _bytes(pair: ImagePair) -> float:
    """Return what reading a pair takes; folders of DICOM slices are judged by their size on disk.

    Raises nothing: a file that cannot be read is reported when its turn comes.
    """
    total = 0.0
    for path in (*pair.images, *pair.masks):
        if path.is_dir():
            total += 4.0 * sum(file.stat().st_size for file in path.iterdir())
        else:
            try:
                shape, itemsize, _ = read_header(path)
            except ImageError:
                return SMALL
            total += float(np.prod(shape)) * (2 * itemsize + 12)
    return total


def look_at_pair(pair: ImagePair, apart: WhenApart) -> PlannedCase:
    """Read a pair and say what it holds; runs in a worker process.

    Raises
    ------
    ImageError
        If a file cannot be read, the mask lies elsewhere than the image, or holds values that are no numbers.
    """
    volume = read_image(pair, apart)
    mask, turned = placed_mask(pair, volume, apart)
    facts = facts_of(mask)
    if facts.invalid:
        raise ImageError(f"{pair.mask.name} has {facts.invalid} voxels that are NaN or infinite; give them a value")
    integers = bool((np.asarray(volume.array) == np.rint(volume.array)).all())
    low, high = float(np.min(volume.array)), float(np.max(volume.array))
    spacing, sized_by = _size(pair, volume, mask)
    return PlannedCase(
        pair=pair if not sized_by else replace(pair, spacing=spacing),
        shape=volume.shape,
        spacing=spacing,
        channels=volume.channels,
        eight_bit=integers and low >= 0 and high <= 255,
        turned=turned,
        facts=facts,
        few_values=integers and _few(np.asarray(volume.array)),
        notes=volume.notes,
        sized_by=sized_by,
    )


def _size(
    pair: ImagePair, volume: Volume, mask: StoredMask
) -> tuple[tuple[float, ...] | None, Literal["", "given", "mask"]]:
    """Return the voxel size of a case and who says it: what was given, else the image, else its mask; None if nobody.

    Raises
    ------
    ImageError
        If the size that was given has another number of axes.
    """
    if pair.spacing is not None:
        return sized(pair, volume).geometry.spacing, "given"
    if volume.geometry.spacing_known:
        return volume.geometry.spacing, ""
    return (mask.geometry.spacing, "mask") if mask.geometry.spacing_known else (None, "")


def sized(pair: ImagePair, volume: Volume) -> Volume:
    """Return an image with the voxel size of its pair; its mask is to be placed before, for headers have the other."""
    if pair.spacing is None:
        return volume
    return replace(volume, geometry=volume.geometry.with_spacing(pair.spacing, GIVEN))


def _few(array: NDArray[Any]) -> bool:
    flat = array.ravel()
    return len(np.unique(flat[:: max(1, flat.size // _GLANCE)])) <= _HANDFUL


def look_closer(pair: ImagePair) -> Pieces:
    """Say how the values of a mask lie; runs in a worker process."""
    from napari_nnunet.formats.masks.pieces import pieces_of  # loads scipy, which few masks need

    return pieces_of(read_mask(pair.mask))


def read_image(pair: ImagePair, apart: WhenApart) -> Volume:
    """Read the image of a pair, from files or from DICOM: folders of slices, or files with frames."""
    if not dicom.is_dicom_image(pair.images[0]):
        return read_volume(pair.images, apart=apart)
    parts = [dicom.read_series(path) for path in pair.images]
    grids = [Grid(array.shape[1:], geometry) for array, geometry in parts]
    names = [path.name for path in pair.images]
    arrays, notes = channels_together([array for array, _ in parts], grids, names, apart=apart)
    return Volume(np.concatenate(arrays).astype(np.float32), parts[0][1], notes)


def placed_mask(pair: ImagePair, volume: Volume, apart: WhenApart) -> tuple[StoredMask, bool]:
    """Return the mask on its image's grid, and whether it had to be turned.

    Raises
    ------
    ImageError
        If it lies elsewhere, or on another grid; if the file of a class has several values.
    """
    if pair.parts:
        turns = []

        def parts() -> Iterator[tuple[int, NDArray[np.bool_]]]:
            for number, path in pair.parts:
                part, turned = _placed(path, volume, apart)
                turns.append(turned)
                yield number, inside_of(part, f"{path.parent.name}/{path.name}")

        whole = joined_classes(parts(), volume.shape, len(pair.classes))
        return StoredMask(whole, volume.geometry, plain=False, classes=pair.classes), any(turns)
    return _placed(pair.mask, volume, apart)


def _placed(path: Path, volume: Volume, apart: WhenApart) -> tuple[StoredMask, bool]:
    mask = read_mask(path)
    if apart == "ignore" and mask.array.shape == volume.shape:
        return mask, False
    grid = Grid(volume.shape, volume.geometry)
    turned = isinstance(relation(grid, Grid(mask.array.shape, mask.geometry)), Turned)
    placed = onto(mask.array, mask.geometry, grid, what="the image and its mask")
    return replace(mask, array=placed), turned
