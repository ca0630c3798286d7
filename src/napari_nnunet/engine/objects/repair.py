"""Numbered objects are corrected: joined, cut in two, taken out, numbered anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed


@dataclass(frozen=True, eq=False)
class Correction:
    """Voxels that get other numbers.

    Parameters
    ----------
    places : tuple of ndarray of int
        Indices along each axis.
    numbers : ndarray of int or int
        What they become.
    new : dict of int to int
        Objects that did not exist before, and the one that each was a part of.
    """

    places: tuple[NDArray[np.int64], ...]
    numbers: NDArray[Any] | int
    new: dict[int, int]


def join_objects(objects: NDArray[Any], first: int, second: int) -> Correction:
    """Give the second object the number of the first; in a time series wherever it has that number."""
    return Correction(np.nonzero(objects == second), first, {})


def delete_object(objects: NDArray[Any], number: int) -> Correction:
    """Make an object background."""
    return Correction(np.nonzero(objects == number), 0, {})


def split_object(
    objects: NDArray[Any], first: Sequence[int], second: Sequence[int], spacing: Sequence[float], free: int
) -> Correction:
    """Cut an object in two where it is thinnest between two voxels of it.

    Parameters
    ----------
    objects : ndarray of int, shape ([Z,] Y, X)
        Object numbers.
    first, second : sequence of int
        A voxel in each of the parts; the second part gets another number.
    spacing : sequence of float
        Size of a voxel along each axis.
    free : int
        A number that no object has.

    Raises
    ------
    ValueError
        If both are the same voxel, or do not belong to the same object.
    """
    one, other = tuple(first), tuple(second)
    number = int(objects[one])
    if one == other or number == 0 or int(objects[other]) != number:
        raise ValueError(f"{one} and {other} are not two voxels of one object")
    (box,) = ndimage.find_objects((objects == number).astype(np.uint8))
    inside = objects[box] == number
    depth = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=tuple(spacing))[(slice(1, -1),) * inside.ndim]
    markers = np.zeros(inside.shape, dtype=np.int32)
    low = [part.start for part in box]
    for value, place in ((1, one), (2, other)):
        markers[tuple(p - start for p, start in zip(place, low, strict=True))] = value
    parts = watershed(-depth, markers, mask=inside)
    places = tuple(found + start for found, start in zip(np.nonzero(parts == 2), low, strict=True))
    return Correction(places, free, {free: number})


def number_anew(objects: NDArray[Any]) -> Correction:
    """Number all objects 1, 2, 3, ... in the order of their numbers."""
    numbers = np.unique(objects)
    numbers = numbers[numbers != 0]
    wanted = np.arange(1, len(numbers) + 1)
    places = np.nonzero(np.isin(objects, numbers[numbers != wanted]))
    return Correction(places, wanted[np.searchsorted(numbers, objects[places])], {})
