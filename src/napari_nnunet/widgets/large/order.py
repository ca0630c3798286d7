"""What is to be segmented block by block, and whether an image must be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from napari.layers import Image

from napari_nnunet.errors import ImageError, counted
from napari_nnunet.events import Job
from napari_nnunet.formats.large.corrections import by_hand
from napari_nnunet.formats.large.journal import OtherWorkError
from napari_nnunet.formats.large.label_image import ENDING, Destination
from napari_nnunet.formats.large.place import ImagePlace
from napari_nnunet.formats.large.source import LargeImage
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.memory import available_memory
from napari_nnunet.schema.geometry import GIVEN, Geometry
from napari_nnunet.schema.requests.large import PredictImageSettings
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.widgets.files.place import grid_of, time_of
from napari_nnunet.widgets.frame.layers import full_resolution, image_of_layers
from napari_nnunet.widgets.frame.ready import NotReadyError, Remedy
from napari_nnunet.widgets.frame.words import about_time, size_text, times_text
from napari_nnunet.widgets.frame.worker import lazy

if TYPE_CHECKING:
    from napari_nnunet.jobs.large.expected import ExpectedCost, expect_image
    from napari_nnunet.jobs.large.layer import predict_layer
    from napari_nnunet.jobs.large.predict_image import LargeResult
    from napari_nnunet.jobs.large.view import View
else:
    expect_image = lazy("napari_nnunet.jobs.large.expected:expect_image")
    predict_layer = lazy("napari_nnunet.jobs.large.layer:predict_layer")

#: What the form calls this way of putting out labels.
ON_DISK = "Labels on disk"
_PREPARED = 4  # bytes of a voxel of a channel, as the network gets it
_GB = 1e9


@dataclass(frozen=True, eq=False)
class LargeOrder:
    """An image that is segmented block by block into an OME-Zarr on disk.

    Parameters
    ----------
    model, settings
        As chosen.
    layers : list of Image
        One per channel, or one with all of them.
    axes : str
        How the axes of the first one are read.
    grid : Geometry
        The voxels as the model sees them.
    voxel_mm : tuple of float or None
        Their size in mm; None for pictures without one.
    target : Path
        Where the result goes.
    other : callable
        Proposes another name.
    cluster : str, optional
        Whose workers compute; None for this process.
    """

    model: TrainedModel
    settings: PredictSettings
    layers: list[Image]
    axes: str
    grid: Geometry
    voxel_mm: tuple[float, ...] | None
    target: Path
    other: Callable[[], object]
    cluster: str | None = None

    @property
    def source(self) -> Image:
        """The layer whose place the result takes."""
        return self.layers[0]

    @property
    def place(self) -> Destination:
        """Where the result is, and where it is kept until it is complete."""
        return Destination(self.target)

    @property
    def continues(self) -> bool:
        """Whether some of it was done before, in this session or another one."""
        return self.place.begun

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the layers were read from; none where one of them does not know its own."""
        paths = [getattr(getattr(layer, "source", None), "path", None) for layer in self.layers]
        return tuple(dict.fromkeys(Path(path) for path in paths if path)) if all(paths) else ()

    def image(self) -> LargeImage:
        """Return what is segmented; nothing is read."""
        channels = len(self.model.dataset.channel_names)
        image = image_of_layers(self.layers, self.axes, self.grid, channels=channels)
        return replace(image, place=place_of(self.source, self.axes, self.voxel_mm))

    @property
    def asked(self) -> PredictImageSettings:
        """How it is segmented: what was begun is continued."""
        return PredictImageSettings.like(self.settings, carry_on=True, cluster=self.cluster)

    def job(self, view: View) -> Job[LargeResult]:
        """Return the job, which goes on with what was begun."""
        return predict_layer(self.model, self.image(), self.files, self.target, self.asked, view)

    def expected(self) -> Job[ExpectedCost]:
        """Work out what it will take; raises NotReadyError if what was begun there is something else."""
        try:
            return (yield from expect_image(self.model, self.image(), self.asked, self.target))
        except OtherWorkError as error:
            raise NotReadyError(error.in_window, Remedy("Choose another name", self.other)) from error

    def describe(self) -> str:
        """Return what will be segmented (rich text, without the full stop)."""
        image = self.image()
        count = f"{image.times} time points of " if image.times > 1 else ""
        size = f" of {size_text(self.voxel_mm)}" if self.voxel_mm is not None else ""
        begun = "continue" if self.continues else "segment"
        return (
            f"<b>Will {begun}</b> '{self.source.name}': {count}{times_text(image.shape)} voxels{size}, block by block, "
            f"into {self.target}"
        )

    def expect(self, found: ExpectedCost) -> str:
        """Return what it will take (rich text)."""
        own, image = found.presets["own"], self.image()
        seen = own.network_shape[-len(image.shape) :]
        lines = [self.describe(), f"The network sees {times_text(seen)} voxels, in {counted(own.tiles, 'tile')}"]
        if own.seconds is None:
            lines.append("Time unknown")
        else:
            guess = "" if own.measured else " (a first estimate)"
            lines.append(f"{about_time(own.seconds * image.times)}{guess} and more, as blocks overlap")
        if self.cluster is None:
            lines[-1] += f", on {own.choice}, with {found.budget.bytes / _GB:.1f} GB of memory"
        else:
            lines[-1] += f", by this computer alone; workers of {self.cluster} share it"
            lines.append("All voxels are compared with those of the layer's files first, which the workers read")
        if found.numbers is not None:
            size = found.numbers.disk_bytes / _GB
            lines.append(
                f"Objects are found when all blocks are there: until then classes are shown, and probabilities take up "
                f"to {size:.1f} GB of disk beside the result"
            )
        if image.unsaid:
            lines.append(image.unsaid.removesuffix("."))
        first = "Blocks in view come first; what" if self.cluster is None else "What"
        lines.append(f"{first} is finished stays, whatever happens")
        return ".<br>".join(lines) + "."


