"""Values of masks become the labels 0, 1, 2, ... of a dataset: as they were told to, or as they were recognised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import DatasetError, ImageError, some
from napari_nnunet.formats.masks.facts import MaskFacts, by_colour, in_colours
from napari_nnunet.formats.masks.stored import StoredMask, on_palette
from napari_nnunet.schema.dataset import BACKGROUND, IGNORE
from napari_nnunet.schema.requests.mask_words import EACH, NONZERO, read_values, value_word
from napari_nnunet.volume import is_whole


@dataclass(frozen=True)
class Told:
    """What a person said about the values of masks.

    Parameters
    ----------
    mapping : dict of str to str
        Class by the words of ``--map``.
    names : dict of int to str
        Class by value; several values may have one.
    ignore : tuple of int
        Values of voxels that nobody annotated.
    threshold : float, optional
        Values from here on are 1, others 0; ``mapping`` and ``names`` then name the 1.
    """

    mapping: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    ignore: tuple[int, ...] = ()
    threshold: float | None = None

    @property
    def names_classes(self) -> bool:
        """Whether classes were named, so that a value without one is a slip."""
        return bool(self.mapping or self.names)


def as_meant(told: Told) -> Told:
    """Return what a person said; raises DatasetError for classes called like the words for no class, in capitals."""
    for name in (*told.mapping.values(), *told.names.values()):
        meant = next((word for word in (BACKGROUND, IGNORE) if name.lower() == word != name), None)
        if meant is not None:
            raise DatasetError(f"'{name}' would be a class to learn. Write '{meant}', or give the class another name.")
    return told


@dataclass(frozen=True)
class Translation:
    """From the values of mask files to the labels of a dataset.

    Parameters
    ----------
    values : dict of int to int
        Value, or colour 0xRRGGBB, to label. Other values are refused.
    labels : dict of str to int
        Class to label, as dataset.json has it.
    colours : bool
        Whether the values are colours.
    threshold : float, optional
        Below it lies 0, from it on 1, before ``values`` count.
    others : int, optional
        Label of all other values but 0; masks can hold more than were counted.
    numbers : dict of str to int
        Number of each class that the masks name themselves, where files have other numbers for them; ``values`` are
        then these.
    """

    values: Mapping[int, int]
    labels: Mapping[str, int]
    colours: bool = False
    threshold: float | None = None
    others: int | None = None
    numbers: Mapping[str, int] = field(default_factory=dict)

    @property
    def changes(self) -> bool:
        """Whether a file with these values must be written anew."""
        return self.colours or self.threshold is not None or any(old != new for old, new in self.values.items())

    def apply(self, mask: StoredMask, name: str = "the mask") -> NDArray[np.int32]:
        """Return the labels of a mask, shape ([Z,] Y, X).

        Raises
        ------
        ImageError
            If it holds a value that the translation does not know; nothing is rounded or left as it is.
        """
        array = mask.array
        if self.threshold is not None:
            array = (array >= self.threshold).astype(np.uint8)
        elif self.colours and not mask.colours:
            array = on_palette(array, mask.palette) if mask.palette else array.astype(np.int32) * 0x010101
        elif array.dtype.kind not in "iub":
            if not is_whole(array).all():
                raise ImageError(f"{name} has values that are not whole numbers.")
            array = np.rint(array).astype(np.int64)
        found, inverse = np.unique(array, return_inverse=True)
        known = dict(self.values)
        if self.numbers:
            numbers = {value: self.numbers.get(name, -1) for value, name in mask.names.items()}
            known = {0: 0} | {value: known[number] for value, number in numbers.items() if number in known}
        if self.others is not None:
            known = dict.fromkeys(map(int, found), self.others) | {0: 0} | known
        unknown = [int(value) for value in found if int(value) not in known]
        if unknown:
            words = some([value_word(value, colour=self.colours) for value in unknown], 6)
            raise ImageError(f"{name} has values that belong to no class: {words}.")
        table = np.array([known[int(value)] for value in found], dtype=np.int32)
        translated: NDArray[np.int32] = table[inverse.reshape(array.shape)]
        return translated


def assigned(facts: Mapping[str, MaskFacts], told: Told) -> dict[int, str]:
    """Return the class of every value that was told, in the order of the telling.

    Raises
    ------
    DatasetError
        If a named value occurs in no mask, or a value is named twice.
    """
    colours = told.threshold is None and in_colours(facts)
    counts = _occurring(facts, told, colours=colours)
    found: dict[int, str] = dict.fromkeys(told.ignore, IGNORE)
    absent: list[str] = []
    for word, name in [*told.mapping.items(), *((str(value), name) for value, name in told.names.items())]:
        values = read_values(word)
        if values.every:
            continue
        if bool(values.colours) != colours and (values.colours or told.threshold is None):
            have = "drawn in colours" if colours else "numbers"
            raise DatasetError(
                f"'{word}' does not fit: the masks are {have}. Name a {'colour' if colours else 'number'}."
            )
        mine = set(values.colours) if colours else {value for value in counts if value in values}
        mine |= {low for low, high in values.ranges if low == high == 0}  # background need not occur
        mine &= {*counts, 0}
        if not mine:
            absent.append(word)
        for value in sorted(mine):
            if found.setdefault(value, name) != name:
                raise DatasetError(
                    f"The value {value_word(value, colour=colours)} is given to {found[value]} and to {name}."
                )
    if absent:
        raise DatasetError(f"The values {', '.join(absent)} are named, but occur in no mask.")
    rest = [value for value in sorted(counts) if value not in found and value != 0]
    for word, name in told.mapping.items():
        every = read_values(word).every
        if every:
            found |= {value: f"{name}_{i}" if every == EACH else name for i, value in enumerate(rest, start=1)}
            rest = []
    return found


def _occurring(facts: Mapping[str, MaskFacts], told: Told, *, colours: bool) -> Counter[int]:
    """Return the values that must be translated, with their voxels."""
    counts: Counter[int] = Counter()
    for f in facts.values():
        for value, count in (by_colour(f) if colours else f).counts.items():
            if told.threshold is not None:
                counts[int(value >= told.threshold)] += count
            elif value == round(value):
                counts[int(value)] += count
    return counts


def without(facts: Mapping[str, MaskFacts], values: Sequence[int]) -> dict[str, MaskFacts]:
    """Return the facts of masks without some values, for recognising the rest."""
    gone = set(values)
    return {
        name: MaskFacts(
            {value: n for value, n in f.counts.items() if value not in gone},
            f.distinct - len(gone & set(f.counts)),
            f.fractional,
            f.invalid,
            f.colours,
            f.palette,
            f.lossy,
            classes=f.classes,
            names=f.names,
        )
        for name, f in facts.items()
    }


def translate(
    facts: Mapping[str, MaskFacts], told: Told, *, known: Mapping[str, int] | None = None
) -> tuple[Translation | None, dict[str, int]]:
    """Return the translation that was told, and the values that nobody named, as words, with their voxels.

    Parameters
    ----------
    facts : mapping
        Of all masks.
    told : Told
        Classes of values; where no class is named, every value but the ignored one is its own.
    known : mapping of str to int, optional
        Classes and labels of the dataset that gets the cases.

    Returns
    -------
    tuple of (Translation or None, dict of str to int)
        None where values are left over.

    Raises
    ------
    DatasetError
        If what was told does not fit the masks, or names a class that the dataset lacks.
    """
    colours = told.threshold is None and in_colours(facts)
    if told.threshold is not None and any(f.colours for f in facts.values()):
        raise DatasetError("Masks that are drawn in colours have no threshold; name the classes of their colours.")
    counts = _occurring(facts, told, colours=colours)
    if told.threshold is not None and not counts[0]:
        lowest = min(value for f in facts.values() for value in f.counts)
        raise DatasetError(
            f"With the threshold {told.threshold:g} every voxel of every mask would be the class: the lowest value of "
            f"the masks is {lowest:g}, and the class begins at the threshold. Give a higher one."
        )
    names = assigned(facts, told)
    rest = [value for value in sorted(counts) if value not in names and value != 0]
    if told.names_classes and rest:
        return None, {value_word(value, colour=colours): counts[value] for value in rest}
    if known is None:
        names |= _numbered(rest, names)
        labels = _labels(names, colours=colours)
    else:
        names |= _known_names(rest, known)
        labels = dict(known)
    lacking = sorted(set(names.values()) - {BACKGROUND} - set(labels))
    if lacking:
        raise DatasetError(
            f"The dataset has no class {', '.join(lacking)}; it has {', '.join(labels)}. A class that its other cases "
            "lack would count as background there."
        )
    values = {0: 0, **{value: labels.get(name, 0) for value, name in names.items()}}
    every = next((labels.get(name) for word, name in told.mapping.items() if read_values(word).every == NONZERO), None)
    return Translation(values, labels, colours, told.threshold, every if isinstance(every, int) else None), {}


def _numbered(values: Sequence[int], taken: Mapping[int, str]) -> dict[int, str]:
    """Name values that have no name by the labels they get."""
    before = len({name for name in taken.values() if name not in (BACKGROUND, IGNORE)})
    return {value: f"class_{i}" for i, value in enumerate(values, start=before + 1)}


def _labels(names: Mapping[int, str], *, colours: bool) -> dict[str, int]:
    """Number the classes by their smallest value, colours as they were named; what is ignored comes last."""
    ordered = names if colours else dict(sorted(names.items()))
    classes = [name for name in dict.fromkeys(ordered.values()) if name not in (BACKGROUND, IGNORE)]
    labels = {BACKGROUND: 0, **{name: i for i, name in enumerate(classes, start=1)}}
    if IGNORE in names.values():
        labels[IGNORE] = len(labels)
    return labels


def _known_names(values: Sequence[int], known: Mapping[str, int]) -> dict[int, str]:
    """Name values by the labels of a dataset; the only class gets the only value."""
    by_label = {label: name for name, label in known.items()}
    classes = [name for name in known if name not in (BACKGROUND, IGNORE)]
    if len(values) == 1 and len(classes) == 1:
        return {values[0]: classes[0]}
    unknown = [value for value in values if value not in by_label]
    if unknown:
        raise DatasetError(
            f"The masks have the values {some(unknown, 6)}, which the dataset does not define; it has "
            f"{', '.join(f'{label} {name}' for name, label in known.items())}.",
            shell="Say which class they belong to (--map VALUES=CLASS).",
            window="Give each value its class in the table.",
        )
    return {value: by_label[value] for value in values}
