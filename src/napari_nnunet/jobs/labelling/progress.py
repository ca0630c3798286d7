"""How far the labelling of a dataset is: its cases, how much of them is annotated, how good its best model is."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from napari_nnunet.errors import ModelError, NnunetError, counted
from napari_nnunet.events import Job, Progress, drain
from napari_nnunet.formats.dataset.raw_dataset import survey
from napari_nnunet.formats.workspace import Workspace, stamp
from napari_nnunet.jobs.amount import Amount, amount_of
from napari_nnunet.jobs.labelling.judge import best_among, best_model, judges
from napari_nnunet.schema.requests.labelling import JudgedBy

_ALL = 0.995  # from which share on voxels that are not annotated would be rounded away
#: What is annotated, by label file, its state and the value of what is not annotated.
Counts: TypeAlias = MutableMapping[tuple[Path, Any, int], Amount]


@dataclass(frozen=True)
class Standing:
    """How far the labelling of a dataset is.

    Parameters
    ----------
    cases : int
        Training cases.
    annotated : float
        Share of their voxels that somebody looked at.
    dice : float, optional
        Mean over the validation cases of the best model; None where none was validated.
    validated : int
        Those cases.
    model : str
        The best model; empty where none was trained.
    known : int, optional
        Training cases there were when it was trained.
    partly : bool
        Whether its cases need not have been annotated wholly then, so that its Dice is of a part of them.
    """

    cases: int
    annotated: float
    dice: float | None
    validated: int
    model: str = ""
    known: int | None = None
    partly: bool = False

    @property
    def labelled(self) -> str:
        """How many cases there are, and how much of them is annotated."""
        their = "its" if self.cases == 1 else "their"
        return f"{counted(self.cases, 'case')}, {_percent(self.annotated)} of {their} voxels annotated"

    @property
    def learnt(self) -> str:
        """How good the best model is; empty where none was validated."""
        if self.dice is None:
            return ""
        where = " (only where annotated then)" if self.partly else ""
        return f"Dice {self.dice:.3f} on {counted(self.validated, 'validation case')}{where}"

    @property
    def text(self) -> str:
        """The same in a line."""
        return ", ".join(filter(None, (self.labelled, self.learnt))) + "."


def _percent(share: float) -> str:
    """Return a share; a small one with two digits, and all of it only where nothing is missing."""
    if _ALL < share < 1:
        return "more than 99 %"
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def standing(workspace: Workspace, dataset: str) -> Standing:
    """Return how far the labelling of a dataset is."""
    return drain(look_at_standing(workspace, dataset, {}))


def look_at_standing(workspace: Workspace, dataset: str, known: Counts) -> Job[Standing]:
    """Look how far the labelling of a dataset is; labels are read only where some of them may be missing.

    Parameters
    ----------
    workspace : Workspace
        Where dataset and models are.
    dataset : str
        Its folder's name.
    known : mutable mapping
        What was counted earlier; files that did not change since are not read again.
    """
    raw, _ = survey(workspace.raw / dataset) if (workspace.raw / dataset / "dataset.json").is_file() else (None, [])
    there = list(judges(workspace, dataset, JudgedBy()))
    best = best_among(there) if there else None
    scores = [] if best is None else best.scores
    model = None if best is None else best.model
    if model is None:
        with suppress(ModelError):
            model = best_model(workspace, dataset, JudgedBy())
    share = 1.0
    if raw is not None and raw.cases and raw.info.labels.ignore_label is not None:
        share = yield from _share(
            [case.label for case in raw.cases], raw.info.reader, raw.info.labels.ignore_label, known
        )
    return Standing(
        0 if raw is None else len(raw.cases),
        0.0 if raw is None else share,
        sum(scores) / len(scores) if scores else None,
        len(scores),
        "" if model is None else model.name,
        None if model is None else model.dataset.num_training,
        model is not None and model.dataset.labels.ignore_label is not None,
    )


def _share(files: list[Path], reader: str | None, ignored: int, known: Counts) -> Job[float]:
    """Return the share of voxels that somebody looked at."""
    total = Amount()
    for index, file in enumerate(files):
        key = file, stamp(file), ignored
        if key not in known:
            with suppress(NnunetError, OSError):  # 'Check dataset' tells of labels that cannot be read
                known[key] = amount_of(file, reader, ignored)
        total += known.get(key, Amount())
        yield Progress(done=index + 1, total=len(files))
    return total.share
