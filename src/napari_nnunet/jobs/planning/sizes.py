"""How large preprocessed cases will be, by the fingerprint, before any of them is read."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_nnunet.errors import ResourceError
from napari_nnunet.schema.fingerprint import Fingerprint
from napari_nnunet.schema.plans import Configuration, Plans

_FINER = (
    64  # times more voxels than an image has, from which on the target spacing is doubted: a quarter along each axis
)


def require_disk(base: Path, plans: Plans, configurations: Sequence[Configuration], cases: int) -> None:
    """Raise ResourceError if preprocessed cases need more disk than is free; says what they become where that is odd.

    Parameters
    ----------
    base : Path
        The dataset's folder in nnUNet_preprocessed.
    plans : Plans
        Their axis order.
    configurations : sequence of Configuration
        What is preprocessed.
    cases : int
        How many there are to do.
    """
    fingerprint = _fingerprint(base)
    known = 0 if fingerprint is None else len(fingerprint.spacings)
    needed = cases / max(1, known) * sum(stored_bytes(base, configuration) for configuration in configurations)
    free = shutil.disk_usage(base).free
    if needed > free:
        text = (
            f"Preprocessing will write about {needed / 1e9:,.1f} GB to {base}, but only {free / 1e9:,.1f} GB are free."
        )
        doubt = "" if fingerprint is None else _doubt(fingerprint, plans, configurations)
        raise ResourceError(
            f"{text} {doubt}"
            if doubt
            else f"{text} Free some space, use another workspace, or preprocess fewer configurations (-c)."
        )


def _doubt(fingerprint: Fingerprint, plans: Plans, configurations: Sequence[Configuration]) -> str:
    """Return what becomes of the case that grows most, in voxels; empty where none grows much."""
    worst, text = float(_FINER), ""
    for configuration in configurations:
        for shape, spacing in zip(fingerprint.shapes_after_crop, fingerprint.spacings, strict=True):
            own = [shape[axis] for axis in plans.transpose_forward]
            sizes = [spacing[axis] for axis in plans.transpose_forward]
            goal = [*sizes[: 3 - len(configuration.spacing)], *configuration.spacing]
            after = [max(1, round(s / t * n)) for n, s, t in zip(own, sizes, goal, strict=True)]
            times = math.prod(after) / math.prod(own)
            if times > worst:
                worst = times
                text = (
                    f"{configuration.name} resamples voxels of {_mm(sizes)} to {_mm(goal)}, so that {_times(own)} "
                    f"voxels become {_times(after)}. Is its spacing right?"
                )
    return text


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


def _fingerprint(base: Path) -> Fingerprint | None:
    path = base / "dataset_fingerprint.json"
    return Fingerprint.read(path) if path.is_file() else None


def _times(numbers: Sequence[int]) -> str:
    return " x ".join(str(n) for n in numbers)


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{s:g}" for s in spacing) + " mm"
