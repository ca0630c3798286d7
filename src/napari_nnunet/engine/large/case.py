"""A training case that is never in memory as a whole: what must be known of all of it, and any part of its arrays.

The parts are those of :mod:`napari_nnunet.engine.image.prepare_case`, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.image.prepare import Box3, PrepareRecord, plan_grid
from napari_nnunet.engine.image.prepare_case import require_voxels
from napari_nnunet.engine.image.resample import label_part_source, resample_label_part
from napari_nnunet.engine.image.voxel_size import as_trained
from napari_nnunet.engine.large.boxes import Shape3
from napari_nnunet.engine.large.holes import HoleSearch
from napari_nnunet.engine.large.parts import Preparation, Read, Within, own_part
from napari_nnunet.engine.large.survey import ChannelFacts, ContentScan, ImageFacts, Scan
from napari_nnunet.errors import ImageError, ResourceError
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.plans import Configuration, Plans

_WORK = 40  # bytes per voxel of a slab: masks, numbers of parts, labels
_MOST_SLAB = 3.2e7  # voxels
_MASKED = "ZScoreNormalization"


@dataclass(frozen=True, eq=False)
class CaseSource:
    """An image and its labels, of which boxes are read, in their own order.

    Parameters
    ----------
    image, labels : callable
        Read a box; (C, z, y, x) and (1, z, y, x). Labels are whole numbers that the dataset knows.
    shape : tuple of int
        (z, y, x).
    channels, itemsize : int
        Of the image; bytes of a stored value.
    """

    image: Read
    labels: Read
    shape: Shape3
    channels: int
    itemsize: int

    def slabs(self, allowed: float) -> list[Box3]:
        """Cut the case along its first axis into slabs of whole planes that are worked on within a number of bytes.

        Raises
        ------
        ResourceError
            If not even a plane fits.
        """
        depth, height, width = self.shape
        each = float(height * width) * (self.channels * (2 * self.itemsize + 8) + _WORK)
        if each > allowed:
            raise ResourceError(
                f"A plane of {height} x {width} voxels takes {each / 1e9:.1f} GB while it is worked on, but only "
                f"{max(allowed, 0) / 1e9:.1f} GB are left for it. Allow more memory, or cut the image into parts."
            )
        step = max(1, int(min(allowed / each, _MOST_SLAB / (height * width))))
        return [((z, min(z + step, depth)), (0, height), (0, width)) for z in range(0, depth, step)]


@dataclass(frozen=True, eq=False)
class SurveyedCase:
    """What was found out about a whole case.

    Parameters
    ----------
    slabs : sequence of Box3
        As it was looked at.
    along : mapping of (int or None) to ImageFacts
        Facts whose limits are of each plane of an axis (the image's own order), or of everything.
    holes : HoleSearch
        Tells image from what lies around it; knows the slabs by their numbers.
    """

    slabs: Sequence[Box3]
    along: Mapping[int | None, ImageFacts]
    holes: HoleSearch

    @property
    def box(self) -> Box3:
        """Half-open box around what is not 0, in the image's own order."""
        return next(iter(self.along.values())).box

    def within(self, slab: Box3) -> tuple[slice, ...]:
        """Return where in a slab that box is."""
        ends = zip(self.box, slab, strict=True)
        return tuple(slice(max(lo - first, 0), max(min(hi, last) - first, 0)) for (lo, hi), (first, last) in ends)


def survey_case(source: CaseSource, axes: Iterable[int | None], slabs: Sequence[Box3]) -> SurveyedCase:
    """Look at a whole image once.

    Parameters
    ----------
    source : CaseSource
        The case.
    axes : iterable of int or None
        Own axes whose planes have limits of their own.
    slabs : sequence of Box3
        See :meth:`CaseSource.slabs`.

    Raises
    ------
    ImageError
        If values are NaN or infinite.
    """
    scans = {axis: Scan(source.channels, source.shape, axis) for axis in axes}
    holes = HoleSearch()
    for slab in slabs:
        part = source.image(slab)
        for scan in scans.values():
            scan.add([lo for lo, _ in slab], part)
        holes.add((part != 0).any(axis=0))
    holes.finish()
    found = {axis: scan.facts() for axis, scan in scans.items()}
    invalid = next(iter(found.values())).invalid
    if invalid:
        raise ImageError(f"The image holds {invalid} voxels that are NaN or infinite. Replace them before training.")
    return SurveyedCase(slabs, found, holes)


def marked_slabs(source: CaseSource, facts: SurveyedCase) -> Iterator[tuple[Box3, NDArray[np.int16]]]:
    """Give the labels slab by slab, with -1 where there is neither image nor label; all of them, so that all are read.

    Yields
    ------
    tuple of (Box3, ndarray of int16, shape (z, y, x))
        In the image's own order.
    """
    for number, slab in enumerate(facts.slabs):
        marked = np.array(source.labels(slab)[0], dtype=np.int16)
        if facts.holes.has_background(number):
            mask = (source.image(slab) != 0).any(axis=0)
            marked[(marked == 0) & ~facts.holes.inside(number, mask)] = -1
        yield slab, marked


def survey_content(source: CaseSource, facts: SurveyedCase, marked: Read) -> dict[int | None, tuple[ChannelFacts, ...]]:
    """Look once more at an image, for the intensities of what is image or label alone.

    Parameters
    ----------
    source, facts
        The case, and what is known of it.
    marked : callable
        Reads a box (1, z, y, x) of the labels with -1.

    Returns
    -------
    dict of (int or None) to tuple of ChannelFacts
        For each axis of ``facts.along``.
    """
    scans = {axis: ContentScan(source.channels, facts.box, axis) for axis in facts.along}
    for slab in facts.slabs:
        place = facts.within(slab)
        content = marked(slab)[0][place] >= 0
        if not content.size:
            continue
        origin = [lo + part.start for (lo, _), part in zip(slab, place, strict=True)]
        part = source.image(slab)[(slice(None), *place)]
        for scan in scans.values():
            scan.add(origin, part, content)
    return {axis: scan.facts() for axis, scan in scans.items()}


def limited_axes(
    shape: Sequence[int], geometry: Geometry, plans: Plans, configurations: Iterable[Configuration]
) -> dict[str, int | None]:
    """Return for each configuration the image's own axis whose planes are limited one by one, None where none is."""
    axes = {}
    for configuration in configurations:
        record = _record(shape, geometry, plans, configuration, None)
        nothing = ImageFacts(((0, 0), (0, 0), (0, 0)), 0, 0, ())
        separate = Preparation(_nothing, record, configuration.resample_data, (), (), nothing).separate
        axes[configuration.name] = None if separate is None else record.transpose_forward[separate]
    return axes


def _nothing(_: Box3) -> NDArray[Any]:
    return np.zeros((1, 1, 1, 1), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class CaseParts:
    """Any part of what one configuration trains on.

    Parameters
    ----------
    preparation : Preparation
        Of the image.
    marked : callable
        Reads a box (1, z, y, x) of the labels with -1, in the image's own order.
    configuration : Configuration
        Whose grid this is.
    """

    preparation: Preparation
    marked: Read
    configuration: Configuration

    @classmethod
    def of(
        cls,
        source: CaseSource,
        facts: ImageFacts,
        marked: Read,
        geometry: Geometry,
        plans: Plans,
        configuration: Configuration,
        content: Sequence[ChannelFacts] | None = None,
    ) -> CaseParts:
        """Work out the grids of a case; raises ImageError where next to nothing would be left of it.

        ``content`` are the intensities of what is image or label alone, where something else lies in the box.
        """
        z, y, x = (facts.box[axis] for axis in plans.transpose_forward)
        record = _record(source.shape, geometry, plans, configuration, (z, y, x))
        require_voxels(record, configuration.name)
        schemes, rule = configuration.normalization_schemes, configuration.resample_data
        within = None
        if content is not None:
            masked = masked_channels(configuration)
            within = Within(lambda box: marked(box) >= 0, masked)
            known = zip(masked, content, facts.channels, strict=True)
            facts = replace(facts, channels=tuple(own if inner else whole for inner, own, whole in known))
        preparation = Preparation(source.image, record, rule, schemes, plans.intensities, facts, within=within)
        return cls(preparation, marked, configuration)

    @property
    def record(self) -> PrepareRecord:
        """The grids."""
        return self.preparation.record

    def image(self, box: Box3) -> NDArray[np.float32]:
        """Return a box (transposed order) of the image, (C, z, y, x)."""
        return self.preparation.part(box)

    def labels(self, box: Box3) -> NDArray[np.int16]:
        """Return a box of the labels, (z, y, x)."""
        record, rule = self.record, self.configuration.resample_seg
        sizes, target = record.cropped_shape, record.network_shape
        unchanged = rule.function == "no_resampling_hack" or sizes == target
        z, y, x = list(box) if unchanged else label_part_source(sizes, target, box)
        labels = own_part(record, self.marked, (z, y, x))[0]
        return np.asarray(resample_label_part(labels, sizes, target, box, record.spacing, record.network_spacing, rule))


def _record(
    shape: Sequence[int], geometry: Geometry, plans: Plans, configuration: Configuration, box: Box3 | None
) -> PrepareRecord:
    spacing = as_trained(plans, configuration, geometry).spacing_3d
    record = plan_grid(shape, spacing, plans, configuration, box)
    if configuration.resample_data.function == "no_resampling_hack":
        record = replace(record, network_shape=record.cropped_shape)
    return record


def masked_channels(configuration: Configuration) -> tuple[bool, ...]:
    """Return for each channel whether it is normalised by what lies within the image's content only."""
    pairs = zip(configuration.use_mask_for_norm, configuration.normalization_schemes, strict=True)
    return tuple(use and scheme == _MASKED for use, scheme in pairs)
