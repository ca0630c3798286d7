"""Configurations changed by a person, and what follows (nnU-Net's documentation/explanation_plans_files.md)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from napari_nnunet.engine.planning.planner import PLANNERS, architecture_entry, features_per_stage
from napari_nnunet.engine.planning.topology import Topology, feature_map_size, topology
from napari_nnunet.errors import PlanError
from napari_nnunet.schema.plans import Configuration, Plans

_LEAST_PATCH = 8  # voxels along the longest axis; below, a network has a single stage
_LARGEST_PATCH = 4  # times the median image
_MANY = 100  # times; from there on whole numbers


@dataclass(frozen=True)
class Derived:
    """A changed configuration.

    Parameters
    ----------
    entries : dict
        What plans.json gets under the new name; everything else is inherited.
    consequences : tuple of str
        Sentences for the user.
    preprocess : bool
        Whether the data must be preprocessed for it.
    """

    entries: dict[str, Any]
    consequences: tuple[str, ...]
    preprocess: bool


def derive(
    plans: Plans,
    base: str,
    name: str,
    *,
    labels: int,
    patch: Sequence[int] | None = None,
    batch: int | None = None,
    spacing: Sequence[float] | None = None,
) -> Derived:
    """Work out a configuration that inherits from another and differs in patch, batch or spacing.

    Strides and kernels follow patch and spacing by nnU-Net's rule; a patch is rounded up to what the strides need.

    Parameters
    ----------
    plans : Plans
        The plans.
    base, name : str
        Configuration to start from, and name of the new one.
    labels : int
        Names in the dataset's labels (for the measure of GPU memory).
    patch, batch, spacing
        What changes; in the network's axis order.

    Raises
    ------
    PlanError
        If names or values are not usable, or nothing changes.
    """
    before = plans.configuration(base)
    _check(plans, name, before, patch, batch, spacing)
    goal = tuple(float(s) for s in (spacing or before.spacing))
    moved = goal != before.spacing
    resized = moved or (patch is not None and tuple(patch) != before.patch_size)
    shape = topology(goal, tuple(patch or before.patch_size)) if resized else _shape_of(before)
    if shape.stages < 2:
        raise PlanError(f"A patch of {_times(shape.patch)} voxels is too small for a U-Net; use at least 8 per axis.")
    median = _median(plans.resolved(base).get("median_image_size_in_voxels"), before.spacing, goal)
    if patch is not None:
        _require_images_of(shape, median)
    entries: dict[str, Any] = {"inherits_from": base}
    said: list[str] = []
    if moved:
        entries["data_identifier"] = f"{plans.plans_name}_{name}"
        entries["spacing"] = list(goal)
        if median is not None:
            entries["median_image_size_in_voxels"] = median
        said.append(f"The data must be preprocessed at {_times(goal)} mm, in a folder of their own")
    if shape.patch != before.patch_size or shape.strides != before.architecture.strides:
        entries["patch_size"] = list(shape.patch)
        entries["architecture"] = architecture_entry(_resembling(before), shape, before.ndim)
        if patch is not None and tuple(patch) != shape.patch:
            said.append(
                f"The patch becomes {_times(shape.patch)}: its edges must be multiples of {_times(shape.divisor)}"
            )
        said.append(
            f"The network has {shape.stages} stages with strides {_strides(shape.strides)}; it starts untrained"
        )
    if batch is not None and batch != before.batch_size:
        entries["batch_size"] = int(batch)
    if len(entries) == 1:
        raise PlanError("Nothing changes: patch, batch and spacing are those of the configuration it starts from.")
    said.append(_memory(before, shape, batch or before.batch_size, labels))
    return Derived(entries, tuple(said), moved)


def _check(
    plans: Plans,
    name: str,
    before: Configuration,
    patch: Sequence[int] | None,
    batch: int | None,
    spacing: Sequence[float] | None,
) -> None:
    if not name.isidentifier() and not name.replace("_", "").isalnum():
        raise PlanError(f"{name!r} is not a valid configuration name; use letters, digits and '_', such as 3d_small.")
    if name in plans.configurations:
        raise PlanError(f"A configuration {name} already exists; choose another name.")
    for what, values in (("patch", patch), ("voxel size", spacing)):
        if values is not None and (len(values) != before.ndim or not all(0 < v < math.inf for v in values)):
            raise PlanError(f"The {what} needs {before.ndim} positive numbers, not {list(values)}.")
    if patch is not None and max(patch) < _LEAST_PATCH:
        raise PlanError(f"A patch of {_times(patch)} voxels is too small for a U-Net; use at least 8 per axis.")
    if batch is not None and batch < 1:
        raise PlanError(f"The batch size is {batch}; it must be at least 1 (better 2 or more).")


def _median(size: Sequence[float] | None, before: Sequence[float], goal: Sequence[float]) -> list[float] | None:
    """Return the size of the median image in voxels of another size; None where the plans do not say it."""
    if size is None or len(size) != len(goal):
        return None
    return [n * old / new for n, old, new in zip(size, before, goal, strict=True)]


def _require_images_of(shape: Topology, median: Sequence[float] | None) -> None:
    """Refuse a patch that is mostly padding, whatever is learnt in it."""
    if median is None:
        return
    most = [_LARGEST_PATCH * divisor * math.ceil(n / divisor) for n, divisor in zip(median, shape.divisor, strict=True)]
    if any(p > m for p, m in zip(shape.patch, most, strict=True)):
        raise PlanError(
            f"A patch of {_times(shape.patch)} voxels is more than four times as large as the images, whose median is "
            f"{_times(map(round, median))}. Use at most {_times(most)}."
        )


def _resembling(before: Configuration) -> Any:
    """Return a planner with the same kind of network."""
    residual = before.architecture.name == "ResidualEncoderUNet"
    planner = PLANNERS["nnUNetPlannerResEncM" if residual else "ExperimentPlanner"]
    return replace(planner, width=before.architecture.features[0])


def _shape_of(before: Configuration) -> Topology:
    """Return the shape of a network as it is, which need not follow the rule: people edit plans."""
    strides = before.architecture.strides
    divisor = tuple(math.prod(along) for along in zip(*strides, strict=True))
    return Topology(before.patch_size, strides, before.architecture.kernel_sizes, divisor)


def _memory(before: Configuration, shape: Topology, batch: int, labels: int) -> str:
    architecture = before.architecture
    measured = partial(
        feature_map_size,
        decoder_convs=architecture.decoder_convs[0],
        heads=labels,
        residual=architecture.name == "ResidualEncoderUNet",
    )
    own = _shape_of(before)
    old = new = measured(own, architecture.features, architecture.blocks)
    if shape != own:
        blocks = [*architecture.blocks, *[architecture.blocks[-1]] * shape.stages][: shape.stages]
        new = measured(shape, features_per_stage(shape.stages, before.ndim, architecture.features[0]), blocks)
    ratio = new * batch / (old * before.batch_size)
    times = f"{ratio:.2g}" if ratio < _MANY else f"{ratio:,.0f}"
    return f"Training takes about {times} times the memory and time per step of {before.name}"


def _times(numbers: Iterable[float]) -> str:
    return " × ".join(f"{n:g}" for n in numbers)


def _strides(strides: Sequence[Sequence[int]]) -> str:
    return ", ".join("·".join(str(s) for s in stride) for stride in strides[1:])


def entries_of(content: Mapping[str, Any], name: str, derived: Derived) -> dict[str, Any]:
    """Return the content of plans.json with a derived configuration added."""
    return {**content, "configurations": {**content["configurations"], name: derived.entries}}
