"""Compare segmentations with their references: nnU-Net's summary.json, and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_nnunet.engine.choosing.metrics import Joint, Metrics, blanked, evaluated, summarize
from napari_nnunet.engine.choosing.surface import require, surface_metrics
from napari_nnunet.errors import ImageError, NnunetError
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import make_folder, write_text
from napari_nnunet.formats.images.files import common_ending, read_labels
from napari_nnunet.formats.results.summary import SUMMARY_FILE, CaseScore, Summary
from napari_nnunet.formats.tables import text_of
from napari_nnunet.grid import Grid, onto
from napari_nnunet.jobs.choosing.pairs import (
    Pair,
    compare_cases,
    files_of,
    other_values,
    pair_up,
    some_files,
    stray_values,
    undefined_values,
    unsized_references,
)
from napari_nnunet.schema.dataset import BACKGROUND, IGNORE, DatasetInfo, LabelScheme, Region, unknown_regions
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.choosing import EvaluateFolderRequest, EvaluateSimpleRequest
from napari_nnunet.volume import by_text

_TURNED = (
    "its prediction has the voxels of its reference in another orientation, and was reoriented by its header; cases of "
    "equal shape were compared voxel by voxel, whatever their headers say"
)


@dataclass(frozen=True)
class Rules:
    """What is compared, and how the files are read.

    Parameters
    ----------
    labels : tuple of int or tuple of int
        Labels and regions.
    ending : str
        Of the files.
    ignore_label : int, optional
        Voxels with this value in the reference do not count.
    reader : str, optional
        nnU-Net's class name; chosen by the ending if not given.
    surface : float, optional
        Also measure surface distances, with this tolerance in mm for the normalised surface Dice.
    ignore_geometry : bool
        Compare voxel by voxel, whatever the headers say about position.
    asked_by_voxels : bool
        Whether whoever asks can ask for that, so that an error may name it.
    defined : frozenset of int, optional
        The values that a prediction may have; None where no dataset.json says it.
    unknown : mapping of str to frozenset
        Labels and regions that nobody looked for in a case, by its name: they are not measured there.
    """

    labels: tuple[Region, ...]
    ending: str
    ignore_label: int | None = None
    reader: str | None = None
    surface: float | None = None
    ignore_geometry: bool = False
    asked_by_voxels: bool = False
    defined: frozenset[int] | None = None
    unknown: Mapping[str, frozenset[Region]] = field(default_factory=dict)

    @classmethod
    def of(cls, info: DatasetInfo, *, reader: str | None = None, surface: float | None = None) -> Rules:
        """Return the rules of a dataset; ``reader`` as its plans say."""
        scheme = info.labels
        values = frozenset({0, *scheme.all_labels, *(() if scheme.ignore_label is None else (scheme.ignore_label,))})
        where = (info.file_ending, scheme.ignore_label, reader or info.reader, surface)
        unknown = {case: unknown_regions(info, case) for case in info.annotated}
        return cls(evaluated(scheme), *where, defined=values, unknown=unknown)

    def measured(self, case: str, joint: Joint, labels: Sequence[Region] | None = None) -> dict[Region, Metrics]:
        """Return the metrics of a case, of all labels or some; not numbers where nobody looked for a label."""
        found = joint.metrics(self.labels if labels is None else labels, self.ignore_label)
        return blanked(found, self.unknown[case]) if case in self.unknown else found


def summary_of(pairs: Sequence[Pair], cases: Sequence[Mapping[Region, Metrics]], labels: Sequence[Region]) -> Summary:
    """Return what summary.json says of some cases and their metrics."""
    scores = (
        CaseScore(pair.name, pair.prediction, pair.reference, {str(label): v for label, v in metrics.items()})
        for pair, metrics in zip(pairs, cases, strict=True)
    )
    return Summary(*summarize(cases, labels), tuple(scores))


@dataclass(frozen=True)
class Evaluation:
    """How good a folder is.

    Parameters
    ----------
    pairs : tuple of Pair
        The cases.
    cases : tuple of dict
        The metrics of each, per label.
    labels : tuple
        What was measured.
    """

    pairs: tuple[Pair, ...]
    cases: tuple[dict[Region, Metrics], ...]
    labels: tuple[Region, ...]

    @property
    def summary(self) -> Summary:
        """What summary.json says."""
        return summary_of(self.pairs, self.cases, self.labels)

    @property
    def dice(self) -> float:
        """Mean over labels of the mean over cases."""
        return self.summary.dice

    def moved_to(self, folder: Path) -> Evaluation:
        """Return the same with the predictions in another folder."""
        pairs = tuple(replace(pair, prediction=folder / pair.prediction.name) for pair in self.pairs)
        return replace(self, pairs=pairs)

    def csv(self) -> str:
        """Return one line per case and label, worst cases first."""
        names = sorted({name for case in self.cases for values in case.values() for name in values})
        order = sorted(zip(self.pairs, self.cases, strict=True), key=lambda entry: badness(entry[1]))
        return text_of(
            [
                {"case": pair.name, "label": label, **{name: _cell(values[name]) for name in names}}
                for pair, metrics in order
                for label, values in metrics.items()
            ]
        )


def _cell(value: float) -> str:
    return "" if isinstance(value, float) and math.isnan(value) else repr(value)


def badness(metrics: dict[Region, Metrics]) -> tuple[bool, float]:
    """Return what sorts cases worst first; cases without any label come last."""
    known = [values["Dice"] for values in metrics.values() if not math.isnan(values["Dice"])]
    return (not known, sum(known) / len(known) if known else 0.0)


def read_pair(pair: Pair, rules: Rules) -> tuple[NDArray[Any], NDArray[Any], Geometry]:
    """Return reference and prediction of a case on the reference's grid, and the grid with what is odd about both.

    A prediction that is stored in another orientation (mirrored, axes swapped) is turned; nothing is interpolated.

    Raises
    ------
    ImageError
        If they do not lie on the same grid.
    """
    reference, geometry = read_labels(pair.reference, reader=rules.reader, as_stored=True)
    prediction, own = read_labels(pair.prediction, reader=rules.reader, as_stored=True)
    odd = tuple(f"of its prediction: {text}" for text in own.remarks if text not in geometry.remarks)
    if rules.ignore_geometry and reference.shape != prediction.shape:
        odd = (*odd, _TURNED)
    if odd:
        geometry = geometry.model_copy(update={"remarks": (*geometry.remarks, *odd)})
    if rules.ignore_geometry and reference.shape == prediction.shape:
        return reference, prediction, geometry
    what = f"the reference {pair.reference} and the prediction {pair.prediction}"
    try:
        return reference, onto(prediction, own, Grid(reference.shape, geometry), what=what), geometry
    except ImageError as error:
        if reference.shape != prediction.shape or not rules.asked_by_voxels:
            raise
        raise ImageError(
            error.message, shell="If their headers are wrong, compare by voxels (--ignore-geometry)."
        ) from error


def measure_pair(pair: Pair, rules: Rules) -> tuple[dict[Region, Metrics], dict[str, set[int]], tuple[str, ...]]:
    """Compare one case; may run in a worker process.

    Returns
    -------
    tuple of (dict, dict of str to set of int, tuple of str)
        The metrics of every label; the values of "references" and "predictions" that dataset.json does not define, or
        without one, those that only one of them has; and what is odd about the files.
    """
    reference, prediction, geometry = read_pair(pair, rules)
    joint = Joint.count(reference, prediction)
    found = rules.measured(pair.name, joint)
    if rules.surface is not None:
        more = surface_metrics(
            reference,
            prediction,
            rules.labels,
            spacing=geometry.spacing,
            tolerance=rules.surface,
            ignore_label=rules.ignore_label,
        )
        more = blanked(more, rules.unknown.get(pair.name, ()))
        found = {label: {**values, **more[label]} for label, values in found.items()}
    sides = {"references": joint.expected, "predictions": joint.predicted}
    others = {"references": joint.predicted, "predictions": joint.expected}
    values = {which: set(own) - set(rules.defined or others[which]) for which, own in sides.items()}
    return found, values, geometry.remarks


def evaluate_pairs(
    pairs: Sequence[Pair], rules: Rules, *, workers: int = 0, cluster: str | None = None
) -> Job[Evaluation]:
    """Compare cases.

    Parameters
    ----------
    pairs : sequence of Pair
        The cases.
    rules : Rules
        What is compared.
    workers : int
        Processes, at most; 0 means one per core. Few small images are compared without.
    cluster : str, optional
        Workers on other machines, as ``--cluster`` names them.

    Returns
    -------
    Evaluation
        The metrics of every case.
    """
    if rules.surface is not None:
        require()
        yield from unsized_references(pairs, rules.reader)
    yield Stage(name="Comparing", total=len(pairs))
    found = yield from compare_cases(measure_pair, pairs, rules.reader, rules, workers=workers, cluster=cluster)
    result = Evaluation(tuple(pairs), tuple(metrics for metrics, _, _ in found), rules.labels)
    for names, text in by_text({pair.name: odd for pair, (_, _, odd) in zip(pairs, found, strict=True)}):
        yield Note(level="warning", text=f"{names}: {text}.")
    yield from _strange_values(result, rules)
    values = [own for _, own, _ in found]
    if rules.defined:
        yield from undefined_values(pairs, values)
    elif result.labels:
        yield from other_values(result.labels, result.cases, values)
        yield from stray_values(result.labels, result.cases, [
            {which: own - {rules.ignore_label} for which, own in case.items()} for case in values
        ])  # fmt: skip
    return result


@dataclass(frozen=True)
class EvaluationFiles:
    """Where an evaluation goes.

    Parameters
    ----------
    summary : Path
        nnU-Net's summary.json.
    table : Path, optional
        One line per case and label, worst cases first (CSV).
    """

    summary: Path
    table: Path | None = None


def evaluate_folder(
    reference: Path,
    prediction: Path,
    rules: Rules,
    output: EvaluationFiles | None = None,
    *,
    missing_ok: bool = False,
    workers: int = 0,
    cluster: str | None = None,
) -> Job[Evaluation]:
    """Compare a folder of segmentations with a folder of references, and write summary.json.

    Parameters
    ----------
    reference, prediction : Path
        Folders with files of the same names.
    rules : Rules
        What is compared.
    output : EvaluationFiles, optional
        ``summary.json`` in the folder of the predictions if not given.
    missing_ok : bool
        Whether references without a prediction are left out (``--chill``).
    workers, cluster
        As for :func:`evaluate_pairs`.

    Returns
    -------
    Evaluation
        The metrics of every case.

    Raises
    ------
    DatasetError, ImageError
        If the folders hold different cases or different grids; nothing is written then.
    """
    pairs = pair_up(reference, prediction, rules.ending, missing_ok=missing_ok)
    left_out = sorted(set(files_of(reference, rules.ending)) - {pair.name + rules.ending for pair in pairs})
    if left_out:
        yield Note(level="warning", text=f"Left out, as there is no segmentation: {some_files(left_out)}.")
    result = yield from evaluate_pairs(pairs, rules, workers=workers, cluster=cluster)
    where = output or EvaluationFiles(prediction / SUMMARY_FILE)
    make_folder(where.summary.parent)
    result.summary.write(where.summary)
    if where.table is not None:
        make_folder(where.table.parent)
        write_text(where.table, result.csv())
    return result


def evaluate(request: EvaluateFolderRequest | EvaluateSimpleRequest) -> Job[Evaluation]:
    """Compare two folders as the command line asks for it.

    Raises
    ------
    DatasetError, PlanError, ImageError
        As :func:`evaluate_folder`, and if dataset.json or plans.json cannot be read.
    """
    if isinstance(request, EvaluateFolderRequest):
        plans = request.plans_json or request.prediction / "plans.json"
        reader = Plans.read(plans).reader if request.plans_json is not None or plans.is_file() else None
        info = DatasetInfo.read(request.dataset_json)
        yield from other_classes(info, request.dataset_json, request.reference, request.prediction)
        rules = Rules.of(info, reader=reader, surface=request.surface)
    else:
        rules = Rules(request.labels, common_ending(request.reference), request.ignore_label, surface=request.surface)
    rules = replace(rules, ignore_geometry=request.ignore_geometry, asked_by_voxels=True)
    output = EvaluationFiles(request.summary or request.prediction / "summary.json", request.csv)
    job = evaluate_folder(
        request.reference,
        request.prediction,
        rules,
        output,
        missing_ok=request.missing_ok,
        workers=request.workers,
        cluster=request.cluster,
    )
    return (yield from job)


def other_classes(info: DatasetInfo, told_by: Path, *folders: Path) -> Job[None]:
    """Warn of folders whose own dataset.json calls a value something else, or gives a class another value."""
    for path in (folder / "dataset.json" for folder in folders):
        if not path.is_file() or path.samefile(told_by):
            continue
        try:
            scheme = DatasetInfo.read(path).labels
        except NnunetError:  # such as one of another kind; nobody asked to read it
            continue
        ours, theirs = _by_name(info.labels), _by_name(scheme)
        names = {value: name for name, value in ours.items()}
        moved = any(ours.get(name, value) != value for name, value in theirs.items())
        if moved or any(names.get(value, name) != name for name, value in theirs.items()):
            doubt = (
                "the values do not mean the same classes, and the scores compare values. Compare folders whose "
                "dataset.json agree."
                if moved
                else "the scores compare values, whatever they are called. Make sure that they mean the same classes."
            )
            said = [{n: v for n, v in some.labels.items() if n != BACKGROUND} for some in (scheme, info.labels)]
            yield Note(
                level="warning", text=f"{path} says {_values(said[0])}, {told_by} says {_values(said[1])}: {doubt}"
            )


def _by_name(labels: LabelScheme) -> dict[str, tuple[int, ...]]:
    """Return what names mean; upper and lower case and spaces tell no names apart."""
    ignored = {} if labels.ignore_label is None else {IGNORE: (labels.ignore_label,)}
    return {"_".join(name.casefold().split()): values for name, values in (labels.meanings | ignored).items()}


def _values(labels: Mapping[str, object]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in list(labels.items())[:8])


def _strange_values(result: Evaluation, rules: Rules) -> Job[None]:
    """Warn about labels that were found nowhere: most often, the wrong labels or dataset.json were given."""
    for label in rules.labels:
        counts = [case[label]["n_ref"] + case[label]["n_pred"] for case in result.cases]
        if not any(count > 0 for count in counts):  # nor is it where nobody looked for it
            yield Note(
                level="warning",
                text=f"Label {label} occurs in no reference and in no prediction; its Dice, and so the mean of all "
                "labels, is not a number. Are these the right labels?",
            )
