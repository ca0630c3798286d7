"""Which images are copies of each other, though not to the bit: noisy, in other units, mirrored, shifted, cropped."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, islice

import numpy as np
from numpy.typing import NDArray

_POINTS = 16  # of a thumbnail along each axis
#: Correlation of thumbnails from which two images count as nearly the same. Of 200 hippocampi, which are all cut out
#: alike, no two different ones exceed 0.75; copies with 5 % of noise have 0.998 and more.
_NEARLY = 0.985
_MIDDLE = 2**16  # voxels in the middle of an image that a sketch is made of: enough, and a millisecond
_ROW = 8  # neighbouring voxels that are taken together
_DISTINCT = 5  # values among them; what has fewer is background or an edge, as many images have them
_KEPT = 64  # rows in a sketch
_DRAWN = 16 * _KEPT  # rows that are looked at
_SHARED = 0.25  # of a sketch; different images hardly share any
_ROWS = 512  # thumbnails that are held against all others at once
_COMMON = 8  # images; what more have is no sign of a copy
# Odd numbers without a pattern: what is multiplied by them looks random.
_MIX = np.uint32(0x9E3779B1)
_WEIGHTS = np.array([0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F], dtype=np.uint64)


@dataclass(frozen=True, eq=False)
class Likeness:
    """What of an image is held against others.

    Parameters
    ----------
    thumbnail : ndarray of float32 or None
        Its voxels at few places, at most 16 along each axis, with mean 0 and length 1; None where all are equal.
    sketch : ndarray of uint64
        Up to 64 numbers, drawn by what neighbouring voxels hold and not by where they lie.
    """

    thumbnail: NDArray[np.float32] | None
    sketch: NDArray[np.uint64]


def likeness_of(image: NDArray[np.float32]) -> Likeness:
    """Return what of an image ([Z,] Y, X) is held against others."""
    return Likeness(_thumbnail(image), _sketch(image))


def _thumbnail(image: NDArray[np.float32]) -> NDArray[np.float32] | None:
    places = [np.unique(np.linspace(0, n - 1, _POINTS).round().astype(int)) for n in image.shape]
    few = image[np.ix_(*places)].astype(np.float64)
    few -= few.mean()
    length = np.linalg.norm(few)
    return None if not np.isfinite(length) or length == 0 else (few / length).astype(np.float32)


def _sketch(image: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return the smallest hashes of short rows along the last axis.

    A row that is read backwards has the same hash, so that mirrored images have the same sketch; and as it matters
    what a row holds and not where it lies, so have images that were shifted or cropped a little. Which rows are looked
    at is told by the two voxels in their middle.
    """
    side = round(_MIDDLE ** (1 / image.ndim))
    starts = [max(0, (n - side) // 2) for n in image.shape]
    middle = np.ascontiguousarray(image[tuple(slice(s, s + side) for s in starts)], dtype=np.float32)
    half, width = _ROW // 2, middle.shape[-1] - _ROW + 1
    if width < 1:
        return np.empty(0, np.uint64)
    mixed = _mixed(middle.view(np.uint32))
    drawn = (mixed[..., half - 1 : half - 1 + width] + mixed[..., half : half + width]) * _MIX
    share = 2.0 ** -max(0, math.floor(math.log2(drawn.size / _DRAWN)))
    *front, x = np.nonzero(drawn <= np.uint32(share * (2**32 - 1)))
    places = (*(axis[:, None] for axis in front), x[:, None] + np.arange(_ROW))
    rows = mixed[places].astype(np.uint64)
    rows = rows[rows[:, half - 1] != rows[:, half]]  # background, mostly
    rows = rows[np.count_nonzero(np.diff(np.sort(rows, axis=1), axis=1), axis=1) + 1 >= _DISTINCT]
    hashes = ((rows[:, :half] + rows[:, : half - 1 : -1]) * _WEIGHTS).sum(axis=1)
    hashes ^= hashes >> np.uint64(32)
    return np.unique(hashes * _WEIGHTS[0])[:_KEPT]


def _mixed(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    mixed = bits * _MIX
    return mixed ^ (mixed >> np.uint32(15))


def alike(images: Mapping[str, Likeness], most: int | None = None) -> dict[tuple[str, str], str]:
    """Return the pairs of images that are nearly the same, and how one lies to the other, in words; empty if alike.

    Parameters
    ----------
    images : mapping
        By name.
    most : int, optional
        Stop looking after so many pairs of either way to find them: frames of a camera that stands still are all alike.
    """
    found = dict.fromkeys(islice(_of_the_same_rows(images), most), "or parts of them, mirrored or shifted")
    return found | dict(islice(_of_like_thumbnails(images), most))


def _of_the_same_rows(images: Mapping[str, Likeness]) -> Iterator[tuple[str, str]]:
    holders: dict[int, list[str]] = defaultdict(list)
    for name, image in sorted(images.items()):
        for number in image.sketch.tolist():
            holders[number].append(name)
    shared = Counter(pair for names in holders.values() if len(names) <= _COMMON for pair in combinations(names, 2))
    for (a, b), count in shared.items():
        if count >= _SHARED * _KEPT:
            yield a, b


def _of_like_thumbnails(images: Mapping[str, Likeness]) -> Iterator[tuple[tuple[str, str], str]]:
    by_shape: dict[tuple[int, ...], list[str]] = defaultdict(list)
    thumbnails = {name: t for name, image in sorted(images.items()) if (t := image.thumbnail) is not None}
    for name, small in thumbnails.items():
        by_shape[small.shape].append(name)
    for shape, names in by_shape.items():
        table: NDArray[np.float32] = np.stack([thumbnails[name] for name in names])
        for axes in _subsets(range(len(shape))):
            mirrored = np.flip(table, tuple(1 + axis for axis in axes)).reshape(len(names), -1)
            how = f"one mirrored along {' and '.join('zyx'[axis - len(shape)] for axis in axes)}" if axes else ""
            for first in range(0, len(names), _ROWS):
                some = table[first : first + _ROWS].reshape(-1, mirrored.shape[1])
                like = np.triu(some @ mirrored[first:].T, 1) > _NEARLY
                for i, j in zip(*np.nonzero(like), strict=True):
                    yield (names[first + i], names[first + j]), how


def _subsets(axes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield all choices of axes, none of them last: what is alike as it lies need not be called mirrored."""
    return chain.from_iterable(combinations(axes, count) for count in range(len(axes), -1, -1))
