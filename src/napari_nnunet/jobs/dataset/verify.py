"""Look for everything that would go wrong with a raw dataset, and report all of it at once."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from napari_nnunet.engine.machine import available_memory
from napari_nnunet.errors import DatasetError, NnunetError, counted, of_all, some
from napari_nnunet.events import Job, Stage
from napari_nnunet.formats.dataset.case_trash import OBJECTS
from napari_nnunet.formats.dataset.groups import read_groups, stored_groups
from napari_nnunet.formats.dataset.raw_dataset import RawDataset, survey
from napari_nnunet.formats.images.files import adapter_for
from napari_nnunet.formats.masks.facts import MaskFacts
from napari_nnunet.formats.masks.kinds import recognise, to_look_at
from napari_nnunet.formats.masks.pieces import pieces_of
from napari_nnunet.formats.masks.stored import read_mask
from napari_nnunet.formats.preprocessed.journal import joined_at
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.grid import WhenApart
from napari_nnunet.jobs.dataset.case_checks import (
    CaseFacts,
    FixName,
    Problem,
    description_problems,
    look_at_case,
    needed_bytes,
    scheme_problems,
    times,
)
from napari_nnunet.jobs.dataset.contradictions import (
    fold_problems,
    intensity_problems,
    name_problems,
    object_problems,
    thin_problems,
    twin_problems,
)
from napari_nnunet.jobs.dataset.splits import SPLITS_FILE, fold_faults, read_splits, usual_splits
from napari_nnunet.processes.pool import Task, run_cases
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.geometry import INSIDE
from napari_nnunet.schema.json_text import decoded, read_object
from napari_nnunet.schema.requests.dataset import VerifyRequest
from napari_nnunet.volume import by_text

_FEWEST = 5  # cases for nnU-Net's five folds
_SMALLEST, _LARGEST = 1e-7, 100.0  # mm; electron microscopes reach nanometres, nothing reaches decimetres
_THICKEST = 50.0  # ratio of the largest to the smallest spacing
_OUTLIER = 4.0  # ratio to the dataset's median spacing


@dataclass(frozen=True)
class DatasetReport:
    """All problems of a dataset, errors first.

    Parameters
    ----------
    dataset : str
        Its name.
    cases : int
        Complete cases that were looked at.
    problems : tuple of Problem
        Empty where everything is fine.
    """

    dataset: str
    cases: int
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Those that prevent training."""
        return tuple(problem for problem in self.problems if problem.level == "error")


def verify(workspace: Workspace, request: VerifyRequest, *, apart: WhenApart | None = None) -> Job[DatasetReport]:
    """Check a raw dataset: files, labels, geometry, values, room on disk and in memory.

    Parameters
    ----------
    workspace : Workspace
        Where the dataset lies.
    request : VerifyRequest
        What is asked for.
    apart : {"refuse", "resample", "ignore"}, optional
        What will be done with files that lie apart; what was done when each case was preprocessed, if not given.

    Returns
    -------
    DatasetReport
        Every problem that was found.
    """
    dataset_name = workspace.dataset_name(request.dataset)
    folder = workspace.raw / dataset_name
    problems = list(_json_problems(folder))
    try:
        dataset, missing = survey(folder)
    except DatasetError as error:
        if not problems:
            problems.append(Problem.of("dataset.json", error))
        return _report(dataset_name, 0, problems)
    problems += [
        Problem("error" if p.fatal else "warning", p.where, p.text, "drop_case" if p.case else None) for p in missing
    ]
    problems += _count_problems(dataset, incomplete=any(problem.fatal for problem in missing))
    problems += _label_problems(dataset.info.labels)
    problems += object_problems(folder)
    facts: dict[str, CaseFacts] = {}
    if dataset.cases:
        reader = _reader(dataset, problems)
        if reader is not None:
            joined = joined_at(workspace.preprocessed / dataset_name) if apart is None else {}
            how = {case.name: joined.get(case.name, apart or "refuse") for case in dataset.cases}
            facts = yield from _look_at_cases(dataset, reader, request, how)
    for name in sorted(facts):
        problems += facts[name].problems
    problems += _common_problems(dataset, facts)
    problems += _contradictions(workspace, dataset, {name: fact for name, fact in facts.items() if fact.digest})
    problems += _room_problems(workspace, facts)
    return _report(dataset_name, len(dataset.cases), problems)


def _contradictions(workspace: Workspace, dataset: RawDataset, facts: Mapping[str, CaseFacts]) -> Iterable[Problem]:
    """Return what shows when cases, classes and the folds that there are, or would be made, are compared."""
    yield from description_problems(dataset.info)
    yield from scheme_problems(dataset.info.labels)
    yield from name_problems(dataset.info.labels)
    yield from _number_problems(dataset, facts)
    yield from thin_problems(facts)
    yield from twin_problems(facts)
    files = [folder / SPLITS_FILE for folder in (dataset.folder, workspace.preprocessed / dataset.name)]
    there = next((path for path in files if path.is_file()), None)
    if there is None and len(facts) < 2:
        return
    try:
        table = stored_groups(dataset.folder)
        groups = None if table is None else read_groups(sorted(facts), table)
        splits = usual_splits(sorted(facts), groups) if there is None else read_splits(there)
    except NnunetError as error:
        yield Problem("error", SPLITS_FILE, error.message)
        return
    for text in fold_faults(splits, [case.name for case in dataset.cases]):
        yield Problem("warning", SPLITS_FILE, text)
    yield from fold_problems(dataset.info.labels, facts, splits, groups)


