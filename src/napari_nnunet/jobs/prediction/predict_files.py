"""Segment the cases of a folder; every output appears whole or not at all."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.image.intensities import intensity_warnings
from napari_nnunet.engine.network.device import choose
from napari_nnunet.errors import DatasetError, ImageError, NnunetError, SettingsError, for_people, memory_told
from napari_nnunet.events import Box, CaseDone, CaseFailed, Found, Job, Note, Progress, Stage
from napari_nnunet.formats.atomic import make_folder, remove_leftovers, write_text
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.dataset.case_files import Case, Inputs, find_cases, size_of_case, volume_of_case
from napari_nnunet.formats.dicom.output import SegmentationOutput
from napari_nnunet.formats.images.files import ADAPTERS, read_labels, write_image
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.model.side_files import write_side_files
from napari_nnunet.formats.results.objects import found_file
from napari_nnunet.formats.results.probabilities import is_complete, scratch, write_probabilities, write_properties
from napari_nnunet.formats.results.recipe import write_recipe
from napari_nnunet.jobs.choosing.ensemble import UNCERTAINTY, uncertainty_path
from napari_nnunet.jobs.objects.find import write_rules
from napari_nnunet.jobs.prediction.combined import Combination, predict_combined
from napari_nnunet.jobs.prediction.objects import rules_for, write_result
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.jobs.prediction.quality import require_quality
from napari_nnunet.jobs.prediction.result import Prediction
from napari_nnunet.jobs.prediction.table import QualityTable, found_again, found_in, written_down
from napari_nnunet.jobs.prediction.voxel_size import size_notes
from napari_nnunet.schema.geometry import GIVEN, Geometry, lift
from napari_nnunet.schema.objects import ObjectRules, ObjectScheme
from napari_nnunet.schema.requests.prediction import PredictFolderRequest, PredictSettings
from napari_nnunet.volume import Volume

_LOOKED_AT = 100  # headers of a folder; more would make a dock wait


@dataclass(frozen=True)
class FolderResult:
    """Names of the cases by what became of them; of those that failed, the error."""

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: dict[str, NnunetError]


#: Segments one volume: (volume, segmentation of the previous stage, array for the probabilities, region).
Segment = Callable[[Volume, NDArray[Any] | None, NDArray[np.float32] | None, Box | None], Job[Prediction]]


def predict_folder(
    model: TrainedModel,
    folder: PredictFolderRequest,
    segment: Segment | None = None,
    rules: ObjectRules | None = None,
) -> Job[FolderResult]:
    """Segment every case of a folder.

    Parameters
    ----------
    model : TrainedModel
        The model.
    folder : PredictFolderRequest
        Input, output, what to skip, how to predict; ``probabilities`` adds CASE.npz and CASE.pkl.
    segment : callable, optional
        What segments one volume where it is more than this model: an ensemble.
    rules : ObjectRules, optional
        Of an ensemble of models of objects; written beside probabilities.

    Yields
    ------
    Event
        CaseDone and CaseFailed besides those of :func:`predict`; a bad case does not end the others.

    Returns
    -------
    FolderResult
        What became of each case.

    Raises
    ------
    DatasetError, SettingsError, ModelError, ResourceError
        Before any work, if the input is incomplete or the output cannot be written.
    """
    settings = folder.settings(model.resolve_folds(None, folder.checkpoint))
    found = _cases_of(model, folder)
    cases = found.cases[folder.part :: folder.parts]
    if found.left_out:
        yield Note(level="warning", text=found.left_out_text)
    if folder.spacing is None:
        yield from size_notes(model, cases, model_reader(model))
    _check_previous(cases, folder.previous, model.dataset.file_ending)
    model.resolve_folds(settings.folds, settings.checkpoint)
    output = _dicom_output(model, folder, settings, cases)
    choose(settings)  # a device that is not there is said once, before anything is written
    if settings.quality:
        yield from require_quality(model, settings, predict, whole=folder.region is None)
    # The parts of a folder that is shared out may be segmented at once (-num_parts).
    part = f"part {folder.part} of {folder.parts}" if folder.parts > 1 else ""
    with claimed(folder.target, f"{folder.target} is already being filled with segmentations", part=part):
        if output is not None:
            yield from _with_codes(output, folder)
        if settings.probabilities:
            write_rules(folder.target, rules or rules_for([(model, settings)]))
        job = _each(cases, model, folder, settings, segment, output)
        return (yield from job if not folder.table else written_down(job, folder.table_path))


def _cases_of(model: TrainedModel, folder: PredictFolderRequest) -> Inputs:
    return find_cases(
        folder.source,
        ending=model.dataset.file_ending,
        channels=len(model.dataset.channel_names),
        reader=model_reader(model),
        subfolders=folder.subfolders,
        without=folder.target,
    )


@dataclass(frozen=True)
class Survey:
    """What a folder holds.

    Parameters
    ----------
    cases, there : int
        Images, and those that have a segmentation already.
    sizes : mapping of (shape, spacing) to int
        How many of those that have none are of a size; of many images some are looked at.
    left_out : str
        A sentence about what is no image of the model's, empty where there is nothing.
    """

    cases: int
    there: int
    sizes: Mapping[tuple[tuple[int, ...], tuple[float, ...]], float]
    left_out: str


def survey_folder(model: TrainedModel, folder: PredictFolderRequest) -> Job[Survey]:
    """Look at a folder before it is segmented; only headers are read, and nothing is written.

    Raises
    ------
    DatasetError
        If there is nothing the model can read.
    """
    yield Stage(name="Looking at the images")
    found = _cases_of(model, folder)
    todo = [case for case in found.cases if not found_file(_out(case, model, folder)).is_file()]
    seen = todo[:: max(1, math.ceil(len(todo) / _LOOKED_AT))]
    sizes: Counter[tuple[tuple[int, ...], tuple[float, ...]]] = Counter()
    for i, case in enumerate(seen):
        with suppress(NnunetError, OSError):  # said when its turn comes
            shape, geometry = size_of_case(case, model_reader(model))
            sizes[shape, tuple(folder.spacing or geometry.spacing)] += 1
        yield Progress(done=i + 1, total=len(seen))
    share = len(todo) / max(1, sizes.total())
    estimated = {size: count * share for size, count in sizes.items()}
    return Survey(len(found.cases), len(found.cases) - len(todo), estimated, found.left_out_text)


def _each(
    cases: Sequence[Case],
    model: TrainedModel,
    folder: PredictFolderRequest,
    settings: PredictSettings,
    segment: Segment | None,
    output: SegmentationOutput | None,
) -> Job[FolderResult]:
    remove_leftovers(folder.target)
    write_side_files(model, folder, settings)
    done: list[str] = []
    skipped: list[str] = []
    failed: dict[str, NnunetError] = {}
    yield Stage(name="Cases", total=len(cases))
    with ExitStack() as stack:
        reader = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="read"))
        kept = {i: found for i, case in enumerate(cases) if (found := _kept(case, model, folder, settings)) is not None}
        todo = [i for i in range(len(cases)) if i not in kept]
        quality = QualityTable(folder.quality_path, [cases[i].name for i in kept]) if settings.quality else None
        following = dict(zip_longest(todo, todo[1:]))
        ahead: Future[Volume] | None = None
        for index, case in enumerate(cases):
            out = _out(case, model, folder)
            which = {"case": case.name, "index": index, "total": len(cases)}
            if index in kept:
                skipped.append(case.name)
                yield CaseDone(**which, path=str(found_file(out)), skipped=True, found=kept[index])
                continue
            began = time.monotonic()
            current = ahead or reader.submit(_read, case, model, folder)
            upcoming = following[index]
            # Reading the next image overlaps with segmenting this one.
            ahead = None if upcoming is None else reader.submit(_read, cases[upcoming], model, folder)
            try:
                with memory_told("Segment fewer cases at a time, or close other programs."):
                    result = yield from _one(case, current.result(), model, folder, settings, segment, output)
                write_recipe(folder.target, {**result.recipe, **_asked(folder)})
                if quality is not None and result.quality is not None:
                    yield quality.add(case.name, result.quality)
            except Exception as unforeseen:  # whatever it is, the cases after it are segmented
                failed[case.name] = error = for_people(unforeseen)
                yield CaseFailed.of(case.name, error, index, len(cases))
                continue
            done.append(case.name)
            counted = result.counts, model.dataset, result.geometry.known_spacing, result.kinds
            found = found_in(*counted) if folder.table else ()
            yield CaseDone(**which, path=str(found_file(out)), seconds=time.monotonic() - began, found=found)
    return FolderResult(tuple(done), tuple(skipped), failed)


def _dicom_output(
    model: TrainedModel, folder: PredictFolderRequest, settings: PredictSettings, cases: Sequence[Case]
) -> SegmentationOutput | None:
    """Return how segmentations become DICOM-SEG where that is asked for; refuses images that are no DICOM."""
    if not folder.dicom_seg:
        return None
    others = [case.name for case in cases if not case.is_dicom]
    if others:
        raise DatasetError(
            f"A DICOM-SEG references the series it was made of, but {others[0]} is no DICOM series"
            f"{f', nor are {len(others) - 1} more' if len(others) > 1 else ''}.",
            shell="Leave --dicom_seg out, or segment the DICOM series themselves.",
            window="Switch DICOM-SEG off, or segment the DICOM series themselves.",
        )
    objects = None if settings.classes else ObjectScheme.of(model.dataset)
    return SegmentationOutput.of(model.dataset.labels, objects, folder.codes)


def _with_codes(output: SegmentationOutput, folder: PredictFolderRequest) -> Iterator[Note]:
    """Write the codes beside the segmentations, and say which classes have none that others know."""
    path = make_folder(folder.target) / "codes.csv"
    write_text(path, output.table)
    if output.unknown:
        yield Note(
            level="warning",
            text=f"No common code is known for {', '.join(output.unknown)}; local ones are written. Fill in {path} and "
            "give it as codes to have others.",
        )


def _asked(folder: PredictFolderRequest) -> dict[str, Any]:
    """Return what was asked of every image of a folder, beside how the model is applied."""
    asked = {"region": folder.region, "spacing": folder.spacing, "any_spacing": folder.any_spacing}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items() if value}


def predict_combined_folder(combination: Combination, folder: PredictFolderRequest) -> Job[FolderResult]:
    """Segment every case of a folder with a whole recipe: several models or folds, joined and postprocessed.

    Parameters
    ----------
    combination : Combination
        The recipe.
    folder : PredictFolderRequest
        Input, output, what to skip; ``probabilities`` adds the mean ones as CASE.npz and CASE.pkl. Each member has
        settings of its own.

    Returns
    -------
    FolderResult
        What became of each case.
    """
    members = combination.members
    if folder.previous is not None and len(members) > 1:
        raise SettingsError(
            "Segmentations of a previous stage can be given for a single model only; an ensemble predicts its own."
        )
    rules = rules_for([(own.model, own.settings) for own in members])

    def segment(
        volume: Volume, _: NDArray[Any] | None, probabilities: NDArray[np.float32] | None, box: Box | None
    ) -> Job[Prediction]:
        return predict_combined(combination, volume, probabilities=probabilities, folder=folder.target, roi=box)

    settings = members[0].settings.replace(probabilities=folder.probabilities)
    request = PredictFolderRequest.like(folder, **settings.model_dump(exclude_unset=True))
    return (yield from predict_folder(combination.model, request, segment, rules))


def _one(
    case: Case,
    volume: Volume,
    model: TrainedModel,
    folder: PredictFolderRequest,
    settings: PredictSettings,
    segment: Segment | None,
    output: SegmentationOutput | None,
) -> Job[Prediction]:
    yield Note(text=f"{case.name}: {' x '.join(str(n) for n in volume.shape)} voxels.", level="detail")
    remarks = [f"{text}." for text in volume.geometry.remarks]
    remarks += intensity_warnings(volume.array, model.plans, model.configuration, model.dataset.channel_names)
    yield from (Note(level="warning", text=f"{case.name}: {text}") for text in (*volume.notes, *remarks))
    previous, box = None, folder.box(volume.shape)
    if folder.previous is not None:
        previous, _ = read_labels(folder.previous / (case.name + model.dataset.file_ending), reader=model_reader(model))
    out = _out(case, model, folder)
    make_folder(out.parent)
    with ExitStack() as stack:
        probabilities = None
        if settings.probabilities:
            probabilities = stack.enter_context(scratch((model.dataset.labels.heads, *volume.shape), folder.target))
        if segment is not None:
            result = yield from segment(volume, previous, probabilities, box)
        else:
            result = yield from predict(
                model, volume, settings, previous=previous, probabilities=probabilities, roi=box
            )
        if probabilities is not None:
            write_probabilities(lift(probabilities, channels=True), _beside(case, out, ".npz"))
            write_properties(result.properties, _beside(case, out, ".pkl"))
        if result.uncertainty is not None:
            _write_uncertainty(result, volume.geometry, out)
        if output is not None:
            beside = _beside(case, out, ".dcm")
            output.write(result.labels, beside, source=case.files[0], series=case.series or "", kinds=result.kinds)
        # The segmentation comes last: where it exists, everything of the case does.
        if said := write_result(result, model.dataset, out, model_reader(model)):
            yield Note(level="warning", text=f"{case.name}: {said}")
    return result


def _write_uncertainty(result: Prediction, geometry: Geometry, out: Path) -> None:
    for kind, values in zip(UNCERTAINTY, result.uncertainty or (), strict=True):
        target = uncertainty_path(out, kind, flat=geometry.ndim == 2)
        make_folder(target.parent)
        write_image(values, geometry, target)


def model_reader(model: TrainedModel) -> str:
    """Return the name of the reader that a model's images are read by."""
    return model.dataset.reader if model.dataset.reader in ADAPTERS else model.plans.reader


