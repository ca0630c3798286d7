"""Numbered objects of an image larger than memory: what they need, and how they become a result.

Blocks give classes, and keep the probabilities of cores and borders on the disk. When all are there, objects are found
in these slab by slab, so that those of neighbouring blocks are one, and numbered across the whole image.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.image.prepare import PrepareRecord
from napari_nnunet.engine.large.boxes import Shape3, cut_into_boxes
from napari_nnunet.engine.objects.slabs import least_bytes
from napari_nnunet.errors import ResourceError
from napari_nnunet.events import Job, Note, Progress, Stage
from napari_nnunet.formats.large.kept import ProbabilityImage
from napari_nnunet.formats.large.label_image import Destination, LabelImage
from napari_nnunet.formats.large.source import LargeImage
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.results.objects import write_found
from napari_nnunet.formats.results.probabilities import scratch
from napari_nnunet.jobs.large.budget import Budget
from napari_nnunet.jobs.large.objects.search import let_go, search_objects
from napari_nnunet.jobs.objects.find import Decoding, Room, heads_of
from napari_nnunet.jobs.prediction.objects import decoding_for
from napari_nnunet.schema.objects import ObjectNumbers, ObjectScheme
from napari_nnunet.schema.requests.prediction import PredictSettings

_PART = "objects"  # within an unfinished result
_NUMBER = np.dtype(np.uint32).itemsize
_FLOAT = np.dtype(np.float32).itemsize
_PIECE = 8e6  # voxels that are written together
_GB = 1e9


@dataclass(frozen=True)
class FoundObjects:
    """What became of an image.

    Parameters
    ----------
    path : Path
        The result.
    objects : dict of str to int
        How many there are of each kind, in all time points together.
    """

    path: Path
    objects: dict[str, int]


@dataclass(frozen=True, eq=False)
class Numbering:
    """Objects of an image that is segmented block by block.

    Parameters
    ----------
    model, image
        What finds them, and where.
    decoding : Decoding
        How.
    place : Destination
        Of the result.
    store : ProbabilityImage
        Probabilities of the cores and borders, in the order of the kinds.
    chunk : tuple of int
        Of the result (z, y, x).
    """

    model: TrainedModel
    image: LargeImage
    decoding: Decoding
    place: Destination
    store: ProbabilityImage
    chunk: Shape3

    @property
    def work(self) -> dict[str, Any]:
        """What decides which voxel belongs to which object, besides model and image."""
        return {kind: asdict(rule) for kind, rule in self.decoding.rules.items()}

    @property
    def disk_bytes(self) -> float:
        """What is on the disk before the result is, at most: probabilities, and numbers of up to two kinds at once."""
        return self.store.bytes + self._number_bytes

    @property
    def _number_bytes(self) -> float:
        voxels = math.prod(self.image.shape)
        return float(_NUMBER * voxels * (self.image.times + (len(self.decoding.heads) > 1)))

    @property
    def file_bytes(self) -> int:
        """Bytes of a voxel in an ordinary file: its number, and its kind where there are several."""
        return _NUMBER * (1 if len(self.decoding.heads) == 1 else 2)

    @property
    def _voxel(self) -> tuple[float, ...]:
        return tuple(step / self.decoding.unit for step in self.image.geometry.spacing)

    def require_room(self, budget: Budget) -> Job[None]:
        """Say what objects take, and what the model does not know of them.

        Raises
        ------
        ResourceError
            If memory or disk are too small for them: before anything is computed.
        """
        needed = max(least_bytes(self.image.shape, rule.steps(self._voxel)) for rule in self.decoding.rules.values())
        if needed > budget.left_now:
            planes = "planes" if len(self.image.shape) == 3 else "rows"
            size = " x ".join(map(str, self.image.shape[1:]))
            raise ResourceError(
                f"Objects are found in a few {planes} of {size} voxels at a time, which takes {needed / _GB:.1f} GB "
                f"beside the process; {max(budget.left_now, 0) / _GB:.1f} GB are left for it. Allow more memory, or "
                "segment parts of the image.",
                shell="For instance --memory; or --classes for the classes that the model has learnt.",
            )
        missing, free = self.disk_bytes - self.store.stored, _free_beside(self.place)
        what = f"The probabilities in which objects are found take up to {self.disk_bytes / _GB:.1f} GB of disk"
        if missing > free:
            raise ResourceError(
                f"{what} until the result is there, and {missing / _GB:.1f} GB of them are still to be written, but "
                f"{free / _GB:.1f} GB are free beside {self.place.path}. Make room, or choose a place on another disk.",
                shell="Or add --classes for the classes that the model has learnt.",
            )
        yield Note(
            text=f"{what} in {self.place.unfinished} until the result is there; {free / _GB:.1f} GB are free. Blocks "
            "show classes, which become objects when all are finished."
        )
        if self.decoding.doubt:
            yield Note(level="warning", text=self.decoding.doubt)

    def write(
        self, target: Path, budget: Budget, origin: Mapping[str, Any], done: str, writer: str | None = None
    ) -> Job[FoundObjects]:
        """Find the objects of all time points and write them.

        Parameters
        ----------
        target : Path
            An OME-Zarr, or an ordinary file where a writer is given.
        budget : Budget
            Memory.
        origin : dict
            Where the result comes from.
        done : str
            Name of the stage in which the result is written.
        writer : str, optional
            nnU-Net's name of what writes the file.
        """
        each: list[dict[int, str]] = []
        shape, unfinished = self.image.shape, self.place.unfinished
        with scratch((self.image.times, *shape), unfinished, np.uint32) as numbers, ExitStack() as stack:
            room = Room(budget.left_now, partial(_another, stack, unfinished))
            for time in range(self.image.times):
                yield Stage(name="Finding objects")
                probabilities = self.store.at(time)
                job = search_objects(probabilities, self._stored, self.image.geometry.spacing, numbers[time], room)
                each.append((yield from job))
            counts = [self._counted(kinds) for kinds in each]
            total = {kind: sum(own[kind] for own in counts) for kind in self.decoding.heads}
            yield Note(text="Found " + ", ".join(f"{number} x {kind}" for kind, number in total.items()) + ".")
            yield Stage(name=done)
            if writer is None:
                yield from self._write_zarr(numbers, {**origin, _PART: counts})
            else:
                target = self._write_file(numbers[0], each[0], target, writer)
        return FoundObjects(target, total)

    @property
    def _stored(self) -> Decoding:
        """The decoding of the heads that are stored, in their order."""
        return replace(self.decoding, heads={kind: (2 * i, 2 * i + 1) for i, kind in enumerate(self.decoding.heads)})

    def _counted(self, kinds: Mapping[int, str]) -> dict[str, int]:
        """Return how many objects there are of each kind; numbers of a kind follow those of the one before."""
        found = dict.fromkeys(self.decoding.heads, 0)
        for kind in kinds.values():
            found[kind] += 1
        return found

    def _write_zarr(self, numbers: NDArray[np.uint32], origin: Mapping[str, Any]) -> Job[None]:
        most = max(sum(own.values()) for own in origin[_PART])
        dtype = "uint16" if most <= np.iinfo(np.uint16).max else "uint32"
        place = replace(self.place, part=_PART)
        shutil.rmtree(place.unfinished, ignore_errors=True)  # what a kill left
        labels = LabelImage(place, self.image, ObjectNumbers(dtype), self.chunk)
        labels.open(begun=False)
        boxes = list(cut_into_boxes(self.image.shape_3d, labels.chunk, _PIECE))
        for time, own in enumerate(numbers):
            for i, box in enumerate(boxes):
                part = own[tuple(slice(lo, hi) for lo, hi in box)[-own.ndim :]].astype(dtype)
                labels.write(box, part if part.ndim == 3 else part[None], time)
                let_go(numbers)
                yield Progress(done=time * len(boxes) + i + 1, total=len(boxes) * len(numbers))
        labels.complete(origin)
        labels.settle()

    def _write_file(self, numbers: NDArray[np.uint32], kinds: Mapping[int, str], target: Path, writer: str) -> Path:
        scheme = ObjectScheme.of(self.model.dataset)
        if scheme is None:
            raise ValueError("a model of classes has no objects to be written")
        small = len(kinds) <= np.iinfo(np.uint16).max
        return write_found(
            numbers.astype(np.uint16 if small else np.uint32), kinds, scheme, self.image.lies.geometry, target, writer
        )


def _another(stack: ExitStack, folder: Path, like: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return stack.enter_context(scratch(like.shape, folder, np.uint32))


def _free_beside(place: Destination) -> float:
    folder = next((one for one in (place.path, *place.path.parents) if one.is_dir()), place.path.parent)
    return float(shutil.disk_usage(folder).free)


def numbering_of(
    model: TrainedModel, image: LargeImage, settings: PredictSettings, place: Destination, chunk: Shape3
) -> Numbering | None:
    """Return how the objects of an image are found with these settings; None where classes are wanted."""
    decoding = decoding_for([(model, settings)])
    store = store_of(model, image, settings, place, chunk)
    if decoding is None or store is None:
        return None
    return Numbering(model, image, decoding, place, store, chunk)


def store_of(
    model: TrainedModel, image: LargeImage, settings: PredictSettings, place: Destination, chunk: Shape3
) -> ProbabilityImage | None:
    """Return where the probabilities of objects are kept; None where classes are wanted."""
    scheme = ObjectScheme.of(model.dataset)
    if scheme is None or settings.classes:
        return None
    heads = [head for pair in heads_of(model.dataset, scheme).values() for head in pair]
    return ProbabilityImage(place.unfinished, image, chunk, heads)


def probability_bytes(model: TrainedModel, record: PrepareRecord, settings: PredictSettings) -> int:
    """Return the bytes that probabilities take for a voxel of a block: all classes, and more while they are made.

    A block of a single plane is made at once.
    """
    if settings.classes or ObjectScheme.of(model.dataset) is None:
        return 0
    copies = 4 if record.shape[0] == 1 else 1
    return _FLOAT * model.dataset.labels.heads * copies


def kept_objects(origin: Mapping[str, Any]) -> dict[str, int] | None:
    """Return how many objects of each kind a complete result says it has; None where it says nothing of that."""
    counts: Sequence[Mapping[str, int]] | None = origin.get(_PART)
    if not isinstance(counts, list) or not all(isinstance(own, dict) for own in counts):
        return None
    return {kind: sum(own.get(kind, 0) for own in counts) for kind in dict.fromkeys(k for own in counts for k in own)}
