"""Images cut into boxes of whole chunks, for whatever goes through them once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from napari_nnunet.engine.image.prepare import Box3

Shape3 = tuple[int, int, int]


def cut_into_boxes(shape: Sequence[int], chunk: Sequence[int], most: float) -> Iterator[Box3]:
    """Cut an image into boxes of whole chunks that have at most so many voxels, but for a chunk that is larger.

    Parameters
    ----------
    shape, chunk : sequence of int
        (z, y, x).
    most : float
        Voxels.
    """
    size = [min(c, n) for c, n in zip(chunk, shape, strict=True)]
    for axis in (2, 1, 0):  # as memory and most files lie
        rest = size[0] * size[1] * size[2] // size[axis]
        fits = int(most // (rest * size[axis]))
        size[axis] = min(shape[axis], size[axis] * max(1, fits))
    for z, y, x in itertools.product(*(range(0, n, step) for n, step in zip(shape, size, strict=True))):
        yield (z, min(z + size[0], shape[0])), (y, min(y + size[1], shape[1])), (x, min(x + size[2], shape[2]))
