"""An image that somebody has open is segmented here, or by workers of a cluster, which read it from its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from napari_nnunet.engine.large.boxes import cut_into_boxes
from napari_nnunet.errors import ImageError, NnunetError, SettingsError, some
from napari_nnunet.events import Job, Note, Painted, Progress, Pump, Stage
from napari_nnunet.formats.large.journal import BlockJournal
from napari_nnunet.formats.large.label_image import Destination
from napari_nnunet.formats.large.level import Level
from napari_nnunet.formats.large.ome_zarr import is_zarr
from napari_nnunet.formats.large.opening import Say, open_image
from napari_nnunet.formats.large.place import ImagePlace
from napari_nnunet.formats.large.source import LargeImage, Stamp
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.jobs.large.fill import ImageWatch
from napari_nnunet.jobs.large.predict_image import LargeResult, predict_image
from napari_nnunet.jobs.large.survey import empty_chunks
from napari_nnunet.jobs.large.view import View
from napari_nnunet.jobs.large.work import DONE
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.large import PredictImageSettings

_PIECE = 8e6  # values that are compared together
_INSTEAD = "Leave 'Cluster' empty, so that this process computes."


def predict_layer(
    model: TrainedModel,
    image: LargeImage,
    files: Sequence[Path],
    target: Path,
    asked: PredictImageSettings,
    view: View | None = None,
) -> Job[LargeResult]:
    """Segment an image that is open here; see :func:`~.predict_image.predict_image`.

    Workers of a cluster cannot see arrays of this process. They read its files, once every voxel there was found to be
    the one that is open here: an array may have been changed, cut or turned since it was read. Here, too, arrays that
    are no more than a way to read files must not have these exchanged meanwhile.

    Parameters
    ----------
    model, target, asked, view
        As there; ``asked.cluster`` names the workers, who know of no view.
    image : LargeImage
        What is open.
    files : sequence of Path
        Where it was read from; empty where nobody knows.

    Raises
    ------
    SettingsError
        If files are not known, or hold something else.
    ImageError
        If files were changed meanwhile.
    """
    yield from _not_stored(image, files)
    if asked.cluster is None:
        files = _read_meanwhile(image, files, target)
        job = predict_image(model, replace(image, behind=files), target, asked, None, view)
        return (yield from (_unchanged_in(job, replace(image, files=files), target) if files else job))
    there = _opened(image, files)
    stamp = there.stamp()
    yield from _require_same(image, there)
    if there.again is None:
        raise ValueError("what opens files says how they are opened again")
    again = partial(_as_here, there.again, image.geometry, image.place, image.name)
    sent = replace(image, behind=there.files, again=again)
    return (yield from _unchanged_in(predict_image(model, sent, target, asked), there, target, stamp))


def _not_stored(image: LargeImage, files: Sequence[Path]) -> Iterator[Note]:
    """Say which chunks of the files of a layer are not there, which its arrays do not tell."""
    if not files or not all(map(is_zarr, files)) or image.missing_chunks() is not None:
        return
    try:
        there = _at_level(image, files)
    except NnunetError:  # it is no image by itself, and whoever opened it knew more
        return
    if there.shape == image.shape:
        yield from empty_chunks(there)


def _read_meanwhile(image: LargeImage, files: Sequence[Path], target: Path) -> tuple[Path, ...]:
    """Return the files that decide what arrays give; none where all is in memory, or the result is written among them.

    Files that are not there are no such: an address, or what was deleted after it was read.
    """
    if all(isinstance(array, np.ndarray) and not isinstance(array, np.memmap) for array in image.arrays):
        return ()
    among = any(file in target.parents for file in files) and not Destination(target).is_inside
    return () if among or not all(file.exists() for file in files) else tuple(files)


def _unchanged_in(
    job: Job[LargeResult], there: LargeImage, target: Path, stamp: Stamp | None = None
) -> Job[LargeResult]:
    """Do a job; raises ImageError once files are no longer those of the stamp, or of the beginning."""
    before = there.stamp() if stamp is None else stamp

    def look() -> None:
        try:
            same = there.stamp() == before
        except OSError as error:  # a disk elsewhere is away for a moment, perhaps
            raise ImageError(
                f"The files of {there.name} cannot be reached any more ({error.strerror or error}). What was computed "
                "is kept. Make them reachable, then continue."
            ) from error
        if not same:
            raise BlockJournal(Destination(target).unfinished).changed(there.name)

    watch = ImageWatch(look)
    with Pump(job) as pump:
        for event in pump:
            if isinstance(event, Stage) and event.name == DONE:
                look()
            elif isinstance(event, Painted):
                watch.look()
            yield event
    return pump.result


def _opened(image: LargeImage, files: Sequence[Path]) -> LargeImage:
    """Open the files of an image at the level that is as large; raises SettingsError where that is none of theirs."""
    if not files:
        raise SettingsError(f"Workers cannot see {image.name}: of which file it was read is not known. {_INSTEAD}")
    try:
        there = _at_level(image, files)
    except NnunetError as error:
        raise SettingsError(f"Workers cannot read {image.name} from its files: {error.message} {_INSTEAD}") from error
    own, theirs = ((one.times, one.channels, *one.shape) for one in (image, there))
    if own != theirs:
        raise _differs(image, there, f"time points, channels and voxels are {_x(theirs)} there and {_x(own)} here")
    return there


def _at_level(image: LargeImage, files: Sequence[Path]) -> LargeImage:
    """Open files at the level that has as many voxels as an image, at the finest where none has."""

    def best(levels: Sequence[Level]) -> int:
        sizes = [tuple(n for n, a in zip(level.shape, level.letters, strict=True) if a in "ZYX") for level in levels]
        return sizes.index(image.shape) if image.shape in sizes else 0

    return open_image(files, Say(spacing=image.geometry.spacing, best=best))


def _as_here(again: Callable[[], LargeImage], geometry: Geometry, place: ImagePlace | None, name: str) -> LargeImage:
    """Open the files elsewhere, and take them for what they are called and where they lie here."""
    return replace(again(), geometry=geometry, place=place, name=name)


def _require_same(image: LargeImage, there: LargeImage) -> Job[None]:
    """Raise SettingsError if files hold other voxels than what is open."""
    boxes = list(cut_into_boxes(there.shape_3d, there.chunk_3d, _PIECE / there.channels))
    total, done = len(boxes) * there.times, 0
    yield Stage(name="Comparing the layer with its files", total=total)
    for time in range(there.times):
        for box in boxes:
            here, theirs = image.read(box, time), there.read(box, time)
            real = here.dtype.kind == "f" and theirs.dtype.kind == "f"
            if not np.array_equal(here, theirs, equal_nan=real):
                at = ", ".join(f"{axis} {lo} to {hi - 1}" for axis, (lo, hi) in zip("zyx", box, strict=True))
                raise _differs(image, there, f"voxels differ within {at}")
            done += 1
            yield Progress(done=done, total=total)


def _differs(image: LargeImage, there: LargeImage, how: str) -> SettingsError:
    files = some([str(file) for file in there.files])
    return SettingsError(
        f"Workers would read {files}, which is not what is open as {image.name}: {how}. Open the file again. {_INSTEAD}"
    )


def _x(numbers: Sequence[int]) -> str:
    return " x ".join(map(str, numbers))
