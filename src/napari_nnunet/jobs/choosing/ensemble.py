"""Combine probabilities of several models, or of the folds of a cross-validation."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.prediction.vote import Vote, VoteSettings
from napari_nnunet.errors import DatasetError, ImageError, ModelError, NnunetError, SettingsError, counted, some
from napari_nnunet.events import CaseDone, CaseFailed, Job, Note, Stage
from napari_nnunet.formats.atomic import copy_file, make_folder, remove_leftovers, write_json
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.images.files import ending_of, write_image, write_labels
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.results.places import Members
from napari_nnunet.formats.results.probabilities import (
    KEEP_PROBABILITIES,
    ProbabilityReader,
    ProbabilityWriter,
    TurnedReader,
    planes_at_once,
    probability_writer,
    scratch,
)
from napari_nnunet.formats.results.recipe import join_recipes, write_recipe
from napari_nnunet.jobs.choosing.validation import FOUND_OBJECTS, info_beside, reader_beside
from napari_nnunet.jobs.objects.find import Decoding, decoding_by, find_and_write, rules_beside, write_rules
from napari_nnunet.processes.pool import Outcome, Task, each_case, rest_of, results_of
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.objects import ObjectScheme, forgotten_objects
from napari_nnunet.schema.requests.choosing import EnsembleRequest
from napari_nnunet.volume import by_text

UNCERTAINTY = ("entropy", "disagreement")


@dataclass(frozen=True)
class EnsembleRules:
    """How members are combined and what is written.

    Parameters
    ----------
    info : DatasetInfo
        What the classes mean; the ending of the files.
    reader : str, optional
        nnU-Net's class name.
    vote : VoteSettings
        Mean or majority, weights, uncertainty.
    probabilities : bool
        Also write the mean as npz and pkl.
    objects : Decoding, optional
        How numbered objects are found in the mean.
    classes : bool
        Whether classes are written where objects are: these lie in ``objects`` beside them then.
    ignore_geometry : bool
        Join voxel by voxel, whatever the files say of the place.
    """

    info: DatasetInfo
    reader: str | None
    vote: VoteSettings
    probabilities: bool = False
    objects: Decoding | None = None
    classes: bool = True
    ignore_geometry: bool = False


@dataclass(frozen=True)
class Ensembled:
    """What became of the cases.

    Parameters
    ----------
    folder : Path
        With the segmentations.
    cases : tuple of str
        Their names.
    """

    folder: Path
    cases: tuple[str, ...]


def ensemble_folders(request: EnsembleRequest) -> Job[Ensembled]:
    """Combine the predictions of several models, one folder of npz files each.

    Parameters
    ----------
    request : EnsembleRequest
        Its folders hold CASE.npz and CASE.pkl, dataset.json and plans.json as ``predict --save_probabilities`` leaves
        them, or nnU-Net itself. In one folder alone, the objects are found of a model of objects.

    Returns
    -------
    Ensembled
        The cases.

    Raises
    ------
    SettingsError, DatasetError, ImageError
        If there are fewer than two folders of classes, they hold different cases or labels, or no case can be joined.
        Those that do not fit together are told as events; the others are joined.
    """
    folders, target = request.sources, request.target
    vote = VoteSettings(request.method, request.weights, request.uncertainty, request.temperature)
    _check_members(folders, target, vote)
    infos = _infos(folders, classes=request.classes)
    members = _common_cases(folders)
    found_by = yield from rules_beside(folders, infos)
    objects = None if request.classes else decoding_by(infos, found_by)
    if not request.classes and (forgotten := forgotten_objects(infos[0])):
        yield Note(level="warning", text=forgotten)
    reader = reader_beside(folders[0]) or infos[0].reader
    rules = EnsembleRules(
        infos[0],
        reader,
        vote,
        request.probabilities,
        objects,
        classes=objects is None,
        ignore_geometry=request.ignore_geometry,
    )
    cases = rest_of((yield from _joined(members, target, rules, request.workers)), "combined")
    for name in ("dataset.json", "plans.json"):
        if (folders[0] / name).is_file():
            copy_file(folders[0] / name, target / name)
    if request.probabilities:
        write_rules(target, found_by)
    settings = {
        "members": [str(folder) for folder in folders],
        "method": vote.method,
        "weights": vote.weights,
        "temperature": vote.temperature if vote.uncertainty else None,
    }
    write_json(target / "ensemble.json", settings)
    if (recipe := join_recipes(folders, vote.method, vote.weights)) is not None:
        write_recipe(target, recipe)
    return Ensembled(target, tuple(cases))


def _infos(folders: Sequence[Path], *, classes: bool) -> list[DatasetInfo]:
    """Return the dataset.json of every member; of one alone, only objects can be found."""
    infos = [info_beside(folder) for folder in folders]
    if len(folders) < 2 and (classes or ObjectScheme.of(infos[0]) is None):
        raise SettingsError(
            f"An ensemble needs at least two members; {len(folders)} folder was given. Of one, numbered objects can be "
            "found where its dataset.json says that its classes are cores and borders."
        )
    for folder, info in zip(folders[1:], infos[1:], strict=True):
        if not same_labels(infos[0], info):
            raise DatasetError(
                f"The labels of {folder} are {info.labels.labels}, those of {folders[0]} "
                f"{infos[0].labels.labels}. Only predictions of the same classes can be combined."
            )
    return infos


def _check_members(folders: Sequence[Path], target: Path, vote: VoteSettings) -> None:
    repeated = sorted({str(folder) for folder in folders if list(folders).count(folder) > 1})
    if repeated:
        raise SettingsError(f"{', '.join(repeated)} was given more than once; give it a weight instead.")
    if os.path.realpath(target) in map(os.path.realpath, folders):
        raise SettingsError(f"The output {target} is one of the inputs. Choose another output folder.")
    check_weights(vote.weights, len(folders))
    if not 0 < vote.temperature < math.inf:
        raise SettingsError(f"The temperature {vote.temperature} is not a positive number.")


def check_weights(weights: Sequence[float] | None, members: int) -> None:
    """Raise SettingsError if weights do not fit the members."""
    if weights is None:
        return
    if len(weights) != members:
        raise SettingsError(
            f"There are {members} members but {counted(len(weights), 'weight')}; give one for each, in order."
        )
    if not all(0 <= weight < math.inf for weight in weights) or sum(weights) <= 0:
        raise SettingsError(f"Weights must be ≥ 0 and not all zero; {list(weights)} were given.")


def check_models(models: Sequence[TrainedModel]) -> None:
    """Raise ModelError if models have other channels or other classes than the first one."""
    first = models[0]
    for other in models[1:]:
        if other.dataset.channel_names != first.dataset.channel_names:
            raise ModelError(
                f"{other.name} takes the channels {', '.join(other.dataset.channel_names)}, {first.name} takes "
                f"{', '.join(first.dataset.channel_names)}: they cannot segment the same image."
            )
        if not same_labels(first.dataset, other.dataset):
            raise ModelError(
                f"{other.name} has the classes {', '.join(other.dataset.labels.head_names)}, {first.name} has "
                f"{', '.join(first.dataset.labels.head_names)}: their results cannot be combined."
            )


def same_labels(one: DatasetInfo, other: DatasetInfo) -> bool:
    """Whether the probabilities of two models are those of the same classes, in the same order."""
    a, b = one.labels, other.labels
    return (a.has_regions, a.regions_class_order) == (b.has_regions, b.regions_class_order) and (
        (a.regions, a.head_names) if a.has_regions else (a.all_labels, a.names)
    ) == ((b.regions, b.head_names) if b.has_regions else (b.all_labels, b.names))


def _common_cases(folders: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    names = [{path.stem for path in folder.glob("*.npz") if not path.name.startswith(".")} for folder in folders]
    every = set().union(*names)
    if not every:
        raise DatasetError(f"There are no .npz files in {folders[0]}.", **KEEP_PROBABILITIES)
    problems = [
        f"{folder} lacks {some([f'{name}.npz' for name in sorted(every - own)])}"
        for folder, own in zip(folders, names, strict=True)
        if every - own
    ]
    if problems:
        raise DatasetError("The folders hold different cases: " + "; ".join(problems) + ".", **KEEP_PROBABILITIES)
    return {name: tuple(folder / f"{name}.npz" for folder in folders) for name in sorted(every)}


def ensemble_cases(
    members: Mapping[str, Sequence[Path]], target: Path, rules: EnsembleRules, *, workers: int = 0
) -> Job[list[str]]:
    """Combine the npz files of every case into ``target``; returns the names of the cases.

    Raises
    ------
    DatasetError, ResourceError, InternalError
        If any case failed, after the others were combined.
    """
    return list(results_of((yield from _joined(members, target, rules, workers)), "combined"))


def _joined(
    members: Mapping[str, Sequence[Path]], target: Path, rules: EnsembleRules, workers: int
) -> Job[dict[str, Outcome]]:
    """Combine every case; returns what became of each. Those that failed are told as events."""
    shapes, bad = _shapes(members, rules)
    with claimed(target, f"{target} is already being filled with segmentations"):
        return (yield from _each(members, shapes, bad, target, rules, workers))


def _each(
    members: Mapping[str, Sequence[Path]],
    shapes: Mapping[str, tuple[int, int, int, int]],
    bad: Mapping[str, NnunetError],
    target: Path,
    rules: EnsembleRules,
    workers: int,
) -> Job[dict[str, Outcome]]:
    remove_leftovers(target)
    if rules.vote.uncertainty:
        for name in UNCERTAINTY:
            remove_leftovers(make_folder(target / name))
    yield Stage(name="Joining", total=len(members))
    tasks = [
        Task(name, (name, tuple(members[name]), target, rules), _memory(rules, shape, len(members[name])))
        for name, shape in shapes.items()
    ]
    work = sum(c * z * y * x * len(members[name]) for name, (c, z, y, x) in shapes.items())
    outcomes: dict[str, Outcome] = yield from each_case(join_case, tasks, workers=workers, work=10 * work)
    for i, name in enumerate(members):
        path = str(target / (name + rules.info.file_ending))
        if name in outcomes and outcomes[name].error is None:
            yield CaseDone(case=name, index=i, total=len(members), path=path, seconds=outcomes[name].seconds)
        elif name in bad:
            yield CaseFailed.of(name, bad[name], i, len(members))
    for names, text in by_text({name: outcome.result or () for name, outcome in outcomes.items()}):
        yield Note(level="warning", text=f"{names}: {text}.")
    every = {**outcomes, **{name: Outcome(name, error=error) for name, error in bad.items()}}
    return {name: every[name] for name in members}


def _memory(rules: EnsembleRules, shape: tuple[int, int, int, int], members: int) -> Any:
    per_voxel = (
        8
        + (8 if rules.objects is not None else 0)
        + (20 if rules.vote.uncertainty else 0)
        + (6 * members if rules.vote.method == "hard" else 0)
    )
    return lambda: per_voxel * math.prod(shape[1:]) + 100e6


def _shapes(
    members: Mapping[str, Sequence[Path]], rules: EnsembleRules
) -> tuple[dict[str, tuple[int, int, int, int]], dict[str, NnunetError]]:
    """Read the headers of all files; returns the shapes of the cases, and those of which the files do not fit.

    Raises
    ------
    DatasetError
        If no case fits, with all reasons.
    """
    found: dict[str, tuple[int, int, int, int]] = {}
    bad: dict[str, NnunetError] = {}
    heads = rules.info.labels.heads
    for name, paths in members.items():
        shapes, problems = [], []
        for path in paths:
            try:
                with closing(ProbabilityReader(path)) as reader:
                    shapes.append(reader.shape)
            except ImageError as error:
                problems.append(error.message)
                continue
            if reader.shape[0] != heads:
                problems.append(f"{path} has {reader.shape[0]} classes, but dataset.json defines {heads}")
            elif sorted(reader.shape) != sorted(shapes[0]):  # axes may be swapped, which their grids tell
                problems.append(f"{path} has shape {reader.shape}, {paths[0]} has {shapes[0]}")
        if problems:
            bad[name] = DatasetError("; ".join(problems))
        else:
            found[name] = shapes[0]
    if not found:
        listed = [error.message for error in bad.values()]
        more = f"\n  ... and {len(listed) - 10} more" if len(listed) > 10 else ""
        raise DatasetError("The predictions do not fit together:\n  " + "\n  ".join(listed[:10]) + more)
    return found, bad


def join_case(name: str, paths: Sequence[Path], target: Path, rules: EnsembleRules) -> tuple[str, ...]:
    """Combine one case and write what was asked for; may run in a worker process.

    Returns what is to be said of members that lie elsewhere and were joined all the same.
    """
    out = target / (name + rules.info.file_ending)
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(ProbabilityReader(path))) for path in paths]
        members = Members(name, tuple(paths), rules.info.file_ending, rules.reader)
        geometry = members.grid(opened[0].shape[1:])
        flat = geometry.ndim == 2
        by_voxels = rules.ignore_geometry and len({reader.shape for reader in opened}) == 1
        said = members.apart(opened, by_voxels=by_voxels) if rules.ignore_geometry else ()
        readers: Sequence[ProbabilityReader | TurnedReader] = opened if by_voxels else members.together(opened)
        c, z, y, x = opened[0].shape
        vote = Vote(rules.info.labels, (z, y, x), len(readers), rules.vote)
        writer = store = None
        if rules.probabilities:
            writer = stack.enter_context(probability_writer(target / f"{name}.npz", (c, z, y, x)))
        if rules.objects is not None:
            store = stack.enter_context(scratch((c, z, y, x), target))
        _add_members(vote, readers, (c, z, y, x), writer, store)
        if store is not None and rules.objects is not None:
            folder = make_folder(target / FOUND_OBJECTS) if rules.classes else target
            mean = store[:, 0] if flat else store
            find_and_write(mean, rules.objects, rules.info, folder / out.name, geometry, rules.reader)
    labels = vote.finish()
    if rules.vote.uncertainty:
        for kind, values in zip(UNCERTAINTY, vote.uncertainty(), strict=True):
            write_image(values[0] if flat else values, geometry, uncertainty_path(out, kind, flat=flat))
    if rules.probabilities:
        copy_file(paths[0].with_suffix(".pkl"), target / f"{name}.pkl")
    if rules.classes:
        write_labels(labels[0] if flat else labels, geometry, out, writer=rules.reader)
    return said


def _add_members(
    vote: Vote,
    readers: Sequence[ProbabilityReader | TurnedReader],
    shape: tuple[int, int, int, int],
    writer: ProbabilityWriter | None,
    store: NDArray[np.float32] | None,
) -> None:
    """Read the members class by class and some planes at a time; writer and store get their mean (C, Z, Y, X)."""
    step = planes_at_once(shape)
    for channel in range(shape[0]):
        for lo in range(0, shape[1], step):
            mean = vote.add(channel, lo, [reader.read(min(step, shape[1] - lo)) for reader in readers])
            if writer is not None:
                writer.write(mean)
            if store is not None:
                store[channel, lo : lo + step] = mean


def uncertainty_path(segmentation: Path, kind: str, *, flat: bool) -> Path:
    """Return where a map of a case's uncertainty goes: a folder of its own next to the segmentation."""
    ending = ending_of(segmentation)
    pictures = (".png", ".bmp", ".jpg", ".jpeg")  # formats that hold no fractions
    own = ".tif" if flat or ending in pictures else ending
    return segmentation.parent / kind / (segmentation.name[: -len(ending)] + own)
