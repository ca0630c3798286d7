"""Batches made ahead by worker processes, in a fixed order: what a batch holds depends on its place alone."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter

from napari_nnunet.engine.batches.batch import (
    Batch,
    BatchRule,
    Drawn,
    cases_of_batch,
    draw_batch,
    finish_batch,
    make_batch,
    unusable,
)
from napari_nnunet.engine.batches.sparse import annotated_share, drawn_as_often
from napari_nnunet.engine.batches.stream import SideStream
from napari_nnunet.engine.machine import end_with, keep_memory
from napari_nnunet.engine.network.backends import torch_threads
from napari_nnunet.errors import DatasetError, NnunetError, ResourceError, for_people, memory_told
from napari_nnunet.formats.preprocessed.cases import StoredCase, open_case, read_next_stage
from napari_nnunet.processes.alone import script_left_alone
from napari_nnunet.processes.notice import deaf
from napari_nnunet.schema.dataset import Region

Role = Literal["train", "val"]
_KEPT_BYTES = 192e6  # of class locations and small cases, per worker
_SMALL_BYTES = 4e6  # a case up to this is kept in memory instead of being read for every patch
_AHEAD = 2  # batches per worker
_LOOK = 0.02  # seconds between two looks at whether all workers are alive
_VALIDATION_SEED = 1 << 20  # validation patches of an epoch are others than its training patches


@dataclass(frozen=True)
class Place:
    """Which batch: of training or validation, of which epoch, and its number."""

    role: Role
    epoch: int
    index: int


@dataclass(eq=False)
class _OpenCase:
    """A case as the batches see it."""

    stored: StoredCase
    data: Any
    labels: Any
    previous: Any

    @cached_property
    def _locations(self) -> dict[Region, Any]:
        found = self.stored.read_properties().get("class_locations")
        if not isinstance(found, Mapping):
            raise DatasetError(f"{self.stored.properties} holds no class locations. Preprocess the case again.")
        return {key: np.asarray(rows, dtype=np.int32) for key, rows in found.items() if len(rows)}

    def locations(self) -> dict[Region, Any]:
        """Return the class locations, read once."""
        return self._locations

    @property
    def bytes(self) -> int:
        """Memory it takes at most, without its maps."""
        held = sum(array.nbytes for array in (self.data, self.labels) if isinstance(array, np.ndarray))
        return held + 500_000


@dataclass(eq=False)
class BatchSource:
    """Makes any batch of a fold, in any process.

    Parameters
    ----------
    folder : Path
        Of the preprocessed cases.
    previous : Path, optional
        Of the previous stage's segmentations.
    names, rules : mapping
        Cases and rules of training and of validation.
    seed : int
        Of the training.
    places : range, optional
        Samples of each batch that this process makes.
    unfinished : bool
        Only read and draw; augmenting is left to the device that learns.
    favours : bool
        Whether training cases of which more is annotated are drawn more often; see :meth:`favour_annotated`.
    """

    folder: Path
    previous: Path | None
    names: Mapping[Role, Sequence[str]]
    rules: Mapping[Role, BatchRule]
    seed: int
    places: range | None = None
    unfinished: bool = False
    favours: bool = False
    _open: OrderedDict[str, _OpenCase] = field(default_factory=OrderedDict, repr=False)
    _held: int = field(default=0, repr=False)  # bytes of the open cases

    def __getitem__(self, place: Place) -> Batch | Drawn | NnunetError:
        """Return a batch, or why there is none: an exception would lose its traceback on the way."""
        try:
            way = "Or let fewer processes make batches"
            with memory_told(shell=f"{way} (--workers).", window=f"{way} ('Loader processes')."):
                return self.make(place)
        except Exception as error:
            return for_people(error)

    def make(self, place: Place) -> Batch | Drawn:
        """Make a batch here, with one thread as in the workers: what it holds does not depend on their number."""
        with torch_threads(1):
            return (draw_batch if self.unfinished else make_batch)(
                self.names[place.role],
                self.case,
                self.rules[place.role],
                seed=self._seed(place.role),
                epoch=place.epoch,
                index=place.index,
                places=self.places,
            )

    @property
    def can_be_unfinished(self) -> bool:
        """Whether augmenting can be left to a device; cascades and the strong augmentation need the process."""
        rule = self.rules["train"]
        return rule.augmented and not rule.strong and not rule.previous_labels

    def favour_annotated(self) -> float:
        """Draw training cases of which more is annotated more often; returns how many times as often at most.

        Patches that lie anywhere, and datasets without an ignore label, are drawn as ever.

        Raises
        ------
        DatasetError
            Naming the case that cannot be used.
        """
        rule, names, looked = self.rules["train"], self.names["train"], self.whole()
        self.favours = rule.scheme.ignore_label is not None and not rule.anywhere
        if not self.favours:
            return 1.0
        shares = []
        for name in names:
            try:
                shares.append(annotated_share(looked.case(name), rule))
            except NnunetError:
                raise
            except Exception as error:
                raise unusable(name, error) from error
        drawn = drawn_as_often(names, shares)
        self.names = {**self.names, "train": drawn}
        counts = Counter(drawn).values()
        return max(counts, default=1) / min(counts, default=1)

    def whole(self) -> BatchSource:
        """Return what makes the same batches finished, and all samples of them.

        Its cases are not opened here: what processes begin with must be free of maps where it is sent to them.
        """
        return replace(self, places=None, unfinished=False, _open=OrderedDict(), _held=0)

    def tried(self) -> tuple[float, Batch]:
        """Return the seconds that a finished batch takes whose cases are open, and the batch."""
        whole = replace(self.whole(), places=self.places)
        whole.make(Place("train", 0, 0))
        began = time.perf_counter()
        batch: Any = whole.make(Place("train", 0, 0))
        return time.perf_counter() - began, batch

    def cases(self, place: Place) -> tuple[str, ...]:
        """Return the cases of a batch without making it."""
        return cases_of_batch(
            self.names[place.role],
            self.rules[place.role],
            seed=self._seed(place.role),
            epoch=place.epoch,
            index=place.index,
        )

    def _seed(self, role: Role) -> int:
        return self.seed + (_VALIDATION_SEED if role == "val" else 0)

    def case(self, name: str) -> _OpenCase:
        """Open a case, or return it as it was opened before."""
        found = self._open.pop(name, None)
        if found is None:
            found = self._opened(name)
            self._held += found.bytes
        self._open[name] = found
        while len(self._open) > 1 and self._held > _KEPT_BYTES:
            self._held -= self._open.popitem(last=False)[1].bytes
        return found

    def _opened(self, name: str) -> _OpenCase:
        stored = open_case(self.folder, name)
        data, labels = stored.data, stored.labels
        if 4 * int(np.prod(data.shape)) <= _SMALL_BYTES:
            data, labels = np.asarray(data[:]), np.asarray(labels[:])
        previous = None
        if self.previous is not None:
            previous = read_next_stage(self.previous, name)
            if tuple(previous.shape) != tuple(labels.shape[1:]):
                raise DatasetError(
                    f"The previous stage's segmentation of {name} has the shape {tuple(previous.shape)}, its image "
                    f"{tuple(labels.shape[1:])}: it was preprocessed again since. Validate the previous stage again."
                )
        return _OpenCase(stored, data, labels, previous)


class _Share:
    """What one worker makes: every n-th batch, as batchgenerators' augmenter takes its queues in turn."""

    def __init__(self, source: BatchSource, start: tuple[int, int], lengths: tuple[int, int], workers: int) -> None:
        self._source = source
        self._start, self._lengths, self._workers = start, lengths, workers
        self._mine: Iterator[Place] = iter(())
        self._parent = os.getpid()

    def set_thread_id(self, number: int) -> None:
        """Begin, in the worker. Batches take no number from these generators; a slip would still not repeat itself."""
        import torch  # in the process that makes the batches

        end_with(self._parent)
        keep_memory()
        deaf()
        torch.manual_seed(number)
        self._mine = islice(_places(*self._start, *self._lengths), number, None, self._workers)

    def __next__(self) -> Batch | Drawn | NnunetError:
        return self._source[next(self._mine)]


