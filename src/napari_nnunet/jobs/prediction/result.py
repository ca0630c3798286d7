"""What goes into a prediction and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.image.turning import Turning
from napari_nnunet.events import Box, CaseDone, Job, Note, Painted, Pump, Stage
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.volume import Volume, WatchedArray, digests_of

if TYPE_CHECKING:
    import torch

    from napari_nnunet.engine.image.prepare import PrepareRecord
    from napari_nnunet.engine.prediction import decode
    from napari_nnunet.engine.prediction.quality import Judged
    from napari_nnunet.jobs.prediction.windows import Sums

T = TypeVar("T")
_CHECKING, _READING = "Checking whether the image was edited", "Reading the image"
Focus = Sequence[float | None]
FrameTarget = tuple[Volume, NDArray[Any], NDArray[np.float32] | None]  # an image, where labels and probabilities go


@dataclass(frozen=True, eq=False)
class Prediction:
    """The result of segmenting one image.

    Parameters
    ----------
    labels : ndarray, shape ([Z,] Y, X)
        On the image's own grid.
    geometry : Geometry
        Of the image.
    scheme : LabelScheme
        What the values mean.
    probabilities : ndarray, shape (C, [Z,] Y, X), optional
        Where they were asked for.
    recipe : dict
        Model, hashes, settings and versions behind the result.
    properties : dict
        nnU-Net's properties of the case.
    uncertainty : tuple of two ndarrays, shape ([Z,] Y, X), optional
        Entropy and disagreement of an ensemble, 0 to 1, where they were asked for.
    counts : tuple of int
        Number of voxels of each label value, beginning with 0.
    kinds : dict of int to str, optional
        Where the labels are numbered objects, the kind of each.
    seconds : float
        Wall time.
    quality : Judged, optional
        How good it probably is, where that was asked for.
    """

    labels: NDArray[Any]
    geometry: Geometry
    scheme: LabelScheme
    probabilities: NDArray[np.float32] | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    uncertainty: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    counts: tuple[int, ...] = ()
    kinds: dict[int, str] | None = None
    seconds: float = 0.0
    quality: Judged | None = None


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """An image on its own grid, with the labels (Z, Y, X) of the previous stage where there is one."""

    volume: Volume
    previous: NDArray[Any] | None = None

    @property
    def ndim(self) -> int:
        """Spatial axes of the image."""
        return len(self.volume.shape)


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image (C, z, y, x) that is on the network's grid already, with what was done to it."""

    data: torch.Tensor
    record: PrepareRecord
    ndim: int = 3


@dataclass(eq=False)
class Halt:
    """Where a cancelled segmentation stopped: handed to the same job again, it carries on instead of beginning anew.

    It keeps what is in memory while a segmentation runs (the prepared image, the sums of windows that are not
    complete), and the probabilities that numbered objects and ensembles need, partly in scratch files. The result is
    that of a segmentation that was never cancelled, to the bit. Whoever hands it on sees to it that model, settings,
    image and canvas are the same, and lets go of it with ``drop``.
    """

    sums: Sums | None = None
    labels: NDArray[Any] | None = None
    probabilities: NDArray[np.float32] | None = None
    previous: NDArray[Any] | None = None
    results: list[Prediction] = field(default_factory=list)
    _voxels: list[int | WatchedArray] | None = None
    _part: Halt | None = None
    _room: Any = None
    _weights: dict[str, str] = field(default_factory=dict)
    _open: ExitStack = field(default_factory=ExitStack)

    @property
    def part(self) -> Halt:
        """Where a part that is segmented by itself stopped: a cascade's first stage, a time point, a member."""
        if self._part is None:
            self._part = Halt()
        return self._part

    def go_by(self, weights: Mapping[str, str]) -> None:
        """Forget sums of other weights: a model may have been trained on meanwhile."""
        if self._weights != weights:
            self.sums = None
        self._weights = dict(weights)

    def look_at(self, volumes: Sequence[Volume]) -> Job[tuple[list[Volume], bool]]:
        """Forget everything where voxels of the images were edited meanwhile.

        Parameters
        ----------
        volumes : sequence of Volume
            Those in memory are looked at whole; of others, what was read of them before is read again.

        Returns
        -------
        tuple of (list of Volume, bool)
            The images, which are to be segmented so that what is read of them is noted; and whether they were edited.
        """
        before = self._voxels
        same = before is None or (yield from are_unedited(volumes, before, _CHECKING))
        if before is None or not same:
            found: list[int | WatchedArray] = []
            for volume in volumes:
                found += [(yield from _noted(volume, _READING))]
            self._voxels = found
        if not same:
            self.drop()
        known = zip(volumes, self._voxels or (), strict=True)
        return [v if isinstance(own, int) else replace(v, array=own) for v, own in known], not same

    @property
    def seen(self) -> list[dict[str, int]]:
        """What the images held that were looked at, by what was read of them: none where none was looked at yet."""
        return [{"": own} if isinstance(own, int) else own.seen for own in self._voxels or ()]

    def looked(self) -> list[int | WatchedArray]:
        """Return what the images held that were looked at, for :func:`are_unedited`; no image is held any longer."""
        for own in self._voxels or ():
            if isinstance(own, WatchedArray):
                own.let_go()
        return list(self._voxels or ())

    def part_done(self, result: Prediction) -> None:
        """Keep the result of a part, and let go of what it needed."""
        self.results.append(result)
        self.part.drop()
        self._part = None

    def room(self, make: Callable[[], AbstractContextManager[T]]) -> T:
        """Return what was opened the first time; it stays open until ``drop``."""
        if self._room is None:
            self._room = self._open.enter_context(make())
        room: T = self._room
        return room

    def probabilities_in(
        self, given: NDArray[np.float32] | None, shape: tuple[int, ...], *, wanted: bool
    ) -> NDArray[np.float32] | None:
        """Return the array of the probabilities: the given one, or that which is made once and carried on with."""
        if given is None and self.probabilities is None and wanted:
            self.probabilities = np.zeros(shape, dtype=np.float32)
        return self.probabilities if given is None else given

    @property
    def begun(self) -> bool:
        """Whether there is anything to carry on with."""
        return self.sums is not None or bool(self.results) or (self._part is not None and self._part.begun)

    def drop(self) -> None:
        """Let go of everything."""
        if self._part is not None:
            self._part.drop()
        self.sums = self.labels = self.probabilities = self.previous = self._part = self._room = None
        self.results = []
        self._open.close()


