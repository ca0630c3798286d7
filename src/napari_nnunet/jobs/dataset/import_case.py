"""One case of an import: what its files hold, found in a worker process."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import DatasetError, ImageError, NnunetError, counted, some
from napari_nnunet.formats.dataset.channel_files import channel_word, stem_of, words_of_name
from napari_nnunet.formats.dataset.pairs import ImagePair
from napari_nnunet.formats.images.files import read_header
from napari_nnunet.formats.images.header import size_given
from napari_nnunet.formats.masks.facts import MaskFacts, Pieces, facts_of
from napari_nnunet.formats.masks.images import image_beside, read_by_nnunet, require_as_many_axes
from napari_nnunet.formats.masks.stored import StoredMask, inside_of, joined_classes, read_mask
from napari_nnunet.grid import Grid, Turned, WhenApart, onto, relation
from napari_nnunet.jobs.case_size import SMALL
from napari_nnunet.processes.pool import Task
from napari_nnunet.schema.dataset import BACKGROUND, DatasetInfo
from napari_nnunet.schema.geometry import GIVEN
from napari_nnunet.volume import Volume

_GLANCE = 20_000  # voxels of an image that are looked at, evenly spaced
_HANDFUL = 8
_BRIGHTNESS = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601, as Pillow and OpenCV have it
_CHANNELS_OF = {"grey": 1, "rgb": 3}
_KINDS = {1: "grey", 3: "in colour", 4: "in colour with transparency"}  # of pictures, by their channels


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
        Whether the mask is stored in another orientation of voxels and will be turned onto the image.
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
    plain : bool
        Whether nnU-Net reads the files of the image as they are.
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
    plain: bool = True

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
    listed = some(unlike)
    return DatasetError(
        f"Of {len(cases)} pictures, {kinds}; a dataset must be all of one kind. Unlike most: {listed}.",
        shell="Make all of them grey (--colours grey) or coloured (--colours rgb), or leave out those unlike most "
        "(--colours leave_out).",
        window="Choose in 'Colours' what is done with them.",
    )


def names_of_channels(case: PlannedCase) -> tuple[str, ...]:
    """Return the names of the channels as files and colours say them."""
    if len(case.pair.images) == 1 and case.channels in (3, 4) and len(case.shape) == 2:
        return ("R", "G", "B", "A")[: case.channels]
    words = _words(case.pair)
    return words if len(words) == case.channels else tuple(f"channel_{c}" for c in range(case.channels))


def _words(pair: ImagePair) -> tuple[str, ...]:
    """Return what the channel files say of themselves, words and no numbers; empty where they do not."""
    by_file = [channel_word(path) for path in pair.images]
    for words in (by_file, [channel.strip("_-. ") for channel in pair.channels]):
        if len(pair.images) > 1 and len(set(words)) == len(words) and all(re.search(r"[^\W\d_]", w) for w in words):
            return tuple(words)
    return ()


def in_order_of(names: Sequence[str], pair: ImagePair) -> ImagePair:
    """Return a pair with its channel files in the order of a dataset's, where they are named after its channels."""
    words, wanted = ([name.casefold() for name in some] for some in (_words(pair), names))
    if sorted(words) != sorted(wanted) or not words:
        return pair
    order = [words.index(name) for name in wanted]
    channels = tuple(pair.channels[i] for i in order)
    return replace(pair, images=tuple(pair.images[i] for i in order), channels=channels)


def unlike_channels(cases: Sequence[PlannedCase]) -> dict[str, NnunetError]:
    """Return the cases that have as many channel files as the others, but others, by their names."""
    told = [tuple(channel.strip("_-. ") for channel in case.pair.channels) for case in cases]
    usual = max(sorted(set(told)), key=told.count, default=())
    return {
        case.name: DatasetError(
            f"its channels are {', '.join(own)} by the names of its files, those of the others {', '.join(usual)}; "
            "name the files alike, or give what their names end in, in channel order",
            shell="(--suffixes _T1 _T2)",
            window="in 'Channel suffixes'",
        )
        for case, own in zip(cases, told, strict=True)
        if own != usual and len(own) == len(usual)
    }