class BatchLoader:
    """Gives batches in order while worker processes make the next ones.

    Parameters
    ----------
    source : BatchSource
        Makes them.
    workers : int
        Processes; with 0 batches are made when they are asked for.
    pinned : bool
        Keep them in memory that a GPU copies from quickly, and bring the next one there while it computes.
    device : str
        Where unfinished batches are augmented.
    """

    def __init__(self, source: BatchSource, workers: int, *, pinned: bool, device: str = "cpu") -> None:
        self.source = source
        self._device = device
        self._workers = workers
        self._pinned = pinned
        self._augmenter: MultiThreadedAugmenter | None = None
        self._expected: Iterator[Place] = iter(())
        self._thread: ThreadPoolExecutor | None = None
        self._coming: Future[Batch] | None = None
        self._side = SideStream(device)

    def start(self, epoch: int, index: int, iterations: int, validation_iterations: int) -> None:
        """Begin at a training batch; what was made ahead is dropped."""
        self.close()
        lengths = (iterations, validation_iterations)
        self._expected = _places(epoch, index, *lengths)
        if self._workers:
            share = _Share(self.source, (epoch, index), lengths, self._workers)
            seeds = list(range(self._workers))
            self._augmenter = MultiThreadedAugmenter(share, None, self._workers, _AHEAD, seeds, wait_time=_LOOK)
            with script_left_alone():
                self._augmenter.restart()
            if self._pinned:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")

    def next(self) -> Batch:
        """Return the next batch.

        Raises
        ------
        DatasetError
            Naming the case that cannot be used.
        ResourceError
            If memory did not suffice, or a worker was ended by the system.
        InternalError
            Whatever else happened in a worker.
        """
        if self._thread is None:
            return self._made(next(self._expected))
        current = self._coming or self._submitted(self._thread)
        self._coming = self._submitted(self._thread)
        return self._side.handed_over(current.result())

    def _submitted(self, thread: ThreadPoolExecutor) -> Future[Batch]:
        place = next(self._expected)
        return thread.submit(self._side.made, lambda: self._made(place).to(self._device))

    def _made(self, place: Place) -> Batch:
        try:
            found = self.source[place] if self._augmenter is None else next(self._augmenter)
        except RuntimeError as error:
            if "no longer alive" not in str(error):
                raise
            names = ", ".join(sorted(set(self.source.cases(place))))
            raise ResourceError(
                f"A data-loading process was killed, probably out of memory (last cases: {names}).",
                shell="Use fewer of them (--workers), or close other programs.",
                window="Close other programs, then press Resume.",
            ) from error
        if isinstance(found, NnunetError):
            raise found
        if self._pinned:
            found = found.pin_memory()
        if isinstance(found, Drawn):
            return finish_batch(found, self.source.rules[place.role], self._device)
        batch: Batch = found
        return batch

    def close(self) -> None:
        """End the workers."""
        if self._thread is not None:
            self._thread.shutdown()  # it waits for a batch of the workers
            self._thread = self._coming = None
        augmenter, self._augmenter = self._augmenter, None
        if augmenter is not None:
            with _unheard(augmenter.pin_memory_thread):
                augmenter._finish()  # noqa: SLF001 - the library's own way to end before garbage collection


@contextmanager
def _unheard(thread: threading.Thread | None) -> Iterator[None]:
    """Let a thread that hands batches on meet workers that have ended: nobody wants these batches any more."""
    before = threading.excepthook

    def hook(found: threading.ExceptHookArgs) -> None:
        if found.thread is not thread or not issubclass(found.exc_type, OSError | EOFError | RuntimeError):
            before(found)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def _places(epoch: int, index: int, iterations: int, validation_iterations: int) -> Iterator[Place]:
    for current in count(epoch):
        for i in range(index if current == epoch else 0, iterations):
            yield Place("train", current, i)
        for i in range(validation_iterations):
            yield Place("val", current, i)


def default_workers(device: str, threads: int) -> int:
    """Return how many processes make batches: a GPU waits for no less, a CPU shares its cores with them."""
    if device == "cpu":
        return max(1, min(2, threads))
    return max(1, min(12, threads - 1))
