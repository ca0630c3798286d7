"""Cases side by side in worker processes, as many as memory allows; a killed worker loses no case.

The processes are loky's: it notices at once when the system ends one, and needs no guard in the caller's script.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeAlias

from loky import get_reusable_executor

from napari_nnunet.engine.machine import available_memory, available_threads, end_with
from napari_nnunet.errors import NnunetError, ResourceError, for_people, memory_told, of_cases
from napari_nnunet.events import CaseFailed, Job, Note, Progress
from napari_nnunet.processes.alone import why_alone

_WORKER_BYTES = 250e6  # a process with numpy, scipy and ITK
_SHARE = 0.85  # of the free memory
_HEARTBEAT = 0.2  # seconds between two looks at whether the job was cancelled


@dataclass(frozen=True, eq=False)
class Task:
    """A call for one case.

    Parameters
    ----------
    name : str
        Of the case.
    arguments : tuple
        For the function.
    memory : callable
        Returns the bytes the call will take at most; asked when the case is about to start.
    """

    name: str
    arguments: tuple[Any, ...]
    memory: Callable[[], float]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a task: a result, or the error that says why there is none."""

    name: str
    result: Any = None
    error: NnunetError | None = None
    seconds: float = 0.0


Stream: TypeAlias = Generator[Outcome | Note | None, None, None]


@dataclass(eq=False)
class _Running:
    task: Task
    bytes: float
    alone: bool
    begun: float = field(default_factory=time.monotonic)


def worker_count(wished: int) -> int:
    """Return how many processes to use; 0 means one per core.

    Raises
    ------
    ResourceError
        If the number is negative.
    """
    if wished < 0:
        raise ResourceError(f"{wished} workers were asked for; give a positive number, or 0 for one per core.")
    return wished or available_threads()


def run_cases(
    function: Callable[..., Any],
    tasks: Sequence[Task],
    *,
    workers: int = 0,
    memory_gb: float = 0,
    finished: Callable[[Outcome], None] | None = None,
) -> Job[dict[str, Outcome]]:
    """Call a function for every case in worker processes; yields notes, failures and progress.

    Parameters
    ----------
    function : callable
        Importable by name.
    tasks : sequence of Task
        In the order in which they start.
    workers : int
        Processes; 0 means one per core.
    memory_gb : float
        Budget of all workers together; 0 means most of what is free.
    finished : callable, optional
        Told of every outcome at once; failures are then also yielded as events.

    Returns
    -------
    dict of str to Outcome
        In the order in which they came.
    """
    return (yield from collected(_run(function, tasks, workers, memory_gb), len(tasks), finished))


def collected(stream: Stream, total: int, finished: Callable[[Outcome], None] | None = None) -> Job[dict[str, Outcome]]:
    """Return the outcomes of a stream when it has come to its end; yields notes, failures and progress.

    Parameters
    ----------
    stream : generator
        Outcomes as they come, notes, and None now and then, so that a job can be cancelled while nothing happens.
    total : int
        How many outcomes there will be.
    finished : callable, optional
        As for :func:`run_cases`.
    """
    outcomes: dict[str, Outcome] = {}
    with closing(stream):
        for item in stream:
            if isinstance(item, Note):
                yield item
            elif item is not None:
                outcomes[item.name] = item
                if finished is not None:
                    finished(item)
                    yield from _failures(item, len(outcomes) - 1, total)
            # Without news too: a job is cancelled where it yields.
            yield Progress(done=len(outcomes), total=total)
    return outcomes


def _failures(outcome: Outcome, index: int, total: int) -> Iterator[CaseFailed]:
    if outcome.error is not None:
        yield CaseFailed.of(outcome.name, outcome.error, index, total)


def _run(function: Callable[..., Any], tasks: Sequence[Task], workers: int, memory_gb: float) -> Stream:
    """Yield outcomes as they come, and None as a heartbeat while nothing is finished."""
    count = worker_count(workers)
    reason = why_alone()
    if reason is not None:
        yield Note(text=f"Cases are worked on in this process, one after the other: {reason}.")
        yield from _here(function, tasks)
        return
    pool = _Pool(function, count, memory_gb * 1e9)
    try:
        yield from pool.run(tasks)
    finally:
        pool.stop()