def place_of(layer: Image, axes: str, voxel_mm: tuple[float, ...] | None) -> ImagePlace:
    """Return where a layer lies; what has no unit is counted in voxels, whose size in mm somebody may have typed."""
    attributes, shape = layer.as_layer_data_tuple()[1], full_resolution(layer).shape[: layer.ndim]
    times = time_of(attributes, axes) if "T" in axes else (0.0, 1.0, "")
    try:
        own = grid_of(shape, attributes, axes).geometry
    except ImageError:  # it lies elsewhere at every time point
        return ImagePlace(
            Geometry(spacing=voxel_mm or (1.0,) * sum(a in axes for a in "ZYX"), spacing_known=voxel_mm is not None),
            times,
            drifts=True,
        )
    if voxel_mm is None:
        return ImagePlace(own, times)
    geometry = own.with_spacing(voxel_mm, GIVEN)
    if not own.spacing_known and own.origin is not None:
        pairs = zip(own.origin, reversed(own.spacing), reversed(voxel_mm), strict=True)
        geometry = geometry.model_copy(update={"origin": tuple(o / a * b for o, a, b in pairs)})
    return ImagePlace(geometry, times)


def large_order(
    known: Any,
    text: str,
    cluster: str | None = None,
    *,
    whole: bool,
    choose: Callable[[], object],
    other: Callable[[], object],
) -> LargeOrder:
    """Return what segmenting a layer block by block means.

    Parameters
    ----------
    known : SegmentRequest
        The same, in memory.
    text : str
        Where the result goes, as it was typed.
    cluster : str, optional
        Whose workers compute.
    whole : bool
        Whether all of the image is asked for.
    choose, other : callable
        Let somebody choose where it goes; propose another name.

    Raises
    ------
    NotReadyError
        With what is missing or does not fit.
    """
    own = known.axes.replace("C", "")
    if not whole:
        raise NotReadyError(
            "Block by block, all of an image is segmented, beginning with what is in view; Cancel keeps what is "
            "finished. Choose 'Whole image' as region and 'All time points'."
        )
    if own != "".join(letter for letter in "TZYX" if letter in own):
        raise NotReadyError(
            f"The axes of '{known.source.name}' are read as {known.axes}, but results on disk have time before "
            "z, y and x. Open it with its axes in this order."
        )
    if not text:
        raise NotReadyError(
            f"Choose where the result goes: a name that ends with {ENDING}.", Remedy("Choose where…", choose)
        )
    target = Path(text)
    if target.suffix.lower() != ENDING:
        raise NotReadyError(
            f"The result '{target.name}' is written as OME-Zarr: choose a name that ends with {ENDING}."
        )
    if not target.is_absolute() or not target.parent.is_dir():
        raise NotReadyError(f"The folder {target.parent} is not there. Choose another one for the result.")
    own_words = (known.model, known.settings, known.layers, known.axes, known.grid, known.voxel_mm)
    order = LargeOrder(*own_words, target, other, cluster)
    if cluster is not None and not order.files:
        raise NotReadyError(
            f"Workers of a cluster read files, and of which file '{known.source.name}' was read is not known. Save it, "
            "as zarr for instance, and open that; or leave 'Cluster' empty."
        )
    if target.exists() and not order.continues:
        raise NotReadyError(
            f"{target} already exists.{by_hand(target)} To look at it, drop it on napari; to segment again, choose "
            "another name.",
            Remedy("Choose another name", other),
        )
    return order


def require_memory(known: Any, shape: Sequence[int], to_disk: Callable[[], object]) -> None:
    """Raise NotReadyError if an image and its labels cannot be in memory together.

    Parameters
    ----------
    known : SegmentRequest
        What would be segmented in memory.
    shape : sequence of int
        Of the result.
    to_disk : callable
        Chooses to segment it block by block.
    """
    itemsize, volume = np.dtype(known.model.dataset.labels.dtype).itemsize, known.frames[0].volume
    voxels = math.prod(volume.shape if known.region is None else (end - begin for begin, end in known.region))
    whole, free = math.prod(shape) * itemsize, available_memory()
    # Labels beyond a region or the chosen times take no memory, as long as the system promises as much as it has.
    written = whole if whole > psutil.virtual_memory().total else min(whole, len(known.frames) * voxels * itemsize)
    needed = written + voxels * volume.channels * _PREPARED
    if needed > free:
        raise NotReadyError(
            f"In memory, '{known.source.name}' and its labels take {needed / _GB:.1f} GB at least, and "
            f"{free / _GB:.1f} GB are free. Let the labels be written to disk, block by block.",
            Remedy("Write to disk", to_disk),
        )


__all__ = ["ON_DISK", "LargeOrder", "LargeResult", "large_order", "require_memory"]
