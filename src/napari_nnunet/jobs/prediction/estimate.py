"""What a prediction will take, before it starts: windows, memory, time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nnunet.engine.choosing.signs import SIGNS_BYTES
from napari_nnunet.engine.image.prepare import PrepareRecord, plan_grid
from napari_nnunet.engine.network.backends import torch_threads
from napari_nnunet.engine.network.device import BackendChoice, has_openvino
from napari_nnunet.engine.prediction.decode import slab_bytes, workspace_bytes
from napari_nnunet.engine.prediction.infer import Ensemble, batch_size, mirror_sets
from napari_nnunet.engine.prediction.tiles import TileGrid, peak_planes
from napari_nnunet.errors import ModelError
from napari_nnunet.events import Job, Stage
from napari_nnunet.formats import speed
from napari_nnunet.formats.model.eight_bit import EightBit
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.jobs.arithmetic import prediction_choice, processor
from napari_nnunet.jobs.network_speed import (
    measure_network,
    measure_speed,
    remember_rate,
    seconds_of_run,
    speed_key,
    start_key,
)
from napari_nnunet.jobs.prediction.objects import HELD_BYTES
from napari_nnunet.jobs.prediction.predictor import is_kept, run_bytes
from napari_nnunet.schema.geometry import lift_shape
from napari_nnunet.schema.requests.prediction import PRESETS, PredictSettings, PresetName, preset

if TYPE_CHECKING:
    from napari_nnunet.jobs.prediction.combined import Combination

_WORTH = 0.1  # seconds outside the network, by the formula, from which on a run says how far it is off
_FARTHEST = 20.0  # times; farther off something else was the matter
_JOINING = "joining"  # in the notebook: what joining a voxel of a class of a member takes
_JOINED_IN = 2e-8  # seconds, before anything was joined here
_PROCESS_BYTES = 0.5e9  # what the libraries themselves take


@dataclass(frozen=True)
class Estimate:
    """What a prediction will take.

    Parameters
    ----------
    shape, network_shape : tuple of int
        Voxels of the image, and after resampling, in the network's axis order.
    network_spacing : tuple of float
        Voxel size the network sees, in mm.
    tiles, forwards : int
        Windows, and runs of the network.
    memory_bytes : float
        Main memory at the peak, besides the image itself.
    seconds : float or None
        Expected wall time; None if nothing is known about this computer yet.
    measured : bool
        True if this very network has run here before.
    choice : BackendChoice
        Device, backend, precision.
    """

    shape: tuple[int, ...]
    network_shape: tuple[int, int, int]
    network_spacing: tuple[float, float, float]
    tiles: int
    forwards: int
    memory_bytes: float
    seconds: float | None
    measured: bool
    choice: BackendChoice


def estimate(
    model: TrainedModel,
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    settings: PredictSettings,
    *,
    stored: bool = False,
) -> Estimate:
    """Return what segmenting an image of this shape will take, without reading a voxel or a weight.

    Parameters
    ----------
    model : TrainedModel
        The model.
    shape, spacing : tuple
        ([Z,] Y, X) voxels and mm of the image; an empty border, which would be cropped, is not known here.
    settings : PredictSettings
        What is asked for.
    stored : bool
        Whether probabilities go to a file besides, as those of an ensemble's members do.
    """
    choice = prediction_choice(settings, model.architecture)
    spacing_3d = spacing if len(spacing) == 3 else (999.0 * max(spacing), *spacing)
    record = plan_grid(lift_shape(shape), spacing_3d, model.plans, model.configuration)
    folds = model.resolve_folds(settings.folds, settings.checkpoint)
    ndim = model.configuration.ndim
    copies = len(mirror_sets(range(ndim))) if settings.mirroring else 1
    batch = batch_size(model.configuration.patch_size, choice, copies)
    found = _estimate(model, record, settings, choice, len(folds), copies, batch, wrapped=True, stored=stored)
    if found.seconds is None or is_kept(model, settings, choice):
        return found
    start = speed.seconds_per_run(start_key(choice)) or 0.0
    return replace(found, seconds=found.seconds + start * len(folds))


def estimate_for(
    model: TrainedModel, record: PrepareRecord, ensemble: Ensemble, settings: PredictSettings, *, wrapped: bool
) -> Estimate:
    """Return what a prepared image will take with the networks at hand; ``wrapped`` if it begins in the middle."""
    copies = len(ensemble.mirrors)
    return _estimate(model, record, settings, ensemble.choice, ensemble.folds, copies, ensemble.batch, wrapped=wrapped)


def _estimate(
    model: TrainedModel,
    record: PrepareRecord,
    settings: PredictSettings,
    choice: BackendChoice,
    folds: int,
    copies: int,
    batch: int,
    *,
    wrapped: bool,
    stored: bool = False,
) -> Estimate:
    grid = TileGrid(record.network_shape, model.configuration.patch_3d, settings.step)
    heads = model.dataset.labels.heads
    # Where there are more classes than features, features are summed up (engine.infer.Ensemble).
    summed = min(heads, model.architecture.features[0] * folds)
    per_round = max(1, batch // copies)
    rounds = math.ceil(grid.count / per_round)
    forwards = rounds * math.ceil(per_round * copies / batch) * folds
    prepared = 4.0 * model.channels_in * (math.prod(record.network_shape) + math.prod(record.cropped_shape))
    memory = (
        _PROCESS_BYTES
        + prepared
        + slab_bytes(record, summed, peak_planes(grid, wrapped=wrapped))
        + workspace_bytes(record)
        + run_bytes(model, batch, per_round, summed)
    )
    probabilities = 4.0 * heads * math.prod(record.shape)
    if settings.probabilities:
        memory += probabilities
    if settings.quality:  # looked for when the windows' sums are gone; until then only what is held in memory counts
        held = probabilities if settings.probabilities or probabilities <= HELD_BYTES else 0.0
        memory += 0.0 if settings.probabilities else held
        memory = max(memory, _PROCESS_BYTES + held + SIGNS_BYTES * math.prod(record.shape))
    per_run, measured = seconds_of_run(model, choice, batch)
    seconds = None if per_run is None else per_run * forwards
    if seconds is not None:
        factor = speed.seconds_per_run(_rest_key(choice, stored=stored or settings.probabilities)) or 1.0
        seconds += factor * _overhead(record, summed)
    return Estimate(
        shape=tuple(record.shape),
        network_shape=record.network_shape,
        network_spacing=record.network_spacing,
        tiles=grid.count,
        forwards=forwards,
        memory_bytes=memory,
        seconds=seconds,
        measured=measured,
        choice=choice,
    )


def _overhead(record: PrepareRecord, heads: int) -> float:
    """Seconds outside the network: reading, resampling, decoding (measured here: about 20 ns per voxel and class)."""
    return 2e-8 * (math.prod(record.cropped_shape) + math.prod(record.network_shape)) * (heads + 2)


def _rest_key(choice: BackendChoice, *, stored: bool) -> str:
    """Name how much longer than thought everything outside the network takes."""
    return f"rest {choice.device}{' with probabilities' if stored else ''}"


def learn(
    model: TrainedModel, record: PrepareRecord, ensemble: Ensemble, settings: PredictSettings, wall: float, *, new: bool
) -> None:
    """Remember what a prediction took besides its network, and how fast that was: the next estimate goes by it.

    Parameters
    ----------
    model, record, ensemble, settings
        What ran.
    wall : float
        Seconds, all in all.
    new : bool
        Whether the networks were read and compiled for it.
    """
    known = speed.seconds_per_run(speed_key(model, ensemble))
    if known is None or 0 in record.cropped_shape:
        return
    choice, heads = ensemble.choice, model.dataset.labels.heads
    found = estimate_for(model, record, ensemble, settings, wrapped=False)
    own = _overhead(record, min(heads, model.architecture.features[0] * ensemble.folds))
    rest = max(0.0, wall - known * found.forwards)
    if new:
        speed.remember(start_key(choice), max(0.01, rest - own) / ensemble.folds)
    elif own > _WORTH:
        factor = min(max(rest / own, 1 / _FARTHEST), _FARTHEST)
        speed.remember(_rest_key(choice, stored=settings.probabilities), factor)
    remember_rate(model, ensemble, known)


def _bytes_of_run(model: TrainedModel, choice: BackendChoice) -> float:
    batch = batch_size(model.configuration.patch_size, choice, 1)
    return run_bytes(model, batch, batch, model.dataset.labels.heads)


def usable_presets(model: TrainedModel) -> tuple[PresetName, ...]:
    """Return the presets of a model: that in 8-bit arithmetic only where it was measured here to be worth it."""
    usual = tuple(name for name in PRESETS if name != "fast_8bit")
    try:
        measured = EightBit.read(model.eight_bit_path).measured
    except ModelError:
        return usual
    here = measured is not None and measured.computer == processor() and measured.is_worth_it and has_openvino()
    return (*usual, "fast_8bit") if here else usual


def estimate_presets(
    model: TrainedModel, shape: tuple[int, ...], spacing: tuple[float, ...], settings: PredictSettings
) -> Job[dict[str, Estimate]]:
    """Estimate what is asked for ("own") and every preset; measures this computer first if it never ran anything."""
    choice = prediction_choice(settings, model.architecture)
    yield Stage(name="Estimating")
    with torch_threads(choice.threads):
        measure_speed(choice)
        measure_network(model, choice, _bytes_of_run(model, choice))
    folds = model.resolve_folds(None, settings.checkpoint)
    found = {"own": estimate(model, shape, spacing, settings)}
    for name in usable_presets(model):
        found[name] = estimate(model, shape, spacing, preset(name, folds=folds, base=settings))
    return found


@dataclass(frozen=True)
class Total:
    """What many predictions will take: seconds (None where unknown) and tiles of all, memory of the largest."""

    seconds: float | None
    tiles: int
    memory_bytes: float
    measured: bool
    choice: BackendChoice


def estimate_many(
    model: TrainedModel,
    sizes: Mapping[tuple[tuple[int, ...], tuple[float, ...]], float],
    settings: PredictSettings,
) -> Job[dict[str, Total]]:
    """Estimate images of several sizes, as :func:`estimate_presets` does one.

    Parameters
    ----------
    model : TrainedModel
        The model.
    sizes : mapping of (shape, spacing) to float
        How many images ([Z,] Y, X) of each size there are.
    settings : PredictSettings
        What is asked for.
    """
    found = []
    for (shape, spacing), count in sizes.items():
        found.append((count, (yield from estimate_presets(model, shape, spacing, settings))))
    return {name: _total([(count, each[name]) for count, each in found]) for name in (found[0][1] if found else ())}


def _total(parts: Sequence[tuple[float, Estimate]]) -> Total:
    known = [count * one.seconds for count, one in parts if one.seconds is not None]
    return Total(
        seconds=sum(known) if len(known) == len(parts) else None,
        tiles=round(sum(count * one.tiles for count, one in parts)),
        memory_bytes=max(one.memory_bytes for _, one in parts),
        measured=all(one.measured for _, one in parts),
        choice=parts[0][1].choice,
    )


def estimate_combined(combination: Combination, shape: tuple[int, ...], spacing: tuple[float, ...]) -> dict[str, Any]:
    """Return what segmenting an image of this shape will take.

    Returns
    -------
    dict
        ``networks``, ``seconds`` (None if unknown), ``measured`` (whether all networks ran here before), ``memory``
        and ``disk`` in bytes.
    """
    found = []
    for member in combination.members:
        settings = member.settings.replace(probabilities=False)
        choice = prediction_choice(settings, member.model.architecture)
        with torch_threads(choice.threads):
            measure_speed(choice)
            measure_network(member.model, choice, _bytes_of_run(member.model, choice))
        found.append((member, estimate(member.model, shape, spacing, settings, stored=combination.joins)))
    times = [entry.seconds for _, entry in found]
    heads = combination.model.dataset.labels.heads
    voxels = float(np.prod(shape, dtype=np.int64))
    count = len(combination.members)
    each = speed.seconds_per_run(_JOINING) or _JOINED_IN
    joining = each * heads * voxels * count if combination.joins else 0.0
    return {
        "networks": sum(len(m.model.resolve_folds(m.settings.folds, m.settings.checkpoint)) for m, _ in found),
        "seconds": None if None in times else joining + sum(time for time in times if time is not None),
        "measured": all(entry.measured for _, entry in found),
        "memory": max(entry.memory_bytes for _, entry in found) + voxels * (24 if combination.vote.uncertainty else 8),
        "disk": 4.0 * heads * voxels * count if combination.joins else 0.0,
    }


def remember_joining(seconds: float, values: float) -> None:
    """Remember what joining took: ``values`` are voxels times classes times members."""
    speed.remember(_JOINING, seconds / values)
