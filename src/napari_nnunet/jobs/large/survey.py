"""One pass over a large image for what every part of it must know."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict

from napari_nnunet.engine.image.prepare import Box3
from napari_nnunet.engine.large.boxes import cut_into_boxes
from napari_nnunet.engine.large.survey import ChannelFacts, ImageFacts, Scan
from napari_nnunet.errors import SettingsError
from napari_nnunet.events import Job, Note, Progress, Stage
from napari_nnunet.formats.large.journal import BlockJournal, ChannelEntry, FactsEntry
from napari_nnunet.formats.large.source import LargeImage

_PIECE = 8e6  # values that are looked at together


def surveyed(image: LargeImage, journal: BlockJournal, axis: int | None) -> Job[list[ImageFacts]]:
    """Return the facts of every time point: those that were noted, or what a pass over the image finds.

    Parameters
    ----------
    image : LargeImage
        The image.
    journal : BlockJournal
        Where they are noted.
    axis : int or None
        Axis whose planes have limits of their own.
    """
    entries = journal.all(FactsEntry)
    noted = {entry.time: _facts(entry, image, axis, journal) for entry in entries}
    if not image.files:
        yield from require_same_voxels(image, {entry.time: entry.digest for entry in entries}, str(journal.folder))
    if len(noted) == image.times:
        return [noted[time] for time in range(image.times)]
    yield from empty_chunks(image)
    boxes = _boxes(image)
    yield Stage(name="Looking at the intensities", total=len(boxes) * image.times)
    for time in range(image.times):
        if time in noted:
            continue
        scan, digest = Scan(image.channels, image.shape_3d, axis), None if image.files else _digest()
        for i, box in enumerate(boxes):
            part = image.read(box, time)
            scan.add([lo for lo, _ in box], part)
            if digest is not None:
                digest.update(part.tobytes())
            yield Progress(done=time * len(boxes) + i + 1, total=len(boxes) * image.times)
        noted[time] = scan.facts()
        channels = tuple(ChannelEntry(**asdict(channel)) for channel in noted[time].channels)
        known = {**vars(noted[time]), "channels": channels, "digest": "" if digest is None else digest.hexdigest()}
        journal.note(FactsEntry(time=time, **known))
    if image.is_address:  # now all of them were looked for
        yield from empty_chunks(image)
    return [noted[time] for time in range(image.times)]


def empty_chunks(image: LargeImage) -> Iterator[Note]:
    """Say how many chunks of an image are not stored, if some are not: lost ones look like empty space."""
    missing = image.missing_chunks()
    if missing is not None and missing[0]:
        yield Note(
            level="warning",
            text=f"{missing[0]} of the {missing[1]} chunks of {image.name} are not stored and count as "
            f"{missing[2]}, as zarr has it for empty space. If the image should have none, copy it again.",
        )


def require_same_voxels(image: LargeImage, known: Mapping[int, str], place: str) -> Job[None]:
    """Raise SettingsError if voxels that no file holds are others than those that were noted (time point: digest)."""
    boxes = _boxes(image)
    yield Stage(name="Checking that the voxels are the same", total=len(boxes) * len(known))
    for time, noted in known.items():
        digest = _digest()
        for box in boxes:
            digest.update(image.read(box, time).tobytes())
            yield Progress(done=1, total=len(boxes) * len(known))
        if digest.hexdigest() != noted:
            raise SettingsError(
                f"{image.name} is not what it was when {place} was begun. Give the same voxels again, or delete "
                f"{place} to begin again."
            )


def require_unmoved(image: LargeImage, journal: BlockJournal) -> Job[None]:
    """Look at voxels that no file holds once more; raises ImageError if they changed while they were read."""
    if image.files or image.behind or image.is_address:
        return
    try:
        known = {entry.time: entry.digest for entry in journal.all(FactsEntry)}
        yield from require_same_voxels(image, known, str(journal.folder))
    except SettingsError as error:
        raise journal.changed(image.name) from error


def _boxes(image: LargeImage) -> list[Box3]:
    return list(cut_into_boxes(image.shape_3d, image.chunk_3d, _PIECE / image.channels))


def _digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


def _facts(entry: FactsEntry, image: LargeImage, axis: int | None, journal: BlockJournal) -> ImageFacts:
    """Return what was noted of a time point; raises SettingsError if it is not of this image."""
    planes = 1 if axis is None else entry.box[axis][1] - entry.box[axis][0]
    inside = all(0 <= lo < hi <= size for (lo, hi), size in zip(entry.box, image.shape_3d, strict=True))
    limits = all(len(known.low) == len(known.high) == planes for known in entry.channels)
    if entry.time >= image.times or not inside or not limits or len(entry.channels) != image.channels:
        raise journal.damaged("what it says of the intensities is not of this image.")
    channels = tuple(ChannelFacts(known.mean, known.std, known.low, known.high) for known in entry.channels)
    return ImageFacts(entry.box, entry.content, entry.invalid, channels)
