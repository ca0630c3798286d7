"""Objects are looked for in a thread, so that the job can say how far it is, and be cancelled."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.machine import give_memory_back
from napari_nnunet.events import Job, Progress
from napari_nnunet.formats.large.kept import OneTime
from napari_nnunet.jobs.objects.find import Decoding, Room, find_objects

_LOOK = 0.2  # seconds between two looks at the thread
_PASSES = 3  # through the probabilities: for seeds, while they grow, for what has none
_MANY = 1 << 20  # values that are read before the pages of what is written are let go of


class _CancelledError(Exception):
    """Nobody waits for the objects any more."""


@dataclass(eq=False)
class _Watched:
    """Probabilities that count what is read of them; what was written meanwhile need not stay in memory."""

    probabilities: OneTime
    written: list[NDArray[Any]]
    read: int = 0
    cancelled: bool = False
    _let_go: int = 0

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        if self.cancelled:
            raise _CancelledError
        found = self.probabilities[key]
        self.read += found.size
        if self.read - self._let_go > _MANY:
            self._let_go = self.read
            for array in self.written:
                let_go(array)
        return found


def let_go(array: NDArray[Any]) -> None:
    """Take the pages of a file that is mapped from this process; they are in the file, and in the system's cache."""
    pages = getattr(array, "_mmap", None)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def search_objects(
    probabilities: OneTime, decoding: Decoding, spacing: Sequence[float], out: NDArray[np.uint32], room: Room
) -> Job[dict[int, str]]:
    """Find the objects of a time point; see :func:`~napari_nnunet.jobs.objects.find.find_objects`.

    Yields
    ------
    Progress
        In values of the probabilities that were read.
    """
    passes = sum(_PASSES + (rule.sure > 0) for rule in decoding.rules.values())
    watched, total = _Watched(probabilities, [out]), passes * 2 * out.size

    def again(like: NDArray[np.uint32]) -> NDArray[np.uint32]:
        made = room.again(like)
        watched.written.append(made)
        return made

    with ThreadPoolExecutor(1, thread_name_prefix="objects") as thread:
        work = thread.submit(find_objects, watched, decoding, spacing, out, replace(room, again=again))
        try:
            while wait([work], _LOOK).not_done:
                for array in watched.written:  # also while nothing is read, as in numbering anew
                    let_go(array)
                yield Progress(done=min(watched.read, total), total=total)
        finally:
            watched.cancelled = True
    kinds = work.result()
    let_go(out)
    give_memory_back()
    return kinds
