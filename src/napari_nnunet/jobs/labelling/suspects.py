"""What became of cases whose labels were held against a network, and the table of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_nnunet.engine.labelling.doubt import ClassDoubt, Part
from napari_nnunet.engine.labelling.explain import Slip
from napari_nnunet.errors import NnunetError, some
from napari_nnunet.formats.tables import text_of
from napari_nnunet.schema.dataset import LabelScheme, Region

WHOLE = -1  # instead of the number of a part


@dataclass(frozen=True)
class Examined:
    """A case, held against the network that did not see it.

    Parameters
    ----------
    name : str
        Of the case.
    score : float
        How much less its labels agree with the network than usual: root of the mean over classes of the squared excess.
        The excess of a class is what :class:`~napari_nnunet.engine.labelling.doubt.ClassDoubt` calls its gap, beyond
        the gap of the middle case of that class.
    unusual : bool
        Whether that is far more than usual.
    classes : dict of Region to ClassDoubt
        Every class or region.
    parts : tuple of Part
        Places to look at, the heaviest first.
    slips : tuple of Slip
        What explains it; of suspects only.
    twins : tuple of str
        Other cases with the very same labels.
    voxel : float
        Volume (area in 2-D) of a voxel in mm.
    prediction : Path
        What the network sees.
    copies : tuple of str
        Other cases with the very same image.
    accepted : tuple of int
        Which parts somebody found right, by their number in ``parts``; all and -1 where it was the whole case.
    mark : str
        A digest of all that is drawn.
    differing : int
        Voxels that are drawn otherwise than seen.
    """

    name: str
    score: float
    unusual: bool
    classes: Mapping[Region, ClassDoubt]
    parts: tuple[Part, ...]
    slips: tuple[Slip, ...]
    twins: tuple[str, ...]
    voxel: float
    prediction: Path
    copies: tuple[str, ...] = ()
    accepted: tuple[int, ...] = ()
    mark: str = ""
    differing: int = 0

    @property
    def dice(self) -> float:
        """Mean Dice of the classes that are there."""
        known = [found.dice for found in self.classes.values() if not math.isnan(found.dice)]
        return sum(known) / len(known) if known else math.nan

    @property
    def doubted(self) -> tuple[int, ...]:
        """The numbers of the parts that nobody found right."""
        return tuple(number for number in range(len(self.parts)) if number not in self.accepted)

    @property
    def text(self) -> str:
        """What explains it, in words; empty if nothing does."""
        told = [slip.text for slip in self.slips]
        named = [f"the same labels as {some(self.twins)}"] if self.twins else []
        named += [f"the same image as {some(self.copies)}"] if self.copies else []
        return "; ".join([*told, *named])

    @property
    def suspect(self) -> bool:
        """Whether it is far more than usual, and not all of it was found right."""
        return self.unusual and WHOLE not in self.accepted and (not self.parts or bool(self.doubted))

    def with_accepted(self, numbers: Iterable[int]) -> Examined:
        """Return the case with these parts found right, all of them where the whole case is among them."""
        found = set(numbers)
        found |= set(range(len(self.parts))) if WHOLE in found else set()
        return replace(self, accepted=tuple(sorted(found)))


@dataclass(frozen=True)
class Copies:
    """Cases that are the same under several names.

    Parameters
    ----------
    names : tuple of str
        Theirs.
    labels, image : bool
        Whether their labels are the same, and their images.
    """

    names: tuple[str, ...]
    labels: bool
    image: bool

    @property
    def text(self) -> str:
        """What is the same, and what that means."""
        if self.labels and self.image:
            return "the same image and labels: copies in training and validation inflate the scores"
        if self.image:
            return "the same image, with different labels: they cannot all be right"
        return "the same labels for different images: they cannot all be right"


@dataclass(frozen=True)
class LabelErrors:
    """All examined cases.

    Parameters
    ----------
    cases : tuple of Examined
        Worst first.
    scheme : LabelScheme
        What the labels mean.
    model : str
        The model whose cross-validation was asked.
    file : Path
        The table.
    failed : mapping of str to NnunetError
        Cases that could not be examined, and why.
    folder : Path
        Where is kept what was found right: the dataset's.
    """

    cases: tuple[Examined, ...]
    scheme: LabelScheme
    model: str
    file: Path
    failed: Mapping[str, NnunetError] = field(default_factory=dict)
    folder: Path = Path()

    @property
    def copies(self) -> tuple[Copies, ...]:
        """Cases that are the same under several names."""
        found: dict[tuple[str, ...], Copies] = {}
        for case in self.cases:
            for others, image in ((case.copies, True), (case.twins, False)):
                names = tuple(sorted((case.name, *others)))
                if others and names not in found:
                    found[names] = Copies(names, not image or set(others) <= set(case.twins), image)
        return tuple(found[names] for names in sorted(found))

    @property
    def accepted(self) -> tuple[Examined, ...]:
        """Cases of which somebody found something right that looks wrong."""
        return tuple(case for case in self.cases if case.accepted)

    @property
    def suspects(self) -> tuple[Examined, ...]:
        """Those that are far from usual, worst first."""
        return tuple(case for case in self.cases if case.suspect)

    def with_case(self, case: Examined) -> LabelErrors:
        """Return the same with a case as it is now."""
        return replace(self, cases=tuple(case if case.name == own.name else own for own in self.cases))

    def csv(self) -> str:
        """Return one line per suspicious part, and at least one per case, worst cases first."""
        names = self.scheme.names
        rows: list[dict[str, Any]] = []
        for rank, case in enumerate(self.cases, start=1):
            about = {
                "rank": rank,
                "case": case.name,
                "suspect": "yes" if case.suspect else "accepted" if case.accepted else "no",
                "score": case.score,
                "Dice": "" if math.isnan(case.dice) else case.dice,
                "finding": case.text,
                "same labels": "; ".join(case.twins),
                "same image": "; ".join(case.copies),
            }
            parts = [
                {**_row_of(number + 1, part, names, case.voxel), "accepted": "yes" if number in case.accepted else ""}
                for number, part in enumerate(case.parts)
            ]
            rows += [{**about, **part} for part in parts or [_NO_PART]]
        return text_of(rows)


_OF_PART = ("part", "drawn", "seen", "voxels", "size", "certainty", "z", "y", "x", "accepted")
_NO_PART: dict[str, Any] = dict.fromkeys(_OF_PART, "")


def _row_of(number: int, part: Part, names: Mapping[int, str], voxel: float) -> dict[str, Any]:
    z, y, x = ("", *part.place) if len(part.place) == 2 else part.place
    return {
        "part": number,
        "drawn": names.get(part.label, str(part.label)),
        "seen": names.get(part.seen, str(part.seen)),
        "voxels": part.voxels,
        "size": part.voxels * voxel,
        "certainty": part.certainty,
        "z": z,
        "y": y,
        "x": x,
    }
