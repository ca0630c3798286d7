"""A training case on the network grids of several configurations, from one reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.image.locations import class_locations, location_keys
from napari_nnunet.engine.image.normalize import normalize
from napari_nnunet.engine.image.prepare import (
    Box3,
    PrepareRecord,
    both_sizes,
    content_mask,
    fill_holes,
    nonzero_box,
    plan_grid,
    read_crop,
    require_grid_room,
)
from napari_nnunet.engine.image.resample import resample_image, resample_labels
from napari_nnunet.engine.image.voxel_size import as_trained
from napari_nnunet.errors import ImageError, counted
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.geometry import Geometry, lift, lift_shape
from napari_nnunet.schema.plans import Configuration, Plans
from napari_nnunet.volume import Volume

_LOST = 0.1  # of a voxel: an axis that keeps less has nothing left to learn of


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case as one configuration trains on it.

    Parameters
    ----------
    configuration : Configuration
        Whose grid this is.
    data : ndarray of float32, shape (C, z, y, x)
        Cropped, normalised, resampled.
    labels : ndarray of int16, shape (1, z, y, x)
        -1 outside the image's content.
    record : PrepareRecord
        How to get back.
    properties : dict
        What nnU-Net stores beside: geometry, crop box, class locations.
    """

    configuration: Configuration
    data: NDArray[np.float32]
    labels: NDArray[np.int16]
    record: PrepareRecord
    properties: dict[str, Any]


def prepare_case(
    volume: Volume,
    labels: NDArray[np.integer],
    plans: Plans,
    configurations: Sequence[Configuration],
    scheme: LabelScheme,
) -> Iterator[PreparedCase]:
    """Bring a training case to the grids of several configurations, one after the other.

    The image is cropped once, and normalised once for all configurations that normalise alike.

    Parameters
    ----------
    volume : Volume
        The image.
    labels : ndarray of int, shape ([Z,] Y, X)
        Its reference, on the same grid.
    plans, configurations
        The rules.
    scheme : LabelScheme
        Which classes are located.

    Yields
    ------
    PreparedCase
        Those that normalise alike one after the other.

    Raises
    ------
    ImageError
        If channels are missing, shapes differ, values are not finite or cannot be normalised.
    ResourceError
        If the resampled image cannot fit into memory.
    """
    _check(volume, labels, configurations)
    shape, geometry = volume.shape_3d, volume.geometry
    array = lift(volume.array, channels=True)
    mask = np.transpose(content_mask(array), plans.transpose_forward)
    box = nonzero_box(mask)
    slices = tuple(slice(lo, hi) for lo, hi in box)
    inside = fill_holes(mask)[slices]
    del mask
    reference = np.transpose(lift(labels), plans.transpose_forward)[slices]
    marked = np.ascontiguousarray(reference, dtype=np.int16)
    marked[(marked == 0) & ~inside] = -1
    del inside, reference, labels, volume  # where the caller holds no reference either, this frees most of a case
    groups: dict[tuple[Any, ...], list[Configuration]] = {}
    for configuration in configurations:
        groups.setdefault((configuration.normalization_schemes, configuration.use_mask_for_norm), []).append(
            configuration
        )
    while groups:
        _, group = groups.popitem()
        normalised = _normalised(array, plans, group[0], box, marked)
        if not groups:
            del array
        for configuration in group:
            record = plan_grid(shape, as_trained(plans, configuration, geometry).spacing_3d, plans, configuration, box)
            require_voxels(record, configuration.name)
            yield _resampled(normalised, marked, record, geometry, configuration, scheme)


def require_voxels(record: PrepareRecord, name: str) -> None:
    """Refuse a case of which next to nothing would be left; one axis of less than a voxel is kept, and said."""
    grids = zip(record.cropped_shape, record.spacing, record.network_spacing, strict=True)
    if sum(old / new * n < _LOST for n, old, new in grids) > 1:
        raise ImageError(f"{both_sizes(record)}. Is the voxel size of {name} right?")


def _check(volume: Volume, labels: NDArray[np.integer], configurations: Sequence[Configuration]) -> None:
    expected = len(configurations[0].normalization_schemes)
    if volume.channels != expected:
        plural = "s" if volume.channels > 1 else ""
        raise ImageError(f"The image has {volume.channels} channel{plural}, but the dataset has {expected}.")
    shape = lift_shape(labels.shape)
    if shape != volume.shape_3d:
        raise ImageError(f"The image has {volume.shape_3d} voxels, its labels have {tuple(shape)}.")


def _normalised(
    array: Any, plans: Plans, configuration: Configuration, box: Box3, marked: NDArray[np.int16]
) -> NDArray[np.float32]:
    data, invalid = read_crop(array, plans.transpose_forward, box)
    if invalid:
        raise ImageError(
            f"The image holds {counted(invalid, 'voxel that is', 'voxels that are')} NaN or infinite. Replace "
            f"{'it' if invalid == 1 else 'them'} before training."
        )
    for c, scheme in enumerate(configuration.normalization_schemes):
        statistics = plans.intensities[c] if c < len(plans.intensities) else None
        # Not the filled mask itself: labelled voxels outside it count as content.
        mask = marked >= 0 if configuration.use_mask_for_norm[c] else None
        normalize(data[c], scheme, mask=mask, statistics=statistics)
    return data


def _resampled(
    data: NDArray[np.float32],
    marked: NDArray[np.int16],
    record: PrepareRecord,
    geometry: Geometry,
    configuration: Configuration,
    scheme: LabelScheme,
) -> PreparedCase:
    require_grid_room(record, len(data))
    grids = (record.network_shape, record.spacing, record.network_spacing)
    resampled = resample_image(data, *grids, configuration.resample_data)
    labels = resample_labels(marked, *grids, configuration.resample_seg)
    properties = {
        **geometry.properties(),
        **record.properties(),
        "class_locations": class_locations(labels, location_keys(scheme)),
    }
    return PreparedCase(configuration, resampled, labels[None], record, properties)
