"""From finished slabs of logits to labels and probabilities on the image grid.

Where the image has more voxels than the network grid has points, nothing is interpolated where the corners of a cell
agree. Elsewhere planes are interpolated, and all classes of a plane compared at once; for probabilities class by class.
Neither the logits nor the probabilities of a whole volume are ever held unless the caller asks for probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_nnunet.engine.image.axis_operators import nearest_index, take
from napari_nnunet.engine.image.prepare import PrepareRecord
from napari_nnunet.engine.prediction.cells import ClassComparison, Corners, Points, decided
from napari_nnunet.engine.prediction.sampling import CornerSampling, Samplings, plane_axes, samplings
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.plans import Resampling
from napari_nnunet.schema.requests.prediction import Average

_CHUNK_VOXELS = 16e6  # float32 values of one interpolated piece
_CHUNK_ON_DEVICE = 64e6  # of one on a GPU, where all channels of it are interpolated together
_CELL_VOXELS = 2.5e5  # voxels of the image that are decided together, by the corners of their cells
_OPEN = 1.2  # what a voxel that stays open costs by itself, compared with one of an interpolated plane
_USUALLY_OPEN = 0.2  # of all voxels, as long as nothing was looked at
_PIECES = 8  # of what is written at once, at least, so that not much is lost where the first one leaves most open
_TWO = 2  # classes, for which one channel at a time is quicker
_FEW_CLASSES = 16  # up to which planes are quicker
_HEADS_AT_ONCE = 8  # classes per product with the features, so that these are read from memory less often


class Assembler:
    """Turns finished slabs into labels, in any order of slabs.

    Parameters
    ----------
    record : PrepareRecord
        The grids.
    scheme : LabelScheme
        Classes or regions.
    rule : Resampling
        ``resample_probabilities`` of the plans.
    labels : ndarray, shape (Z, Y, X)
        Written in place, in the image's own axis order.
    probabilities : ndarray, shape (C, Z, Y, X), optional
        Written in place as well; may be a memory map.
    head : tuple of Tensor, optional
        Weights (C, K) and biases (C,) that turn the K features that are pushed into logits; none for logits.
    average : {"logits", "probabilities"}
        What is pushed.
    axes : tuple of AxisSampling, optional
        The way back where the grids are parts of larger ones (:func:`~.sampling.sampling_parts`).
    at_once : float
        Values that are interpolated together.
    """

    def __init__(
        self,
        record: PrepareRecord,
        scheme: LabelScheme,
        rule: Resampling,
        labels: NDArray[Any],
        probabilities: NDArray[np.float32] | None = None,
        head: tuple[Tensor, Tensor] | None = None,
        average: Average = "logits",
        axes: Samplings | None = None,
        at_once: float = _CHUNK_VOXELS,
    ) -> None:
        self.record = record
        self.average = average
        self.head = head
        self.scheme = scheme
        forward = record.transpose_forward
        self._labels = labels.transpose(forward)[record.crop_slices()]
        self._probabilities = None
        if probabilities is not None:
            if not scheme.has_regions:
                probabilities[0] = 1  # outside the nonzero part everything is background
            moved = probabilities.transpose(0, *(a + 1 for a in forward))
            self._probabilities = moved[(slice(None), *record.crop_slices())]
        self._axes = axes or samplings(record, rule)
        self._corners = tuple(axis.corners for axis in self._axes)
        self._edges: dict[int, Tensor] = {}
        self._points: Points | None = None
        self._compared_by: ClassComparison | None = None
        self._together: CornerSampling | None = None
        self._at_once = at_once

    def begin(self) -> None:
        """Forget what waits for its neighbour: all slabs come anew."""
        self._edges.clear()

    def push(self, start: int, stop: int, logits: Tensor) -> list[tuple[int, int]]:
        """Take the mean logits (C, stop - start, y, x) of network planes; return the image planes written.

        Returns
        -------
        list of (int, int)
            Half-open ranges along the first (transposed) axis of the cropped image.
        """
        written = []
        inner = self._outputs_within(start, stop)
        if inner[0] < inner[1]:
            self._write(inner, logits, start)
            written.append(inner)
        size = self.record.network_shape[0]
        for boundary, plane in ((start, logits[:, :1]), (stop, logits[:, -1:])):
            if not 0 < boundary < size:
                continue
            between = self._outputs_across(boundary)
            if between[0] >= between[1]:
                continue
            other = self._edges.pop(boundary, None)
            if other is None:
                self._edges[boundary] = plane.clone()
                continue
            pair = (other, plane) if boundary == start else (plane, other)
            self._write(between, torch.cat(pair, dim=1), boundary - 1)
            written.append(between)
        return written

    def _outputs_within(self, start: int, stop: int) -> tuple[int, int]:
        lower, upper = self._corners[0].lower, self._corners[0].upper
        inside = np.flatnonzero((lower >= start) & (upper < stop))
        return (int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, 0)

    def _outputs_across(self, boundary: int) -> tuple[int, int]:
        lower, upper = self._corners[0].lower, self._corners[0].upper
        across = np.flatnonzero((lower < boundary) & (upper >= boundary))
        return (int(across[0]), int(across[-1]) + 1) if across.size else (0, 0)

    def _write(self, outputs: tuple[int, int], planes: Tensor, first: int) -> None:
        many = self.scheme.heads > _FEW_CLASSES and self._probabilities is None and planes.device.type == "cpu"
        if many and self._cells_pay(_USUALLY_OPEN):
            self._write_by_cells(outputs, planes, first)
        else:
            self._write_by_planes(outputs, planes, first)

    def _cells_pay(self, unclear: float) -> bool:
        """Whether comparing classes at network points, and at a share of the voxels, costs less than at all voxels."""
        points = math.prod(self.record.network_shape) / max(1, math.prod(self.record.cropped_shape))
        return points + _OPEN * unclear < 1

    def _write_by_cells(self, outputs: tuple[int, int], planes: Tensor, first: int) -> None:
        """Decide what the corners of the cells decide, and interpolate the rest."""
        if self._points is None:
            self._points = Points(self._corners[1:], self.record.network_shape[1:])
        self._points.start(planes.shape[0])
        _, height, width = self.record.cropped_shape
        step = max(1, min(int(_CELL_VOXELS // (height * width)), (outputs[1] - outputs[0]) // _PIECES))
        known: dict[int, Tensor] = {}
        for lo in range(outputs[0], outputs[1], step):
            hi = min(lo + step, outputs[1])
            z = self._corners[0].part(lo, hi, first)
            needed = np.union1d(z.lower, z.upper)
            known = {n: known[n] if n in known else self._winners(planes[:, n]) for n in needed.tolist()}
            axes = (z.among(needed), *self._corners[1:])
            found = decided(torch.stack(list(known.values())), axes)
            unclear = found < 0
            if not self._cells_pay(float(unclear.float().mean())):
                # What follows is most likely no clearer.
                self._write_by_planes((lo, outputs[1]), planes, first)
                return
            labels = self._labels_of(found.clamp_min_(0))
            self._decide(labels, unclear, self._points, planes, z)
            self._labels[lo:hi] = labels.numpy()

    def _decide(self, labels: Tensor, unclear: Tensor, points: Points, planes: Tensor, corners: Corners) -> None:
        """Interpolate the voxels (k, y, x) that are not clear, and write their labels."""
        comparison = self._comparison
        for plane, (where, own) in enumerate(zip(unclear.flatten(1), labels.flatten(1), strict=True)):
            for voxels in torch.nonzero(where)[:, 0].split(comparison.step):
                if len(voxels):
                    z = int(corners.lower[plane]), int(corners.upper[plane]), float(corners.weight[plane])
                    own[voxels] = self._labels_at(comparison.values(points(voxels, planes, *z).t()).contiguous())

    @property
    def _comparison(self) -> ClassComparison:
        """Compares classes at points, on a CPU."""
        if self._compared_by is None:
            self._compared_by = ClassComparison(self.scheme.heads, self.head)
        return self._compared_by

    def _winners(self, plane: Tensor) -> Tensor:
        """Return which class is ahead at the points of a network plane (K, y, x)."""
        return self._comparison.winners(plane, self._threshold if self.scheme.has_regions else None)

    def _labels_of(self, code: Tensor) -> Tensor:
        """Return the labels of classes, or of the last regions that are there."""
        if self.scheme.has_regions:
            code = torch.tensor((0, *(self.scheme.regions_class_order or ())))[code]
        return code.to(_label_type(self.scheme))

    def _labels_at(self, values: Tensor) -> Tensor:
        """Return the labels (n,) of the values (C, n) of single voxels."""
        if self.scheme.has_regions:
            return self._hard(iter(values))
        return self._labels_of(self._comparison.largest(values))

    def _write_by_whole_planes(self, outputs: tuple[int, int], planes: Tensor, first: int) -> None:
        """Interpolate all channels of an image plane together, and compare all classes while they are in the cache."""
        z = self._corners[0].part(*outputs, first)
        for n, (lower, upper, weight) in enumerate(zip(z.lower, z.upper, z.weight, strict=True), start=outputs[0]):
            plane = planes[:, lower]
            if upper != lower:
                plane = torch.lerp(plane, planes[:, upper], float(weight))
            for axis in plane_axes(self._axes):
                plane = self._axes[axis].apply(plane, axis)
            self._labels[n] = self._labels_of(self._comparison.best(plane)).numpy()

    def _write_by_planes(self, outputs: tuple[int, int], planes: Tensor, first: int) -> None:
        _, height, width = self.record.cropped_shape
        plain = self._probabilities is None and not self.scheme.has_regions and planes.device.type == "cpu"
        if plain and self.scheme.heads > _TWO and planes.shape[0] * height * width <= self._at_once:
            self._write_by_whole_planes(outputs, planes, first)
        else:
            self._write_class_by_class(outputs, planes, first)

    def _write_class_by_class(self, outputs: tuple[int, int], planes: Tensor, first: int) -> None:
        """Interpolate one class after the other, and keep the best so far; or all of them, for probabilities."""
        _, height, width = self.record.cropped_shape
        channels, at_once = 1, self._at_once
        if planes.device.type != "cpu":
            channels, at_once = planes.shape[0], _CHUNK_ON_DEVICE
        elif self.head is not None:
            channels = planes.shape[0]
        if self._probabilities is not None:
            channels = self.scheme.heads
        step = max(1, int(at_once // (channels * height * width)))
        for lo in range(outputs[0], outputs[1], step):
            hi = min(lo + step, outputs[1])
            logits = self._logits(planes, first, lo, hi)
            if self._probabilities is None:
                labels = self._hard(logits)
            else:
                probabilities = torch.stack(list(logits))
                if self.average == "logits":
                    turn = torch.sigmoid if self.scheme.has_regions else partial(torch.softmax, dim=0)
                    probabilities = turn(probabilities)
                self._probabilities[:, lo:hi] = probabilities.cpu().numpy()
                labels = decode_probabilities(probabilities, self.scheme)
            self._labels[lo:hi] = labels.cpu().numpy()

    def _interpolate(self, channel: Tensor, first: int, lo: int, hi: int) -> Tensor:
        """Return image planes ``lo:hi`` (k, y, x) of one channel given as network planes from ``first`` on."""
        z = self._axes[0]
        if z.index is not None:
            planes = take(channel, z.index[lo:hi] - first, 0)
        elif z.operator is None:
            planes = channel[lo - first : hi - first]
        else:
            corners = self._corners[0].part(lo, hi, first)
            weight = torch.tensor(corners.weight.astype(np.float32), device=channel.device)[:, None, None]
            below, above = take(channel, corners.lower, 0), take(channel, corners.upper, 0)
            planes = torch.lerp(below, above, weight)
        for axis in plane_axes(self._axes):
            planes = self._axes[axis].apply(planes, axis)
        return planes

    def _logits(self, planes: Tensor, first: int, lo: int, hi: int) -> Iterator[Tensor]:
        """Yield the logits of image planes ``lo:hi``, class by class."""
        if planes.device.type != "cpu":
            self._together = self._together or CornerSampling(self._axes, planes.device)
            channels: Iterable[Tensor] = self._together(planes, first, lo, hi)
        else:
            channels = (self._interpolate(channel, first, lo, hi) for channel in planes)
        if self.head is None:
            yield from channels
            return
        features = (channels if isinstance(channels, Tensor) else torch.stack(list(channels))).flatten(1)
        weights, biases = (tensor.to(features.device) for tensor in self.head)
        shape = (hi - lo, *self.record.cropped_shape[1:])
        for lowest in range(0, len(weights), _HEADS_AT_ONCE):
            some = slice(lowest, lowest + _HEADS_AT_ONCE)
            for logits in torch.addmm(biases[some, None], weights[some], features):
                yield logits.view(shape)

    def _hard(self, logits: Iterator[Tensor]) -> Tensor:
        """Return the first class with the largest logit, keeping only the best so far."""
        if self.scheme.has_regions:
            return self._hard_regions(logits)
        best = next(logits).clone()
        labels = torch.zeros(best.shape, dtype=_label_type(self.scheme), device=best.device)
        for c, candidate in enumerate(logits, start=1):
            labels.masked_fill_(candidate > best, c)
            torch.maximum(best, candidate, out=best)
        return labels

    @property
    def _threshold(self) -> float:
        """From which value on a voxel belongs to a region."""
        return 0.0 if self.average == "logits" else 0.5  # sigmoid(0) is 0.5

    def _hard_regions(self, logits: Iterator[Tensor]) -> Tensor:
        threshold = self._threshold
        first = next(logits)
        labels = torch.zeros(first.shape, dtype=_label_type(self.scheme), device=first.device)
        for value, candidate in zip(self.scheme.regions_class_order or (), chain([first], logits), strict=True):
            labels.masked_fill_(candidate > threshold, value)
        return labels


def _label_type(scheme: LabelScheme) -> torch.dtype:
    return torch.uint8 if scheme.dtype == "uint8" else torch.int32


def decode_probabilities(probabilities: Tensor, scheme: LabelScheme) -> Tensor:
    """Return labels for probabilities (C, ...): the largest class, or regions painted over one another."""
    if not scheme.has_regions:
        return probabilities.argmax(dim=0).to(_label_type(scheme))
    labels = torch.zeros(probabilities.shape[1:], dtype=_label_type(scheme), device=probabilities.device)
    for channel, value in zip(probabilities, scheme.regions_class_order or (), strict=True):
        labels.masked_fill_(channel > 0.5, value)
    return labels


def preview(
    logits: Tensor, start: tuple[int, int, int], assembler: Assembler
) -> tuple[NDArray[Any], tuple[tuple[int, int], ...]]:
    """Return quick labels of one window on the image grid, by nearest voxels.

    Parameters
    ----------
    logits : Tensor, shape (C, z, y, x)
        Logits (or features) of one window, already cut to the unpadded grid.
    start : tuple of int
        Its first voxel in the unpadded network grid.
    assembler : Assembler
        Knows grids, classes and the head.

    Returns
    -------
    labels : ndarray, shape (z', y', x')
        In transposed order.
    box : tuple of (int, int)
        Where they belong in the transposed, uncropped image.
    """
    record, scheme = assembler.record, assembler.scheme
    if assembler.head is not None:
        weights, biases = (tensor.to(logits.device) for tensor in assembler.head)
        logits = torch.einsum("ck,kzyx->czyx", weights, logits) + biases[:, None, None, None]
    turned = torch.sigmoid(logits) if scheme.has_regions and assembler.average == "logits" else logits
    decoded = decode_probabilities(turned, scheme).cpu().numpy()
    box = []
    for axis in range(3):
        size, new_size = record.network_shape[axis], record.cropped_shape[axis]
        index = nearest_index(size, new_size) - start[axis]
        inside = np.flatnonzero((index >= 0) & (index < decoded.shape[axis]))
        if not inside.size:
            return decoded[:0], ((0, 0),) * 3
        decoded = np.take(decoded, index[inside], axis=axis)
        offset = record.box[axis][0]
        box.append((int(inside[0]) + offset, int(inside[-1]) + 1 + offset))
    return decoded, tuple(box)


def slab_bytes(record: PrepareRecord, heads: int, planes: int) -> float:
    """Return the memory of the open sums, in bytes."""
    _, y, x = record.network_shape
    return 4.0 * (heads + 1) * planes * y * x


def workspace_bytes(record: PrepareRecord) -> float:
    """Return the memory of interpolating one piece of a slab, in bytes."""
    return 4.0 * 6 * min(_CHUNK_VOXELS, math.prod(record.cropped_shape))
