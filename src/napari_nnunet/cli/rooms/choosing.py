"""What follows training: join, compare, score, choose, postprocess."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from napari_nnunet.errors import counted
from napari_nnunet.formats.results.recipe import STYLES, read_recipe
from napari_nnunet.jobs.choosing.best import find_best
from napari_nnunet.jobs.choosing.calibrate import calibrate as calibrate_job
from napari_nnunet.jobs.choosing.compare import compare_folders
from napari_nnunet.jobs.choosing.crossval import accumulate
from napari_nnunet.jobs.choosing.ensemble import ensemble_folders
from napari_nnunet.jobs.choosing.evaluate import evaluate
from napari_nnunet.jobs.choosing.evaluate_objects import OBJECTS_FILE, scores
from napari_nnunet.jobs.choosing.evaluate_objects import evaluate_objects as evaluate_objects_job
from napari_nnunet.jobs.choosing.postprocess import apply_postprocessing as apply_postprocessing_job
from napari_nnunet.jobs.choosing.postprocess import determine_postprocessing as determine_postprocessing_job
from napari_nnunet.jobs.objects.curves import class_curves
from napari_nnunet.jobs.objects.measure import measure_objects as measure_objects_job
from napari_nnunet.jobs.objects.track import track_objects

if TYPE_CHECKING:
    from napari_nnunet.cli.shell import Shell
    from napari_nnunet.schema.requests.choosing import (
        AccumulateRequest,
        ApplyPostprocessingRequest,
        CalibrateRequest,
        CompareRequest,
        CurvesRequest,
        DeterminePostprocessingRequest,
        EnsembleRequest,
        EvaluateFolderRequest,
        EvaluateObjectsRequest,
        EvaluateSimpleRequest,
        FindBestRequest,
        MeasureObjectsRequest,
        RecipeRequest,
        TrackRequest,
    )


_COUNTED = ("references", "predictions", "found", "invented", "missed", "split", "merged")


def ensemble(request: EnsembleRequest, shell: Shell) -> None:
    """Join the probabilities of several models."""
    shell.run(ensemble_folders(request))


def evaluate_folder(request: EvaluateFolderRequest | EvaluateSimpleRequest, shell: Shell) -> None:
    """Measure by the labels of a dataset.json, or by label values."""
    summary = shell.run(evaluate(request)).summary
    for label, values in summary.mean.items():
        print(f"{label}: Dice {values['Dice']:.4f}" + _surface_text(values))
    print(f"Mean: Dice {summary.dice:.4f}" + _surface_text(summary.foreground))
    print(request.summary or request.prediction / "summary.json")


evaluate_simple = evaluate_folder


def _surface_text(values: Mapping[str, float]) -> str:
    return f", HD95 {values['HD95']:.2f} mm, NSD {values['NSD']:.4f}" if "HD95" in values else ""


def compare(request: CompareRequest, shell: Shell) -> None:
    """Print two folders side by side."""
    print(shell.run(compare_folders(request)).text(), end="")


def accumulate_crossval_results(request: AccumulateRequest, shell: Shell) -> None:
    """Put the validation cases of all folds together."""
    found = shell.run(accumulate(shell.workspace, request))
    if found.evaluation is not None:
        folds = " ".join(map(str, found.folds))
        cases = counted(len(found.evaluation.cases), "case")
        print(f"Mean Dice of {cases}, folds {folds}: {found.evaluation.dice:.4f}")
    if found.objects is not None:
        print(f"Mean average precision of their objects: {found.objects:.4f}")
    print(found.folder)


def calibrate(request: CalibrateRequest, shell: Shell) -> None:
    """Find the temperature of a model or an ensemble."""
    result, path = shell.run(calibrate_job(shell.workspace, request))
    print(f"Temperature: {result.temperature:.4f}")
    print(path)


def find_best_configuration(request: FindBestRequest, shell: Shell) -> None:
    """Choose the best model or ensemble and print how to use it."""
    answer = shell.run(find_best(shell.workspace, request))
    print(answer.instructions.read_text(encoding="utf-8"), end="")
    print(answer.instructions)


def recipe(request: RecipeRequest, _: Shell) -> None:
    """Print how segmentations were made."""
    print(STYLES[request.style](read_recipe(request.folder)), end="")


def determine_postprocessing(request: DeterminePostprocessingRequest, shell: Shell) -> None:
    """Find out which postprocessing helps."""
    result = shell.run(determine_postprocessing_job(request))
    before, after = result.before.dice, result.after.dice
    kept = result.cleaning.describe(result.scheme)
    print(
        f"Keep {kept}: Dice {before:.4f} -> {after:.4f}." if kept else f"No postprocessing helps (Dice {before:.4f})."
    )
    print(result.file)


def apply_postprocessing(request: ApplyPostprocessingRequest, shell: Shell) -> None:
    """Apply a postprocessing to a folder."""
    print(shell.run(apply_postprocessing_job(request)))


def evaluate_objects(request: EvaluateObjectsRequest, shell: Shell) -> None:
    """Print how well objects were found."""
    evaluation = shell.run(evaluate_objects_job(request))
    found = scores(evaluation.all)
    for name in ("AP@0.5", "AP@0.75", "AP", "F1@0.5", "PQ", "SEG"):
        value = found[name]
        print(f"{name}: " + ("no objects" if value is None else f"{value:.4f}"))
    print(", ".join(f"{name} {found[name]}" for name in _COUNTED))
    for kind, own in evaluation.kinds.items():
        figures = scores(own.all)
        print(f"{kind}: AP@0.5 {figures['AP@0.5']}, " + ", ".join(f"{name} {figures[name]}" for name in _COUNTED))
    print(request.summary or request.prediction / OBJECTS_FILE)


def measure(request: MeasureObjectsRequest, shell: Shell) -> None:
    """Write the table of objects."""
    rows = shell.run(measure_objects_job(request))
    print(f"{counted(len(rows), 'object')}")
    print(request.target)


def track(request: TrackRequest, shell: Shell) -> None:
    """Follow objects through time."""
    for series in shell.run(track_objects(request)):
        counts = {"time point": series.times, "track": series.tracks, "division": series.divisions}
        print(f"{series.name}: {', '.join(counted(number, what) for what, number in counts.items())}")
    print(request.target)


def curves(request: CurvesRequest, shell: Shell) -> None:
    """Measure classes over time."""
    for series in shell.run(class_curves(request)):
        for name, sizes in series.sizes.items():
            first, last = f"{sizes[0]:.4g}", f"{sizes[-1]:.4g} {series.measured_in}"
            print(f"{series.name}, {name}: {first} to {last} over {len(sizes)} time points")
    print(request.target)