def _noted(volume: Volume, stage: str) -> Job[int | WatchedArray]:
    """Note what an image holds: all of one in memory, of another what will be read."""
    if isinstance(volume.array, np.ndarray):
        return (yield from _digest(volume.array, stage))
    return WatchedArray(volume.array)


def _digest(array: NDArray[Any], stage: str) -> Job[int]:
    """Work out the digest of an array; the job can be cancelled meanwhile."""
    found = 0
    for digest in digests_of(array):
        found = digest
        yield Stage(name=stage)
    return found


def _holds(array: Any, before: int | WatchedArray, stage: str) -> Job[bool]:
    """Find out whether an image has the voxels that were looked at before."""
    if not isinstance(before, WatchedArray):
        return isinstance(array, np.ndarray) and (yield from _digest(array, stage)) == before
    for same in before.moved_to(array):
        yield Stage(name=stage)
        if not same:
            return False
    return True


def are_unedited(volumes: Sequence[Volume], before: Sequence[int | WatchedArray], stage: str) -> Job[bool]:
    """Find out whether images hold what they held before, as :meth:`Halt.looked` noted it.

    They are read for it, with an event of a ``stage`` every few megabytes: there, the job can be cancelled.
    """
    if len(volumes) != len(before):
        return False
    for volume, own in zip(volumes, before, strict=True):
        if not (yield from _holds(volume.array, own, stage)):
            return False
    return True


def look_at_images(halt: Halt | None, frames: Iterable[FrameTarget]) -> Job[list[FrameTarget]]:
    """Let a cancelled segmentation begin anew where its images were edited since; returns what is segmented."""
    listed = list(frames)
    if halt is None:
        return listed
    if halt.begun:
        yield Stage(name=_CHECKING)
    volumes, edited = yield from halt.look_at([volume for volume, _, _ in listed])
    if edited:
        yield Note(text="The image was edited meanwhile, so all of it is segmented again.")
    return [(volume, labels, store) for volume, (_, labels, store) in zip(volumes, listed, strict=True)]


