"""Preprocess a planned dataset: each case is read once for all configurations, and only where something changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import PlanError, ResourceError
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import copy_file, make_folder, remove_leftovers, written_beside
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.dataset.raw_dataset import RawDataset, TrainingCase, open_dataset
from napari_nnunet.formats.dataset.read_case import read_case
from napari_nnunet.formats.preprocessed.cases import case_files, case_names, remove_case, remove_old_format, write_case
from napari_nnunet.formats.preprocessed.journal import Journal
from napari_nnunet.formats.preprocessed.plans import plan_files, read_plans
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.grid import WhenApart
from napari_nnunet.jobs.case_size import SMALL, grid_of
from napari_nnunet.processes.pool import Outcome, Task, run_cases
from napari_nnunet.schema.fingerprint import Fingerprint
from napari_nnunet.schema.plans import STANDARD, Configuration, Plans
from napari_nnunet.schema.requests.planning import PreprocessRequest
from napari_nnunet.volume import Volume

_VERSION = 1  # raise it when preprocessing gives other numbers: everything is then made again
_STAGING = ".unfinished"


@dataclass(frozen=True)
class PreprocessResult:
    """What became of the cases.

    Parameters
    ----------
    folders : tuple of Path
        One per configuration that has data of its own.
    done, skipped : tuple of str
        Cases made now, and cases that were up to date.
    failed : dict of str to str
        Case and the reason; the others are complete.
    """

    folders: tuple[Path, ...]
    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: dict[str, str]


@dataclass(frozen=True, eq=False)
class _Target:
    """A folder of preprocessed cases."""

    configuration: Configuration
    folder: Path
    rules: str
    journal: Journal


def preprocess(workspace: Workspace, request: PreprocessRequest) -> Job[PreprocessResult]:
    """Crop, normalise and resample all training cases and store them as nnU-Net does.

    Parameters
    ----------
    workspace : Workspace
        Where the dataset lies.
    request : PreprocessRequest
        What is asked for.

    Returns
    -------
    PreprocessResult
        Cases that failed are in it; they do not end the others.

    Raises
    ------
    PlanError
        If plans or configurations are missing, or two plans would write different data into one folder.
    DatasetError
        If the raw dataset is incomplete.
    ResourceError
        If the disk has too little room.
    SettingsError
        If another process preprocesses the dataset.
    """
    dataset_name = workspace.dataset_name(request.dataset)
    dataset = open_dataset(workspace.raw / dataset_name)
    base = make_folder(workspace.preprocessed / dataset_name)
    with claimed(base, f"{dataset_name} is already being preprocessed", part="preprocessing"):
        return (yield from _preprocess(dataset, base, request))


def _preprocess(dataset: RawDataset, base: Path, request: PreprocessRequest) -> Job[PreprocessResult]:
    plans = read_plans(base, request.plans)
    targets = yield from _targets(base, plans, request.configurations, dataset)
    staging = make_folder(base / _STAGING)
    remove_leftovers(staging)
    if not (base / "dataset.json").is_file():
        copy_file(dataset.folder / "dataset.json", base / "dataset.json")
    yield from _drop_removed(dataset, targets)
    work, skipped = _work(dataset, targets, clean=request.clean)
    if skipped:
        yield Note(text=f"{len(skipped)} of {len(dataset.cases)} cases are up to date.")
    _check_disk(base, targets, len(work))
    yield Stage(name=f"Preprocessing {base.name}", total=len(work))
    try:
        done, failed = yield from _run(dataset, plans, targets, work, staging, request)
    finally:
        remove_leftovers(staging)
        if not any(staging.iterdir()):
            staging.rmdir()
    _copy_references(dataset, base / "gt_segmentations")
    return PreprocessResult(tuple(target.folder for target in targets), tuple(done), tuple(skipped), failed)


def _targets(base: Path, plans: Plans, names: Sequence[str], dataset: RawDataset) -> Job[list[_Target]]:
    """Return one target per folder; configurations that share their data share it here too."""
    targets: dict[str, _Target] = {}
    known = set(plans.configurations)
    for name in dict.fromkeys(names):
        if name not in known and name in (*STANDARD, "3d_cascade_fullres"):
            yield Note(text=f"{plans.plans_name} has no configuration {name} for this dataset; skipped.")
            continue
        configuration = plans.configuration(name)
        identifier = configuration.data_identifier
        rules = rules_of(plans, configuration, dataset)
        before = targets.get(identifier)
        if before is not None and before.rules != rules:
            raise PlanError(
                f"{before.configuration.name} and {name} would both write to {identifier}, but differ in spacing, "
                f"normalisation or patch. Give {name} a 'data_identifier' of its own in {plans.plans_name}.json."
            )
        _refuse_others(base, plans, identifier, rules, dataset)
        journal = Journal(base / f"{identifier}.cases.jsonl")
        targets.setdefault(identifier, _Target(configuration, base / identifier, rules, journal))
    if not targets:
        have = ", ".join(sorted(known))
        raise PlanError(f"None of the configurations {', '.join(names)} is in {plans.plans_name}. It has: {have}.")
    return list(targets.values())


def _refuse_others(base: Path, plans: Plans, identifier: str, rules: str, dataset: RawDataset) -> None:
    """Refuse to overwrite data that were made for other plans, which still exist and want them otherwise."""
    finished = Journal(base / f"{identifier}.cases.jsonl").read()
    if not finished:
        return
    for path in plan_files(base):
        other = Plans.read(path)
        if other.plans_name == plans.plans_name:
            continue
        for name in other.configurations:
            configuration = other.configuration(name)
            wanted = rules_of(other, configuration, dataset)
            if configuration.data_identifier != identifier or wanted == rules:
                continue
            if any(finished.get(case.name) == case_digest(case, wanted) for case in dataset.cases):
                raise PlanError(
                    f"{identifier} holds the data of {other.plans_name} ({name}), which differ in spacing, "
                    f"normalisation or patch; they would be overwritten. Edit 'data_identifier' in "
                    f"{plans.plans_name}.json, or delete {path.name} if it is no longer needed."
                )


def rules_of(plans: Plans, configuration: Configuration, dataset: RawDataset) -> str:
    """Return a digest of everything that decides what preprocessing writes, but for the case itself."""
    rules = {
        "version": _VERSION,
        "reader": plans.reader,
        "transpose": plans.transpose_forward,
        "intensities": [statistics.model_dump() for statistics in plans.intensities],
        "labels": dataset.info.labels.model_dump(mode="json"),
        "spacing": configuration.spacing,
        "patch": configuration.patch_size,
        "schemes": configuration.normalization_schemes,
        "masks": configuration.use_mask_for_norm,
        "resampling": [configuration.resample_data.model_dump(), configuration.resample_seg.model_dump()],
    }
    return hashlib.sha256(json.dumps(rules, sort_keys=True, default=list).encode()).hexdigest()


def case_digest(case: TrainingCase, rules: str) -> str:
    """Return a digest of a case's files and of the rules it is preprocessed by."""
    digest = hashlib.sha256(rules.encode())
    for path in (*case.images, case.label):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _drop_removed(dataset: RawDataset, targets: Sequence[_Target]) -> Job[None]:
    """Delete what is left of cases that the dataset no longer has: training would use them."""
    names = {case.name for case in dataset.cases}
    for target in targets:
        gone = sorted(set(case_names(target.folder)) - names) if target.folder.is_dir() else []
        for name in gone:
            remove_case(target.folder, name)
        if gone:
            yield Note(
                text=f"{target.folder.name}: {len(gone)} cases are no longer in the dataset and were removed "
                f"({', '.join(gone[:5])}{', ...' if len(gone) > 5 else ''})."
            )


