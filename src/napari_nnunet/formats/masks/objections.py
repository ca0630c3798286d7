"""What speaks against taking the values of masks for classes: no background, values apart, slips."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from napari_nnunet.errors import some
from napari_nnunet.formats.masks.facts import FolderFacts
from napari_nnunet.schema.dataset import BACKGROUND
from napari_nnunet.schema.requests.mask_words import value_word

_VOID = frozenset((99, 100, 127, 128, *range(250, 256), 999, 1000, 9999, 32767, 65534, 65535, 2**31 - 1, 2**32 - 1))
_STRAY = 1e-3  # of all foreground: a value with fewer voxels, apart from the others, may be a slip
_SEVERAL = 3  # masks of which each has a value of its own, or classes
_FILLS = 0.9  # of all voxels: no class of several has that much, but what was not annotated has


@dataclass(frozen=True)
class Objection:
    """Why values may be no classes.

    Parameters
    ----------
    sentence : str
        What was seen.
    ignored : tuple of float
        Values that may mean that nobody annotated a voxel.
    names : mapping of float to str
        Better classes of the values; empty for a class of each.
    """

    sentence: str
    ignored: tuple[float, ...] = ()
    names: Mapping[float, str] = field(default_factory=dict)


def objection_to(folder: FolderFacts) -> Objection | None:
    """Return what must be asked of masks with whole values; None if their values are classes."""
    negative = [value for value in folder.values if value < 0]
    if len(negative) > 1:
        text = f"The masks have {len(negative)} values below 0, from {value_word(negative[0])} on; they may be images."
        return Objection(text, (negative[0],))
    void = _void(folder)
    if negative:
        text = f"The masks have the value {value_word(negative[0])}, which often means that nobody annotated a voxel."
        return Objection(text, (negative[0], *void))
    one_each = _one_value_each(folder)
    if one_each:
        return one_each
    if void:
        which = f"value {value_word(void[0])} lies" if len(void) == 1 else f"values {_listed(void)} lie"
        it = "it often means" if len(void) == 1 else "they often mean"
        return Objection(f"The {which} apart from the others; {it} that nobody annotated a voxel.", tuple(void))
    if _fills(folder):
        last = folder.foreground[-1]
        text = (
            f"The value {value_word(last)} has {100 * folder.counts[last] / folder.voxels:.0f} % of the voxels, more "
            "than the background; it may mean that nobody annotated a voxel."
        )
        return Objection(text, (last,))
    strays = _strays(folder)
    if strays:
        listed = ", ".join(f"{value_word(value)} ({many(folder.counts[value], 'voxel')})" for value in strays[:5])
        proper = (value for value in folder.foreground if value not in strays)
        kept = {**{v: f"class_{i}" for i, v in enumerate(proper, start=1)}, **dict.fromkeys(strays, BACKGROUND)}
        text = f"The masks have few voxels of {listed}, apart from the other values; they may be slips."
        return Objection(text, names=kept)
    return None if folder.counts[0] else _without_ground(folder)


def _one_value_each(folder: FolderFacts) -> Objection | None:
    """Tell masks with one value besides 0, but not the same one: classes count from 1 and come again."""
    ways = {f.foreground for f in folder.facts if f.foreground}
    if len(ways) < 2 or any(len(values) > 1 for values in ways):
        return None
    never_again = len(folder.facts) >= _SEVERAL and all(folder.files[value] == 1 for value in folder.foreground)
    if gapless(folder.foreground) and not never_again:
        return None
    text = f"Every mask has one value besides 0, but not the same: {_listed(folder.foreground)}. One class, or several?"
    return Objection(text, names=dict.fromkeys(folder.foreground, "class_1"))


def _without_ground(folder: FolderFacts) -> Objection | None:
    """Ask for the background of masks without 0: the value of the most voxels is proposed, of two the lower."""
    values = folder.foreground
    if len(values) < 2:
        return None
    ground = values[0] if len(values) == 2 else max(values, key=lambda value: (folder.counts[value], -value))
    classes = (value for value in values if value != ground)
    names = {ground: BACKGROUND, **{value: f"class_{i}" for i, value in enumerate(classes, start=1)}}
    return Objection(f"The masks have the values {_listed(values)}, and no 0. Which is the background?", names=names)


def _void(folder: FolderFacts) -> list[float]:
    """Return values that look like 'not annotated': far above values that count from 1 on."""
    far = [value for value in folder.foreground if value in _VOID]
    near = [value for value in folder.foreground if value >= 0 and value not in far]
    apart = near and gapless(near) and far and far[0] > near[-1] + 1
    return far if apart else []


def _fills(folder: FolderFacts) -> bool:
    """Whether the highest of several values fills the images, and 0 hardly occurs, as where scribbles were drawn."""
    if len(folder.foreground) < _SEVERAL or not gapless(folder.foreground):
        return False
    most = folder.counts[folder.foreground[-1]]
    return most > _FILLS * folder.voxels and 0 < folder.counts[0] < most / 10


def _strays(folder: FolderFacts) -> list[float]:
    """Return values with next to no voxels where the others do not lead on to them."""
    if gapless(folder.foreground):
        return []
    total = sum(folder.counts[value] for value in folder.foreground)
    files = len(folder.facts)
    rare = [
        v for v in folder.foreground if folder.counts[v] < _STRAY * total and (folder.files[v] < files or files == 1)
    ]
    return rare if len(rare) < len(folder.foreground) else []


def gapless(values: Iterable[float]) -> bool:
    """Whether values count 1, 2, 3, ..."""
    found = set(values)
    return found == set(range(1, len(found) + 1))


def many(count: int, what: str) -> str:
    """Return a number with its noun: "1 class", "2 classes"."""
    return f"{count} {what if count == 1 else what + ('es' if what.endswith('s') else 's')}"


def _listed(values: Sequence[float]) -> str:
    return some([value_word(value) for value in values], 8)
