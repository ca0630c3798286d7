"""A part of an image on the network grid, equal to that part of the whole image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.image.axis_operators import apply_operator, nearest_index, operator_part
from napari_nnunet.engine.image.prepare import Box3, PrepareRecord
from napari_nnunet.engine.image.resample import label_part_source, resample_label_part, separate_axis
from napari_nnunet.engine.large.survey import ChannelFacts, ImageFacts, normalize_part
from napari_nnunet.schema.plans import IntensityStatistics, NormalizationScheme, Resampling

#: Reads a half-open box (z, y, x) in the image's own order; returns (C, z, y, x).
Read = Callable[[Box3], NDArray[Any]]
PIECE_VOXELS = 4e6  # of the image that are read and resampled together
_SMALLEST = 32  # network voxels; with smaller pieces, mostly the spline's surroundings would be read


@dataclass(frozen=True)
class _Step:
    """How a part of an axis is made: by an operator or by picking planes, or taken as it is."""

    axis: int
    operator: Any = None
    index: NDArray[np.intp] | None = None

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.index is not None:
            return np.take(x, self.index, axis=self.axis)
        return apply_operator(x, self.operator, self.axis)


@dataclass(frozen=True, eq=False)
class PreviousStage:
    """Labels of a cascade's first stage, of which every foreground label becomes a channel.

    Parameters
    ----------
    read : callable
        Reads a box of the labels (1, z, y, x), in the image's own order.
    rule : Resampling
        ``resample_seg`` of the plans.
    labels : tuple of int
        The foreground labels.
    """

    read: Read
    rule: Resampling
    labels: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Within:
    """What of an image is content, and the channels that are normalised there alone, and are 0 elsewhere.

    Parameters
    ----------
    read : callable
        Reads a box of the content (1, z, y, x), bool, in the image's own order.
    masked : tuple of bool
        One per channel.
    """

    read: Read
    masked: tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class Preparation:
    """Transposes, normalises and resamples any part of an image as :func:`~..image.prepare.prepare` does the whole.

    Parameters
    ----------
    read : callable
        Reads a box of the image.
    record : PrepareRecord
        Grids of the whole image.
    rule : Resampling
        ``resample_data`` of the plans.
    schemes, statistics : sequence
        How every channel is normalised, and the intensities of the training cases (as many as are known).
    facts : ImageFacts
        Of the whole image.
    previous : PreviousStage, optional
        Of a cascade.
    within : Within, optional
        Where some channel is normalised within the image's content; facts of such a channel are those of its content.
    """

    read: Read
    record: PrepareRecord
    rule: Resampling
    schemes: Sequence[NormalizationScheme]
    statistics: Sequence[IntensityStatistics]
    facts: ImageFacts
    previous: PreviousStage | None = None
    within: Within | None = None

    @property
    def channels(self) -> int:
        """Channels that the network gets."""
        return len(self.schemes) + (0 if self.previous is None else len(self.previous.labels))

    def part(self, box: Box3) -> NDArray[np.float32]:
        """Return what the network gets in a half-open box (transposed order) of its grid.

        Returns
        -------
        ndarray of float32, shape (C, z, y, x)
            Beyond the grid, where windows are padded, it is 0.
        """
        out = np.zeros((self.channels, *(hi - lo for lo, hi in box)), dtype=np.float32)
        inner = [(max(lo, 0), min(hi, n)) for (lo, hi), n in zip(box, self.record.network_shape, strict=True)]
        if all(lo < hi for lo, hi in inner):
            place = tuple(slice(a - lo, b - lo) for (a, b), (lo, _) in zip(inner, box, strict=True))
            within = (inner[0], inner[1], inner[2])
            self._fill(out[(slice(len(self.schemes)), *place)], within)
            self._fill_previous(out[(slice(len(self.schemes), None), *place)], within)
        return out

    def _fill(self, out: NDArray[np.float32], box: Box3) -> None:
        """Make a box piece by piece, so that what is read for a piece stays small."""
        steps, source = self._ways(box)
        longest = max(range(3), key=lambda a: box[a][1] - box[a][0])
        (lo, hi), many = box[longest], math.prod(b - a for a, b in source) > PIECE_VOXELS
        if not many or hi - lo <= _SMALLEST:
            self._make(out, steps, source)
            return
        middle = (lo + hi) // 2
        for a, b in ((lo, middle), (middle, hi)):
            z, y, x = ((a, b) if axis == longest else ends for axis, ends in enumerate(box))
            place = tuple(slice(a - lo, b - lo) if axis == longest else slice(None) for axis in range(3))
            self._fill(out[(slice(None), *place)], (z, y, x))

    def _fill_previous(self, out: NDArray[np.float32], box: Box3) -> None:
        """Make the channels of the previous stage, which are small numbers: not piece by piece."""
        if self.previous is None:
            return
        record, rule = self.record, self.previous.rule
        sizes, target = record.cropped_shape, record.network_shape
        unchanged = rule.function == "no_resampling_hack"
        z, y, x = list(box) if unchanged else label_part_source(sizes, target, box)
        labels = own_part(record, self.previous.read, (z, y, x))[0]
        made = resample_label_part(labels, sizes, target, box, record.spacing, record.network_spacing, rule)
        for channel, label in zip(out, self.previous.labels, strict=True):
            channel[...] = made == label

    @property
    def separate(self) -> int | None:
        """The network axis along which slices are not interpolated together."""
        rule, record = self.rule, self.record
        return separate_axis(
            record.spacing, record.network_spacing, rule.force_separate_z, rule.separate_z_anisotropy_threshold
        )

    def _ways(self, box: Box3) -> tuple[list[_Step], Box3]:
        """Return the steps that make a box, in their order, and the box of the cropped image that they take."""
        sizes, targets = self.record.cropped_shape, self.record.network_shape
        unchanged = self.rule.function == "no_resampling_hack" or sizes == targets
        order = 1 if self.rule.function == "resample_torch_fornnunet" else self.rule.order
        separate = self.separate
        steps, source = [], []
        for axis, (size, target, (lo, hi)) in enumerate(zip(sizes, targets, box, strict=True)):
            own = self.rule.order_z if axis == separate else order
            if unchanged or size == target:
                source.append((lo, hi))
            elif own == 0:
                index = nearest_index(size, target)[lo:hi]
                source.append((int(index[0]), int(index[-1]) + 1))
                steps.append(_Step(axis, index=index - index[0]))
            else:
                operator, first, last = operator_part(size, target, own, lo, hi)
                source.append((first, last))
                steps.append(_Step(axis, operator))
        # The order of the whole image: shrinking axes first, the axis that is kept apart at the end.
        steps.sort(key=lambda step: (step.axis == separate, targets[step.axis] / sizes[step.axis]))
        return steps, (source[0], source[1], source[2])

    def _make(self, out: NDArray[np.float32], steps: list[_Step], source: Box3) -> None:
        values = own_part(self.record, self.read, source)
        separate, within = self.separate, self.within
        outside = None
        if within is not None and any(within.masked):
            outside = ~own_part(self.record, within.read, source)[0]
        for channel, (own, scheme) in enumerate(zip(values, self.schemes, strict=True)):
            facts = self.facts.channels[channel]
            known = self.statistics[channel] if channel < len(self.statistics) else None
            made = normalize_part(finite(own), scheme, facts, known)
            if outside is not None and within is not None and within.masked[channel]:
                made[outside] = 0
            first = [step for step in steps if step.axis != separate]
            for step in first:
                made = step(made)
            if self._clips:
                made = made.clip(*self._limits(facts, scheme, known, source))
            for step in steps[len(first) :]:
                made = step(made)
            out[channel] = made

    @property
    def _clips(self) -> bool:
        """Whether what is interpolated must not leave the range of the values."""
        rule, record = self.rule, self.record
        changes = record.cropped_shape != record.network_shape
        return changes and rule.function == "resample_data_or_seg_to_shape" and rule.order > 1

    def _limits(
        self, facts: ChannelFacts, scheme: NormalizationScheme, known: IntensityStatistics | None, source: Box3
    ) -> tuple[Any, Any]:
        """Return the normalised smallest and largest value, of everything or of every plane of the separate axis."""
        bounds = []
        for ends in (facts.low, facts.high):
            values = normalize_part(np.array(ends, dtype=np.float32), scheme, facts, known)
            if (axis := self.separate) is not None:
                shape = [1, 1, 1]
                shape[axis] = -1
                values = values[slice(*source[axis])].reshape(shape)
            bounds.append(values)
        return bounds[0], bounds[1]


def own_part(record: PrepareRecord, read: Read, source: Box3) -> NDArray[Any]:
    """Read a box of the cropped image (transposed order) with what reads boxes of the image in its own order.

    Returns
    -------
    ndarray, shape (C, z, y, x)
        In transposed order.
    """
    forward = record.transpose_forward
    box = [(lo + first, hi + first) for (lo, hi), (first, _) in zip(source, record.box, strict=True)]
    z, y, x = (box[forward.index(axis)] for axis in range(3))
    return read((z, y, x)).transpose(0, *(axis + 1 for axis in forward))


def finite(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return a new array of float32, with 0 where there is no number."""
    with np.errstate(over="ignore"):
        known = np.array(values, dtype=np.float32, order="C")
    if values.dtype.kind == "f":
        known[~np.isfinite(values)] = 0
    return known
