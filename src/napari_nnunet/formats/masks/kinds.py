"""What the masks of a folder are: classes, two values, fractions, noise, colours, numbered objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from napari_nnunet.errors import some
from napari_nnunet.formats.masks.facts import (
    FolderFacts,
    MaskFacts,
    Pieces,
    ValueRow,
    by_colour,
    in_colours,
)
from napari_nnunet.formats.masks.objections import gapless, many, objection_to
from napari_nnunet.formats.masks.stored import numbers_of
from napari_nnunet.schema.dataset import BACKGROUND, IGNORE
from napari_nnunet.schema.requests.mask_words import NONZERO, value_word

Kind = Literal[
    "classes",
    "class files",
    "two values",
    "not annotated",
    "fractions",
    "noise",
    "colours",
    "objects",
    "picture",
    "unclear",
]

_CLOSER = 5  # values of a mask from which on they may be numbers of objects
_LOOKED_AT = 3  # files whose pieces are looked at
_MOST_COLOURS = 64  # of a drawing; a picture has more
_SPECK = 4.0  # voxels of a piece, on average: noise and blurred edges are finer than anything drawn
_ALONE = 0.8  # of the values are one piece each: numbered objects
_SAME_SIZE = 0.4  # how far the value explains an area: a class has its own size, a number has none
_ROUNDING = 1e-9  # of squared differences of logarithms of sizes


@dataclass(frozen=True)
class Recognised:
    """What the masks of a folder are, and how they could be translated.

    Parameters
    ----------
    kind : str
        One of :data:`Kind`.
    rows : tuple of ValueRow
        The table.
    certain : bool
        Whether the proposal needs no question.
    sentence : str
        What was seen, and where it is not certain, why.
    mapping : dict of str to str
        Proposed classes by the words of ``--map``.
    ignore : int, optional
        Proposed value of what nobody annotated.
    threshold : float, optional
        Proposed, for masks that have degrees.
    """

    kind: Kind
    rows: tuple[ValueRow, ...]
    certain: bool
    sentence: str
    mapping: Mapping[str, str]
    ignore: int | None = None
    threshold: float | None = None

    @property
    def drawn(self) -> bool:
        """Whether the masks are told apart by colours."""
        return any(row.word.startswith("#") for row in self.rows)


def to_look_at(facts: Mapping[str, MaskFacts]) -> tuple[str, ...]:
    """Return the masks whose pieces must be looked at before anything can be said; none for most folders."""
    if any(f.fractional or f.invalid or f.classes for f in facts.values()):
        return ()
    drawn = in_colours(facts)
    facts = {name: by_colour(f) for name, f in facts.items()} if drawn else facts
    sets = {f.foreground for f in facts.values()}
    most = max((len(values) for values in sets), default=0)
    few = most < _CLOSER and (drawn or not _could_number([f.foreground for f in facts.values()]))
    if few or (len(sets) == 1 and len(facts) > 1 and most <= 40 and gapless(next(iter(sets)))):
        return ()
    filled = (name for name, f in facts.items() if f.foreground)
    ordered = sorted(filled, key=lambda name: (-facts[name].distinct, sorted(facts[name].counts.items()), name))
    return tuple(ordered[:_LOOKED_AT])


def recognise(facts: Mapping[str, MaskFacts], pieces: Sequence[Pieces] = ()) -> Recognised:
    """Say what the masks of a folder are.

    Parameters
    ----------
    facts : mapping
        By case.
    pieces : sequence of Pieces
        Of the masks that :func:`to_look_at` named.

    Returns
    -------
    Recognised
        The order of the cases does not matter, nor how their masks are turned.
    """
    files = next((f.classes for f in facts.values() if f.classes), ())
    if files:
        return _class_files(FolderFacts(facts), files)
    looks = _mean(pieces)
    if in_colours(facts):
        folder = FolderFacts({name: by_colour(f) for name, f in facts.items()})
        on_black = all(0 in f.counts for f in folder.facts)
        objects = on_black and looks is not None and _are_objects(folder, looks)
        return _objects(folder) if objects else _colours(folder)
    folder = FolderFacts(facts)
    if any(f.fractional for f in facts.values()):
        return _fractions(folder)
    if looks is not None:
        noise = _noise(folder, looks)
        if noise is not None:
            return noise
        if _are_objects(folder, looks):
            return _objects(folder)
    elif any(f.lossy and f.distinct > 2 for f in facts.values()):
        return _picture(folder)
    names = next((f.names for f in facts.values()), {})
    return _named(folder, names) if names else _classes(folder)


def _class_files(folder: FolderFacts, names: Sequence[str]) -> Recognised:
    """Translate the numbers of classes with a file each; where they overlap, the smaller class lies on top."""
    sizes: Counter[int] = Counter()
    for value, count in folder.counts.items():
        sizes.update(dict.fromkeys(numbers_of(int(value), len(names)), count))
    becomes: dict[float, str] = {}
    over: dict[str, None] = {}
    shared = 0
    for value in folder.foreground:
        numbers = numbers_of(int(value), len(names))
        top = min(numbers, key=lambda number: (sizes[number], number))
        becomes[value] = names[top - 1]
        if len(numbers) > 1:
            shared += folder.counts[value]
            over |= dict.fromkeys(f"{names[top - 1]} over {names[other - 1]}" for other in numbers if other != top)
    text = f"Every class is a file of its own: {', '.join(names[number - 1] for number in sorted(sizes))}"
    if shared:
        listed = some(list(over), 6)
        text += f". {shared} voxels lie in several; there the smaller class is proposed ({listed})"
    rows = tuple(folder.row(value, becomes.get(value, BACKGROUND)) for value in folder.values)
    mapping = {value_word(value): name for value, name in becomes.items()}
    return Recognised("class files", rows, not shared, f"{text}.", mapping)


def _colours(folder: FolderFacts) -> Recognised:
    if len(folder.values) > _MOST_COLOURS:
        text = (
            f"The masks are pictures with {len(folder.values)} colours, not drawings with a few. Save them without "
            "smoothing and compression (PNG), with one colour per class"
        )
        return Recognised("picture", _top(folder), False, f"{text}.", {})
    ground = 0 if folder.counts[0] else max(folder.values, key=lambda value: (folder.counts[value], -value))
    classes = [value for value in folder.values if value != ground]
    names = {value: f"class_{i}" for i, value in enumerate(classes, start=1)}
    mapping = {value_word(value, colour=True): name for value, name in names.items()}
    if ground != 0:
        mapping = {value_word(ground, colour=True): BACKGROUND, **mapping}
    rows = tuple(folder.row(value, names.get(value, BACKGROUND)) for value in folder.values)
    text = (
        f"The masks are drawn in {many(len(classes), 'colour')} on {value_word(ground, colour=True)}; name the classes"
    )
    return Recognised("colours", rows, False, f"{text}.", mapping)


def _fractions(folder: FolderFacts) -> Recognised:
    low, high = folder.values[0], folder.values[-1]
    example = next(value for value in folder.values if value != round(value))
    files = sum(bool(f.fractional) for f in folder.facts)
    seen = f"{files} of {len(folder.facts)} masks have values that are not whole numbers ({example:g})"
    two = (folder.counts[low] + folder.counts[high]) / folder.voxels > 0.5 and high > 1
    threshold = 0.5 if high <= 1 else high / 2
    if 0 <= low < threshold and (high <= 1 or two):  # else nothing would be background
        text = (
            f"{seen}: probabilities, or edges that were smoothed. Say from which value on a voxel belongs to the class"
        )
        return Recognised("fractions", folder.halves(threshold), False, f"{text}.", {}, threshold=threshold)
    text = (
        f"{seen}: classes that were resampled with interpolation, or an image. Export the masks with nearest neighbours"
    )
    return Recognised("fractions", _top(folder), False, f"{text}.", {})


def _noise(folder: FolderFacts, looks: Pieces) -> Recognised | None:
    """Tell compression and smoothing around two values, and pictures that are no masks, from classes."""
    lossy = any(f.lossy and f.distinct > 2 for f in folder.facts)
    low, high = folder.values[0], folder.values[-1]
    if (not lossy and looks.size >= _SPECK) or low < 0 or high - low < 8:
        return None
    eighth = (high - low) / 8
    ground = sum(n for value, n in folder.counts.items() if value <= low + eighth)
    top = sum(n for value, n in folder.counts.items() if value >= high - eighth)
    between = folder.voxels - ground - top
    if _clustered(folder, low + eighth, high - eighth, top):
        return _picture(folder)
    if ground + top >= 0.6 * folder.voxels and top >= between / 4 and len(folder.values) >= _CLOSER + 2:
        threshold = 128.0 if low < 128 and 200 <= high <= 255 else float(round((low + high) / 2))
        what = "saved as JPEG" if lossy else "smoothed when they were scaled"
        text = f"The masks have {len(folder.values)} values around {low:g} and {high:g}, like masks that were {what}"
        return Recognised("noise", folder.halves(threshold), False, f"{text}.", {}, threshold=threshold)
    specks = len(folder.values) > _MOST_COLOURS and looks.single < _ALONE
    return _picture(folder) if lossy or specks else None


def _clustered(folder: FolderFacts, low: float, high: float, top: int) -> bool:
    """Whether values between two levels gather around a third one, as compressed classes do; edges are spread."""
    between = {value: n for value, n in folder.counts.items() if low < value < high}
    width = (high - low) / 6
    most = max((sum(n for v, n in between.items() if value <= v < value + width) for value in between), default=0)
    return most > top / 4 and most > 0.6 * sum(between.values())


def _picture(folder: FolderFacts) -> Recognised:
    text = f"The masks have {len(folder.values)} values that lie in specks, like an image or compressed classes"
    return Recognised("picture", _top(folder), False, f"{text}. Save them again without compression (PNG, TIFF).", {})


def _are_objects(folder: FolderFacts, looks: Pieces) -> bool:
    """Whether every value is one object: one piece each, and other values in other cases."""
    sets = [f.foreground for f in folder.facts]
    most = max(len(values) for values in sets)
    if looks.single < _ALONE:
        return False
    if most < _CLOSER:
        return looks.touching < 0.5 and _could_number(sets)
    if len(sets) == 1:  # one file: regions of an atlas lie side by side, objects on a ground
        return looks.touching < 0.5 and folder.counts[0] > 0
    if all(values == sets[0] for values in sets):
        return False
    once = sum(folder.files[value] == 1 for value in folder.foreground)
    if once > 0.5 * len(folder.foreground) and once > most / 2 and max(folder.files[v] for v in folder.foreground) == 1:
        return True
    counted = all(gapless(values) for values in sets)
    return (counted or most >= 2 * _CLOSER) and _size_by_value(folder) < _SAME_SIZE


def _could_number(sets: Sequence[frozenset[float]]) -> bool:
    """Whether a few values could be numbers of objects: each mask counts to another one, or none has another's."""
    found = [values for values in sets if values]
    if len(found) < 2 or max(map(len, found)) < 2:
        return False
    apart = sum(map(len, found)) == len(frozenset().union(*found))
    return apart or (len(set(found)) > 1 and all(map(gapless, found)))


