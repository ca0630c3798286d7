"""What is measured of a training case that is never in memory as a whole; see :mod:`..planning.measure`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.large.case import CaseSource, survey_case
from napari_nnunet.engine.planning.fingerprint import CaseMeasure, ChannelMeasure
from napari_nnunet.engine.planning.measure import DISTINCT, QUANTILES, SEED, channel_measure
from napari_nnunet.errors import ResourceError

_COUNTED = 2  # bytes of a whole number; of those all values are counted, which is exact


def measure_parts(
    source: CaseSource, spacing: tuple[float, float, float], allowed: float, draws: int | None = None
) -> tuple[CaseMeasure, list[int]]:
    """Measure a case box by box.

    Figures are those of the case in memory; of whole numbers with at most 16 bits without rounding, of others because
    the values of the foreground are kept.

    Parameters
    ----------
    source : CaseSource
        The case.
    spacing : tuple of float
        Of the image, in mm.
    allowed : float
        Bytes that it may take.
    draws : int, optional
        As :func:`~..planning.measure.measure_volume` has it.

    Returns
    -------
    CaseMeasure, list of int
        And the values of its labels.

    Raises
    ------
    ImageError
        If values are NaN or infinite.
    ResourceError
        If a plane, or the foreground of an image of other numbers, is too large.
    """
    slabs = source.slabs(allowed / 2)
    facts = survey_case(source, [None], slabs)
    collected: list[_Counts | _Values] | None = None
    values: set[int] = set()
    for slab in slabs:
        labels = source.labels(slab)[0]
        values.update(np.flatnonzero(np.bincount(labels.ravel())).tolist())
        place = facts.within(slab)
        foreground = labels[place] > 0
        if not foreground.any():
            continue
        part = source.image(slab)
        if collected is None:
            collected = [_holder(part.dtype, draws, allowed / 2 / source.channels) for _ in part]
        for holder, channel in zip(collected, part, strict=True):
            holder.add(channel[place][foreground])
    shape = [hi - lo for lo, hi in facts.box]
    size = float(np.prod(shape)) / float(np.prod(source.shape))
    rng = np.random.RandomState(SEED)
    empty = np.empty(0, dtype=np.float32)
    channels = (
        tuple(holder.measure(draws, rng) for holder in collected)
        if collected is not None
        else tuple(channel_measure(empty, draws, rng) for _ in range(source.channels))
    )
    return CaseMeasure((shape[0], shape[1], shape[2]), spacing, size, channels), sorted(values)


def _holder(dtype: np.dtype[Any], draws: int | None, allowed: float) -> _Counts | _Values:
    few = dtype.kind in "bui" and dtype.itemsize <= _COUNTED
    return _Counts(dtype) if few and draws is None else _Values(allowed)


class _Counts:
    """How often every value of whole numbers of at most 16 bits occurs."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._least = 0 if dtype.kind == "b" else int(np.iinfo(dtype).min)
        self._counts = np.zeros(2 ** (8 * dtype.itemsize), dtype=np.int64)

    def add(self, values: NDArray[Any]) -> None:
        found = np.bincount(values.astype(np.int64) - self._least)
        self._counts[: len(found)] += found

    def measure(self, draws: int | None, rng: np.random.RandomState) -> ChannelMeasure:
        places = np.flatnonzero(self._counts)
        counts = self._counts[places]
        known, total = places + self._least, int(counts.sum())
        if not total:
            return channel_measure(np.empty(0, dtype=np.float32), draws, rng)
        mean = _exact_sum(known, counts) / total
        square = _exact_sum(known**2, counts) / total
        values, weights = known.astype(np.float32), counts / total
        if len(known) > DISTINCT:
            ranks = ((np.arange(QUANTILES) + 0.5) * total / QUANTILES).astype(np.intp)
            values = values[np.searchsorted(np.cumsum(counts), ranks, side="right")]
            weights = np.full(QUANTILES, 1 / QUANTILES)
        return ChannelMeasure(total, mean, square, float(known[0]), float(known[-1]), values, weights)


def _exact_sum(values: NDArray[np.int64], counts: NDArray[np.int64]) -> int:
    return sum(int(value) * int(count) for value, count in zip(values, counts, strict=True))


class _Values:
    """All values, as many as memory allows."""

    def __init__(self, allowed: float) -> None:
        self._parts: list[NDArray[np.float32]] = []
        self._left = allowed / 4  # kept, joined, sorted, and as float64

    def add(self, values: NDArray[Any]) -> None:
        self._parts.append(values.astype(np.float32))
        self._left -= self._parts[-1].nbytes
        if self._left < 0:
            raise ResourceError(
                "The foreground of this image has more values than fit into the memory that is left, and only whole "
                "numbers of at most 16 bits are counted without keeping them. Store the image as such numbers, or "
                "allow more memory.",
                shell="Leave out --sampled, where it was given.",
            )

    def measure(self, draws: int | None, rng: np.random.RandomState) -> ChannelMeasure:
        return channel_measure(np.concatenate(self._parts), draws, rng)
