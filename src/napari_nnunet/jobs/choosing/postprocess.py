"""Find out which postprocessing helps, and apply it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_nnunet.engine.choosing.components import beyond_largest, clean, cleaned, to_remove
from napari_nnunet.engine.choosing.metrics import Joint, Metrics, summarize
from napari_nnunet.errors import DatasetError, SettingsError, counted
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import make_folder, remove_leftovers
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.results.postprocessing import read_cleaning, write_cleaning, write_report
from napari_nnunet.formats.results.recipe import read_recipe, write_recipe
from napari_nnunet.formats.results.summary import SUMMARY_FILE, Summary
from napari_nnunet.jobs.choosing.evaluate import Rules, read_pair, summary_of
from napari_nnunet.jobs.choosing.pairs import Pair, compare_cases, pair_up
from napari_nnunet.schema.cleaning import Cleaning, Target, candidates
from napari_nnunet.schema.dataset import DatasetInfo, LabelScheme, Region
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.choosing import ApplyPostprocessingRequest, DeterminePostprocessingRequest
from napari_nnunet.volume import by_text

CaseMetrics = dict[Region, Metrics]


@dataclass(frozen=True)
class Determined:
    """Which postprocessing helps.

    Parameters
    ----------
    cleaning : Cleaning
        The accepted steps; none if nothing helps.
    before, after : Summary
        Scores without and with them.
    scheme : LabelScheme
        What the labels mean.
    file : Path
        postprocessing.pkl.
    """

    cleaning: Cleaning
    before: Summary
    after: Summary
    scheme: LabelScheme
    file: Path


def determine_postprocessing(request: DeterminePostprocessingRequest) -> Job[Determined]:
    """Find out which postprocessing makes the segmentations of a folder better, as :func:`determine` does.

    Raises
    ------
    DatasetError, PlanError, ImageError
        If dataset.json or plans.json cannot be read, or the folders hold different cases or grids.
    """
    rules, info = _rules_of(request)
    rules = replace(rules, ignore_geometry=request.ignore_geometry, asked_by_voxels=True)
    scheme = ObjectScheme.of(info)
    job = determine(
        request.source,
        request.reference,
        rules,
        info.labels,
        untouched=() if scheme is None else scheme.learnt,
        keep_cleaned=request.keep_cleaned,
        workers=request.workers,
    )
    return (yield from job)


def apply_postprocessing(request: ApplyPostprocessingRequest) -> Job[Path]:
    """Apply the postprocessing of a file to a folder, as :func:`apply_cleaning` does."""
    rules, _ = _rules_of(request)
    job = apply_cleaning(request.source, request.target, request.cleaning, rules, workers=request.workers)
    return (yield from job)


def _rules_of(request: DeterminePostprocessingRequest | ApplyPostprocessingRequest) -> tuple[Rules, DatasetInfo]:
    """Return labels and reader from the files that are named, or are next to the segmentations."""
    info = DatasetInfo.read(request.dataset_json or request.source / "dataset.json")
    plans = request.plans_json or request.source / "plans.json"
    named = request.plans_json is not None or plans.is_file()
    return Rules.of(info, reader=Plans.read(plans).reader if named else None), info


def determine(
    prediction: Path,
    reference: Path,
    rules: Rules,
    scheme: LabelScheme,
    *,
    untouched: Collection[int] = (),
    keep_cleaned: bool = True,
    workers: int = 0,
) -> Job[Determined]:
    """Find out which postprocessing makes segmentations better, and write it next to them.

    nnU-Net's rule: the largest part of the whole foreground is kept where the mean Dice rises and that of no label
    falls. Then the same is tried for each label or region, one after the other: accepted where its own Dice rises.

    Parameters
    ----------
    prediction, reference : Path
        Folders with files of the same names.
    rules : Rules
        What is compared.
    scheme : LabelScheme
        What the labels mean.
    untouched : collection of int
        Labels of which every part counts, since each belongs to an object of its own. Neither they nor the foreground
        as a whole are reduced to their largest part.
    keep_cleaned : bool
        Also write the postprocessed segmentations, into ``postprocessed``.
    workers : int
        Processes, at most; 0 means one per core.

    Returns
    -------
    Determined
        postprocessing.pkl, postprocessing.json and, where it was not there or of other segmentations, summary.json
        have been written.
    """
    pairs = pair_up(reference, prediction, rules.ending, missing_ok=True)
    yield Stage(name="Testing postprocessing", total=len(pairs))
    search = _Search(tuple(pairs), rules, scheme, frozenset(untouched), workers)
    cleaning, before, after = yield from search.run()
    folder = prediction / "postprocessed"
    moved = [replace(pair, prediction=folder / pair.prediction.name) for pair in pairs]
    scores = summary_of(pairs, before, rules.labels), summary_of(moved, after, rules.labels)
    if not _has_scores(prediction / SUMMARY_FILE, scores[0], rules.ending):
        scores[0].write(prediction / SUMMARY_FILE)
    file = prediction / "postprocessing.pkl"
    result = Determined(cleaning, *scores, scheme, file)
    if keep_cleaned:
        yield from apply_cleaning(prediction, make_folder(folder), cleaning, rules, workers=workers)
        result.after.write(folder / SUMMARY_FILE)
    write_report(prediction / "postprocessing.json", cleaning, result.before, result.after)
    write_cleaning(file, cleaning)
    return result


def _has_scores(path: Path, scores: Summary, ending: str) -> bool:
    """Whether a summary is that of these segmentations: the same Dice in every case. It may have more metrics."""
    try:
        there = Summary.read(path, ending=ending)
    except DatasetError:
        return False
    return _dice_of(there) == _dice_of(scores)


def _dice_of(summary: Summary) -> dict[str, dict[str, str]]:
    return {
        case.name: {label: f"{values.get('Dice', math.nan):.9f}" for label, values in case.metrics.items()}
        for case in summary.cases
    }


@dataclass(frozen=True, eq=False)
class _Search:
    pairs: tuple[Pair, ...]
    rules: Rules
    scheme: LabelScheme
    untouched: frozenset[int]
    workers: int

    def run(self) -> Job[tuple[Cleaning, list[CaseMetrics], list[CaseMetrics]]]:
        """Return the accepted steps, and the metrics of every case without and with them."""
        whole: Target = list(self.scheme.foreground_labels)
        each = tuple(label for label in candidates(self.rules.labels) if label not in self.untouched)
        # Keeping a part of one label changes no other label, so that one look at each case answers everything.
        # Regions overlap: what was kept of one decides what is there of the next.
        independent = not self.scheme.has_regions
        trials = yield from self._try((), whole, each if independent else ())
        yield from _odd_files(self.pairs, [trial.odd for trial in trials])
        before = [trial.without for trial in trials]
        with_whole = [trial.with_first for trial in trials]
        accepted: list[Target] = []
        current = before
        if not self.untouched and self._whole_helps(before, with_whole):
            accepted, current = [whole], with_whole
        for label in each:
            if independent:
                branch = [trial.labels[bool(accepted[:1] == [whole])][label] for trial in trials]
                changed = [{**now, label: values} for now, values in zip(current, branch, strict=True)]
            else:
                trials = yield from self._try(accepted, label, ())
                changed = [trial.with_first for trial in trials]
            if self._dice(changed, label) > self._dice(current, label):
                accepted.append(label)
                current = changed
        return Cleaning.of(accepted), before, current

    def _try(self, done: Sequence[Target], first: Target, others: Sequence[Region]) -> Job[list[_Trial]]:
        arguments = (self.rules, tuple(done), first, tuple(others))
        found: list[_Trial] = yield from compare_cases(
            _try_case, self.pairs, self.rules.reader, *arguments, workers=self.workers
        )
        return found

    def _dice(self, cases: Sequence[CaseMetrics], label: Region) -> float:
        known = [case[label]["Dice"] for case in cases if not math.isnan(case[label]["Dice"])]
        return sum(known) / len(known) if known else math.nan

    def _whole_helps(self, before: Sequence[CaseMetrics], after: Sequence[CaseMetrics]) -> bool:
        (all_old, old), (all_new, new) = (summarize(cases, self.rules.labels) for cases in (before, after))
        if not all_new["Dice"] > all_old["Dice"]:
            return False
        return not any(new[label]["Dice"] < old[label]["Dice"] for label in old)


@dataclass(frozen=True)
class _Trial:
    """One case: metrics as it is, after the first candidate, and of each label alone (with and without the first).

    And what is odd about its files.
    """

    without: CaseMetrics
    with_first: CaseMetrics
    labels: Mapping[bool, Mapping[Region, Metrics]]
    odd: tuple[str, ...]


def _try_case(pair: Pair, rules: Rules, done: tuple[Target, ...], first: Target, others: tuple[Region, ...]) -> _Trial:
    """Compare one case as it is and after each candidate; may run in a worker process."""
    reference, prediction, geometry = read_pair(pair, rules)
    if done:
        prediction = cleaned(prediction, done)
    joint = Joint.count(reference, prediction)
    changed = _without(joint, reference, prediction, first)
    branches: dict[bool, dict[Region, Metrics]] = {}
    measured = partial(rules.measured, pair.name)
    if others:
        branches[False] = branches[True] = _each_alone(joint, reference, prediction, measured, others)
        if changed is not joint:
            branches[True] = _each_alone(changed, reference, cleaned(prediction, [first]), measured, others)
    return _Trial(measured(joint), measured(changed), branches, geometry.remarks)


def _odd_files(pairs: Sequence[Pair], odd: Sequence[Sequence[str]]) -> Job[None]:
    """Say what is odd about the files of each case."""
    for names, text in by_text({pair.name: own for pair, own in zip(pairs, odd, strict=True)}):
        yield Note(level="warning", text=f"{names}: {text}.")


def _each_alone(
    joint: Joint, reference: Any, prediction: Any, measured: Callable[..., CaseMetrics], labels: Sequence[Region]
) -> dict[Region, Metrics]:
    """Return the metrics of every label after it alone was reduced to its largest part."""
    wrong = beyond_largest(prediction)
    removed = None if wrong is None else joint.recount(reference[wrong], prediction[wrong])
    found = {}
    for label in labels:
        reduced = joint if removed is None else joint.without(removed.of(label))
        found[label] = measured(reduced, [label])[label]
    return found


def _without(joint: Joint, reference: Any, prediction: Any, target: Target) -> Joint:
    """Return the counts after a candidate; only the voxels it removes are counted."""
    wrong = to_remove(prediction, target)
    if wrong is None:
        return joint
    return joint.without(joint.recount(reference[wrong], prediction[wrong]))


def apply_cleaning(
    source: Path, target: Path, cleaning: Cleaning | Path, rules: Rules, *, workers: int = 0
) -> Job[Path]:
    """Apply a postprocessing to every segmentation of a folder.

    Parameters
    ----------
    source, target : Path
        Folders.
    cleaning : Cleaning or Path
        The steps, or postprocessing.pkl or .json.
    rules : Rules
        How the files are read; labels do not matter.
    workers : int
        Processes, at most; 0 means one per core.

    Returns
    -------
    Path
        ``target``.

    Raises
    ------
    DatasetError, SettingsError
        If the folder holds no segmentations, or source and target are the same.
    """
    steps = read_cleaning(cleaning) if isinstance(cleaning, Path) else cleaning
    if os.path.realpath(source) == os.path.realpath(target):
        raise SettingsError(f"Input and output are the same folder, {source}. Choose another output folder.")
    pairs = pair_up(source, source, rules.ending)
    with claimed(target, f"{target} is already being filled with postprocessed segmentations"):
        remove_leftovers(target)
        yield Stage(name="Postprocessing", total=len(pairs))
        arguments = (target, rules, steps)
        results = yield from compare_cases(
            _apply_case, pairs, rules.reader, *arguments, workers=workers, verb="postprocessed"
        )
    yield from _odd_files(pairs, [odd for _, odd in results])
    with suppress(DatasetError):  # segmentations of other programs have no recipe
        name = str(cleaning) if isinstance(cleaning, Path) else None
        kept = [step.describe() for step in steps.steps]
        done = {"postprocessing": steps.arguments(), "postprocessing_kept": kept, "postprocessing_file": name}
        write_recipe(target, {**read_recipe(source), **done})
    removed = sum(count for count, _ in results)
    yield Note(
        text=f"{steps.describe() or 'Nothing to do'}: {counted(removed, 'voxel')} became background in {target}."
    )
    return target


def _apply_case(pair: Pair, target: Path, rules: Rules, cleaning: Cleaning) -> tuple[int, tuple[str, ...]]:
    """Write one case; return how many voxels became background, and what is odd about its file."""
    stored, geometry = read_labels(pair.prediction, reader=rules.reader, as_stored=True)
    highest = max((step.background for step in cleaning.steps), default=0)
    labels = stored.astype(np.result_type(stored.dtype, np.min_scalar_type(highest)))  # a copy, to be changed
    removed = clean(labels, cleaning)
    write_labels(labels, geometry, target / pair.prediction.name, writer=rules.reader)
    return removed, geometry.remarks
