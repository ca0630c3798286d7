"""A place to label, with what it costs: what the job finds and a dock shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_nnunet.engine.labelling.curve import Gain
from napari_nnunet.engine.labelling.queries import Spot
from napari_nnunet.formats.dataset.case_files import Case
from napari_nnunet.formats.tables import text_of
from napari_nnunet.jobs.labelling.progress import Standing
from napari_nnunet.schema.dataset import LabelScheme, Region

UNKNOWN_GAIN = (
    "Whether labelling more will pay is not known yet: that takes models of this configuration that were trained, and "
    "validated, on three different amounts of labels."
)


@dataclass(frozen=True)
class Suggestion:
    """A place to label.

    Parameters
    ----------
    place : Spot
        Where, and what the model sees there.
    image : Case
        Where the image lies.
    proposal : Path, optional
        The model's segmentation of the whole image, where it was written.
    minutes : float
        What labelling it takes, estimated from the outlines that the model sees.
    """

    place: Spot
    image: Case
    proposal: Path | None
    minutes: float


@dataclass(frozen=True)
class Suggestions:
    """What to label next.

    Parameters
    ----------
    chosen : tuple of Suggestion
        The first one first.
    considered : int
        Places they were chosen from.
    scheme : LabelScheme
        What the model's labels mean.
    model : str
        The model that was asked.
    gain : Gain, optional
        What as many more cases are expected to bring; None where that is not known.
    standing : Standing
        How far the labelling is.
    file : Path
        The table.
    """

    chosen: tuple[Suggestion, ...]
    considered: int
    scheme: LabelScheme
    model: str
    gain: Gain | None
    standing: Standing
    file: Path

    @property
    def voxels(self) -> int:
        """What labelling all of them costs, in voxels that are annotated."""
        return sum(suggestion.place.voxels for suggestion in self.chosen)

    @property
    def minutes(self) -> float:
        """The same in estimated minutes."""
        return sum(suggestion.minutes for suggestion in self.chosen)

    @property
    def learning(self) -> str:
        """Whether labelling more is likely to pay, in a sentence."""
        return UNKNOWN_GAIN if self.gain is None else self.gain.text

    def csv(self) -> str:
        """Return one line per place, the first one first."""
        return text_of([self._row(rank, found) for rank, found in enumerate(self.chosen, start=1)])

    def _row(self, rank: int, found: Suggestion) -> dict[str, Any]:
        place = found.place
        axes = "zyx"[3 - len(place.box) :]
        spans = dict(zip(axes, place.box, strict=True))
        middle = dict(zip(axes, place.middle, strict=True))
        row: dict[str, Any] = {"rank": rank, "case": place.case, "entropy": place.entropy, "voxels": place.voxels}
        row |= {"minutes": found.minutes}
        for axis in "zyx":
            lo, hi = spans.get(axis, ("", ""))
            row |= {f"{axis}_first": lo, f"{axis}_end": hi}
        row |= {axis: middle.get(axis, "") for axis in "zyx"}
        row["sees"] = "; ".join(f"{name_of(t, self.scheme)} {n}" for t, (n, _) in place.classes.items())
        row["image"] = str(found.image.files[0])
        row["proposal"] = str(found.proposal or "")
        return row


def name_of(target: Region, scheme: LabelScheme) -> str:
    """Return the name of a class or region."""
    return next((str(name) for name, value in scheme.labels.items() if value == target), str(target))
