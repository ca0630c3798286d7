"""Calibrate the probabilities of a model, or of an ensemble, on the validation cases."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.choosing.calibration import Calibration, fit_temperature
from napari_nnunet.errors import DatasetError, ImageError, NnunetError, counted, of_cases, some
from napari_nnunet.events import CaseFailed, Job, Note, Progress, Stage
from napari_nnunet.formats.atomic import remove_leftovers, write_json
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.model.fold import CALIBRATION_FILE
from napari_nnunet.formats.model.folder import TrainedModel, has_weights, load_model, weights_in
from napari_nnunet.formats.results.places import Members
from napari_nnunet.formats.results.probabilities import ProbabilityReader, planes_at_once
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.grid import Grid, onto
from napari_nnunet.jobs.choosing.crossval import reference_folder, usable_folds
from napari_nnunet.jobs.choosing.validation import validation_members
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.json_text import message
from napari_nnunet.schema.model_name import EnsembleName
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.requests.choosing import CalibrateRequest

_PER_CASE = 20_000  # voxels, drawn at random


def calibrate(workspace: Workspace, request: CalibrateRequest) -> Job[tuple[Calibration, Path]]:
    """Fit a temperature to models of the workspace, as :func:`calibrate_models` does.

    Raises
    ------
    ModelError, DatasetError
        If there is no such model, no validation, or no probabilities of it.
    """
    names = {"trainer": request.trainer, "plans": request.plans}
    folders = [workspace.model_folder(request.dataset, configuration=name, **names) for name in request.configurations]
    return (yield from calibrate_models(workspace, [load_model(folder) for folder in folders], request.folds))


def calibrate_models(
    workspace: Workspace, models: Sequence[TrainedModel], folds: Sequence[Fold] | None = None
) -> Job[tuple[Calibration, Path]]:
    """Fit a temperature to the probabilities of the validation cases (validate with ``--npz`` to have them).

    Parameters
    ----------
    workspace : Workspace
        Where the references are.
    models : sequence of TrainedModel
        One, or the members of an ensemble.
    folds : sequence, optional
        All that were validated if not given.

    Returns
    -------
    tuple of (Calibration, Path)
        And the file it was written to: ``calibration.json`` in the model's folder, or in that of the ensemble.

    Raises
    ------
    ModelError, DatasetError
        If there is no validation, or no probabilities of it.
    """
    first = models[0]
    chosen = tuple(folds) if folds is not None else usable_folds(workspace, first)
    path = calibration_path([model.folder for model in models], chosen)
    with claimed(path.parent, f"{path.parent.name} is already being calibrated", part=path.name):
        return (yield from _calibrate(workspace, models, chosen, path))


def _calibrate(
    workspace: Workspace, models: Sequence[TrainedModel], chosen: Sequence[Fold], path: Path
) -> Job[tuple[Calibration, Path]]:
    first = models[0]
    info = first.dataset
    members = validation_members([model.folder for model in models], chosen, info.file_ending)
    references = reference_folder(workspace, first.folder.parent.name)
    partial = sorted(set(members) & set(info.annotated))
    if partial:
        yield Note(
            text=f"{len(partial)} of {len(members)} validation cases are left out, as not every class was looked for "
            f"in them ({some(partial, 3)})."
        )
        members = {name: paths for name, paths in members.items() if name not in info.annotated}
        if not members:
            raise DatasetError(
                "There is no validation case in which every class was looked for. Calibration needs some."
            )
    base, named = _base([model.folder for model in models])
    weights = weights_in(base, [f"{name}fold_{fold}" for name in named for fold in chosen])
    yield Stage(name="Calibrating", total=len(members))
    found: list[tuple[NDArray[np.float32], NDArray[np.int64]]] = []
    failed: dict[str, NnunetError] = {}
    for i, (name, paths) in enumerate(members.items()):
        try:
            reference = _reference(references / (name + info.file_ending), name, paths, first)
            found.append(_sample(name, paths, reference, info))
        except NnunetError as error:
            failed[name] = error
            yield CaseFailed.of(name, error, i, len(members))
        yield Progress(done=i + 1, total=len(members))
    if not found:
        raise of_cases(failed, len(members), "used")
    p, y = (np.concatenate(parts) for parts in zip(*found, strict=True))
    if not len(y):
        raise DatasetError("No voxel of the references is annotated. Calibration needs annotated voxels.")
    result = replace(fit_temperature(p, y), cases=len(found))
    remove_leftovers(path.parent)
    write_json(path, {**asdict(result), "folds": [str(fold) for fold in chosen], "weights": weights})
    yield Note(
        text=f"Temperature {result.temperature:.2f}: the calibration error changes from {result.error_before:.4f} to "
        f"{result.error_after:.4f} ({counted(result.voxels, 'voxel')} of {counted(result.cases, 'case')})."
    )
    return result, path


def calibration_path(models: Sequence[Path], folds: Sequence[Any]) -> Path:
    """Return where the calibration of a model or an ensemble is kept."""
    if len(models) == 1:
        return models[0] / CALIBRATION_FILE
    name = EnsembleName.join((model.name for model in models), folds)
    return models[0].parent / "ensembles" / name.folder / CALIBRATION_FILE


def _base(models: Sequence[Path]) -> tuple[Path, list[str]]:
    """Return the folder from which a calibration names the folds it was measured with, and how models are named."""
    return (models[0], [""]) if len(models) == 1 else (models[0].parent, [f"{model.name}/" for model in models])


def known_temperature(models: Sequence[Path]) -> float | None:
    """Return the temperature of a model, or of an ensemble of these models in any order.

    It is None where nobody found it, and where it was found with other weights than those that are there.
    """
    content = _known(models)
    try:
        value = float(content["temperature"])
    except (ValueError, KeyError, TypeError):
        return None
    return value if 0 < value < math.inf and has_weights(_base(models)[0], content.get("weights")) else None


def notes_weights(models: Sequence[Path]) -> bool:
    """Whether there is a calibration of models whose weights are to be compared, for which checkpoints are read."""
    return bool(_known(models).get("weights"))


def is_outdated(models: Sequence[Path]) -> bool:
    """Whether there is a calibration of models, but of other weights: one of them was trained on, or exchanged."""
    return not has_weights(_base(models)[0], _known(models).get("weights"))


def _known(models: Sequence[Path]) -> dict[str, Any]:
    """Return what is known of the calibration of models; nothing where there is none."""
    if len(models) == 1:
        return message(models[0] / CALIBRATION_FILE)
    if len({model.parent for model in models}) > 1:  # of another dataset, or lying elsewhere: others of these names
        return {}
    names = {model.name for model in models}
    for path in sorted(models[0].parent.glob(f"ensembles/ensemble___*/{CALIBRATION_FILE}"), reverse=True):
        ensemble = EnsembleName.of(path.parent.name)
        if ensemble is not None and set(ensemble.members) == names:
            return message(path)
    return {}


def _reference(path: Path, name: str, paths: Sequence[Path], model: TrainedModel) -> NDArray[Any]:
    """Return the labels of a case as the probabilities lie, which were made before the labels were last saved."""
    reader, ending = model.plans.reader, model.dataset.file_ending
    labels, own = read_labels(path, reader=reader, as_stored=True)
    with closing(ProbabilityReader(paths[0])) as probabilities:
        shape = probabilities.shape[1:]
    geometry = Members(name, tuple(paths), ending, reader).grid(shape)
    what = f"The labels {path} and the probabilities {paths[0]}"
    return onto(labels, own, Grid(shape[-geometry.ndim :], geometry), what=what)


def _sample(
    name: str, paths: Sequence[Path], reference: NDArray[Any], info: DatasetInfo
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return probabilities (N, C) and classes (N,) of voxels drawn at random, the same ones each time.

    Of regions, every region is a question of its own with the two answers no and yes.
    """
    scheme = info.labels
    flat = reference.reshape(-1)
    allowed = None if scheme.ignore_label is None else np.flatnonzero(flat != scheme.ignore_label)
    count = flat.size if allowed is None else len(allowed)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    index = np.sort(rng.choice(count, size=min(_PER_CASE, count), replace=False))
    index = index if allowed is None else allowed[index]
    with ExitStack() as stack:
        readers = [stack.enter_context(closing(ProbabilityReader(path))) for path in paths]
        columns = [
            sum(_take(reader, index, flat.size) for reader in readers) / len(readers)
            for _ in range(readers[0].shape[0])
        ]
    p = np.stack(columns, axis=1)
    truth = flat[index].astype(np.int64)
    if not scheme.has_regions:
        return p, truth
    inside = np.stack([np.isin(truth, region) for region in scheme.regions], axis=1)
    return np.stack([1 - p.ravel(), p.ravel()], axis=1), inside.ravel().astype(np.int64)


def _take(reader: ProbabilityReader, index: NDArray[np.int64], voxels: int) -> NDArray[np.float32]:
    """Return the next class at some voxels."""
    _, z, y, x = reader.shape
    if z * y * x != voxels:
        raise ImageError(f"{reader.path} has {z * y * x} voxels, its reference {voxels}.")
    step = planes_at_once(reader.shape)
    parts = []
    for lo in range(0, z, step):
        planes = reader.read(min(step, z - lo)).reshape(-1)
        begin, end = np.searchsorted(index, (lo * y * x, lo * y * x + len(planes)))
        parts.append(planes[index[begin:end] - lo * y * x])
    return np.concatenate(parts)
