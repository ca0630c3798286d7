"""Numbered objects: derive classes from them, compare them, measure them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_nnunet.jobs.objects.derive import derive_objects as derive_objects_job
from napari_nnunet.jobs.objects.evaluate import FILE, scores
from napari_nnunet.jobs.objects.evaluate import evaluate_objects as evaluate_objects_job
from napari_nnunet.jobs.objects.measure import measure_objects as measure_objects_job

if TYPE_CHECKING:
    from napari_nnunet.cli.shell import Shell
    from napari_nnunet.schema.requests.objects import (
        DeriveObjectsRequest,
        EvaluateObjectsRequest,
        MeasureObjectsRequest,
    )


def derive_objects(request: DeriveObjectsRequest, shell: Shell) -> None:
    """Draw cores and borders."""
    scheme = shell.run(derive_objects_job(shell.workspace, request))
    for width, score in scheme.scores.items():
        print(f"width {width:g}: {score:.4f}" + (" (taken)" if width == scheme.width else ""))


def evaluate_objects(request: EvaluateObjectsRequest, shell: Shell) -> None:
    """Print how well objects were found."""
    found = scores(shell.run(evaluate_objects_job(request)).all)
    for name in ("AP@0.5", "AP@0.75", "AP", "F1@0.5", "PQ", "SEG"):
        value = found[name]
        print(f"{name}: " + ("no objects" if value is None else f"{value:.4f}"))
    counts = ("references", "predictions", "found", "invented", "missed", "split", "merged")
    print(", ".join(f"{name} {found[name]}" for name in counts))
    print(request.summary or request.prediction / FILE)


def measure(request: MeasureObjectsRequest, shell: Shell) -> None:
    """Write the table of objects."""
    rows = shell.run(measure_objects_job(request))
    print(f"{len(rows)} objects")
    print(request.target)