def _work(
    dataset: RawDataset, targets: Sequence[_Target], *, clean: bool
) -> tuple[dict[str, list[tuple[_Target, str]]], list[str]]:
    """Return per case which targets must be made and the digest of each, and the cases that need nothing."""
    finished = {target.folder: target.journal.read() for target in targets}
    work: dict[str, list[tuple[_Target, str]]] = {}
    skipped = []
    for case in dataset.cases:
        wanted = []
        for target in targets:
            digest = case_digest(case, target.rules)
            there = finished[target.folder].get(case.name) == digest and all(
                path.is_file() for path in case_files(target.folder, case.name)
            )
            if clean or not there:
                wanted.append((target, digest))
        if wanted:
            work[case.name] = wanted
        else:
            skipped.append(case.name)
    return work, skipped


def _check_disk(base: Path, targets: Sequence[_Target], cases: int) -> None:
    needed = cases / max(1, _case_count(base)) * sum(stored_bytes(base, target.configuration) for target in targets)
    free = shutil.disk_usage(base).free
    if needed > free:
        raise ResourceError(
            f"Preprocessing will write about {needed / 1e9:.1f} GB to {base}, but only {free / 1e9:.1f} GB are free. "
            "Free some space, use another workspace, or preprocess fewer configurations (-c)."
        )


def _case_count(base: Path) -> int:
    fingerprint = _fingerprint(base)
    return 0 if fingerprint is None else len(fingerprint.spacings)


def _fingerprint(base: Path) -> Fingerprint | None:
    path = base / "dataset_fingerprint.json"
    return Fingerprint.read(path) if path.is_file() else None


def stored_bytes(base: Path, configuration: Configuration) -> float:
    """Return how much disk the preprocessed cases of a configuration take at most, 0 if nothing is measured yet."""
    fingerprint = _fingerprint(base)
    if fingerprint is None:
        return 0.0
    # Voxels of a case at the target spacing; the product over the axes does not depend on their order.
    target = float(np.prod(configuration.spacing))
    total = 0.0
    for shape, spacing in zip(fingerprint.shapes_after_crop, fingerprint.spacings, strict=True):
        own = sorted(spacing, reverse=True)[-len(configuration.spacing) :]
        total += float(np.prod(shape)) * float(np.prod(own)) / target
    return total * (4 * len(configuration.normalization_schemes) + 2)


