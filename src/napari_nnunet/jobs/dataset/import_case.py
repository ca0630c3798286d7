"""One case of an import: what its files hold, found in a worker process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import DatasetError, ImageError
from napari_nnunet.formats.dataset.pairs import ImagePair, channel_word
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
_BRIGHTNESS = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601, as Pillow and OpenCV have it
_CHANNELS_OF = {"grey": 1, "rgb": 3}
_KINDS = {1: "grey", 3: "in colour", 4: "in colour with transparency"}  # of pictures, by their channels
_NAMED = 5


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
    remarks : tuple of str
        What is odd about its files, which were read nevertheless.
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
    remarks: tuple[str, ...] = ()
    sized_by: Literal["", "given", "mask"] = ""

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.pair.name

    @property
    def picture(self) -> bool:
        """Whether it is one file with a grey picture or with all colours."""
        return len(self.shape) == 2 and len(self.pair.images) == 1 and self.channels in _KINDS


def with_colours(
    cases: Sequence[PlannedCase], colours: Literal["as_stored", "grey", "rgb", "leave_out"]
) -> tuple[tuple[PlannedCase, ...], tuple[PlannedCase, ...]]:
    """Return cases as their colours are to be taken, and those that are left out: pictures unlike most of them."""
    if colours == "as_stored":
        return tuple(cases), ()
    if colours == "leave_out":
        unlike = unlike_most(cases)
        kept, gone = (tuple(case for case in cases if (case.name in unlike) == left) for left in (False, True))
        return kept, gone
    count = _CHANNELS_OF[colours]
    return tuple(
        replace(case, channels=count, pair=replace(case.pair, colours=colours))
        if case.picture and case.channels != count else case
        for case in cases
    ), ()  # fmt: skip


def unlike_most(cases: Sequence[PlannedCase]) -> tuple[str, ...]:
    """Return the pictures that have other colours than most of them."""
    counted = Counter(case.channels for case in cases if case.picture)
    usual = max(sorted(counted), key=counted.__getitem__, default=0)
    return tuple(case.name for case in cases if case.picture and case.channels != usual)


def mixed_colours(cases: Sequence[PlannedCase]) -> DatasetError | None:
    """Return the question what becomes of pictures of which some are grey and some in colour; None where none are."""
    if not all(case.picture for case in cases):
        return None
    counted = Counter(case.channels for case in cases)
    if len(counted) < 2:
        return None
    kinds = " and ".join(
        f"{count} {'is' if count == 1 else 'are'} {_KINDS[channels]}" for channels, count in counted.most_common()
    )
    kinds = kinds.replace(" and ", ", ", len(counted) - 2)
    unlike = unlike_most(cases)
    listed = ", ".join(unlike[:_NAMED]) + (", ..." if len(unlike) > _NAMED else "")
    return DatasetError(
        f"Of {len(cases)} pictures, {kinds}; a dataset has one kind. Unlike most: {listed}.",
        shell="Make all of them grey (--colours grey) or coloured (--colours rgb), or leave out those unlike most "
        "(--colours leave_out).",
        window="Choose in 'Colours' what is done with them.",
    )


def names_of_channels(case: PlannedCase) -> tuple[str, ...]:
    """Return the names of the channels as files and colours say them."""
    if len(case.pair.images) == 1 and case.channels in (3, 4) and len(case.shape) == 2:
        return ("R", "G", "B", "A")[: case.channels]
    words = tuple(channel_word(path) for path in case.pair.images)
    if len(words) == case.channels > 1 and all(words) and len(set(words)) == len(words):
        return words
    return tuple(f"channel_{c}" for c in range(case.channels))


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
        remarks=(*volume.geometry.remarks, *_of_mask(mask, volume)),
        sized_by=sized_by,
    )


def _of_mask(mask: StoredMask, volume: Volume) -> list[str]:
    """Return what is odd about a mask and not about its image as well."""
    return [f"of its mask: {text}" for text in mask.geometry.remarks if text not in volume.geometry.remarks]


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

    return pieces_of(read_mask(pair.mask, pair.images))


def read_image(pair: ImagePair, apart: WhenApart) -> Volume:
    """Read the image of a pair, from files or from DICOM: folders of slices, or files with frames."""
    if not dicom.is_dicom_image(pair.images[0]):
        return _coloured(read_volume(pair.images, apart=apart), pair)
    parts = [dicom.read_series(path) for path in pair.images]
    grids = [Grid(array.shape[1:], geometry) for array, geometry in parts]
    names = [path.name for path in pair.images]
    arrays, notes = channels_together([array for array, _ in parts], grids, names, apart=apart)
    return Volume(np.concatenate(arrays).astype(np.float32), parts[0][1], notes)


def _coloured(volume: Volume, pair: ImagePair) -> Volume:
    """Return a picture (C, Y, X) in grey or in three colours, as its pair says; whole numbers stay whole."""
    array = np.asarray(volume.array)
    if pair.colours == "grey":
        grey = np.tensordot(_BRIGHTNESS, array[:3], 1)[None]
        whole = bool((array == np.rint(array)).all())
        return replace(volume, array=(np.rint(grey) if whole else grey).astype(np.float32))
    if pair.colours == "rgb":
        return replace(volume, array=array[:3] if len(array) > 3 else np.repeat(array, 3, axis=0))
    return volume


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
                part, turned = _placed(path, pair, volume, apart)
                turns.append(turned)
                yield number, inside_of(part, f"{path.parent.name}/{path.name}")

        whole = joined_classes(parts(), volume.shape, len(pair.classes))
        return StoredMask(whole, volume.geometry, plain=False, classes=pair.classes), any(turns)
    return _placed(pair.mask, pair, volume, apart)


def _placed(path: Path, pair: ImagePair, volume: Volume, apart: WhenApart) -> tuple[StoredMask, bool]:
    mask = read_mask(path, pair.images)
    only_sized = pair.spacing is not None and mask.geometry.origin is volume.geometry.origin is None
    if (apart == "ignore" or only_sized) and mask.array.shape == volume.shape:  # a size that is given wins over theirs
        return mask, False
    grid = Grid(volume.shape, volume.geometry)
    turned = isinstance(relation(grid, Grid(mask.array.shape, mask.geometry)), Turned)
    placed = onto(mask.array, mask.geometry, grid, what="the image and its mask")
    return replace(mask, array=placed), turned
