"""Segment the cases of a folder; every output appears whole or not at all."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.network.device import choose
from napari_nnunet.errors import DatasetError, NnunetError, SettingsError, counted, some
from napari_nnunet.events import Box, Job, Note, Progress, Pump, Stage
from napari_nnunet.formats.atomic import make_folder, remove_leftovers, write_text
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.dataset.case_files import Case, Inputs, find_cases, size_of_case
from napari_nnunet.formats.dicom.output import SEG, SegmentationOutput
from napari_nnunet.formats.images.header import size_given
from napari_nnunet.formats.model.fold import NOT_COMPARED
from napari_nnunet.formats.model.folder import TrainedModel, is_model_folder
from napari_nnunet.formats.model.side_files import made_by, what_is_there, write_side_files
from napari_nnunet.formats.results.objects import found_file
from napari_nnunet.jobs.objects.find import NO_RULES, write_rules
from napari_nnunet.jobs.prediction.combined import Combination, predict_combined
from napari_nnunet.jobs.prediction.folder.case import FolderWork, Segment, dicom_kinds, model_reader, out_of
from napari_nnunet.jobs.prediction.folder.kept import look_at_kept, said_of_kept
from napari_nnunet.jobs.prediction.folder.loop import FolderResult, Tally, in_turn, on_cluster
from napari_nnunet.jobs.prediction.objects import rules_for
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.jobs.prediction.quality import EARLIER_LABELS, folds_in_words, require_quality
from napari_nnunet.jobs.prediction.result import Prediction
from napari_nnunet.jobs.prediction.table import QualityTable, written_down
from napari_nnunet.jobs.prediction.voxel_size import size_notes
from napari_nnunet.schema.objects import ObjectRules, ObjectScheme
from napari_nnunet.schema.requests.prediction import PredictFolderRequest, PredictSettings
from napari_nnunet.volume import Volume

_LOOKED_AT = 100  # headers of a folder; more would make a dock wait


def predict_folder(
    model: TrainedModel,
    folder: PredictFolderRequest,
    segment: Segment | None = None,
    rules: ObjectRules | None = None,
    more: Mapping[str, Any] | None = None,
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
    more : dict, optional
        What decides of an ensemble besides the settings; finished cases that something else made are said.

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
    if is_model_folder(folder.target) and any(folder.target.glob("fold_*/checkpoint_*")):
        raise SettingsError(
            f"{folder.target} is the folder of a model, whose plans.json and dataset.json would be replaced. Choose "
            "another folder for the segmentations."
        )
    settings = folder.settings(model.resolve_folds(None, folder.checkpoint))
    found = _cases_of(model, folder)
    _require_images_kept(found.cases, model, folder)
    cases = found.cases[folder.part :: folder.parts]
    if found.left_out:
        yield Note(level="warning", text=found.left_out_text)
    if folder.spacing is None:
        yield from size_notes(model, cases, model_reader(model))
    _check_previous(cases, folder.previous, model)
    model.resolve_folds(settings.folds, settings.checkpoint)
    output = _dicom_output(model, folder, settings, cases)
    if folder.cluster is None:
        choose(settings)  # a device that is not there is said once, before anything is written
    if settings.quality:
        yield from require_quality(model, settings, predict, whole=folder.region is None)
        if said := folds_in_words(model, settings):
            yield Note(text=f"Predicted Dice: {said}")
    # The parts of a folder that is shared out may be segmented at once (-num_parts).
    part = f"part {folder.part} of {folder.parts}" if folder.parts > 1 else ""
    with claimed(folder.target, f"{folder.target} is already being filled with segmentations", part=part):
        if output is not None:
            yield from _with_codes(output, folder)
        if settings.probabilities:
            write_rules(folder.target, rules or rules_for([(model, settings)]))
        work = FolderWork(model, folder, settings, segment, output, made_by(model, folder, settings, more))
        job = _doubted_once(_each(cases, work, more))
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
    todo = [case for case in found.cases if not found_file(out_of(case, model, folder)).is_file()]
    seen = todo[:: max(1, math.ceil(len(todo) / _LOOKED_AT))]
    sizes: Counter[tuple[tuple[int, ...], tuple[float, ...]]] = Counter()
    for i, case in enumerate(seen):
        with suppress(NnunetError, OSError):  # said when its turn comes
            with size_given(folder.spacing):
                shape, geometry = size_of_case(case, model_reader(model))
            sizes[shape, tuple(folder.spacing or geometry.spacing)] += 1
        yield Progress(done=i + 1, total=len(seen))
    share = len(todo) / max(1, sizes.total())
    estimated = {size: count * share for size, count in sizes.items()}
    return Survey(len(found.cases), len(found.cases) - len(todo), estimated, found.left_out_text)


def _each(cases: Sequence[Case], work: FolderWork, more: Mapping[str, Any] | None) -> Job[FolderResult]:
    model, folder, settings = work.model, work.folder, work.settings
    remove_leftovers(folder.target)
    there = what_is_there(model, folder, more) if folder.keep_finished else "nothing"
    write_side_files(model, folder, settings, more)
    yield Stage(name="Cases", total=len(cases))
    kept = look_at_kept(cases, work)
    yield from said_of_kept(kept, folder.target, there)
    quality = QualityTable(folder.quality_path, [cases[i].name for i in kept.found]) if settings.quality else None
    tally = Tally(cases, work, kept.found, quality)
    yield from in_turn(tally) if folder.cluster is None else on_cluster(tally, folder.cluster)
    return tally.result


def _doubted_once(job: Job[FolderResult]) -> Job[FolderResult]:
    """Pass on what a job says, but only once, and not for every case, what is to be known of the model.

    That is that no rules for finding objects were chosen, that weights could not be compared with its files, or that
    its quality goes by earlier labels.
    """
    doubts: set[str] = set()
    with Pump(job) as pump:
        for event in pump:
            text = event.text if isinstance(event, Note) else ""
            of_model = NOT_COMPARED in text or EARLIER_LABELS in text
            doubt = NO_RULES if text.startswith(NO_RULES) else text if of_model else ""
            if doubt not in doubts:
                yield event
            doubts |= {doubt} if doubt else set()
    return pump.result


def _dicom_output(
    model: TrainedModel, folder: PredictFolderRequest, settings: PredictSettings, cases: Sequence[Case]
) -> SegmentationOutput | None:
    """Return how segmentations become DICOM where that is asked for; refuses images that are no DICOM."""
    kinds = dicom_kinds(folder)
    if not kinds:
        return None
    others = [case.name for case in cases if not case.is_dicom]
    if others:
        raise DatasetError(
            f"{'A' if kinds[0] == SEG else 'An'} {kinds[0]} references the series it was made from, but {others[0]} is "
            f"not a DICOM series{f', nor are {len(others) - 1} more' if len(others) > 1 else ''}.",
            shell="Leave --dicom_seg and --rtstruct out, or segment the DICOM series themselves.",
            window="Switch DICOM-SEG and RTSTRUCT off, or segment the DICOM series themselves.",
        )
    objects = None if settings.classes else ObjectScheme.of(model.dataset)
    return SegmentationOutput.of(model.dataset.labels, objects, folder.codes, kinds)


def _with_codes(output: SegmentationOutput, folder: PredictFolderRequest) -> Iterator[Note]:
    """Write the codes beside the segmentations, and say which classes have none that others know."""
    path = make_folder(folder.target) / "codes.csv"
    write_text(path, output.table)
    if output.unknown:
        said = f"No common code is known for {', '.join(output.unknown)}; local ones are written. Fill in {path} and "
        yield Note(
            level="warning",
            text=f"{said}give it with --codes to have others.",
            in_window=f"{said}give it as codes to have others.",
        )


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
    if folder.previous is not None:
        raise SettingsError(
            "Segmentations of a previous stage can be given to a single model only; the best of a dataset, and an "
            "ensemble, predict their own."
        )
    rules = rules_for([(own.model, own.settings) for own in members])

    def segment(
        volume: Volume, _: NDArray[Any] | None, probabilities: NDArray[np.float32] | None, box: Box | None
    ) -> Job[Prediction]:
        return predict_combined(combination, volume, probabilities=probabilities, folder=folder.target, roi=box)

    settings = members[0].settings.replace(probabilities=folder.probabilities)
    request = PredictFolderRequest.like(folder, **settings.model_dump(exclude_unset=True))
    return (yield from predict_folder(combination.model, request, segment, rules, combination.deciding()))


def _require_images_kept(cases: Sequence[Case], model: TrainedModel, folder: PredictFolderRequest) -> None:
    """Raise SettingsError if a segmentation would take the place of an image, whatever links lead there."""
    images: dict[str, Path] = {}
    for case in cases:
        out = out_of(case, model, folder)
        if out.exists():
            images = images or {os.path.realpath(path): path for one in cases for path in one.files}
            image = images.get(os.path.realpath(out))
            if image is not None:
                raise SettingsError(
                    f"The segmentation of {case.name} would overwrite the image {image}. Choose another output folder."
                )


def _check_previous(cases: Sequence[Case], previous: Path | None, model: TrainedModel) -> None:
    if previous is None:
        return
    if model.configuration.previous_stage is None:
        raise SettingsError(
            f"{model.name} is not the second stage of a cascade: it takes no segmentations of a previous stage, but "
            f"{previous} was given. Leave them out."
        )
    ending = model.dataset.file_ending
    missing = [case.name + ending for case in cases if not (previous / (case.name + ending)).is_file()]
    if missing:
        raise DatasetError(
            f"{previous} lacks the previous stage's segmentation of {len(missing)} of {counted(len(cases), 'case')}: "
            f"{some(missing)}."
        )