def _here(function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[Outcome]:
    for task in tasks:
        yield Outcome(task.name, *guarded(function, task.arguments))


def _estimate(task: Task) -> float:
    """Return the bytes a call will take, 0 where its file cannot be looked at: the call itself will say why."""
    try:
        return task.memory()
    except Exception:  # every library has its own
        return 0.0


class _Pool:
    def __init__(self, function: Callable[..., Any], workers: int, budget: float) -> None:
        self._function = function
        self._workers = workers
        self._budget = budget or max(available_memory() * _SHARE, 1.0)
        self._running: dict[Future[Any], _Running] = {}

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome | Note | None]:
        """Start tasks as memory allows, yield what becomes of them."""
        waiting: deque[tuple[Task, float | None]] = deque((task, None) for task in tasks)
        suspects: deque[_Running] = deque()
        while waiting or suspects or self._running:
            yield from self._admit(waiting, suspects)
            done, _ = wait(self._running, timeout=_HEARTBEAT, return_when=FIRST_COMPLETED)
            if not done:
                yield None
            died: list[_Running] = []
            for future in done:
                entry = self._running.pop(future)
                outcome = _outcome(future, entry)
                if outcome is None:
                    died.append(entry)
                else:
                    yield outcome
            if died:
                # One death breaks the pool, so whatever ran next to the culprit ends too: each gets a try alone.
                died += self._running.values()
                self._running.clear()
                yield from (_killed(entry) for entry in died if entry.alone)
                suspects.extend(entry for entry in died if not entry.alone)

    def _admit(self, waiting: deque[tuple[Task, float | None]], suspects: deque[_Running]) -> Iterator[Note]:
        """Start what fits: suspects alone, else as many as there are workers (and one to follow each)."""
        if suspects:
            if not self._running:
                entry = suspects.popleft()
                self._start(entry.task, entry.bytes, alone=True)
            return
        while waiting and len(self._running) < 2 * self._workers:
            task, known = waiting[0]
            needed = _estimate(task) + _WORKER_BYTES if known is None else known
            waiting[0] = (task, needed)
            if self._running and sum(entry.bytes for entry in self._running.values()) + needed > self._budget:
                return
            waiting.popleft()
            if needed > self._budget:
                yield Note(
                    level="warning",
                    text=f"{task.name} needs about {needed / 1e9:.1f} GB of memory, more than the "
                    f"{self._budget / 1e9:.1f} GB available; it runs alone.",
                )
            self._start(task, needed, alone=False)

    def _start(self, task: Task, needed: float, *, alone: bool) -> None:
        executor = _executor(self._workers)
        try:
            future = executor.submit(guarded, self._function, task.arguments)
        except BrokenProcessPool:
            # A worker died between two tasks; asking again gives a new pool.
            future = _executor(self._workers).submit(guarded, self._function, task.arguments)
        self._running[future] = _Running(task, needed, alone)

    def stop(self) -> None:
        """End what still runs; everything a worker writes appears whole or not at all."""
        if self._running:
            self._running.clear()
            _executor(self._workers).shutdown(wait=True, kill_workers=True)


_HEAVY = ("napari_nnunet.engine.image.prepare_case", "napari_nnunet.engine.planning.measure", "blosc2")


def warm_up(workers: int) -> None:
    """Start the workers and let them load their libraries while the caller still prepares the work."""
    count = worker_count(workers)
    if why_alone() is not None:
        return
    executor = _executor(count)
    for _ in range(count):
        executor.submit(_load)


def _load() -> None:
    for module in _HEAVY:
        import_module(module)


def _executor(workers: int) -> Any:
    threads = str(max(1, available_threads() // workers))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
    env = dict.fromkeys(names, threads)
    return get_reusable_executor(
        max_workers=workers, timeout=20, env=env, initializer=end_with, initargs=(os.getpid(),)
    )


def guarded(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, NnunetError | None, float]:
    """Run in the worker: errors come back as values, with the traceback of those that nobody expected."""
    begun = time.monotonic()
    try:
        with memory_told(shell="Or use fewer workers (-np).", window="Or use fewer workers."):
            return function(*arguments), None, time.monotonic() - begun
    except Exception as error:
        return None, for_people(error), 0.0


def _outcome(future: Future[Any], entry: _Running) -> Outcome | None:
    """Return what a task gave, None if its process died."""
    try:
        return Outcome(entry.task.name, *future.result())
    except BrokenProcessPool:
        return None


def _killed(entry: _Running) -> Outcome:
    error = ResourceError(
        "The process working on it was killed twice, the second time running alone: probably out of memory. "
        f"It was expected to need {entry.bytes / 1e9:.1f} GB."
    )
    return Outcome(entry.task.name, error=error)


def results_of(outcomes: Mapping[str, Outcome], verb: str) -> dict[str, Any]:
    """Return every case's result.

    Raises
    ------
    DatasetError, ResourceError, InternalError
        If any case failed. ``verb`` is what could not be done with them: "measured".
    """
    failures = {name: outcome.error for name, outcome in outcomes.items() if outcome.error is not None}
    if failures:
        raise of_cases(failures, len(outcomes), verb)
    return {name: outcome.result for name, outcome in outcomes.items()}


def rest_of(outcomes: Mapping[str, Outcome], verb: str) -> dict[str, Any]:
    """Return the results of the cases that did not fail; those that did were told as they came.

    Raises
    ------
    DatasetError, ResourceError, InternalError
        If all failed. ``verb`` is what could not be done with them: "measured".
    """
    rest = {name: outcome for name, outcome in outcomes.items() if outcome.error is None}
    return results_of(rest or outcomes, verb)


_WORTH_PROCESSES = 4e8  # voxels to look at: below, starting processes takes longer than the work


def each_case(
    function: Callable[..., Any], tasks: Sequence[Task], *, workers: int = 0, work: float = 0
) -> Job[dict[str, Outcome]]:
    """Call a function for every case: here where that is little work, in worker processes where it is much.

    Parameters
    ----------
    function, tasks, workers
        As for :func:`run_cases`.
    work : float
        Voxels of all cases together.

    Returns
    -------
    dict of str to Outcome
        By the names of the tasks.
    """
    if worker_count(workers) > 1 and len(tasks) > 1 and work > _WORTH_PROCESSES:
        outcomes: dict[str, Outcome] = yield from run_cases(function, tasks, workers=workers, finished=lambda _: None)
        return outcomes
    outcomes = {}
    for outcome in _here(function, tasks):
        outcomes[outcome.name] = outcome
        yield from _failures(outcome, len(outcomes) - 1, len(tasks))
        yield Progress(done=len(outcomes), total=len(tasks))
    return outcomes