def _number_problems(dataset: RawDataset, facts: Mapping[str, CaseFacts]) -> Iterable[Problem]:
    """Say where the classes of a dataset look like numbers of objects, which no network can learn."""
    scheme = dataset.info.labels
    if scheme.has_regions or (dataset.folder / OBJECTS).is_dir():
        return
    masks = {}
    for name, fact in facts.items():
        counts: dict[float, int] = {v: n for v, n in fact.labels.items() if v != scheme.ignore_label}
        masks[name] = MaskFacts(counts, len(counts))
    files = {case.name: case.label for case in dataset.cases}
    closer = to_look_at(masks)
    try:
        pieces = [pieces_of(read_mask(files[name])) for name in closer]
    except NnunetError:  # what cannot be read has been said, case by case
        return
    if not pieces or recognise(masks, pieces).kind != "objects":
        return
    most = max(len(mask.foreground) for mask in masks.values())
    text = (
        f"the classes look like numbers of objects: up to {most} in a case, each one connected piece, and others in "
        "other cases. A network learns classes, not numbers. If each is an object, "
    )
    shell = f"{text}import images and masks again (import_folders --objects)"
    window = f"{text}import images and masks again, as objects of their own"
    yield Problem("warning", "labelsTr", shell, in_window=window)


def _report(name: str, cases: int, problems: Iterable[Problem]) -> DatasetReport:
    ordered = sorted(problems, key=lambda problem: problem.level != "error")
    return DatasetReport(name, cases, tuple(ordered))


def require_sound(report: DatasetReport) -> None:
    """Raise DatasetError with every error of a report; warnings pass."""
    if report.errors:
        listed = "\n  ".join(f"{problem.where}: {problem.text}" for problem in report.errors)
        raise DatasetError(f"{report.dataset} cannot be used as it is:\n  {listed}")


def _json_problems(folder: Path) -> Iterable[Problem]:
    """Name every key that nnU-Net needs and dataset.json lacks."""
    path = folder / "dataset.json"
    try:
        content = read_object(path, DatasetError)
    except DatasetError:
        return  # said by the reader of the dataset
    encoding = decoded(path.read_bytes())[1]
    if encoding != "utf-8":
        text = f"it is written in {encoding}, which nnU-Net does not read; save it again as UTF-8"
        yield Problem("warning", "dataset.json", text)
    for key, meaning in (
        ("channel_names", 'the channels, for instance {"0": "CT"}'),
        ("labels", 'the classes, for instance {"background": 0, "liver": 1}'),
        ("numTraining", "the number of training cases"),
        ("file_ending", 'the ending of all files, for instance ".nii.gz"'),
    ):
        if key not in content:
            old = (
                " ('modality' is its name in old datasets)" if key == "channel_names" and "modality" in content else ""
            )
            fix: FixName | None = "set_count" if key == "numTraining" else None
            yield Problem("error", "dataset.json", f"the key '{key}' is missing: {meaning}{old}", fix)


def _count_problems(dataset: RawDataset, *, incomplete: bool) -> Iterable[Problem]:
    found, stated = len(dataset.cases), dataset.info.num_training
    if stated is not None and stated != found and not incomplete:
        are = f"{'is' if found == 1 else 'are'} {counted(found, 'case')}"
        yield Problem("error", "dataset.json", f"'numTraining' is {stated}, but there {are}", "set_count")
    if found < _FEWEST:
        few = (
            "1 case leaves none to validate: train the fold 'all', or add cases"
            if found == 1
            else f"{found} cases are fewer than nnU-Net's five folds need; there will be {found} folds at most, "
            "each with 1 case to validate, whose score says little: add cases"
        )
        yield Problem("warning", dataset.name, few)


def _label_problems(scheme: LabelScheme) -> Iterable[Problem]:
    if (text := scheme.out_of_turn) is not None:
        yield Problem("error", "dataset.json", text, "remap_labels")


def _reader(dataset: RawDataset, problems: list[Problem]) -> str | None:
    first = dataset.cases[0].images[0]
    try:
        return adapter_for(first, dataset.info.reader).name
    except NnunetError as error:
        problems.append(Problem.of(str(first.name), error))
    except Exception as error:  # whatever a library says of a damaged first file
        problems.append(Problem("error", str(first.name), f"it cannot be read: {error}", "drop_case"))
    return None


