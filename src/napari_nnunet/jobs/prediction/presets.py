"""Measure what a preset costs in Dice on labelled cases, and note it in the model folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.choosing.metrics import blanked, measure_labels
from napari_nnunet.errors import DatasetError, NnunetError, of_cases
from napari_nnunet.events import CaseFailed, Job, Note, Stage
from napari_nnunet.formats.atomic import write_json
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.dataset.case_files import Case, find_cases, volume_of_case
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.model.folder import TrainedModel, load_model, weights_in
from napari_nnunet.formats.preprocessed.journal import joined_by
from napari_nnunet.grid import Grid, onto
from napari_nnunet.jobs.prediction.estimate import usable_presets
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.schema.dataset import unknown_regions
from napari_nnunet.schema.requests.prediction import MeasurePresetsRequest, PredictSettings, preset
from napari_nnunet.volume import Volume

_FILE = "inference_presets.json"


def measure_presets(request: MeasurePresetsRequest) -> Job[dict[str, dict[str, float]]]:
    """Segment labelled cases with every preset and compare.

    Parameters
    ----------
    request : MeasurePresetsRequest
        ``inference_presets.json`` is written into the folder of its model. Images are ``CASE_0000.ext``, labels
        ``CASE.ext``: cases the model has not been trained on, or the figures flatter it.

    Returns
    -------
    dict
        Preset name to mean foreground Dice and seconds per case.

    Raises
    ------
    DatasetError
        If no case has a label, or none can be measured. Those that cannot are told as events; the others are compared.
    SettingsError
        If another process measures them already.
    """
    model = load_model(request.model)
    with claimed(model.folder, f"The presets of {model.name} are already being measured", part=_FILE):
        return (yield from _measured(model, request))


def _measured(model: TrainedModel, request: MeasurePresetsRequest) -> Job[dict[str, dict[str, float]]]:
    labels = request.labels
    ending, reader = model.dataset.file_ending, model.plans.reader
    cases = list(find_cases(request.source, ending=ending, channels=len(model.dataset.channel_names)).cases)
    cases = [case for case in cases if (labels / (case.name + ending)).is_file()]
    if not cases:
        raise DatasetError(f"No case of {', '.join(map(str, request.source))} has a label file in {labels}.")
    base = PredictSettings(device=request.device)
    folds = model.resolve_folds(None, base.checkpoint)
    weights = weights_in(model.folder, [f"fold_{fold}" for fold in folds])
    found: dict[str, dict[str, tuple[float, float]]] = {}
    failed: dict[str, NnunetError] = {}
    for name in usable_presets(model):
        chosen = preset(name, folds=folds, base=base)
        yield Stage(name=f"Preset {name}", total=len(cases))
        found[name] = {}
        for i, case in enumerate(cases):
            if case.name in failed:
                continue
            try:
                volume, truth = image_and_labels(case, labels / (case.name + ending), reader)
                began = time.monotonic()
                result = yield from predict(model, volume, chosen)
                seconds = time.monotonic() - began
                found[name][case.name] = foreground_dice(case.name, truth, result.labels, model), seconds
            except NnunetError as error:  # the presets are compared by the other cases, each by the same
                failed[case.name] = error
                yield CaseFailed.of(case.name, error, i, len(cases))
        if len(failed) == len(cases):
            raise of_cases(failed, len(cases), "measured")
    measured: dict[str, dict[str, float]] = {}
    for title, by_case in found.items():
        kept = [own for case, own in by_case.items() if case not in failed]
        dice, each = float(np.nanmean([score for score, _ in kept])), float(np.mean([time for _, time in kept]))
        measured[title] = {"dice": dice, "seconds_per_case": each}
        yield Note(text=f"{title}: Dice {dice:.4f}, {each:.1f} s per case")
    write_json(
        model.folder / _FILE,
        {
            "presets": measured,
            "cases": [case.name for case in cases if case.name not in failed],
            "folds": [str(fold) for fold in folds],
            "weights": weights,
        },
    )
    return measured


def image_and_labels(case: Case, path: Path, reader: str) -> tuple[Volume, NDArray[Any]]:
    """Read a case and its labels on the voxels of its image; raises ImageError where they lie elsewhere."""
    apart = joined_by(path.parent.parent, case.name)  # where the labels are those of a dataset
    volume = volume_of_case(case, reader, apart=apart)
    labels, geometry = read_labels(path, reader=reader)
    what = f"The labels {path} and the image of {case.name}"
    return volume, onto(labels, geometry, Grid(volume.shape, volume.geometry), what=what, apart=apart)


def foreground_dice(case: str, truth: Any, result: Any, model: TrainedModel) -> float:
    """Return the mean Dice of the foreground of a case; NaN where there is none."""
    scheme = model.dataset.labels
    measured = measure_labels(truth, result, scheme.foreground_labels, scheme.ignore_label)
    found = blanked(measured, unknown_regions(model.dataset, case))
    values = [metrics["Dice"] for metrics in found.values()]
    return float(np.nanmean(values)) if not np.all(np.isnan(values)) else float("nan")
