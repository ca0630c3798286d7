"""How large a model takes voxels to be."""

from __future__ import annotations

from collections.abc import Sequence

from napari_nnunet.schema.geometry import INSIDE, Geometry
from napari_nnunet.schema.plans import Configuration, Plans

_FEW = 10.0


def counts_voxels(plans: Plans, configuration: Configuration) -> bool:
    """Whether a model was trained on images without a voxel size, so that it takes every voxel for 1 x 1 x 1.

    nnU-Net never knows the pixel size of pictures, and that of TIFF stacks only from a JSON file beside them.
    """
    if plans.reader == "NaturalImage2DIO":
        return True
    if plans.reader != "Tiff3DIO":
        return False
    first = 3 - len(configuration.spacing)
    sizes = [size[first:] for size in trained_sizes(plans, configuration)]
    # A configuration may work at a multiple of a voxel (2 x 2 x 2); micrometres were written by somebody.
    return set(sizes[-1]) == {1.0} and all(1 / _FEW <= v <= _FEW for v in sizes[0])


def as_trained(plans: Plans, configuration: Configuration, geometry: Geometry) -> Geometry:
    """Return the grid on which a model sees an image.

    The grid itself, but for a model that was trained on images without a voxel size: sizes inside of TIFFs and
    pictures, which nnU-Net does not read, would contradict what it learnt.
    """
    if geometry.spacing_source in INSIDE and counts_voxels(plans, configuration):
        return Geometry(spacing=(1.0,) * geometry.ndim, spacing_known=False, remarks=geometry.remarks)
    return geometry


def trained_sizes(plans: Plans, configuration: Configuration) -> list[tuple[float, float, float]]:
    """Return the voxel sizes a model knows in transposed order: the one it works at, then the median of its cases."""
    median = plans.raw.get("original_median_spacing_after_transp")
    known = _three(median) if isinstance(median, Sequence) and len(median) == 3 else None
    own = configuration.spacing
    if len(own) == 2:
        own = (known[0] if known else 999.0 * max(own), *own)
    works_at = (own[0], own[1], own[2])
    if known is None:
        return [works_at]
    # The first stage of a cascade works at a coarser size than that of its cases.
    return [known] if configuration.next_stage else [works_at, known]


def _three(numbers: Sequence[float]) -> tuple[float, float, float]:
    z, y, x = (float(number) for number in numbers)
    return z, y, x