def each_frame(
    halt: Halt | None, frames: Iterable[FrameTarget], segment: Callable[..., Job[Prediction]]
) -> Job[list[Prediction]]:
    """Segment the frames of a time series one after the other, each into its own canvas (and probabilities).

    A ``halt`` that is handed in again carries on in the frame that was cancelled.

    Parameters
    ----------
    halt : Halt, optional
        Where it was cancelled before.
    frames : iterable of (Volume, ndarray, ndarray or None)
        What is segmented.
    segment : callable
        Makes the job of one frame; takes its volume, and ``canvas``, ``probabilities`` and ``halt``.
    """
    listed = yield from look_at_images(halt, frames)
    halt = halt or Halt()
    for i, (volume, canvas, probabilities) in enumerate(listed):
        known = i < len(halt.results)
        if not known:
            job = segment(volume, canvas=canvas, probabilities=probabilities, halt=halt.part)
            halt.part_done((yield from job))
        seconds = halt.results[i].seconds
        yield CaseDone(case=f"time point {i + 1}", index=i, total=len(listed), seconds=seconds, skipped=known)
    return halt.results


@contextmanager
def halting(given: Halt | None) -> Iterator[Halt]:
    """Give the halt of a segmentation; at its end it is let go of, but a given one is kept after a cancel."""
    halt = given if given is not None else Halt()
    try:
        yield halt
    except GeneratorExit:
        if given is None:
            halt.drop()
        raise
    except BaseException:
        halt.drop()
        raise
    halt.drop()


@dataclass(frozen=True, eq=False)
class ImageTurn:
    """One image of several that are segmented one after the other.

    Parameters
    ----------
    name : str
        Of the image.
    frames : sequence of (Volume, ndarray, ndarray or None)
        As for :func:`~napari_nnunet.jobs.prediction.predict.predict_series`.
    settings : PredictSettings
        How.
    halt : Halt
        Where it was cancelled before.
    focus : sequence of float or None
        As for :func:`~napari_nnunet.jobs.prediction.predict.predict`.
    before : sequence of int or WatchedArray, optional
        What the image held when it was segmented before; where it holds that still, its result is kept.
    noted : callable, optional
        What its job goes through, on the thread of the job.
    keeping : callable, optional
        Makes the job that runs instead, on that thread, where the earlier result is kept.
    """

    name: str
    frames: Sequence[FrameTarget]
    settings: PredictSettings
    halt: Halt
    focus: Focus | None = None
    before: Sequence[int | WatchedArray] | None = None
    noted: Callable[[Job[list[Prediction]]], Job[Any]] | None = None
    keeping: Callable[[], Job[object]] | None = None

    def unless_kept(self, job: Job[list[Prediction]]) -> Job[Any]:
        """Run the job of this image; return None instead where the earlier result is of what the image holds."""
        if self.before is not None:
            stage = f"Checking whether {self.name} was edited"
            yield Stage(name=stage)
            if (yield from are_unedited([volume for volume, _, _ in self.frames], self.before, stage)):
                if self.keeping is not None:
                    yield from self.keeping()
                return None
            yield Note(text=f"{self.name} was edited since it was segmented, so it is segmented again.")
        return (yield from (job if self.noted is None else self.noted(job)))


@dataclass(frozen=True, eq=False)
class Segmentation:
    """One image with everything that was decided about it; ``also`` writes the same result on other grids."""

    image: OpenedImage | PreparedImage
    settings: PredictSettings
    labels: NDArray[Any]  # (Z, Y, X), written in place
    probabilities: NDArray[np.float32] | None  # (C, Z, Y, X), likewise
    focus: Focus | None = None
    roi: Box | None = None
    preview: bool = False
    also: tuple[decode.Assembler, ...] = ()
    halt: Halt = field(default_factory=Halt)


def turned(task: Segmentation, turning: Turning) -> Segmentation:
    """Return the same with everything turned as the image is; results are written through turned views."""
    image, store, previous = task.image, task.probabilities, None
    if not isinstance(image, OpenedImage):
        return task
    if image.previous is not None:
        previous = turning.found.turn(image.previous)
    return replace(
        task,
        image=OpenedImage(turning.volume(image.volume), previous),
        labels=turning.found.turn(task.labels),
        probabilities=None if store is None else turning.stack(store),
        focus=None if task.focus is None else turning.focus(task.focus),
        roi=None if task.roi is None else turning.box(task.roi),
    )


def told_unturned(job: Job[T], turning: Turning) -> Job[T]:
    """Pass on what a job on a turned image says, with places in the image as it lies."""
    with Pump(job) as pump:
        for event in pump:
            yield Painted(box=turning.box_back(event.box), final=event.final) if isinstance(event, Painted) else event
    return pump.result


def count_labels(labels: NDArray[Any], values: int) -> tuple[int, ...]:
    """Count label values plane by plane: a bincount of everything would need eight bytes per voxel."""
    total = np.zeros(values, dtype=np.int64)
    for plane in labels:
        total += np.bincount(plane.ravel(), minlength=values)[:values]
    return tuple(int(n) for n in total)
