"""One pass over a large image for what every part of it must know."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace

from napari_nnunet.engine.image.prepare import Box3
from napari_nnunet.engine.large.boxes import cut_into_boxes
from napari_nnunet.engine.large.case import CaseSource
from napari_nnunet.engine.large.holes import HoleSearch
from napari_nnunet.engine.large.parts import finite
from napari_nnunet.engine.large.survey import ChannelFacts, ContentScan, ImageFacts, Scan
from napari_nnunet.errors import SettingsError
from napari_nnunet.events import Job, Note, Progress, Stage
from napari_nnunet.formats.large.journal import BlockJournal, ChannelEntry, ContentEntry, FactsEntry
from napari_nnunet.formats.large.kept import KeptImage
from napari_nnunet.formats.large.source import LargeImage

_PIECE = 8e6  # values that are looked at together
_THIN = 3  # voxels
_OTHER = "what it says of the intensities is not of this image."


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


def content_surveyed(
    image: LargeImage,
    journal: BlockJournal,
    facts: Sequence[ImageFacts],
    axis: int | None,
    masked: Sequence[bool],
    kept: KeptImage,
    allowed: float,
) -> Job[list[ImageFacts]]:
    """Return facts in which channels that are normalised within the image's content are described by that alone.

    Parameters
    ----------
    image, journal, axis
        As :func:`surveyed` has them.
    facts : sequence of ImageFacts
        Of every time point.
    masked : sequence of bool
        One per channel.
    kept : KeptImage
        Where the content of every time point is kept that has anything else in its box: what is not 0, holes filled.
    allowed : float
        Bytes that it may take.

    Raises
    ------
    ResourceError
        If not even a plane fits.
    """
    hollow = [time for time, known in enumerate(facts) if known.is_hollow]
    noted = {entry.time: entry for entry in journal.all(ContentEntry)} if kept.exists else {}
    found = list(facts)
    if hollow:
        kept.open(begun=bool(noted))
    for time in hollow:
        if time not in noted:
            channels = yield from _content(image, time, facts[time].box, axis, kept, allowed)
            known = tuple(ChannelEntry(**asdict(channel)) for channel in channels)
            noted[time] = ContentEntry(time=time, channels=known)
            journal.note(noted[time])
        alone = _channels(noted[time].channels, facts[time].box, axis, image, journal)
        both = zip(masked, alone, facts[time].channels, strict=True)
        found[time] = replace(facts[time], channels=tuple(own if inner else whole for inner, own, whole in both))
    return found


def _content(
    image: LargeImage, time: int, box: Box3, axis: int | None, kept: KeptImage, allowed: float
) -> Job[tuple[ChannelFacts, ...]]:
    """Find the content of a time point and keep it; returns the intensities of it alone."""
    source = CaseSource(image.read, image.read, image.shape_3d, image.channels, image.itemsize)
    thin = min(image.shape_3d) < _THIN  # where nothing can be enclosed
    slabs = _boxes(image) if thin else source.slabs(allowed)
    holes, scan = HoleSearch(), ContentScan(image.channels, box, axis)
    total, steps = len(slabs) * (1 if thin else 2), 0
    yield Stage(name="Looking for what is not 0", total=total)
    if not thin:
        for slab in slabs:
            holes.add((image.read(slab, time) != 0).any(axis=0))
            steps += 1
            yield Progress(done=steps, total=total)
        holes.finish()
    for number, slab in enumerate(slabs):
        part = image.read(slab, time)
        inside = (part != 0).any(axis=0)
        if not thin and holes.has_background(number):
            inside = holes.inside(number, inside)
        kept.write(slab, [inside], time)
        within = [(max(lo, first), min(hi, last)) for (lo, hi), (first, last) in zip(box, slab, strict=True)]
        if all(lo < hi for lo, hi in within):
            place = tuple(slice(lo - first, hi - first) for (lo, hi), (first, _) in zip(within, slab, strict=True))
            values = part[(slice(None), *place)]
            scan.add([lo for lo, _ in within], finite(values) if values.dtype.kind == "f" else values, inside[place])
        steps += 1
        yield Progress(done=steps, total=total)
    return scan.facts()


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
    inside = all(0 <= lo < hi <= size for (lo, hi), size in zip(entry.box, image.shape_3d, strict=True))
    if entry.time >= image.times or not inside:
        raise journal.damaged(_OTHER)
    channels = _channels(entry.channels, entry.box, axis, image, journal)
    return ImageFacts(entry.box, entry.content, entry.invalid, channels)


def _channels(
    noted: Sequence[ChannelEntry], box: Box3, axis: int | None, image: LargeImage, journal: BlockJournal
) -> tuple[ChannelFacts, ...]:
    """Return what was noted of the channels in a box; raises SettingsError if it is not of this image."""
    planes = 1 if axis is None else box[axis][1] - box[axis][0]
    limits = all(len(known.low) == len(known.high) == planes for known in noted)
    if not limits or len(noted) != image.channels:
        raise journal.damaged(_OTHER)
    return tuple(ChannelFacts(known.mean, known.std, known.low, known.high) for known in noted)
