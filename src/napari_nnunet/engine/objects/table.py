"""What can be measured of every object: size, place, shape, brightness; in physical units."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import skimage  # its parts are loaded when they are used: a prediction of classes needs none
from numpy.typing import NDArray
from scipy import ndimage

Row = dict[str, float | int | str | bool]
_FEW = 8  # numbers; masks of classes hardly have more
_LOOKED_AT = 1 << 22  # voxels that are looked at for pieces, evenly spaced


def object_table(
    objects: NDArray[Any],
    spacing: Sequence[float],
    image: NDArray[Any] | None = None,
    channels: Sequence[str] = (),
    kinds: Mapping[int, str] | None = None,
) -> Iterator[Row]:
    """Measure one object after the other, each within its bounding box.

    Parameters
    ----------
    objects : ndarray of int, shape ([Z,] Y, X)
        Object numbers, 0 elsewhere.
    spacing : sequence of float
        Size of a voxel in mm along each axis.
    image : ndarray, shape (C, [Z,] Y, X), optional
        Brightness of each channel.
    channels : sequence of str
        Their names.
    kinds : mapping of int to str, optional
        Object number to its kind.

    Yields
    ------
    dict
        ``object``, ``kind``, ``voxels``, ``area`` (mm², 2-D) or ``volume`` (mm³), the place of its centre (``z``,
        ``y``, ``x`` in mm from the first voxel's centre), ``diameter`` of the disc or ball of the same size,
        ``length`` and ``width`` of the ellipse of the same second moments, ``elongation`` (their ratio), whether it
        is ``cut`` by the image's border, and for each channel ``mean``, ``sum`` and ``spread`` (standard deviation).
    """
    numbers = np.unique(objects)
    numbers = numbers[numbers != 0]
    small = np.searchsorted(numbers, objects) + 1
    small[objects == 0] = 0
    names = list(channels) or [f"channel {c}" for c in range(0 if image is None else len(image))]
    for place, box in enumerate(ndimage.find_objects(small, len(numbers))):
        number = int(numbers[place])
        (found,) = skimage.measure.regionprops((small[box] == place + 1).astype(np.uint8), spacing=tuple(spacing))
        row: Row = {"object": number}
        if kinds is not None:
            row["kind"] = kinds.get(number, "")
        row |= _shape(found, box, objects.shape, spacing)
        if image is not None:
            inside = found.image
            for name, channel in zip(names, image, strict=True):
                values = channel[box][inside].astype(np.float64)
                row |= {
                    f"mean {name}": float(values.mean()),
                    f"sum {name}": float(values.sum()),
                    f"spread {name}": float(values.std()),
                }
        yield row


def _shape(found: Any, box: tuple[slice, ...], shape: Sequence[int], spacing: Sequence[float]) -> Row:
    """Return size, place and form of one region of skimage's, whose box lies within the picture."""
    axes = len(shape)
    voxels = int(np.count_nonzero(found.image))
    size = float(found.area)
    centre = [c + s.start * step for c, s, step in zip(found.centroid, box, spacing, strict=True)]
    long, short = _axes(found, axes)
    return {
        "voxels": voxels,
        "area" if axes == 2 else "volume": size,
        **{axis: float(c) for axis, c in zip("zyx"[-axes:], centre, strict=True)},
        "diameter": 2 * (math.sqrt(size / math.pi) if axes == 2 else (3 * size / (4 * math.pi)) ** (1 / 3)),
        "length": long,
        "width": short,
        "elongation": long / short if short > 0 else math.nan,
        "cut": any(s.start == 0 or s.stop == n for s, n in zip(box, shape, strict=True) if n > 1),
    }


def _axes(found: Any, axes: int) -> tuple[float, float]:
    """Return the longest and the shortest axis of the ellipse or ellipsoid with the region's second moments, in mm."""
    moments = np.clip(np.asarray(found.inertia_tensor_eigvals, dtype=float), 0, None)
    # Variance along each principal axis: the trace less the moment about it (3-D: half the trace less it).
    variances = moments if axes == 2 else np.clip(moments.sum() / 2 - moments, 0, None)
    scale = 4.0 if axes == 2 else math.sqrt(20.0)
    return scale * math.sqrt(variances.max()), scale * math.sqrt(variances.min())


def scattered_pieces(objects: NDArray[Any], count: int) -> tuple[int, int] | None:
    """Tell masks of classes from numbered objects by how their numbers lie.

    Parameters
    ----------
    objects : ndarray of int, shape ([Z,] Y, X)
        0 elsewhere.
    count : int
        How many numbers there are.

    Returns
    -------
    tuple of (int, int) or None
        The numbers and the separate pieces they lie in, where few numbers lie in at least twice as many pieces.
    """
    if not 0 < count <= _FEW:
        return None
    step = math.ceil((objects.size / _LOOKED_AT) ** (1 / objects.ndim))
    seen = objects[(slice(None, None, step),) * objects.ndim] != 0
    _, pieces = ndimage.label(seen, structure=np.ones((3,) * objects.ndim, dtype=bool))
    return (count, int(pieces)) if pieces >= max(2 * count, count + 2) else None
