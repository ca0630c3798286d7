"""Preprocess a planned dataset: each case is read once for all configurations, and only where something changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_nnunet.errors import NnunetError, PlanError, counted, of_all, some
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import copy_file, make_folder, remove_leftovers, written_beside
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.dataset.raw_dataset import RawDataset, TrainingCase, left_out_notes, open_dataset
from napari_nnunet.formats.dataset.read_case import read_case
from napari_nnunet.formats.preprocessed.cases import (
    case_names,
    preprocessed_files,
    remove_case,
    remove_old_format,
    store_case,
)
from napari_nnunet.formats.preprocessed.digests import facts_of_files
from napari_nnunet.formats.preprocessed.journal import Journal
from napari_nnunet.formats.preprocessed.plans import plan_files, read_plans, require_reader
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.grid import WhenApart
from napari_nnunet.jobs.case_size import bytes_within, in_parts, prepare_bytes, room_for_case
from napari_nnunet.jobs.objects.draw import keep_drawn
from napari_nnunet.jobs.planning.foreign_labels import require_learnable
from napari_nnunet.jobs.planning.freshness import (
    Gathering,
    content_of,
    made_from,
    refuse_training,
    rules_of,
    stale_cases,
)
from napari_nnunet.jobs.planning.sizes import require_disk
from napari_nnunet.processes.cluster.team import Elsewhere, spread
from napari_nnunet.processes.pool import Outcome, Task, collected, run_cases
from napari_nnunet.schema.dataset import DatasetInfo, LabelScheme
from napari_nnunet.schema.plans import STANDARD, Configuration, Plans
from napari_nnunet.schema.requests.planning import PreprocessRequest
from napari_nnunet.volume import Volume, by_text

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
    failed : dict of str to NnunetError
        Case and the reason; the others are complete.
    """

    folders: tuple[Path, ...]
    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: dict[str, NnunetError]


@dataclass(frozen=True, eq=False)
class _Target:
    """A folder of preprocessed cases."""

    configuration: Configuration
    folder: Path
    rules: str
    journal: Journal


_Work = tuple[dict[str, list[_Target]], list[str], Gathering]


