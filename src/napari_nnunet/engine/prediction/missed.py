"""Whether a class of which nothing was found is missing: by how often it is there, and how often it was overlooked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from napari_nnunet.errors import counted

_PRIOR = 5  # known cases: as much as these weighs how often a class is there, beside how often it was overlooked
_EXPECTED = 0.5  # probability from which on a class counts as missed
_POSSIBLE = 0.1  # the same for what the 90 % interval has to hold
_SURE = 0.9


@dataclass(frozen=True)
class Missing:
    """A class of which nothing was found.

    Parameters
    ----------
    name : str
        Of the class.
    cases, known : int
        Known cases that have it, of how many.
    probability : float
        That it is there all the same.
    """

    name: str
    cases: int
    known: int
    probability: float

    @property
    def expected(self) -> bool:
        """Whether it is rather there than not."""
        return self.probability >= _EXPECTED

    @property
    def possible(self) -> bool:
        """Whether it may be there."""
        return self.probability >= _POSSIBLE

    @property
    def sure(self) -> bool:
        """Whether it is hardly thinkable that it is not there."""
        return self.probability >= _SURE

    @property
    def text(self) -> str:
        """The same in words."""
        have = "has" if self.known == 1 else "have"
        return f"{self.name}, which {self.cases} of {counted(self.known, 'known case')} {have}"


def missing_class(name: str, drawn: Sequence[bool], seen: Sequence[bool]) -> Missing:
    """Return how probably a class is there of which nothing was found.

    Of the known cases in which nothing was found of it, some had it. Where there are few of these, the share of all
    known cases that have it counts: a Beta prior with the weight of five cases.

    Parameters
    ----------
    name : str
        Of the class.
    drawn, seen : sequence of bool
        For each known case (at least one): whether its truth has the class, and whether the network found any.
    """
    cases, known = sum(drawn), len(drawn)
    unseen = [there for there, found in zip(drawn, seen, strict=True) if not found]
    probability = (sum(unseen) + _PRIOR * cases / known) / (len(unseen) + _PRIOR)
    return Missing(name, cases, known, probability)
