"""A trained model, ready to run and kept for the next image."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from napari_nnunet.engine.network.device import BackendChoice, free_memory
from napari_nnunet.engine.network.unet import UNet, build, load_state, weights_digest
from napari_nnunet.engine.prediction.infer import Ensemble, sigmoid, softmax
from napari_nnunet.errors import ModelError
from napari_nnunet.events import Note
from napari_nnunet.formats.model.eight_bit import EightBit
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.regular import file_hash
from napari_nnunet.jobs.arithmetic import prediction_choice
from napari_nnunet.schema.architecture import Architecture
from napari_nnunet.schema.names import Fold, typed
from napari_nnunet.schema.requests.prediction import PredictSettings

COMPUTING = "Computing on"  # begins what is said before anything is computed
_MOST = 10  # a five-member ensemble of cascades needs as many for every image
_SHARE = 0.25  # of the memory that would be free without them
_cache: OrderedDict[tuple[Any, ...], Predictor] = OrderedDict()
_lock = threading.Lock()


@dataclass(eq=False)
class Predictor:
    """Networks of the chosen folds, compiled for the chosen device.

    Parameters
    ----------
    model : TrainedModel
        Where they come from.
    folds : tuple
        Folds that are averaged.
    mirror_axes : tuple of int
        Axes that are flipped; empty without mirroring.
    ensemble : Ensemble
        The networks.
    reusable : bool
        False once its networks were rebuilt for something else than what was chosen.
    new : bool
        Whether its networks were read for this image.
    doubts : tuple of str
        Sentences about checkpoints that could not be compared with the files of the model.
    """

    model: TrainedModel
    folds: tuple[Fold, ...]
    mirror_axes: tuple[int, ...]
    ensemble: Ensemble
    reusable: bool = True
    new: bool = True
    doubts: tuple[str, ...] = ()

    @property
    def said(self) -> tuple[Note, ...]:
        """What is to be said before anything is computed: where, and what nothing vouches for."""
        doubts = (Note(level="warning", text=text) for text in self.doubts)
        return (*doubts, Note(text=f"{COMPUTING} {self.choice} ({self.choice.why})."))

    @property
    def choice(self) -> BackendChoice:
        """Device, backend and precision."""
        return self.ensemble.choice


def build_predictor(model: TrainedModel, settings: PredictSettings, choice: BackendChoice) -> Predictor:
    """Read the weights of all folds and build their networks.

    Raises
    ------
    ModelError
        If a checkpoint is missing, damaged, unsafe, or does not fit the plans.
    """
    folds = model.resolve_folds(settings.folds, settings.checkpoint)
    networks, axes = [], None
    doubts = []
    for i, fold in enumerate(folds):
        checkpoint = model.read_fold(fold, settings.checkpoint)
        doubts += [checkpoint.doubt] if checkpoint.doubt else []
        if i == 0:
            axes = checkpoint.mirror_axes  # nnU-Net takes them from the first fold
        architecture = model.architecture
        if checkpoint.trainer.endswith("BN"):
            architecture = architecture.replace_norm("batch")
        network = build(architecture, model.channels_in, model.dataset.labels.heads)
        where = str(model.checkpoint_path(fold, settings.checkpoint))
        load_state(network, checkpoint.weights, where=where)
        networks.append(network)
    choice = _with_ranges(model, folds, networks, settings, choice)
    ndim = model.configuration.ndim
    if axes and max(axes) >= ndim:
        raise ModelError(f"The checkpoint allows mirroring along axis {max(axes)}, but the network has {ndim} axes.")
    mirror_axes = tuple(axes or ()) if settings.mirroring else ()
    turn = None
    if model.average == "probabilities":
        turn = sigmoid if model.dataset.labels.has_regions else softmax
    ensemble = Ensemble(networks, choice, model.configuration.patch_size, mirror_axes, turn)
    return Predictor(model, folds, mirror_axes, ensemble, doubts=tuple(doubts))


def _with_ranges(
    model: TrainedModel, folds: tuple[Fold, ...], networks: list[UNet], settings: PredictSettings, choice: BackendChoice
) -> BackendChoice:
    """Give networks their 8-bit ranges where those are asked for; return another choice where they do not fit.

    Raises
    ------
    ModelError
        If the model was never quantised.
    """
    if choice.precision != "int8":
        return choice
    if not model.eight_bit_path.is_file():
        raise ModelError(
            f"{model.name} was not quantised: there is no {model.eight_bit_path.name} in its folder.",
            shell=f"Run 'napari-nnunet quantize -m {typed(model.folder)}', or choose another --precision.",
            window="Press 'Make 8-bit' in the Models dock, or choose another precision.",
        )
    try:
        known = EightBit.read(model.eight_bit_path)
        for fold, network in zip(folds, networks, strict=True):
            entry = known.folds.get(str(fold))
            if entry is None or entry.weights != weights_digest(network):
                raise ModelError(
                    f"{model.eight_bit_path} was made for other weights than those of fold {fold}"
                    f" ({settings.checkpoint}); quantise the model again"
                )
            network.ranges = entry.ranges
    except ModelError as error:
        other = prediction_choice(settings.replace(precision="auto"), model.architecture)
        return replace(other, why=f"not in 8-bit: {error.message}")
    return choice


@contextmanager
def borrowed(model: TrainedModel, settings: PredictSettings) -> Iterator[Predictor]:
    """Give a predictor for exclusive use and keep it for the next image afterwards.

    A predictor is keyed by the hashes of its files, so continued training and edited plans are noticed.
    """
    choice = prediction_choice(settings, model.architecture)
    folds = model.resolve_folds(settings.folds, settings.checkpoint)
    hashes = tuple(model.hashes(folds, settings.checkpoint).items())
    described = tuple(file_hash(model.folder / name) for name in ("plans.json", "dataset.json"))
    if choice.precision == "int8" and model.eight_bit_path.is_file():
        described += (file_hash(model.eight_bit_path),)
    key = (model.folder, described, hashes, settings.checkpoint, settings.mirroring, choice)
    with _lock:
        predictor = _cache.pop(key, None)
    if predictor is None:
        predictor = build_predictor(model, settings, choice)
    yield predictor
    predictor.new = False
    # Not after an error or a cancel: whatever state it left behind is dropped.
    if not predictor.reusable:
        return
    with _lock:
        _cache[key] = predictor
        held = [kept.ensemble.bytes for kept in _cache.values()]
        room = _SHARE * (free_memory(choice) + sum(held))
        while len(held) > _MOST or (len(held) > 1 and sum(held) > room):
            _cache.popitem(last=False)
            del held[0]


def is_kept(model: TrainedModel, settings: PredictSettings, choice: BackendChoice) -> bool:
    """Whether the networks of an earlier image are still there, whatever became of their files."""
    folds = model.resolve_folds(settings.folds, settings.checkpoint)
    names = tuple(f"fold_{fold}" for fold in folds)
    with _lock:
        return any(
            (key[0], tuple(name for name, _ in key[2]), *key[3:])
            == (model.folder, names, settings.checkpoint, settings.mirroring, choice)
            for key in _cache
        )


def forget() -> bool:
    """Drop all kept networks because memory is needed; returns whether there were any."""
    with _lock:
        dropped = bool(_cache)
        _cache.clear()
    if dropped and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return dropped


def run_bytes(model: TrainedModel, batch: int, per_round: int, summed: int) -> float:
    """Return the memory of the network at work and of what it returns.

    Parameters
    ----------
    model : TrainedModel
        The model.
    batch, per_round : int
        Windows in one run, mirrored copies counted, and windows that are handed over together.
    summed : int
        Channels of what is summed up.
    """
    patch = model.configuration.patch_size
    return _activation_bytes(model.architecture, patch) * batch + 4.0 * summed * math.prod(patch) * per_round * 2


def _activation_bytes(architecture: Architecture, patch: tuple[int, ...]) -> float:
    """Memory of one window inside the network: all skips, and at full resolution the concatenation and its results."""
    voxels, total = math.prod(patch), 0.0
    first = 4.0 * architecture.features[0] * voxels
    for features, stride in zip(architecture.features, architecture.strides, strict=True):
        voxels //= math.prod(stride)
        total += features * voxels
    return 4.0 * (total + first)
