"""Lay a layer's array over another one, time point by time point."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.image.overlay import laid_over
from napari_nnunet.events import Job, Progress, Stage
from napari_nnunet.grid import Grid


def lay_over(array: Any, axes: str, own: Grid, other: Grid, *, labels: bool) -> Job[NDArray[Any]]:
    """Return an array on another grid.

    Parameters
    ----------
    array : array-like
        Of which ``axes`` names the axes.
    axes : str
        With Y and X, maybe Z; other letters are gone through one by one.
    own, other : Grid
        Where the spatial axes lie, and where they should.
    labels : bool
        As for :func:`napari_nnunet.engine.image.overlay.laid_over`.
    """
    yield Stage(name="Resampling")
    values = np.asarray(array)
    space = [axes.index(letter) for letter in "ZYX" if letter in axes]
    rest = [i for i in range(len(axes)) if i not in space]
    ordered = values.transpose([*rest, *space])
    lead = ordered.shape[: len(rest)]
    result = np.zeros((*lead, *other.shape), values.dtype)
    for i, index in enumerate(np.ndindex(*lead)):
        result[index] = laid_over(ordered[index], own, other, labels=labels)
        yield Progress(done=i + 1, total=max(1, int(np.prod(lead))))
    return result.transpose(np.argsort([*rest, *space]))
