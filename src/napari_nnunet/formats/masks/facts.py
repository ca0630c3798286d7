"""What masks hold, one file and a folder of them: values with their counts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.formats.masks.stored import StoredMask, on_palette
from napari_nnunet.schema.dataset import BACKGROUND
from napari_nnunet.schema.requests.mask_words import value_word
from napari_nnunet.volume import is_whole

_KEPT = 20_000  # different values of a file that are counted one by one; more are counted in steps
_STEPS = 1000  # of the range of a file with more values


@dataclass(frozen=True)
class MaskFacts:
    """The values of one mask file.

    Parameters
    ----------
    counts : dict of float to int
        Voxels of every value, or of every step of the range where there are too many values. Whole numbers, indices
        of a palette or colours 0xRRGGBB are int.
    distinct : int
        How many different values there are.
    fractional : int
        Voxels that are no whole number.
    invalid : int
        Voxels that are NaN or infinite.
    colours : bool
        Whether the values are colours.
    palette : tuple of int
        The colour of each index.
    lossy : bool
        Whether the file is a JPEG.
    plain : bool
        Whether nnU-Net reads the same numbers from the file.
    classes : tuple of str
        Names of all classes, where each is a file of its own; values are then numbers of these.
    names : dict of int to str
        Classes by their values, where the file itself names them.
    """

    counts: Mapping[float, int]
    distinct: int
    fractional: int = 0
    invalid: int = 0
    colours: bool = False
    palette: tuple[int, ...] = ()
    lossy: bool = False
    plain: bool = True
    classes: tuple[str, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)

    @property
    def voxels(self) -> int:
        """All that are counted."""
        return sum(self.counts.values())

    @property
    def foreground(self) -> frozenset[float]:
        """Every value but 0."""
        return frozenset(self.counts) - {0}


@dataclass(frozen=True)
class Pieces:
    """How the voxels of some values of a mask lie.

    Parameters
    ----------
    single : float
        Share of the values whose voxels are one connected piece, small crumbs left aside.
    size : float
        Voxels of a piece on average, of the value in the middle: one large piece does not hide many specks.
    touching : float
        Share of the values that touch another one that is not 0.
    """

    single: float
    size: float
    touching: float = 0.0


def in_colours(facts: Mapping[str, MaskFacts]) -> bool:
    """Whether the values of these masks must be told apart by colour: drawings, or palettes that differ.

    So are those of a palette whose black is not its first entry: which of the two is background is to be asked.
    """
    if any(f.colours or _black_behind(f) for f in facts.values()):
        return True
    seen: dict[int, int] = {}
    for f in facts.values():
        for value in f.counts if f.palette else ():
            colour = f.palette[int(value)] if value < len(f.palette) else 0
            if seen.setdefault(int(value), colour) != colour:
                return True
    return False


def _black_behind(facts: MaskFacts) -> bool:
    colours = facts.palette
    return any(colours[0] != 0 == colours[int(value)] for value in facts.counts if 0 < value < len(colours))


def by_colour(facts: MaskFacts) -> MaskFacts:
    """Return the facts of a mask with colours for its values; grey numbers are grey colours."""
    if facts.colours:
        return facts
    counts: Counter[float] = Counter()
    for value, count in facts.counts.items():
        if facts.palette:
            counts[int(on_palette(np.array(int(value)), facts.palette))] += count
        else:
            counts[int(value) * 0x010101 if 0 <= value <= 255 else -1] += count
    return MaskFacts(counts, len(counts), colours=True, lossy=facts.lossy)


def named_alike(
    facts: Mapping[str, MaskFacts], known: Iterable[str] = ()
) -> tuple[dict[str, MaskFacts], dict[str, int]]:
    """Return masks that name their classes with one number for every name, whatever number each file has for it.

    Parameters
    ----------
    facts : mapping
        By case.
    known : iterable of str
        Classes of the dataset that gets the cases: names that differ from these in case, spaces or underscores alone
        are theirs.

    Returns
    -------
    tuple of (dict of str to MaskFacts, dict of str to int)
        The facts with names and numbers that are the same in all masks; and the number of every name, empty where the
        numbers are those of the files. Where a mask has no names, none has.
    """
    if not facts or not all(f.names for f in facts.values()):
        return {name: replace(f, names={}) if f.names else f for name, f in facts.items()}, {}
    spelled: dict[str, str] = {_key(name): name for name in known}
    numbers: dict[str, int] = {}
    for _, f in sorted(facts.items()):
        for value, name in sorted(f.names.items()):
            numbers.setdefault(spelled.setdefault(_key(name), name), value)
    taken = list(numbers.values())
    same = len(set(taken)) == len(taken) and all(
        numbers[spelled[_key(name)]] == value for f in facts.values() for value, name in f.names.items()
    )
    if not same:
        numbers = {name: number for number, name in enumerate(numbers, start=1)}
    made = {}
    for case, f in facts.items():
        moved = {0: 0, **{value: numbers[spelled[_key(name)]] for value, name in f.names.items()}}
        counts: Counter[float] = Counter()
        for found, count in f.counts.items():
            counts[moved[int(found)]] += count
        made[case] = replace(f, counts=counts, distinct=len(counts), names={n: name for name, n in numbers.items()})
    if same:
        return made, {}
    return made, {name: numbers[spelled[_key(name)]] for f in facts.values() for name in f.names.values()}


def _key(name: str) -> str:
    """Return what two ways to write a name have in common."""
    return " ".join(re.split(r"[\s_-]+", name.casefold().strip()))


@dataclass(frozen=True)
class ValueRow:
    """A line of the table that is shown before masks are translated.

    Parameters
    ----------
    word : str
        The value, as ``--map`` takes it, or a range in words.
    voxels : int
        In all files together.
    share : float
        Of all voxels, 0 to 1.
    files : int
        In how many it occurs.
    becomes : str
        The proposed class, "background" or "ignore"; empty where nothing can be proposed.
    colour : str
        ``#rrggbb`` where the file has one for it; else empty.
    """

    word: str
    voxels: int
    share: float
    files: int
    becomes: str
    colour: str = ""


class FolderFacts:
    """The values of all masks together."""

    def __init__(self, facts: Mapping[str, MaskFacts]) -> None:
        self.facts = tuple(facts.values())
        self.counts: Counter[float] = Counter()
        self.files: Counter[float] = Counter()
        for f in self.facts:
            self.counts.update(f.counts)
            self.files.update(f.counts.keys())
        self.voxels = max(1, self.counts.total())
        self.values = sorted(self.counts)
        self.foreground = [value for value in self.values if value != 0]
        self.colour = any(f.colours for f in self.facts)
        self.palette = next((f.palette for f in self.facts if f.palette), ())

    def row(self, value: float, becomes: str) -> ValueRow:
        """Return the line of one value."""
        word = value_word(value, colour=self.colour)
        colour = word if self.colour else ""
        if self.palette and 0 <= value < len(self.palette):
            colour = value_word(self.palette[int(value)], colour=True)
        return ValueRow(word, self.counts[value], self.counts[value] / self.voxels, self.files[value], becomes, colour)

    def joined(self, word: str, values: Iterable[float], becomes: str) -> ValueRow:
        """Return one line for several values."""
        chosen = set(values)
        voxels = sum(self.counts[value] for value in chosen)
        files = sum(not chosen.isdisjoint(f.counts) for f in self.facts)
        return ValueRow(word, voxels, voxels / self.voxels, files, becomes)

    def halves(self, threshold: float) -> tuple[ValueRow, ValueRow]:
        """Return the lines of what is below a threshold and what is not."""
        low = [value for value in self.values if value < threshold]
        high = [value for value in self.values if value >= threshold]
        return (
            self.joined(f"below {threshold:g}", low, BACKGROUND),
            self.joined(f"{threshold:g} and above", high, "class_1"),
        )


def facts_of(mask: StoredMask) -> MaskFacts:
    """Count the values of a mask."""
    array, invalid, wrong, plain = mask.array, 0, 0, mask.plain
    if array.dtype.kind not in "iub":
        finite = np.isfinite(array)
        invalid = int(array.size - np.count_nonzero(finite))
        array = array[finite]
        wrong = int(np.count_nonzero(~is_whole(array)))
        if not wrong:
            rounded = np.rint(array)
            plain = plain and np.array_equal(rounded, array)
            array = rounded.astype(np.int64)
    counts, distinct = _fraction_counts(array) if wrong else _counts(array)
    return MaskFacts(
        counts, distinct, wrong, invalid, mask.colours, mask.palette, mask.lossy, plain, mask.classes, mask.names
    )


def _counts(array: NDArray[Any]) -> tuple[dict[float, int], int]:
    """Count whole numbers; those of two bytes are counted without sorting them."""
    if array.dtype.kind in "ub" and array.dtype.itemsize <= 2:
        tally = np.bincount(array.ravel())
        values = np.flatnonzero(tally)
        counts = tally[values]
    else:
        values, counts = np.unique(array, return_counts=True)
    most = np.argsort(counts, kind="stable")[::-1][:_KEPT] if len(values) > _KEPT else slice(None)
    pairs = zip(values[most].tolist(), counts[most].tolist(), strict=True)
    return {int(value): int(count) for value, count in pairs}, len(values)


def _fraction_counts(values: NDArray[Any]) -> tuple[dict[float, int], int]:
    found, counts = np.unique(values, return_counts=True)
    distinct = len(found)
    if distinct > _KEPT:
        low, high = float(found[0]), float(found[-1])
        steps = np.rint((found.astype(np.float64) - low) / (high - low) * _STEPS) / _STEPS * (high - low) + low
        found, inverse = np.unique(steps, return_inverse=True)
        counts = np.bincount(inverse, weights=counts).astype(np.int64)
    joined: dict[float, int] = {}
    for value, n in zip(found.tolist(), counts.tolist(), strict=True):
        short = float(f"{value:.6g}")  # float32's 0.7, not 0.699999988079071
        joined[short] = joined.get(short, 0) + int(n)
    return joined, distinct
