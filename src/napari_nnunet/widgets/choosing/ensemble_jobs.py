"""What the Ensemble dock does on a thread, and what it says about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from napari_nnunet.engine.prediction.vote import VoteSettings
from napari_nnunet.events import Job, Stage
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.best import find_best
from napari_nnunet.jobs.choosing.calibrate import is_outdated
from napari_nnunet.jobs.prediction.result import Halt
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.schema.requests.choosing import FindBestRequest
from napari_nnunet.widgets.choosing.layer_groups import LayerGroup
from napari_nnunet.widgets.choosing.members import MemberChoice
from napari_nnunet.widgets.frame.words import about_time
from napari_nnunet.widgets.frame.worker import lazy
from napari_nnunet.widgets.prediction.request import SegmentRequest
from napari_nnunet.widgets.prediction.words import describe

if TYPE_CHECKING:
    from napari_nnunet.jobs.prediction.combined import join_arrays, predict_combined_series
else:
    join_arrays = lazy("napari_nnunet.jobs.prediction.combined:join_arrays")
    predict_combined_series = lazy("napari_nnunet.jobs.prediction.combined:predict_combined_series")


@dataclass(frozen=True, eq=False)
class Together:
    """Segment an image with several models.

    Parameters
    ----------
    request : SegmentRequest
        Image and settings.
    members : sequence of MemberChoice
        Models.
    vote : VoteSettings
        How they are combined.
    cleaning : Cleaning
        What is done with the result.
    """

    request: SegmentRequest
    members: Sequence[MemberChoice]
    vote: VoteSettings
    cleaning: Cleaning


@dataclass(frozen=True, eq=False)
class Joining:
    """Join probability layers; no model runs.

    Parameters
    ----------
    groups : sequence of LayerGroup
        The layers.
    vote : VoteSettings
        How they are combined.
    """

    groups: Sequence[LayerGroup]
    vote: VoteSettings


EnsembleOrder: TypeAlias = Together | Joining


def cost_text(order: Together, cost: dict[str, Any]) -> str:
    """Return what Run will take (rich text)."""
    request = order.request
    lines = [describe(request)]
    count = len(order.members)
    members = f"{count} members" if count > 1 else "one model"
    one = cost["networks"] == 1
    lines.append(f"{cost['networks']} network{'' if one else 's'} of {members} run{'s' if one else ''} over it")
    when = "Time unknown" if cost["seconds"] is None else about_time(cost["seconds"] * len(request.frames))
    guess = "" if cost["measured"] or cost["seconds"] is None else " (a first estimate, without loading the models)"
    disk = f" and {cost['disk'] / 1e9:.1f} GB of temporary disk space" if cost["disk"] > 5e7 else ""
    lines.append(f"{when}{guess}, {cost['memory'] / 1e9:.1f} GB of memory{disk}")
    if order.vote.uncertainty:
        known = "calibrated" if order.vote.temperature != 1 else "not calibrated"
        if order.vote.temperature == 1 and cost["outdated"]:
            known += ": the existing calibration was measured with other weights, before a model was trained on"
        lines.append(f"The uncertainty is {known}")
    return ".<br>".join(lines) + "."


def best_of(workspace: Workspace, results: Path) -> Job[Any]:
    """Compare all models of a dataset."""
    names = workspace.models(results.name)
    request = FindBestRequest(
        dataset=results.name,
        configurations=tuple(dict.fromkeys(name.configuration for name in names)),
        trainers=tuple(dict.fromkeys(name.trainer for name in names)),
        plans=tuple(dict.fromkeys(name.plans for name in names)),
    )
    return (yield from find_best(workspace, request))


def estimate_together(order: Together) -> Job[dict[str, Any]]:
    """Work out time and memory."""
    from napari_nnunet.jobs.prediction.estimate import estimate_combined  # loads torch, on a thread

    yield Stage(name="Estimating")
    volume = order.request.frames[0].volume
    outdated = is_outdated(list(dict.fromkeys(member.model.folder for member in order.members)))
    cost = estimate_combined(_combination(order), volume.shape, order.request.grid.spacing)
    return {**cost, "outdated": outdated}


def segment(order: Together, targets: list[tuple[Any, Any, Any]], halt: Halt, focus: Any) -> Job[Any]:
    """Segment every time point, from where it was cancelled before."""
    options = {"focus": focus, "roi": order.request.region}
    return (yield from predict_combined_series(_combination(order), targets, halt=halt, **options))


def join(order: Joining) -> Job[Any]:
    """Join probability layers."""
    yield Stage(name="Joining")
    arrays = [group.arrays() for group in order.groups]
    return (yield from join_arrays(order.groups[0].scheme, arrays, order.vote))


def _combination(order: Together) -> Any:
    """Return what the jobs run; loads torch, so it is called on a thread."""
    from napari_nnunet.jobs.prediction.combined import Combination, Member  # likewise

    members = []
    for choice in order.members:
        folds = choice.folds or choice.model.resolve_folds(None, order.request.settings.checkpoint)
        members.append(Member(choice.model, order.request.settings.replace(folds=folds, probabilities=False)))
    return Combination(tuple(members), order.vote, order.cleaning)