def preprocess(workspace: Workspace, request: PreprocessRequest, *, as_before: bool = False) -> Job[PreprocessResult]:
    """Crop, normalise and resample all training cases and store them as nnU-Net does.

    Parameters
    ----------
    workspace : Workspace
        Where the dataset lies.
    request : PreprocessRequest
        What is asked for.
    as_before : bool
        Bring the files of each case together as they were when it was preprocessed before, and those of new cases as
        all others were, whatever the request says of it.

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
    base = workspace.preprocessed / dataset_name
    with claimed(base, f"{dataset_name} is already being preprocessed", part="preprocessing"), ExitStack() as stack:
        yield from keep_drawn(workspace.raw / dataset_name, request.workers)
        dataset = open_dataset(workspace.raw / dataset_name)
        yield from left_out_notes(dataset)
        require_learnable(dataset.info.labels)
        plans = read_plans(base, request.plans)
        require_reader(plans)
        targets = yield from _targets(base, plans, request.configurations, dataset)
        for target in targets:
            doing = f"{target.folder} is already being filled"
            stack.enter_context(claimed(base, doing, part=target.folder.name))
        work = _work(dataset, targets, request, as_before)
        if work[0] or any(_removed(dataset, target) for target in targets):
            refuse_training(workspace.results, base, [target.folder.name for target in targets])
        return (yield from _preprocess(dataset, plans, targets, work, request))


def _preprocess(
    dataset: RawDataset, plans: Plans, targets: Sequence[_Target], work: _Work, request: PreprocessRequest
) -> Job[PreprocessResult]:
    base, (cases, skipped, joining) = targets[0].folder.parent, work
    staging = make_folder(base / _STAGING)
    remove_leftovers(staging)
    if not _describes(base / "dataset.json", dataset.info):
        copy_file(dataset.folder / "dataset.json", base / "dataset.json")
    yield from _drop_removed(dataset, targets)
    if skipped:
        yield Note(text=f"{of_all(len(skipped), len(dataset.cases), 'case is', 'cases are')} up to date.")
    yield from joining.said(cases)
    require_disk(base, plans, [target.configuration for target in targets], len(cases))
    yield Stage(name=f"Preprocessing {base.name}", total=len(cases))
    try:
        done, failed = yield from _run(dataset, plans, targets, cases, joining, staging, request)
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
        schemes, channels = configuration.normalization_schemes, dataset.info.channel_names
        if len(schemes) != len(channels):
            raise PlanError(
                f"{plans.where}, configuration '{name}': 'normalization_schemes' is of {len(schemes)}; the "
                f"dataset has {counted(len(channels), 'channel')} ({', '.join(channels)}). Give one for each."
            )
        identifier = configuration.data_identifier
        rules = rules_of(plans, configuration, dataset)
        before = targets.get(identifier)
        if before is not None and before.rules != rules:
            raise PlanError(
                f"{before.configuration.name} and {name} would both write to {identifier}, but differ in spacing, "
                "normalisation or resampling.",
                shell=f"Give {name} a 'data_identifier' of its own in {plans.plans_name}.json.",
                window=f"Untick {name}, and make it again with 'Change a configuration', under another name.",
            )
        _refuse_others(base, configuration, rules, dataset)
        place = base / identifier
        targets.setdefault(identifier, _Target(configuration, place, rules, Journal.of(place)))
    if not targets:
        have = ", ".join(sorted(known))
        raise PlanError(f"None of the configurations {', '.join(names)} is in {plans.plans_name}. It has: {have}.")
    return list(targets.values())


def _refuse_others(base: Path, mine: Configuration, rules: str, dataset: RawDataset) -> None:
    """Refuse to overwrite data of another configuration, of these plans or of others, that wants them otherwise."""
    identifier = mine.data_identifier
    journal = Journal.of(base / identifier)
    if not journal.read():
        return
    for path in plan_files(base):
        other = Plans.read(path)
        for name in other.configurations:
            try:
                configuration = other.configuration(name)
            except PlanError:  # it can be used for nothing, and says so when it is
                continue
            wanted = rules_of(other, configuration, dataset)
            others = configuration.data_identifier == identifier and wanted != rules
            if others and len(stale_cases(dataset.cases, wanted, journal)) < len(dataset.cases):
                raise PlanError(
                    f"{identifier} holds the data of {other.plans_name} ({name}), which differ in spacing, "
                    "normalisation or resampling; they would be overwritten.",
                    shell=f"Give {mine.name} its own 'data_identifier', or delete {name} from {path.name}.",
                    window="Plan again without a target spacing, and set the voxel size with 'Change a configuration'.",
                )


def _describes(path: Path, info: DatasetInfo) -> bool:
    """Whether the dataset.json beside plans has the classes and channels of the raw one, and what was looked for."""
    if not path.is_file():
        return False
    known = DatasetInfo.read(path)
    return all(getattr(known, what) == getattr(info, what) for what in ("labels", "channel_names", "annotated"))


def _removed(dataset: RawDataset, target: _Target) -> list[str]:
    """Return the cases of a target that the dataset no longer has."""
    if not target.folder.is_dir():
        return []
    return sorted(set(case_names(target.folder)) - {case.name for case in dataset.cases})


def _drop_removed(dataset: RawDataset, targets: Sequence[_Target]) -> Job[None]:
    """Delete what is left of cases that the dataset no longer has: training would use them."""
    for target in targets:
        gone = _removed(dataset, target)
        for name in gone:
            remove_case(target.folder, name)
        if gone:
            yield Note(
                text=f"{target.folder.name}: {counted(len(gone), 'case')} removed, no longer in the dataset "
                f"({some(gone)})."
            )


def _work(dataset: RawDataset, targets: Sequence[_Target], request: PreprocessRequest, as_before: bool) -> _Work:
    """Return per case which targets must be made, and the cases that need nothing."""
    work: dict[str, list[_Target]] = {}
    joining = Gathering.before(targets[0].folder.parent) if as_before else Gathering(request.apart)
    clean, asked = request.clean, None if as_before else request.apart
    for target in targets:
        made = () if clean else stale_cases(dataset.cases, target.rules, target.journal, asked)
        stale = {case.name for case in made}
        for case in dataset.cases:
            there = all(path.is_file() for path in preprocessed_files(target.folder, case.name))
            if clean or case.name in stale or not there:
                work.setdefault(case.name, []).append(target)
    return work, [case.name for case in dataset.cases if case.name not in work], joining


def _run(
    dataset: RawDataset,
    plans: Plans,
    targets: Sequence[_Target],
    work: Mapping[str, list[_Target]],
    joining: Gathering,
    staging: Path,
    request: PreprocessRequest,
) -> Job[tuple[list[str], dict[str, NnunetError]]]:
    cases = {case.name: case for case in dataset.cases}
    for target in targets:
        make_folder(target.folder)
    room = 0 if request.cluster is not None else room_for_case(request.memory_gb)  # workers know their own
    tasks = []
    for name, wanted in work.items():
        mine = tuple((target.configuration, target.folder) for target in wanted)
        arguments = (cases[name], plans, mine, dataset.info.labels, staging, joining.of_case(name), room)
        tasks.append(
            Task(
                name,
                arguments,
                partial(
                    bytes_within, room, cases[name], plans.reader, partial(prepare_bytes, cases[name], plans, mine)
                ),
            )
        )
    for target in targets:
        target.journal.note([name for name, wanted in work.items() if any(t is target for t in wanted)], None)

    def finished(outcome: Outcome) -> None:
        for target in work[outcome.name]:
            if outcome.error is None:
                case, how = cases[outcome.name], joining.of_case(outcome.name)
                made = made_from(case, target.rules, outcome.result[0], how)
                target.journal.note([case.name], made, facts_of_files(target.folder, case.name))
            else:
                remove_case(target.folder, outcome.name)  # what an earlier run made is stale

    if request.cluster is not None:
        need = Elsewhere(request.cluster, reads=dataset.first_files, writes=staging)
        outcomes = yield from collected(spread(need, preprocess_case, tasks), len(tasks), finished)
    else:
        how: dict[str, Any] = {"workers": request.workers, "memory_gb": request.memory_gb}
        outcomes = yield from run_cases(preprocess_case, tasks, **how, finished=finished)
    said = {name: (outcome.result or ((), ()))[1] for name, outcome in outcomes.items()}
    yield from (Note(level="warning", text=f"{names}: {text.rstrip('.')}.") for names, text in by_text(said))
    done = [name for name, outcome in outcomes.items() if outcome.error is None]
    return done, {name: outcome.error for name, outcome in outcomes.items() if outcome.error is not None}


def preprocess_case(
    case: TrainingCase,
    plans: Plans,
    targets: Sequence[tuple[Configuration, Path]],
    labels_scheme: LabelScheme,
    staging: Path,
    apart: WhenApart = "refuse",
    room: float = 0,
) -> tuple[str, tuple[str, ...]]:
    """Read, prepare and store one case, in parts where it takes more than ``room`` bytes; runs in a worker process.

    Returns
    -------
    str, tuple of str
        A digest of what its files held, and what was done to bring its channels together.

    Raises
    ------
    ImageError
        If the files cannot be read or used.
    """
    from napari_nnunet.engine.image.prepare_case import prepare_case  # loads scipy, which only the workers need

    content = content_of(case)  # before it is used: what changes meanwhile is noticed the next time
    room = room or room_for_case(0)
    if in_parts(case, plans.reader, prepare_bytes(case, plans, targets), room):
        from napari_nnunet.jobs.planning.in_parts import preprocess_in_parts  # likewise

        said = preprocess_in_parts(case, plans, targets, labels_scheme, staging, apart, room)
        for _, folder in targets:
            remove_old_format(folder, case.name)
        return content, tuple(said)
    configurations = [configuration for configuration, _ in targets]
    folders = {configuration.name: folder for configuration, folder in targets}
    # The arrays are handed on without a name here, so that they are freed as soon as they were used.
    notes: list[str] = []
    for prepared in prepare_case(
        *_read(case, plans.reader, labels_scheme, apart, notes), plans, configurations, labels_scheme
    ):
        folder = folders[prepared.configuration.name]
        notes += prepared.record.notes
        store_case(
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
    return content, tuple(notes)


def _read(
    case: TrainingCase, reader: str, scheme: LabelScheme, apart: WhenApart, notes: list[str]
) -> tuple[Volume, NDArray[Any]]:
    volume, labels = read_case(case, reader, scheme, as_stored=True, apart=apart)
    notes += volume.said
    return volume, labels


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
