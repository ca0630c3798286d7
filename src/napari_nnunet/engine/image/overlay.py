"""Lay an image over another one that lies elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_nnunet.errors import ImageError
from napari_nnunet.grid import Grid, Turned, relation


def laid_over(array: NDArray[Any], own: Grid, other: Grid, *, labels: bool) -> NDArray[Any]:
    """Return an image on another one's grid.

    Parameters
    ----------
    array : ndarray, shape ([Z,] Y, X)
        The image.
    own : Grid
        Where it lies.
    other : Grid
        Where it should lie.
    labels : bool
        Whether each voxel takes the nearest label; values of images are interpolated linearly.

    Returns
    -------
    ndarray
        On ``other``, of the same type; exact where the voxels are the same in another order. What lies outside of the
        image is 0.

    Raises
    ------
    ImageError
        If the place of one of them is not known.
    """
    found = relation(other, own)
    if isinstance(found, Turned):
        return found.turn(array)
    a, b = own.matrix, other.matrix
    if a is None or b is None:
        raise ImageError("An image whose place is not known cannot be laid over another one.")
    n = array.ndim
    back = np.linalg.solve(a, b)  # from indices of the other grid to indices of this one
    if labels:
        moved = ndimage.affine_transform(array, back[:n, :n], back[:n, n], output_shape=other.shape, order=0)
    else:
        values = array.astype(np.float32, copy=False)
        moved = ndimage.affine_transform(values, back[:n, :n], back[:n, n], output_shape=other.shape, order=1)
        moved = moved if array.dtype.kind == "f" else np.rint(moved)
    result: NDArray[Any] = moved.astype(array.dtype, copy=False)
    return result
