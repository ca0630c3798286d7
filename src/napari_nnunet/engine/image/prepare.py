"""From the image grid to the network grid, and the record that leads back.

This is the only module that understands both grids. ``Z, Y, X`` below is the image's own axis order; ``z, y, x`` is the
transposed order in which the network sees it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_nnunet.engine.image.normalize import normalize
from napari_nnunet.engine.image.resample import new_shape, resample_image, resample_labels
from napari_nnunet.engine.image.voxel_size import as_trained
from napari_nnunet.engine.machine import available_memory
from napari_nnunet.errors import ImageError, ResourceError, counted, some
from napari_nnunet.schema.geometry import lift
from napari_nnunet.schema.plans import Configuration, Plans
from napari_nnunet.volume import Volume

if TYPE_CHECKING:
    from torch import Tensor

Box3 = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
_SLAB_BYTES = 64e6  # how much of a lazily read image is held at once
_CERTAIN_BYTES = 256e6  # what fits without a look at how much is free


@dataclass(frozen=True)
class PrepareRecord:
    """What :func:`prepare` did; all shapes and boxes in transposed order.

    Parameters
    ----------
    transpose_forward : tuple of int
        Image axis behind each network axis.
    shape : tuple of int
        Spatial shape of the image.
    box : tuple of (int, int)
        Half-open box of the nonzero part.
    spacing : tuple of float
        Voxel size of the image in mm.
    network_shape : tuple of int
        Shape after resampling.
    network_spacing : tuple of float
        Voxel size the network sees.
    notes : tuple of str
        What the user should know (invalid voxels, an empty image).
    """

    transpose_forward: tuple[int, int, int]
    shape: tuple[int, int, int]
    box: Box3
    spacing: tuple[float, float, float]
    network_shape: tuple[int, int, int]
    network_spacing: tuple[float, float, float]
    notes: tuple[str, ...] = field(default=())

    @property
    def cropped_shape(self) -> tuple[int, int, int]:
        """Shape of the nonzero part at the image's resolution."""
        (z0, z1), (y0, y1), (x0, x1) = self.box
        return z1 - z0, y1 - y0, x1 - x0

    def crop_slices(self) -> tuple[slice, slice, slice]:
        """Slices of the nonzero part in the transposed image."""
        z, y, x = (slice(lo, hi) for lo, hi in self.box)
        return z, y, x

    def properties(self) -> dict[str, Any]:
        """Return nnU-Net's names for the same facts."""
        return {
            "shape_before_cropping": tuple(self.shape),
            "bbox_used_for_cropping": [list(pair) for pair in self.box],
            "shape_after_cropping_and_before_resampling": tuple(self.cropped_shape),
        }


def plan_grid(
    shape: Sequence[int],
    spacing: Sequence[float],
    plans: Plans,
    configuration: Configuration,
    box: Box3 | None = None,
    notes: tuple[str, ...] = (),
) -> PrepareRecord:
    """Work out the network grid of an image without touching its voxels.

    Parameters
    ----------
    shape, spacing : sequence
        (Z, Y, X) voxels and mm, in the image's own order.
    plans, configuration
        Where the transposition and the target spacing come from.
    box : tuple, optional
        Nonzero part in transposed order; the whole image if not given.
    notes : tuple of str
        Passed on.

    Notes
    -----
    An axis that would round to 0 voxels keeps one; nnU-Net would make an empty array of it.
    """
    forward = plans.transpose_forward
    z, y, x = (int(shape[a]) for a in forward)
    dz, dy, dx = (float(spacing[a]) for a in forward)
    whole: Box3 = ((0, z), (0, y), (0, x))
    box = box or whole
    target = configuration.spacing
    goal = (dz, *target) if len(target) == 2 else target
    cropped = [hi - lo for lo, hi in box]
    rounded = new_shape(cropped, (dz, dy, dx), goal)
    nz, ny, nx = (max(1, n) for n in rounded)
    if 0 in rounded:
        notes = (
            *notes,
            f"At the model's voxel size of {_mm(goal)} this image would be thinner than one voxel; one voxel is kept. "
            "Check the voxel size of the image.",
        )
    return PrepareRecord(forward, (z, y, x), box, (dz, dy, dx), (nz, ny, nx), (goal[0], goal[1], goal[2]), notes)


def require_grid_room(record: PrepareRecord, channels: int) -> None:
    """Raise ResourceError if an image on the network grid is larger than the free memory; nothing is allocated."""
    needed = 4.0 * channels * math.prod(record.network_shape)
    if needed < _CERTAIN_BYTES:
        return
    free = available_memory()
    if needed > free:
        raise ResourceError(
            f"{both_sizes(record)}, which take {needed / 1e9:,.1f} GB; {free / 1e9:,.1f} GB of memory are free. Is the "
            "voxel size right?"
        )


def both_sizes(record: PrepareRecord) -> str:
    """Return the beginning of a sentence: what an image has, and what it would have on the network grid."""
    return (
        f"Resampled from {_times(record.cropped_shape)} voxels of {_mm(record.spacing)} to voxels of "
        f"{_mm(record.network_spacing)}, the image would have {_times(record.network_shape)} voxels"
    )