def _size_by_value(folder: FolderFacts) -> float:
    """Return how far the value explains the logarithm of its voxels: about 1 for classes, 0 for numbers of objects."""
    sizes: dict[float, list[float]] = {}
    for f in folder.facts:
        for value in f.foreground:
            sizes.setdefault(value, []).append(float(np.log(f.counts[value])))
    groups = [np.array(found) for found in sizes.values() if len(found) > 1]
    if len(groups) < 2:
        return 0.0
    everything = np.concatenate(groups)
    within = sum(float(((g - g.mean()) ** 2).sum()) for g in groups) / (everything.size - len(groups))
    between = sum(g.size * float((g.mean() - everything.mean()) ** 2) for g in groups) / (len(groups) - 1)
    repeats = everything.size / len(groups)
    total = between + (repeats - 1) * within
    # Where all are equally large, nothing is to be explained: what is left is the rounding of logarithms.
    return (between - within) / total if total > _ROUNDING else 0.0


def _objects(folder: FolderFacts) -> Recognised:
    most = max(len(f.foreground) for f in folder.facts)
    do, what = ("draw their objects in colours", "colour") if folder.colour else ("number their objects", "number")
    text = (
        f"The masks {do}: up to {most} {'colours' if folder.colour else 'values'}, each one connected piece, and "
        f"others in other cases. nnU-Net learns classes, not {what}s: where each {what} is an object, it learns cores "
        "and borders and tells the objects apart; where all are one class, those that touch become one"
    )
    rows = (folder.row(0, BACKGROUND), folder.joined(NONZERO, folder.foreground, "object"))
    return Recognised("objects", rows, False, f"{text}.", {NONZERO: "object"})


