"""What the Ensemble dock does on a thread, and what it says about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_nnunet.engine.prediction.vote import VoteSettings
from napari_nnunet.errors import NnunetError
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.requests.choosing import FindBestRequest
from napari_nnunet.widgets.choosing.members import LayerGroup, MemberChoice
from napari_nnunet.widgets.frame.preferences import read_preferences
from napari_nnunet.widgets.frame.words import plain_time
from napari_nnunet.widgets.prediction.request import Request
from napari_nnunet.widgets.prediction.words import describe


@dataclass(frozen=True, eq=False)
class Order:
    """What Run would do.

    Parameters
    ----------
    request : Request or None
        Image and settings; None where layers are joined.
    members : list of MemberChoice
        Models.
    groups : list of LayerGroup
        Or probability layers.
    vote : VoteSettings
        How they are joined.
    cleaning : Cleaning
        What is done with the result.
    """

    request: Request | None
    members: list[MemberChoice]
    groups: list[LayerGroup]
    vote: VoteSettings
    cleaning: Cleaning


def short_name(entry: Any) -> str:
    """Return a name for people of what was compared."""
    return " + ".join(model.configuration for model in entry.models)


def best_job(results: Path) -> Callable[[], Job[Any]]:
    """Return what compares all models of a dataset."""

    def start() -> Job[Any]:
        from napari_nnunet.jobs.choosing.best import find_best

        workspace = read_preferences().folders()
        names = workspace.models(results.name)
        request = FindBestRequest(
            dataset=results.name,
            configurations=tuple(dict.fromkeys(name.configuration for name in names)),
            trainers=tuple(dict.fromkeys(name.trainer for name in names)),
            plans=tuple(dict.fromkeys(name.plans for name in names)),
        )
        return find_best(workspace, request)

    return start


def cost_text(order: Order, cost: dict[str, Any]) -> str:
    """Return what Run will take (rich text)."""
    request = order.request
    if request is None:
        return ""
    lines = [describe(request)]
    count = len(order.members)
    members = f"{count} members" if count > 1 else "one model"
    one = cost["networks"] == 1
    lines.append(f"{cost['networks']} network{'' if one else 's'} of {members} run{'s' if one else ''} over it")
    when = "Time unknown" if cost["seconds"] is None else f"About {plain_time(cost['seconds'] * len(request.frames))}"
    disk = f" and {cost['disk'] / 1e9:.1f} GB of disk meanwhile" if cost["disk"] > 5e7 else ""
    lines.append(f"{when}, {cost['memory'] / 1e9:.1f} GB of memory{disk}")
    if order.vote.uncertainty:
        known = "calibrated" if order.vote.temperature != 1 else "not calibrated"
        lines.append(f"The uncertainty is {known}")
    return ".<br>".join(lines) + "."


def _members_of(order: Order) -> Any:
    """Return the engine's recipe; loads torch, so it is called on a thread."""
    from napari_nnunet.jobs.prediction.combined import Combination, Member

    request = order.request
    if request is None:
        raise ValueError("layers have no recipe")
    members = []
    for choice in order.members:
        folds: tuple[Fold, ...] = choice.folds or choice.model.resolve_folds(None, request.settings.checkpoint)
        members.append(Member(choice.model, request.settings.replace(folds=folds, probabilities=False)))
    return Combination(tuple(members), order.vote, order.cleaning)


def estimate_job(order: Order, generation: int) -> Callable[[], Job[Any]]:
    """Return what estimates time and memory."""

    def start() -> Job[tuple[int, Order, Any]]:
        from napari_nnunet.jobs.prediction.combined import estimate_combined

        yield Stage(name="Estimating")
        try:
            if order.request is None:
                raise ValueError("layers are joined at once")
            volume = order.request.frames[0].volume
            found: Any = estimate_combined(_members_of(order), volume.shape, order.request.spacing)
        except NnunetError as error:
            found = error
        return generation, order, found

    return start


def run_job(order: Order, targets: list[tuple[Any, Any, Any]], focus: Any) -> Callable[[], Job[Any]]:
    """Return what segments every time point."""

    def start() -> Job[Any]:
        from napari_nnunet.jobs.prediction.combined import predict_combined_series

        roi = None if order.request is None else order.request.region
        return predict_combined_series(_members_of(order), targets, focus=focus, roi=roi)

    return start


def join_job(order: Order) -> Callable[[], Job[Any]]:
    """Return what joins probability layers."""

    def start() -> Job[Any]:
        from napari_nnunet.jobs.prediction.combined import join_arrays

        yield Note(text="Joining…", level="detail")
        arrays = [group.arrays() for group in order.groups]
        found = yield from join_arrays(order.groups[0].scheme, arrays, order.vote)
        return found

    return start


def calibrate_job(order: Order) -> Callable[[], Job[Any]]:
    """Return what fits a temperature to the members' validation."""

    def start() -> Job[Any]:
        from napari_nnunet.jobs.choosing.calibrate import calibrate

        models = {choice.model.folder: choice.model for choice in order.members}
        return calibrate(read_preferences().folders(), list(models.values()))

    return start