def _look_at_cases(
    dataset: RawDataset, reader: str, request: VerifyRequest, how: Mapping[str, WhenApart]
) -> Job[dict[str, CaseFacts]]:
    yield Stage(name=f"Checking {dataset.name}", total=len(dataset.cases))
    tasks = [
        Task(case.name, (case, reader, dataset.info, how[case.name]), partial(needed_bytes, case, reader))
        for case in dataset.cases
    ]
    outcomes = yield from run_cases(look_at_case, tasks, workers=request.workers, memory_gb=request.memory_gb)
    found: dict[str, CaseFacts] = {}
    for name, outcome in outcomes.items():
        if outcome.error is None:
            found[name] = outcome.result
        else:
            found[name] = CaseFacts((Problem.of(name, outcome.error, "drop_case"),))
    return found


def _common_problems(dataset: RawDataset, facts: dict[str, CaseFacts]) -> Iterable[Problem]:
    """Return what shows only when cases are compared."""
    seen = {name: fact for name, fact in facts.items() if fact.digest}
    if not seen:
        return
    for listed, text in by_text({name: fact.remarks for name, fact in sorted(seen.items())}):
        yield Problem("warning", listed, text)
    yield from _class_problems(dataset.info.labels, list(seen.values()))
    yield from _spacing_problems(dataset, seen)
    yield from intensity_problems(dataset.info.channel_names, seen)
    codes = Counter(fact.orientation for fact in seen.values() if fact.orientation is not None)
    if len(codes) > 1:
        usual = codes.most_common(1)[0][0]
        others = sorted(name for name, fact in seen.items() if fact.orientation not in (None, usual))
        yield Problem(
            "warning",
            some(others),
            f"orientation {', '.join(sorted({str(seen[name].orientation) for name in others}))} differs from most "
            f"cases ({usual}); images are not reoriented automatically. Reorient them, or set a reader that does "
            "(overwrite_image_reader_writer: NibabelIOWithReorient)",
        )


def _class_problems(scheme: LabelScheme, facts: Sequence[CaseFacts]) -> Iterable[Problem]:
    occurs = Counter(value for fact in facts for value in fact.labels)
    foreground = scheme.foreground_labels
    if foreground and not any(occurs[value] for value in foreground):
        yield Problem("error", "labelsTr", "no case has any foreground; there is nothing to learn")
        return
    for value in foreground:
        if not occurs[value]:
            name = next((n for n, v in scheme.labels.items() if v == value), str(value))
            text = f"the class '{name}' ({value}) occurs in no case; it cannot be learnt"
            yield Problem("warning", "dataset.json", text, "remap_labels")


def _spacing_problems(dataset: RawDataset, facts: dict[str, CaseFacts]) -> Iterable[Problem]:
    pictures = all(len(fact.spacing) == 2 for fact in facts.values())
    unknown = sorted(name for name, fact in facts.items() if not fact.spacing_known)
    if unknown and not pictures:
        yield Problem(
            "warning",
            some(unknown),
            f"{of_all(len(unknown), len(facts), 'case has', 'cases have')} no voxel size; 1 mm is assumed in every "
            "direction",
            "set_spacing",
        )
    inside = sorted(name for name, fact in facts.items() if fact.spacing_source in INSIDE)
    if inside and not pictures:
        yield Problem(
            "warning",
            some(inside),
            f"{of_all(len(inside), len(facts), 'case has', 'cases have')} a voxel size inside their TIFF, which is "
            "used here; nnU-Net does not look there, assumes 1 mm and makes other plans. A CASE.json with the spacing "
            "beside each file says the same to both",
            "set_spacing",
        )
    for name, fact in sorted(facts.items()):
        if not all(_SMALLEST <= s <= _LARGEST for s in fact.spacing) or max(fact.spacing) > _THICKEST * min(
            fact.spacing
        ):
            text = f"a voxel size of {times(fact.spacing)} mm is implausible"
            yield Problem("warning", name, text, "set_spacing")
    lengths = {len(fact.spacing) for fact in facts.values()}
    if len(lengths) > 1:
        yield Problem("error", dataset.name, "some cases are 2-D and some 3-D; a dataset must be all 2-D or all 3-D")
        return
    median = np.median([fact.spacing for fact in facts.values()], axis=0)
    for name, fact in sorted(facts.items()):
        ratio = np.asarray(fact.spacing) / median
        if ratio.max() > _OUTLIER or ratio.min() < 1 / _OUTLIER:
            text = f"its voxel size of {times(fact.spacing)} mm is far from the usual {times(median)}"
            yield Problem("warning", name, text)


def _room_problems(workspace: Workspace, facts: dict[str, CaseFacts]) -> Iterable[Problem]:
    """Return whether disk and memory will do; the two full-resolution configurations are counted."""
    if not facts:
        return
    stored = 2 * sum(fact.bytes_stored for fact in facts.values())
    place = workspace.preprocessed
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if stored > free:
        text = f"preprocessing needs about {stored / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free"
        yield Problem("error", str(workspace.preprocessed), text)
    name, largest = max(((name, fact.bytes_needed) for name, fact in facts.items()), key=lambda entry: entry[1])
    memory = available_memory()
    if largest > memory:
        text = f"it needs about {largest / 1e9:.1f} GB of memory, {memory / 1e9:.1f} GB are free"
        yield Problem("warning", name, text)