def as_objects(recognised: Recognised | None, kind: str) -> Recognised | None:
    """Return what masks become of which somebody said that their values number objects of a kind."""
    if recognised is None:
        return None
    rows = tuple(row if row.becomes == BACKGROUND else replace(row, becomes=kind) for row in recognised.rows)
    what = "connected piece of a colour" if recognised.drawn else "value besides 0"
    seen = recognised.sentence if recognised.kind == "objects" else ""
    text = seen or f"Every {what} of a mask is an object of its own: {kind}."
    return Recognised("objects", rows, True, text, {NONZERO: kind})


def _named(folder: FolderFacts, names: Mapping[int, str]) -> Recognised:
    """Classes that the masks name themselves, the same in all (see :func:`named_alike`): nothing has to be asked."""
    own = {value: names[int(value)] for value in folder.foreground}
    rows = tuple(folder.row(value, own.get(value, BACKGROUND)) for value in folder.values)
    grouped = _grouped({value_word(value): name for value, name in own.items()})
    text = f"The masks name their classes: {', '.join(dict.fromkeys(own.values()))}."
    return Recognised("two values" if len(own) == 1 else "classes", rows, True, text, grouped)


def _classes(folder: FolderFacts) -> Recognised:
    """Classes, with what may be meant otherwise."""
    objection = objection_to(folder)
    ignored = objection.ignored if objection else ()
    proper = [value for value in folder.foreground if value not in ignored]
    names = {value: f"class_{i}" for i, value in enumerate(proper, start=1)}
    if objection and objection.names:
        names = dict(objection.names)
    becomes = {**names, **dict.fromkeys(ignored, IGNORE)}
    rows = tuple(folder.row(value, becomes.get(value, BACKGROUND)) for value in folder.values)
    alone = len(ignored) == 1
    grouped = _grouped({value_word(value): name for value, name in (names if alone else becomes).items()})
    if objection:
        kind: Kind = "not annotated" if ignored else "unclear"
        return Recognised(kind, rows, False, objection.sentence, grouped, ignore=int(ignored[0]) if alone else None)
    if len(proper) == 1:
        return Recognised(
            "two values", rows, True, f"The masks have one value besides 0: {value_word(proper[0])}.", grouped
        )
    return Recognised("classes", rows, True, f"The masks have {many(len(proper), 'class')}.", grouped)


def _grouped(mapping: Mapping[str, str]) -> dict[str, str]:
    """Return a mapping with the values of a class in one word."""
    groups: dict[str, list[str]] = {}
    for word, name in mapping.items():
        groups.setdefault(name, []).append(word)
    return {",".join(words): name for name, words in groups.items()}


def _top(folder: FolderFacts) -> tuple[ValueRow, ...]:
    """Return the lines of the most frequent values."""
    most = sorted(folder.values, key=lambda value: (-folder.counts[value], value))[:8]
    return tuple(folder.row(value, "") for value in most)


def _mean(pieces: Sequence[Pieces]) -> Pieces | None:
    if not pieces:
        return None
    single, size, touching = (
        float(np.mean([getattr(p, name) for p in pieces])) for name in ("single", "size", "touching")
    )
    return Pieces(single, size, touching)