def channel_trouble(
    cases: Sequence[PlannedCase], channels: Sequence[str], info: DatasetInfo | None, suffixes: Sequence[str]
) -> NnunetError | None:
    """Return why the channels of cases are none of a dataset, or not those whose names were given; None if they are."""
    if not cases:
        return None
    have = cases[0].channels
    if info is None:
        if len(channels) == have:
            return None
        text = f"{len(channels)} channel names were given, but the images have {counted(have, 'channel')}."
        return DatasetError(text, window="Correct 'Channel names'.")
    count, listed = len(info.channel_names), ", ".join(info.channel_names)
    if count != have:
        way = {1: "grey", 3: "rgb"}.get(count) if cases[0].picture else None
        return DatasetError(
            f"The images have {counted(have, 'channel')}, the dataset has {count} ({listed}).",
            shell=f"Convert them: --colours {way}." if way else "",
            window="Convert them with 'Colours'." if way else "Choose another dataset in 'Add to'.",
        )
    return _other_channels(cases[0].pair, info.channel_names, suffixes)


def _other_channels(pair: ImagePair, names: Sequence[str], suffixes: Sequence[str]) -> NnunetError | None:
    """Return the question which file is which channel of a dataset; None where that is certain."""
    words, wanted = ([name.casefold() for name in some] for some in (_words(pair), names))
    found = [channel.strip("_-. ") for channel in pair.channels]
    numbers = [int(channel) for channel in found if channel.isdecimal()]
    in_turn = len(numbers) == len(found) and all(n == numbers[0] + i for i, n in enumerate(numbers))
    if not found or words == wanted or in_turn or (suffixes and sorted(words) != sorted(wanted)):
        return None
    said = f"are {'given as' if suffixes else 'named'} {', '.join(_words(pair) or found)}"
    way = "Give what the names of the files end in, in the order of the dataset's channels"
    return DatasetError(
        f"The channels of the dataset are {', '.join(names)}, the channel files {said}.",
        shell=f"{way} (--suffixes _A _B).",
        window=f"{way}, in 'Channel suffixes'.",
    )


def named_otherwise(cases: Sequence[PlannedCase], labels: Mapping[str, int], ignored: Sequence[float] = ()) -> str:
    """Say which mask is named after a class of a dataset and holds the value of another; empty where none is."""
    classes = {words_of_name(name.casefold()): name for name in labels if name != BACKGROUND}
    classes.pop("", None)  # "mask" says nothing
    if len(labels) - (BACKGROUND in labels) < 2:
        return ""
    values = {value: name for name, value in labels.items()}
    for case in cases:
        mask, image = (words_of_name(name).split("_") for name in (stem_of(case.pair.mask), case.name))
        name = classes.get("_".join(word for word in mask if word not in image), "")
        there = {value for value in case.facts.counts if value and value not in ignored}
        held = sorted(there - {labels.get(name)})
        if name and held and labels.get(name) not in there and not case.pair.parts:
            value = held[0]
            what = f", which is {values[int(value)]} in the dataset" if value in values else ""
            return (
                f"{case.pair.mask.name} is named after the class {name} ({labels[name]} in the dataset), but holds "
                f"the value {value:g}{what}. Say what its values mean; import masks of other classes by themselves."
            )
    return ""


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
    with size_given(pair.spacing):
        volume = read_image(pair, apart)
        mask, turned = placed_mask(pair, volume, apart)
    facts = facts_of(mask)
    if facts.invalid:
        raise ImageError(
            f"{pair.mask.name} has {counted(facts.invalid, 'voxel that is', 'voxels that are')} NaN or infinite; "
            f"give {'it' if facts.invalid == 1 else 'them'} a value"
        )
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
        plain=read_by_nnunet(pair.images, volume),
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
    """Read the image of a pair, from files or from DICOM, in the colours that are asked for."""
    with size_given(pair.spacing):
        return _coloured(image_beside(pair.mask, pair.images, apart), pair)


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
    require_as_many_axes(pair.images[0], volume.shape, path, mask.array.shape)
    only_sized = pair.spacing is not None and mask.geometry.origin is volume.geometry.origin is None
    if (apart == "ignore" or only_sized) and mask.array.shape == volume.shape:  # a size that is given wins over theirs
        return mask, False
    grid = Grid(volume.shape, volume.geometry)
    turned = isinstance(relation(grid, Grid(mask.array.shape, mask.geometry)), Turned)
    placed = onto(mask.array, mask.geometry, grid, what="the image and its mask")
    return replace(mask, array=placed), turned
