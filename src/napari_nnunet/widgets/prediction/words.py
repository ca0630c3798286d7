"""What the Segment dock says, in the units and words people use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nnunet.errors import counted, some
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.workspace import stamp
from napari_nnunet.schema.objects import ObjectScheme, forgotten_objects
from napari_nnunet.widgets.frame.words import about_time, size_text, times_text
from napari_nnunet.widgets.prediction.request import SegmentRequest

if TYPE_CHECKING:
    from napari_nnunet.engine.prediction.quality import Judged


def told_quality(judged: Sequence[Judged]) -> str:
    """Return how good a result probably is; of several time points, the one to be looked at first.

    Parameters
    ----------
    judged : sequence of Judged
        Of each time point, at least one.
    """
    ranks = [(not one.missing, -1.0 if math.isnan(one.mean) else one.mean) for one in judged]
    worst = min(range(len(judged)), key=lambda n: ranks[n])
    text = judged[worst].text
    return text if len(judged) == 1 else f"Probably the worst of {len(judged)} time points is {worst}. {text}"


def about_model(model: TrainedModel) -> str:
    """Return what a model finds, in which images, and how well (rich text)."""
    names = model.dataset.channel_names
    objects = ObjectScheme.of(model.dataset)
    learnt = {} if objects is None else {value: "" for values in objects.kinds.values() for value in values}
    classes = [] if objects is None else [f"each {kind} by its own number" for kind in objects.kinds]
    classes += [name for value, name in sorted(model.dataset.labels.names.items()) if value not in (0, *learnt)]
    listed = some(classes, 8)
    dice = list(model.validation_dice.values())
    quality = f"<br>Validation Dice {sum(dice) / len(dice):.3f}" if dice else ""
    kind = f"{model.configuration.ndim}D, {len(names)} channel{'s' if len(names) > 1 else ''} ({', '.join(names)})"
    picture = model.plans.reader == "NaturalImage2DIO"
    at = "at the pictures' own pixels" if picture else f"at {size_text(model.configuration.spacing)}"
    forgotten = forgotten_objects(model.dataset)
    return f"Finds {listed}.<br>{kind}, {at}{quality}" + (f"<br>{forgotten}" if forgotten else "")


def marks_of(model: TrainedModel) -> tuple[Any, ...]:
    """Return what is another when a model's plans or classes were, and then which checkpoints its folds have."""
    there = sorted(model.folder.glob("fold_*/checkpoint_*.pth"))
    return stamp(model.folder / "plans.json"), stamp(model.folder / "dataset.json"), tuple(there)


def describe(request: SegmentRequest) -> str:
    """Return in one sentence what Run will segment (rich text)."""
    frames = len(request.frames)
    volume = request.frames[0].volume
    region = request.region
    where = "a region of " if region is not None else ""
    shape = volume.shape if region is None else tuple(high - low for low, high in region)
    count = f"{counted(frames, 'time point')} of " if frames > 1 else ""
    size = f" of {size_text(request.voxel_mm)}" if request.voxel_mm is not None else ""
    return f"<b>Will segment</b> {where}'{request.source.name}': {count}{times_text(shape)} voxels{size}"


def expect(request: SegmentRequest, own: Any) -> str:
    """Return what it will take, from an estimate (rich text)."""
    frames = len(request.frames)
    network = size_text(own.network_spacing[-request.model.configuration.ndim :])
    of = f" of {network}" if request.grid.spacing_known else ""
    tiles = f"{own.tiles} tile{'s' if own.tiles > 1 else ''}"
    seen = own.network_shape[-len(request.frames[0].volume.shape) :]  # a picture has no planes
    lines = [describe(request), f"The network sees {times_text(seen)} voxels{of}, in {tiles}"]
    when = "Time unknown" if own.seconds is None else about_time(own.seconds * frames)
    guess = "" if own.measured or own.seconds is None else " (a first estimate)"
    lines.append(f"{when}{guess} and {own.memory_bytes / 1e9:.1f} GB of memory, on {own.choice}")
    if request.voxel_mm is None:
        lines.append("No voxel size is known; pixels count as 1")
    elif not request.grid.spacing_known:
        lines.append("The model was trained without voxel sizes, so voxels count as 1")
    return ".<br>".join(lines) + "."


def sample_folder() -> Path:
    """Return the folder of the tiny model that ships with the package."""
    return Path(str(files("napari_nnunet.resources"))) / "sample_model" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
