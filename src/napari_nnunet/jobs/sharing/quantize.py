"""Find what a model needs to run in 8-bit arithmetic, on its own training cases, and measure it on the others."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.image.prepare import prepare
from napari_nnunet.engine.network.unet import weights_digest
from napari_nnunet.engine.prediction.infer import cut_windows, pad
from napari_nnunet.errors import DatasetError, ModelError
from napari_nnunet.events import Job, Note, Progress, Stage
from napari_nnunet.formats.atomic import write_json, written_beside
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.dataset.case_files import Case, find_cases
from napari_nnunet.formats.images.files import read_volume
from napari_nnunet.formats.model.eight_bit import EightBit, EightBitFold, EightBitMeasured
from napari_nnunet.formats.model.folder import TrainedModel, load_model
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.arithmetic import prediction_choice, processor
from napari_nnunet.jobs.choosing.crossval import reference_folder
from napari_nnunet.jobs.choosing.validation import validation_cases
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.jobs.prediction.predictor import build_predictor
from napari_nnunet.jobs.prediction.presets import foreground_dice, image_and_labels
from napari_nnunet.jobs.prediction.windows import tiles_of
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.schema.requests.sharing import QuantizeRequest

_CASES, _WINDOWS = 16, 4  # of which ranges are found: training cases, windows of each, evenly spread
_USUAL, _SHORT = "auto", "int8"


@dataclass(frozen=True)
class _Cases:
    """The labelled cases of a model: those it trained on, and by fold those it did not."""

    training: dict[Fold, list[Case]]
    validation: dict[Fold, list[Case]]
    references: Path


def quantize(workspace: Workspace, request: QuantizeRequest) -> Job[EightBit]:
    """Quantise a model, measure it, and write ``eight_bit.json`` into its folder.

    Parameters
    ----------
    workspace : Workspace
        Where the cases of the model's dataset are, unless the request says so.
    request : QuantizeRequest
        The model, its folds, and how many validation cases are compared.

    Returns
    -------
    EightBit
        Ranges and figures.

    Raises
    ------
    ModelError, DatasetError
        If the model is the second stage of a cascade or was not validated, or its cases are not there.
    ResourceError
        If NNCF or OpenVINO is not installed.
    SettingsError
        If it is being quantised already.
    """
    model = load_model(request.model)
    if model.configuration.previous_stage is not None:
        raise ModelError(f"{model.name} is the second stage of a cascade; those are not quantised.")
    with claimed(model.folder, f"{model.name} is already being quantised", part=model.eight_bit_path.name):
        return (yield from _quantized(workspace, model, request))


def _quantized(workspace: Workspace, model: TrainedModel, request: QuantizeRequest) -> Job[EightBit]:
    from napari_nnunet.engine.network.eight_bit import find_ranges  # OpenVINO is an optional part

    settings = PredictSettings(device="cpu", mirroring=False)
    folds = model.resolve_folds(request.folds, settings.checkpoint)
    cases = _cases_of(workspace, model, folds, request.cases)
    found = {}
    yield Stage(name="Finding ranges", total=len(folds))
    choice = prediction_choice(settings, model.architecture)
    for i, fold in enumerate(folds):
        own = settings.replace(folds=(fold,))
        network = build_predictor(model, own, choice).ensemble.networks[0]
        ranges = find_ranges(network, _windows(model, cases.training[fold], settings))
        found[str(fold)] = EightBitFold(checkpoint=settings.checkpoint, weights=weights_digest(network), ranges=ranges)
        yield Progress(done=i + 1, total=len(folds))
    with _given_back(model.eight_bit_path):
        result = EightBit(folds=found)
        write_json(model.eight_bit_path, result.model_dump(mode="json"))
        result = EightBit(folds=found, measured=(yield from _measured(model, cases, settings)))
    write_json(model.eight_bit_path, result.model_dump(mode="json"))
    return result


@contextmanager
def _given_back(path: Path) -> Iterator[None]:
    """Leave a file as it was where what is done with it is cancelled or fails."""
    before = path.read_bytes() if path.is_file() else None
    try:
        yield
    except BaseException:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            with written_beside(path) as temporary:
                temporary.write_bytes(before)
        raise


def _cases_of(workspace: Workspace, model: TrainedModel, folds: Sequence[Fold], most: int) -> _Cases:
    dataset, ending = model.folder.parent.name, model.dataset.file_ending
    images = workspace.raw / dataset / "imagesTr"
    if not images.is_dir():
        raise DatasetError(
            f"{model.name} is quantised with the cases of its dataset, but {images} does not exist. Put the raw "
            "dataset there."
        )
    known = {
        case.name: case for case in find_cases(images, ending=ending, channels=len(model.dataset.channel_names)).cases
    }
    training, validation = {}, {}
    for fold in folds:
        held = [name for name in validation_cases(model.folder, [fold], ending) if name in known]
        if not held or len(held) == len(known):
            raise DatasetError(f"The cases in {images} are not those that fold {fold} of {model.name} trained with.")
        training[fold] = [case for name, case in known.items() if name not in set(held)][:_CASES]
        validation[fold] = [known[name] for name in held[:most]]
    return _Cases(training, validation, reference_folder(workspace, dataset))


def _windows(model: TrainedModel, cases: Sequence[Case], settings: PredictSettings) -> list[NDArray[np.float32]]:
    """Return windows (1, C, *patch) of prepared images."""
    slicewise = model.configuration.ndim == 2
    found = []
    for case in cases:
        volume = read_volume(case.files, reader=model.plans.reader)
        data, record = prepare(volume, model.plans, model.configuration)
        grid = tiles_of(model, record, settings)
        tiles = list(grid.tiles())
        spread = sorted({round(k * (len(tiles) - 1) / max(_WINDOWS - 1, 1)) for k in range(_WINDOWS)})
        windows = cut_windows(pad(data, grid), [tiles[k] for k in spread], slicewise=slicewise)
        found += [window[None].float().numpy() for window in windows]
    return found


def _measured(model: TrainedModel, cases: _Cases, settings: PredictSettings) -> Job[EightBitMeasured]:
    """Segment validation cases in both arithmetics, in turns."""
    scores: dict[str, list[float]] = {_USUAL: [], _SHORT: []}
    seconds = dict.fromkeys(scores, 0.0)
    pairs = [(fold, case) for fold, own in cases.validation.items() for case in own]
    arithmetic = ""
    yield Stage(name="Comparing on validation cases", total=len(pairs))
    for i, (fold, case) in enumerate(pairs):
        reference = cases.references / (case.name + model.dataset.file_ending)
        volume, truth = image_and_labels(case, reference, model.plans.reader)
        for precision, found in scores.items():
            own = settings.replace(folds=(fold,), precision=precision)
            if i == 0 or fold != pairs[i - 1][0]:
                yield from predict(model, volume, own)  # reading and compiling the network are not its speed
            began = time.monotonic()
            result = yield from predict(model, volume, own)
            seconds[precision] += time.monotonic() - began
            found.append(foreground_dice(case.name, truth, result.labels, model))
            if precision == _USUAL:
                arithmetic = f"{result.recipe['backend']} {result.recipe['precision']}"
        yield Progress(done=i + 1, total=len(pairs))
    usual, short = (float(np.nanmean(scores[name])) for name in (_USUAL, _SHORT))
    measured = EightBitMeasured(
        computer=processor(), arithmetic=arithmetic, cases=len(pairs), dice=usual, dice_eight_bit=short,
        seconds=seconds[_USUAL] / len(pairs), seconds_eight_bit=seconds[_SHORT] / len(pairs),
    )  # fmt: skip
    yield Note(text=str(measured))
    return measured
