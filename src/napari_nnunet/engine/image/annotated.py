"""How labels of which only a part is annotated were made: whole slices or boxes, or strokes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# A box is filled; the two ends of a stroke that a round brush leaves are not, and a quarter is less in a short one.
_FILLED = 0.95  # of its bounding box
_LEAST = 8  # voxels along both of its longest axes
_LONGEST = 4  # times as long as it is wide: a straight stroke that is longer fills its box, too


def has_whole_parts(annotated: NDArray[np.bool_]) -> bool:
    """Whether most of what is annotated lies in slices or boxes that were annotated wholly.

    Parameters
    ----------
    annotated : ndarray of bool, shape (z, y, x)
        Where somebody annotated.
    """
    return _mostly_planes(annotated) or _mostly_boxes(annotated)


def _mostly_planes(annotated: NDArray[np.bool_]) -> bool:
    """Whether it lies in planes across any axis longer than one."""
    total = int(annotated.sum())
    for axis, size in enumerate(annotated.shape):
        if size > 1:
            planes = annotated.all(axis=tuple(i for i in range(annotated.ndim) if i != axis))
            if planes.sum() * annotated.size / size > total / 2:
                return True
    return False


def _mostly_boxes(annotated: NDArray[np.bool_]) -> bool:
    parts, _ = ndimage.label(annotated)
    found = 0
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        own = parts[box] == number
        short, long = sorted(own.shape)[-2:]
        if short >= _LEAST and long <= _LONGEST * short and own.mean() >= _FILLED:
            found += int(own.sum())
    return 2 * found > int(annotated.sum())