def _times(numbers: Sequence[int]) -> str:
    return " x ".join(str(n) for n in numbers)


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{s:g}" for s in spacing) + " mm"


def nonzero_box(mask: NDArray[np.bool_]) -> Box3:
    """Return the tight half-open box around True, or the full extent if there is none."""
    box = []
    for axis in range(3):
        line = mask.any(axis=tuple(a for a in range(3) if a != axis))
        where = np.flatnonzero(line)
        box.append((int(where[0]), int(where[-1]) + 1) if where.size else (0, mask.shape[axis]))
    return box[0], box[1], box[2]


def crop_to_nonzero(data: NDArray[Any], labels: NDArray[Any] | None = None) -> tuple[NDArray[Any], NDArray[Any], Box3]:
    """Crop to the nonzero part and mark what lies outside it with -1.

    Parameters
    ----------
    data : ndarray, shape (C, z, y, x)
        NaN counts as nonzero.
    labels : ndarray, shape (1, z, y, x), optional
        Label 0 outside the filled mask becomes -1.

    Returns
    -------
    data, labels, box
        The cropped arrays; without ``labels`` they are int8, 0 inside and -1 outside.
    """
    mask = (data != 0).any(axis=0)
    box = nonzero_box(mask)
    slices = tuple(slice(lo, hi) for lo, hi in box)
    inside = fill_holes(mask)[slices][None]
    cropped = data[(slice(None), *slices)]
    if labels is None:
        return cropped, np.where(inside, np.int8(0), np.int8(-1)), box
    marked = labels[(slice(None), *slices)].copy()
    marked[(marked == 0) & ~inside] = -1
    return cropped, marked, box


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill holes of a 3-D mask that no path of face neighbours connects to the border.

    Equal to scipy's ``binary_fill_holes`` but by labelling the background once.
    """
    if min(mask.shape) < 3 or mask.all():
        return mask  # every voxel touches the border along a thin axis, so nothing can be enclosed
    background, count = ndimage.label(~mask)
    if count == 0:
        return mask
    outside = np.zeros(count + 1, dtype=bool)
    for axis in range(3):
        for end in (0, -1):
            outside[np.unique(np.take(background, end, axis=axis))] = True
    outside[0] = False
    filled: NDArray[np.bool_] = ~outside[background]
    return filled


def content_mask(array: Any) -> NDArray[np.bool_]:
    """Return where any channel is nonzero, (Z, Y, X), reading the image in slabs."""
    shape = array.shape[1:]
    mask = np.empty(shape, dtype=bool)
    for lo, hi in _slabs(array):
        mask[lo:hi] = (np.asarray(array[:, lo:hi]) != 0).any(axis=0)
    return mask


def _slabs(array: Any) -> list[tuple[int, int]]:
    per_slice = float(np.prod([array.shape[0], *array.shape[2:]])) * 8
    step = max(1, int(_SLAB_BYTES // max(per_slice, 1)))
    return [(lo, min(lo + step, array.shape[1])) for lo in range(0, array.shape[1], step)]


def prepare(
    volume: Volume,
    plans: Plans,
    configuration: Configuration,
    *,
    previous: NDArray[Any] | None = None,
    foreground_labels: Sequence[int] = (),
    device: Any = "cpu",
    roi: Sequence[tuple[int, int]] | None = None,
) -> tuple[Tensor, PrepareRecord]:
    """Bring an image to the network grid: transpose, crop, normalise, resample.

    Parameters
    ----------
    volume : Volume
        The image; lazily loaded arrays are read slab by slab.
    plans, configuration
        The rules.
    previous : ndarray, shape (Z, Y, X), optional
        Segmentation of the previous stage on the image grid; becomes one channel per foreground label.
    foreground_labels : sequence of int
        Labels of those channels.
    device : torch.device or str
        Where to resample.
    roi : sequence of (int, int), optional
        Half-open box (Z, Y, X) that is wanted. Intensities are normalised by the whole image; the data are then cut to
        the box and half a window around it. If nothing of the box is nonzero, the record's box is empty.

    Returns
    -------
    data : Tensor of float32, shape (C, z, y, x)
        What the network gets, on the device.
    record : PrepareRecord
        How to get back.

    Raises
    ------
    ImageError
        If channels are missing or values cannot be normalised.
    ResourceError
        If the resampled image cannot fit into memory.
    """
    import torch  # the readers of training cases need this module, but no torch

    schemes = configuration.normalization_schemes
    if volume.channels != len(schemes):
        raise ImageError(
            f"The model expects {len(schemes)} channel{'s' if len(schemes) > 1 else ''}, "
            f"but the image has {volume.channels}."
        )
    array = lift(volume.array, channels=True)
    forward = plans.transpose_forward
    mask = np.transpose(content_mask(array), forward)
    box = nonzero_box(mask)
    notes = () if mask.any() else ("The image contains only zeros.",)
    needs_mask = any(
        use and scheme == "ZScoreNormalization"
        for use, scheme in zip(configuration.use_mask_for_norm, schemes, strict=True)
    )
    slices = tuple(slice(lo, hi) for lo, hi in box)
    inside = fill_holes(mask)[slices] if needs_mask else None
    del mask
    data, invalid = read_crop(array, forward, box)
    if invalid:
        notes = (*notes, f"{counted(invalid, 'voxel was', 'voxels were')} NaN or infinite and set to 0.")
    for c, scheme in enumerate(schemes):
        statistics = plans.intensities[c] if c < len(plans.intensities) else None
        normalize(data[c], scheme, mask=inside if configuration.use_mask_for_norm[c] else None, statistics=statistics)
    if roi is not None:
        outer = _with_margin(roi, volume, plans, configuration)
        data, box = _cut(data, box, outer)
    record = plan_grid(volume.shape_3d, _spacing(volume, plans, configuration), plans, configuration, box, notes)
    moved = torch.from_numpy(data).to(device)
    if data.size == 0:
        return moved, record
    require_grid_room(record, volume.channels if moved.device.type == "cpu" else 0)  # GPUs have memory of their own
    resampled = resample_image(
        moved, record.network_shape, record.spacing, record.network_spacing, configuration.resample_data
    )
    if previous is None:
        return resampled, record
    channels = _previous_channels(previous, record, configuration, foreground_labels)
    return torch.cat((resampled, torch.from_numpy(channels).to(device))), record


def read_crop(array: Any, forward: tuple[int, int, int], box: Box3) -> tuple[NDArray[np.float32], int]:
    """Read the box (transposed order) into a new float32 array (C, z, y, x); NaN and Inf become 0 and are counted."""
    backward = [forward.index(a) for a in range(3)]
    own = [box[backward[a]] for a in range(3)]
    image = np.empty((array.shape[0], *(hi - lo for lo, hi in box)), dtype=np.float32)
    view = image.transpose(0, *(b + 1 for b in backward))
    invalid = 0
    for lo, hi in _slabs(array):
        lo, hi = max(lo, own[0][0]), min(hi, own[0][1])
        if lo >= hi:
            continue
        slab = np.asarray(array[:, lo:hi])[:, :, own[1][0] : own[1][1], own[2][0] : own[2][1]]
        if slab.dtype.kind == "f":
            bad = ~np.isfinite(slab)
            if bad.any():
                invalid += int(bad.sum())
                slab = np.where(bad, 0, slab)
        view[:, lo - own[0][0] : hi - own[0][0]] = slab
    return image, invalid


def _spacing(volume: Volume, plans: Plans, configuration: Configuration) -> tuple[float, float, float]:
    return as_trained(plans, configuration, volume.geometry).spacing_3d


def _with_margin(
    roi: Sequence[tuple[int, int]], volume: Volume, plans: Plans, configuration: Configuration
) -> list[tuple[float, float]]:
    """Return the region in transposed order with half a window of context on every side."""
    forward = plans.transpose_forward
    spacing = [_spacing(volume, plans, configuration)[a] for a in forward]
    target = configuration.spacing if len(configuration.spacing) == 3 else (spacing[0], *configuration.spacing)
    context = [
        0.0 if p == 1 else p / 2 * goal / own
        for p, goal, own in zip(configuration.patch_3d, target, spacing, strict=True)
    ]
    return [(roi[a][0] - c, roi[a][1] + c) for a, c in zip(forward, context, strict=True)]


def _cut(
    data: NDArray[np.float32], box: Box3, outer: Sequence[tuple[float, float]]
) -> tuple[NDArray[np.float32], Box3]:
    inner = []
    for (lo, hi), (first, last) in zip(box, outer, strict=True):
        start, stop = max(lo, int(np.floor(first))), min(hi, int(np.ceil(last)))
        inner.append((start, max(start, stop)))
    slices = tuple(slice(a - lo, b - lo) for (a, b), (lo, _) in zip(inner, box, strict=True))
    return np.ascontiguousarray(data[(slice(None), *slices)]), (inner[0], inner[1], inner[2])


def _previous_channels(
    previous: NDArray[Any], record: PrepareRecord, configuration: Configuration, labels: Sequence[int]
) -> NDArray[np.float32]:
    """Resample the previous stage's labels and return one channel per foreground label."""
    if tuple(previous.shape) != tuple(record.shape[record.transpose_forward.index(a)] for a in range(3)):
        raise ImageError(
            f"The previous stage's segmentation has shape {tuple(previous.shape)}, not the image's. "
            "Predict the previous stage on the same image."
        )
    unknown = sorted(set(np.unique(previous).tolist()) - {0, *labels})
    if unknown:
        raise ImageError(
            f"The previous stage's segmentation contains the label{'s' if len(unknown) > 1 else ''} "
            f"{some(unknown)}, which dataset.json does not define; "
            f"it has 0, {', '.join(map(str, labels))}."
        )
    cropped = np.ascontiguousarray(np.transpose(previous, record.transpose_forward)[record.crop_slices()])
    resampled = resample_labels(
        cropped, record.network_shape, record.spacing, record.network_spacing, configuration.resample_seg
    )
    return np.stack([(resampled == label) for label in labels]).astype(np.float32)
