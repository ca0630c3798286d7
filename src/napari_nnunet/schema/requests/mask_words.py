"""How a shell and a form write which values of a mask belong to which class: ``1,2,5..9=cell #ff0000=nucleus``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from napari_nnunet.errors import SettingsError

K = TypeVar("K")
V = TypeVar("V")
NONZERO, EACH = "nonzero", "each"
_RANGE = re.compile(r"(-?\d+)(?:\.\.(-?\d+))?")
_COLOUR = re.compile(r"#([0-9a-fA-F]{6})")


@dataclass(frozen=True)
class Values:
    """Values of a mask that are one class.

    Parameters
    ----------
    ranges : tuple of (int, int)
        First and last value, both included.
    colours : tuple of int
        0xRRGGBB.
    every : str
        "nonzero" for all other values but 0; "each" for the same with a class for each of them; else empty.
    """

    ranges: tuple[tuple[int, int], ...] = ()
    colours: tuple[int, ...] = ()
    every: str = ""

    def __contains__(self, value: float) -> bool:
        return any(low <= value <= high for low, high in self.ranges)


def read_values(text: str) -> Values:
    """Return the values that a word names.

    Raises
    ------
    SettingsError
        If it is not of that form.
    """
    if text.lower() in (NONZERO, EACH):
        return Values(every=text.lower())
    ranges, colours = [], []
    for part in text.split(","):
        if colour := _COLOUR.fullmatch(part.strip()):
            colours.append(int(colour[1], 16))
        elif numbers := _RANGE.fullmatch(part.strip()):
            low = int(numbers[1])
            ranges.append((low, int(numbers[2]) if numbers[2] else low))
        else:
            raise SettingsError(
                f"{text!r} names no values of a mask; write numbers and ranges (1,2,5..9), colours (#ff0000), "
                f"'{NONZERO}' for all but 0, or '{EACH}' for a class of each."
            )
    if ranges and colours:
        raise SettingsError(f"{text!r} has numbers and colours; a mask has one or the other.")
    return Values(tuple(ranges), tuple(colours))


def read_map(words: Sequence[str]) -> dict[str, str]:
    """Return classes by the words for their values; raises SettingsError for what is not ``VALUES=CLASS``."""
    found: list[tuple[str, str]] = []
    for word in words:
        values, sign, name = word.partition("=")
        if not sign or not name.strip():
            raise SettingsError(f"{word!r} cannot be read; write it like 1,2=cell, '#ff0000=cell' or nonzero=cell.")
        found.append((read_values(values).every or values.strip(), name.strip()))
    if {NONZERO, EACH} <= {values for values, _ in found}:
        raise SettingsError(f"'{NONZERO}' and '{EACH}' are about the same values; give one of them.")
    return without_doubles(found)


def without_doubles(pairs: Iterable[tuple[K, V]]) -> dict[K, V]:
    """Return what was told of each word; raises SettingsError where two different things were."""
    found: dict[K, V] = {}
    for word, told in pairs:
        if found.setdefault(word, told) != told:
            raise SettingsError(f"{word!r} is given twice, with {found[word]!r} and with {told!r}. Leave one of them.")
    return found


def map_words(mapping: Mapping[str, str]) -> str:
    """Return what to type behind ``--map``; quoted where a shell would take a sign for its own."""
    words = [f"{values}={name}" for values, name in mapping.items()]
    return " ".join(f"'{word}'" if re.search(r"[^\w.,=+-]", word) else word for word in words)


def value_word(value: float, *, colour: bool = False) -> str:
    """Return a value as it is typed: 255, 0.25, #ff0000."""
    return f"#{int(value):06x}" if colour else f"{value:g}" if isinstance(value, float) else str(value)