def _run(
    dataset: RawDataset,
    plans: Plans,
    targets: Sequence[_Target],
    work: Mapping[str, list[tuple[_Target, str]]],
    staging: Path,
    request: PreprocessRequest,
) -> Job[tuple[list[str], dict[str, str]]]:
    cases = {case.name: case for case in dataset.cases}
    for target in targets:
        make_folder(target.folder)
    tasks = []
    for name, wanted in work.items():
        mine = tuple((target.configuration, target.folder) for target, _ in wanted)
        arguments = (cases[name], plans, mine, dataset.info.labels, staging, request.apart)
        tasks.append(Task(name, arguments, partial(case_bytes, cases[name], plans, mine)))
    for target in targets:
        target.journal.note([name for name, wanted in work.items() if any(t is target for t, _ in wanted)], None)

    def finished(outcome: Outcome) -> None:
        for target, digest in work[outcome.name]:
            if outcome.error is None:
                target.journal.note([outcome.name], digest)
            else:
                remove_case(target.folder, outcome.name)  # what an earlier run made is stale

    how: dict[str, Any] = {"workers": request.workers, "memory_gb": request.memory_gb}
    outcomes = yield from run_cases(preprocess_case, tasks, **how, finished=finished)
    for name, outcome in outcomes.items():
        yield from (Note(level="warning", text=f"{name}: {text}") for text in outcome.result or ())
    done = [name for name, outcome in outcomes.items() if outcome.error is None]
    return done, {name: outcome.error.message for name, outcome in outcomes.items() if outcome.error is not None}


def preprocess_case(
    case: TrainingCase,
    plans: Plans,
    targets: Sequence[tuple[Configuration, Path]],
    labels_scheme: Any,
    staging: Path,
    apart: WhenApart = "refuse",
) -> tuple[str, ...]:
    """Read, prepare and store one case; runs in a worker process.

    Returns
    -------
    tuple of str
        What was done to bring its channels together.

    Raises
    ------
    ImageError
        If the files cannot be read or used.
    """
    from napari_nnunet.engine.image.prepare_case import prepare_case  # loads scipy, which only the workers need

    configurations = [configuration for configuration, _ in targets]
    folders = {configuration.name: folder for configuration, folder in targets}
    # The arrays are handed on without a name here, so that they are freed as soon as they were used.
    notes: list[str] = []
    for prepared in prepare_case(*_read(case, plans.reader, apart, notes), plans, configurations, labels_scheme):
        folder = folders[prepared.configuration.name]
        write_case(
            folder,
            case.name,
            prepared.data,
            prepared.labels,
            prepared.properties,
            patch=prepared.configuration.patch_size,
            staging=staging,
        )
        remove_old_format(folder, case.name)
        del prepared  # or it would stay while the next one is made
    return tuple(notes)


def _read(case: TrainingCase, reader: str, apart: WhenApart, notes: list[str]) -> tuple[Volume, NDArray[Any]]:
    volume, labels = read_case(case, reader, as_stored=True, apart=apart)
    notes += volume.notes
    return volume, labels


def case_bytes(case: TrainingCase, plans: Plans, targets: Sequence[tuple[Configuration, Path]]) -> float:
    """Return how much memory a case takes while it is preprocessed, from the headers of its files.

    Raises nothing: a file that cannot be read is reported when its turn comes.
    """
    grid = grid_of(case, plans.reader)
    if grid is None:
        return SMALL
    voxels, channels, itemsize = grid.voxels, grid.channels, grid.itemsize
    spacing = grid.spacing
    largest = 0.0
    for configuration, _ in targets:
        own = sorted(spacing, reverse=True)[-len(configuration.spacing) :]
        largest = max(largest, voxels * float(np.prod(own)) / float(np.prod(configuration.spacing)))
    return voxels * ((4 + itemsize) * channels + 8) + largest * (4 * channels + 8)


def _copy_references(dataset: RawDataset, folder: Path) -> None:
    """Copy the raw labels for validation, those that changed; the time of the original is kept."""
    make_folder(folder)
    ending = dataset.info.file_ending
    wanted = {f"{case.name}{ending}": case.label for case in dataset.cases}
    for name, source in wanted.items():
        target = folder / name
        before = target.stat() if target.is_file() else None
        now = source.stat()
        if before is None or (before.st_size, before.st_mtime_ns) != (now.st_size, now.st_mtime_ns):
            with written_beside(target, durable=False) as temporary:
                shutil.copyfile(source, temporary)
                os.utime(temporary, ns=(now.st_atime_ns, now.st_mtime_ns))
    for path in folder.iterdir():
        if path.name not in wanted and path.name.endswith(ending):
            path.unlink()