def _read(case: Case, model: TrainedModel, folder: PredictFolderRequest) -> Volume:
    volume = volume_of_case(case, model_reader(model), apart=folder.apart)
    if folder.spacing is not None:
        volume = replace(volume, geometry=volume.geometry.with_spacing(folder.spacing, GIVEN))
    channels = len(model.dataset.channel_names)
    if volume.channels != channels:
        raise ImageError(
            f"{case.name} has {volume.channels} channel{'s' if volume.channels > 1 else ''}, the model was trained on "
            f"{channels} ({', '.join(model.dataset.channel_names)})."
        )
    return volume


def _out(case: Case, model: TrainedModel, folder: PredictFolderRequest) -> Path:
    return folder.target / (case.name + model.dataset.file_ending)


def _beside(case: Case, out: Path, ending: str) -> Path:
    return out.with_name(Path(case.name).name + ending)


def _kept(
    case: Case, model: TrainedModel, folder: PredictFolderRequest, settings: PredictSettings
) -> tuple[Found, ...] | None:
    """Return what is in a case whose whole output is there to its last byte (counted for a table only); else None."""
    if not folder.keep_finished:
        return None
    written = found_file(out := _out(case, model, folder))
    try:
        labels, geometry = read_labels(written, reader=model_reader(model) if written == out else None)
    except ImageError:
        return None
    if folder.dicom_seg and not _beside(case, out, ".dcm").is_file():
        return None
    beside = is_complete(_beside(case, out, ".npz")) and _beside(case, out, ".pkl").is_file()
    if settings.probabilities and not beside:
        return None
    if not folder.table:
        return ()
    return found_again(labels, model.dataset, geometry.known_spacing, classes=settings.classes)


def _check_previous(cases: Sequence[Case], previous: Path | None, ending: str) -> None:
    if previous is None:
        return
    missing = [case.name + ending for case in cases if not (previous / (case.name + ending)).is_file()]
    if missing:
        raise DatasetError(
            f"{previous} lacks the previous stage's segmentation of {len(missing)} of {len(cases)} cases: "
            f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}."
        )
