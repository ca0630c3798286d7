"""Measure a dataset, then plan it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from napari_nnunet.engine.image.intensities import usual_range
from napari_nnunet.engine.image.likeness import likeness_of
from napari_nnunet.engine.planning.fingerprint import CaseMeasure, draws_per_case, merge
from napari_nnunet.engine.planning.planner import PLANNERS, plan
from napari_nnunet.errors import DatasetError, PlanError, some
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import copy_file, write_json
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.dataset.raw_dataset import RawDataset, TrainingCase, left_out_notes, open_dataset, reader_of
from napari_nnunet.formats.dataset.read_case import read_case
from napari_nnunet.formats.preprocessed.journal import usual
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.grid import WhenApart
from napari_nnunet.jobs.case_size import bytes_within, in_parts, measure_bytes, room_for_case
from napari_nnunet.jobs.dataset.case_checks import CaseFacts, description_problems
from napari_nnunet.jobs.dataset.contradictions import measured_problems
from napari_nnunet.jobs.objects.draw import keep_drawn
from napari_nnunet.jobs.planning.classes import MEASURED_FROM, VALUES_MEASURED, VALUES_OF_CASES
from napari_nnunet.jobs.planning.folds import folds_of, make_folds, own_groups, take_raw_folds
from napari_nnunet.jobs.planning.freshness import Gathering, content_of, contents_of, files_digest
from napari_nnunet.processes.cluster.team import Elsewhere, spread
from napari_nnunet.processes.pool import Task, collected, results_of, run_cases
from napari_nnunet.schema.dataset import DatasetInfo, LabelScheme
from napari_nnunet.schema.fingerprint import Fingerprint
from napari_nnunet.schema.json_text import NOTED, message
from napari_nnunet.schema.names import require_plain
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.planning import FingerprintRequest, PlanRequest
from napari_nnunet.volume import by_text

_LISTED = 12  # files in a sentence
_FINGERPRINT = "dataset_fingerprint.json"
_ODD = "odd"  # key of what was odd about the cases, beside the values of their labels
_PLANNED = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")


def extract_fingerprint(
    workspace: Workspace, request: FingerprintRequest, *, as_before: bool = False, checked: bool = False
) -> Job[Fingerprint]:
    """Measure all cases of a dataset and write dataset_fingerprint.json.

    Parameters
    ----------
    workspace : Workspace
        Where the dataset lies.
    request : FingerprintRequest
        What is asked for.
    as_before : bool
        Bring the files of each case together as when it was preprocessed, whatever the request says.
    checked : bool
        Whether the check of the dataset has said what is odd in dataset.json.

    Returns
    -------
    Fingerprint
        New, or the one that is there if neither files nor settings changed since.

    Raises
    ------
    DatasetError
        If cases cannot be read; all of them are named.
    SettingsError
        If another process measures the dataset.
    """
    dataset_name = workspace.dataset_name(request.dataset)
    yield from keep_drawn(workspace.raw / dataset_name, request.workers)
    dataset = open_dataset(workspace.raw / dataset_name)
    yield from left_out_notes(dataset)
    yield from () if checked else _doubts(dataset)
    folder = workspace.preprocessed / dataset_name
    joining = _joining(folder, dataset) if as_before else Gathering(request.apart)
    sources = _sources(dataset, request, joining)
    if not request.clean and (folder / _FINGERPRINT).is_file():
        if not (folder / MEASURED_FROM).is_file() or _unchanged(dataset, folder / MEASURED_FROM, sources):
            yield Note(text=f"{dataset_name}: the fingerprint is up to date.")
            yield from () if checked else _said_before(folder, dataset.info)
            return Fingerprint.read(folder / _FINGERPRINT)
        yield Note(text=f"{dataset_name}: the data changed since the fingerprint was measured; measuring again.")
    with claimed(folder, f"{dataset_name} is already being measured", part=_FINGERPRINT):
        dataset = open_dataset(workspace.raw / dataset_name)  # once more: it may have been changed or renamed till now
        sources = _sources(dataset, request, joining)
        yield from joining.said([case.name for case in dataset.cases])
        yield Stage(name=f"Measuring {dataset_name}", total=len(dataset.cases))
        draws = draws_per_case(len(dataset.cases)) if request.sampled else None
        measured = yield from _measure_all(dataset, draws, request, joining)
        if _sources(open_dataset(dataset.folder), request, joining) != sources:
            raise DatasetError(f"{dataset_name} was changed while it was measured. Measure it again.")
        fingerprint = merge([case.measure for case in measured.values()], sampled=request.sampled)
        odd = [p.note for p in measured_problems(dataset.info, {name: case.facts for name, case in measured.items()})]
        write_json(folder / _FINGERPRINT, dict(fingerprint.to_json()), sort_keys=True)
        content = _joined(case.content for case in measured.values())
        classes = {name: list(case.facts.labels) for name, case in measured.items()}
        said = {"by": _meaning(dataset.info), "notes": [note.model_dump(mode="json") for note in odd]}
        write_json(folder / VALUES_MEASURED, {"content": content, VALUES_OF_CASES: classes, _ODD: said})
        write_json(folder / MEASURED_FROM, {**sources, "content": content})
        yield from () if checked else odd
    return fingerprint


def _meaning(info: DatasetInfo) -> str:
    """Return a digest of what decides what is odd, besides the cases: the meaning of values and channels."""
    known = [info.labels.model_dump(mode="json"), info.channel_names]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _said_before(folder: Path, info: DatasetInfo) -> Iterator[Note]:
    """Yield what was odd about the cases when they were measured, which is not measured again."""
    found = message(folder / VALUES_MEASURED, largest=NOTED).get(_ODD)
    found = found if isinstance(found, dict) else {}
    if found.get("by") != _meaning(info):
        text = "Whether cases are odd (copies, no foreground, other intensities) was not looked at"
        text += " with the classes and channels that dataset.json names now" if found else " when they were measured"
        yield Note(
            text=f"{text}: verify_dataset_integrity does.",
            in_window=f"{text}: the check of the dataset in the Training cases dock does.",
        )
        return
    for said in found.get("notes") or ():
        with suppress(ValidationError):  # another version's
            yield Note.model_validate(said)


def _unchanged(dataset: RawDataset, path: Path, sources: Mapping[str, Any]) -> bool:
    """Whether a fingerprint was taken of these files; those that were copied or touched are read once more."""
    before = message(path, largest=NOTED)
    content = before.pop("content", None)
    before.pop(VALUES_OF_CASES, None)  # which an earlier version noted here
    if before == sources:
        return True
    if content is None or {**before, "files": sources["files"]} != sources:
        return False
    if content != _joined(content_of(case) for case in dataset.cases):
        return False
    write_json(path, {**sources, "content": content})
    return True


def _joined(contents: Iterable[str]) -> str:
    return hashlib.sha256(" ".join(contents).encode()).hexdigest()


def _measure_all(
    dataset: RawDataset, draws: int | None, request: FingerprintRequest, joining: Gathering
) -> Job[dict[str, MeasuredCase]]:
    reader, scheme = reader_of(dataset), dataset.info.labels
    room = 0 if request.cluster is not None else room_for_case(request.memory_gb)  # workers know their own
    tasks = [
        Task(
            case.name,
            (case, reader, scheme, draws, joining.of_case(case.name), room),
            partial(bytes_within, room, case, reader, partial(measure_bytes, case, reader)),
        )
        for case in dataset.cases
    ]
    if request.cluster is not None:
        need = Elsewhere(request.cluster, reads=dataset.first_files)
        outcomes = yield from collected(spread(need, measure_case, tasks), len(tasks))
    else:
        outcomes = yield from run_cases(measure_case, tasks, workers=request.workers, memory_gb=request.memory_gb)
    results = results_of(outcomes, "measured")
    for names, text in by_text({name: ["no voxel size"] for name, found in results.items() if not found.sized}):
        yield Note(
            level="warning",
            text=f"{names}: {text} in the files; 1 mm is assumed in every direction. Beside a TIFF, CASE.json says it: "
            '{"spacing": [z, y, x]}.',
            in_window=f"{names}: {text} in the files; 1 mm is assumed in every direction. The check of the dataset can "
            "write it.",
        )
    return {case.name: results[case.name] for case in dataset.cases}


@dataclass(frozen=True)
class MeasuredCase:
    """What planning knows of a case.

    Parameters
    ----------
    measure : CaseMeasure
        For the fingerprint.
    content : str
        A digest of what its files hold.
    facts : CaseFacts
        What is held against other cases; of one that was measured in parts, the values of its labels alone.
    sized : bool
        Whether the size of its voxels is known; of pictures it need not be.
    """

    measure: CaseMeasure
    content: str
    facts: CaseFacts
    sized: bool


def measure_case(
    case: TrainingCase,
    reader: str,
    scheme: LabelScheme,
    draws: int | None,
    apart: WhenApart = "refuse",
    room: float = 0,
) -> MeasuredCase:
    """Read and measure one case, in parts where it takes more than ``room`` bytes; runs in a worker process."""
    from napari_nnunet.engine.planning.measure import measure_volume  # loads scipy, which only the workers need

    (content, images), room = contents_of(case), room or room_for_case(0)
    if in_parts(case, reader, measure_bytes(case, reader), room):
        from napari_nnunet.jobs.planning.in_parts import measure_in_parts  # likewise

        measured, values, sized = measure_in_parts(case, reader, scheme, draws, apart, room)
        return MeasuredCase(measured, content, CaseFacts((), dict.fromkeys(values, 1), digest=images), sized)
    volume, labels = read_case(case, reader, scheme, apart=apart)
    sized = volume.geometry.spacing_known or volume.geometry.ndim == 2
    facts = CaseFacts(
        (),
        _values(labels),
        digest=images,
        likeness=likeness_of(volume.array[0]),
        intensities=tuple(usual_range(channel) for channel in volume.array),
    )
    return MeasuredCase(measure_volume(volume, labels, draws=draws), content, facts, sized)


def _values(labels: NDArray[np.int32]) -> dict[int, int]:
    """Return how many voxels of each value labels hold; counting takes a tenth of sorting."""
    most = int(labels.max(initial=0)) + 1
    planes = labels.reshape(-1, *labels.shape[-2:])
    counts = np.asarray(sum(np.bincount(plane.ravel(), minlength=most) for plane in planes))
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _joining(folder: Path, dataset: RawDataset) -> Gathering:
    """Return how cases were brought together when they were preprocessed, or measured where none was."""
    before = Gathering.before(folder)
    if before.known or not (folder / MEASURED_FROM).is_file():
        return before
    apart = message(folder / MEASURED_FROM, largest=NOTED).get("apart")
    ways: dict[str, WhenApart] = {"ignore": "ignore", "resample": "resample"}
    known = apart if isinstance(apart, dict) else {case.name: apart for case in dataset.cases}
    # Where cases differ, those that need neither are not noted.
    found: dict[str, WhenApart] = {case.name: ways.get(str(known.get(case.name)), "refuse") for case in dataset.cases}
    return Gathering(usual(found), found)


def _sources(dataset: RawDataset, request: FingerprintRequest, joining: Gathering) -> dict[str, Any]:
    """Return what tells whether a fingerprint is stale: every file's size and time, and the labels' meaning."""
    gone = [path for case in dataset.cases for path in (*case.images, case.label) if not path.is_file()]
    if gone:
        links = ", links that lead nowhere," if any(path.is_symlink() for path in gone) else ""
        listed = some([f"{path.parent.name}/{path.name}" for path in gone], _LISTED)
        raise DatasetError(
            f"{dataset.name}: {len(gone)} file{'s' * (len(gone) > 1)}{links} cannot be found: {listed}. "
            "Put them back, or remove their cases."
        )
    ways = {case.name: joining.of_case(case.name) for case in dataset.cases}
    how = usual(ways)
    apart: Any = how if len(set(ways.values())) == 1 else {name: own for name, own in ways.items() if own != "refuse"}
    known = {"apart": apart} if apart not in ("refuse", {}) else {}
    return {"files": files_digest(dataset.cases), "sampled": request.sampled, **known}


def plan_experiment(workspace: Workspace, request: PlanRequest) -> Job[Path]:
    """Plan a measured dataset and write its plans file.

    Returns
    -------
    Path
        ``nnUNet_preprocessed/DATASET/PLANS.json``.

    Raises
    ------
    PlanError
        If the planner is unknown, or the plans cannot be trained.
    DatasetError
        If there is no fingerprint.
    """
    dataset_name = workspace.dataset_name(request.dataset)
    if request.planner not in PLANNERS:
        raise PlanError(f"Unknown planner {request.planner!r}. Known: {', '.join(PLANNERS)}.")
    if request.plans_name is not None:
        require_plain(request.plans_name, "The name of the plans")
    folder = workspace.preprocessed / dataset_name
    target = folder / f"{request.plans_name or PLANNERS[request.planner].plans}.json"
    with claimed(folder, f"{target.stem} of {dataset_name} are already being planned", part=target.name):
        dataset = open_dataset(workspace.raw / dataset_name)
        fingerprint = _measured(folder / _FINGERPRINT, dataset)
        yield Stage(name=f"Planning {dataset_name}")
        yield from _fold(workspace, dataset, request)
        content = plan(
            fingerprint,
            dataset.info,
            request,
            dataset_name=dataset_name,
            reader=reader_of(dataset),
            existing=_own_configurations(target),
        )
        yield from _tell_of_trouble(content)
        write_json(target, content)
        copy_file(dataset.folder / "dataset.json", folder / "dataset.json")
    return target


def _measured(path: Path, dataset: RawDataset) -> Fingerprint:
    if not path.is_file():
        raise DatasetError(f"{dataset.name} has no fingerprint yet; run 'napari-nnunet extract_fingerprint' first.")
    fingerprint = Fingerprint.read(path)
    if len(fingerprint.spacings) != len(dataset.cases):
        raise DatasetError(
            f"The fingerprint was measured on {len(fingerprint.spacings)} cases, but there are "
            f"{len(dataset.cases)} now; extract it again."
        )
    return fingerprint


def _fold(workspace: Workspace, dataset: RawDataset, request: PlanRequest) -> Job[None]:
    """Take the folds that the raw dataset brings, or make those that are asked for; else training makes them."""
    names = [case.name for case in dataset.cases]
    base = workspace.preprocessed / dataset.name
    if request.asks:
        yield from make_folds(workspace, dataset.name, names, request)
        return
    take_raw_folds(workspace, dataset.name)
    if len(names) > 1:
        found = folds_of(base, names, request, own_groups(workspace, dataset.name))
        yield from found.warnings


def _own_configurations(target: Path) -> dict[str, Any] | None:
    """Return what a plans file holds that no planner made: configurations a person added.

    What an earlier planning made and this one does not (a low resolution for images that were larger then) is stale.
    """
    if not target.is_file():
        return None
    content = Plans.read(target).configurations
    return {"configurations": {name: entries for name, entries in content.items() if name not in _PLANNED}}


def _tell_of_trouble(content: dict[str, Any]) -> Job[None]:
    """Name configurations that cannot be trained: a single stage, or inherited from one that is gone."""
    for name, configuration in content["configurations"].items():
        if configuration.get("architecture", {}).get("arch_kwargs", {}).get("n_stages") == 1:
            yield Note(level="warning", text=f"{name} cannot be trained: the images are too small for a U-Net.")
        parent = configuration.get("inherits_from")
        if parent is not None and parent not in content["configurations"]:
            text = (
                f"{name} inherits from {parent}, which this dataset no longer has; remove it or change 'inherits_from'."
            )
            yield Note(level="warning", text=text)


def _doubts(dataset: RawDataset) -> Iterator[Note]:
    """Yield what dataset.json says otherwise than it is probably meant."""
    yield from (Note(level="warning", text=f"dataset.json: {p.text}.") for p in description_problems(dataset.info))
    stated, found = dataset.info.num_training, len(dataset.cases)
    if stated not in (None, found):
        yield Note(
            level="warning",
            text=f"dataset.json: 'numTraining' is {stated}, but there are {found} complete cases. Are some missing?",
        )
