"""Workers of a cluster as one: they are looked at before work starts, and get tasks until all are done."""

from __future__ import annotations

import queue
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_nnunet.errors import ResourceError, for_people
from napari_nnunet.events import Job, Note, Progress
from napari_nnunet.formats.atomic import make_folder, partial_name, write_text
from napari_nnunet.processes.cluster.start import Started, needed, started
from napari_nnunet.processes.cluster.where import Queue, Scheduler, where
from napari_nnunet.processes.cluster.worker import GPU, Expected, Facts, Unfit, call, facts, packed, sampled, versions
from napari_nnunet.processes.pool import Outcome, Stream, Task

_HEARTBEAT = 0.2  # seconds between two looks at whether the job was cancelled
_LOOK_EVERY = 10.0  # seconds between two looks at whether workers are there
_FEWEST = 64  # tasks that are handed over at once, at least
_PER_WORKER = 4


@dataclass(frozen=True)
class Elsewhere:
    """What tasks for other machines need.

    Parameters
    ----------
    cluster : str
        As it was typed; see :func:`~napari_nnunet.processes.cluster.where.where`.
    reads : tuple of Path
        What workers must see.
    writes : Path, optional
        The folder they write in.
    network : bool
        Whether tasks run a network: then GPUs, where workers have some, are for one task at a time.
    """

    cluster: str
    reads: tuple[Path, ...] = ()
    writes: Path | None = None
    network: bool = False


@contextmanager
def team(need: Elsewhere) -> Iterator[Team]:
    """Give a team for as long as the block lasts; its workers are asked for, and may come later.

    Raises
    ------
    SettingsError
        If what was typed names no cluster.
    ResourceError
        If it cannot be reached or started.
    """
    place, mark = where(need.cluster), partial_name("cluster")  # removed as others are where this process is killed
    writes = None if need.writes is None else make_folder(need.writes).absolute()
    reads = tuple(path.absolute() for path in need.reads)
    expected = Expected(versions(), reads, writes, mark, tuple(map(sampled, reads)))
    with started(place) as start:
        if writes is not None:
            write_text(writes / mark, "Workers of a cluster look for this file.")
        try:
            name = "the cluster" if not isinstance(place, Scheduler) else place.address
            # A queueing system keeps the jobs of one computer apart; a worker may have half of its job's memory.
            gigabytes = place.gigabytes / 2 if isinstance(place, Queue) else 0.0
            yield Team(start, expected, need.network, name, gigabytes, apart=isinstance(place, Queue))
        finally:
            if writes is not None:
                with suppress(OSError):
                    (writes / mark).unlink(missing_ok=True)


def spread(need: Elsewhere, function: Callable[..., Any], tasks: Iterable[Task]) -> Stream:
    """Call a function for every case on a cluster.

    Parameters
    ----------
    need : Elsewhere
        Where, and what workers must see.
    function : callable
        Importable by name.
    tasks : iterable of Task
        In the order in which they start. Each may be carried out more than once.

    Yields
    ------
    Outcome, Note or None
        As :func:`~napari_nnunet.processes.pool.collected` takes them.
    """
    with team(need) as workers:
        yield from workers.gathered()
        yield from workers.outcomes(function, tasks)


def result_of(stream: Iterator[Outcome | Note | None]) -> Job[Any]:
    """Return the result of the one outcome of a stream, None if it has none; raises the outcome's error."""
    outcome = Outcome("")
    for item in stream:
        if isinstance(item, Outcome):
            outcome = item
        else:
            yield item or Progress(done=0, total=1)  # a job is cancelled where it yields
    if outcome.error is not None:
        raise outcome.error
    return outcome.result


class Team:
    """Workers of a cluster.

    Parameters
    ----------
    start : Started
        The scheduler.
    expected : Expected
        What each worker must have.
    network : bool
        Whether tasks run a network.
    name : str
        Of the cluster, in sentences.
    memory_gb : float
        What a worker may take where that is known, else 0.
    apart : bool
        Whether workers on one computer have cores and memory of their own.
    """

    def __init__(
        self, start: Started, expected: Expected, network: bool, name: str, memory_gb: float, *, apart: bool
    ) -> None:
        self.memory_gb = memory_gb
        self._client, self._start, self._expected = start.client, start, expected
        self._network, self._name, self._apart = network, name, apart
        self._workers: dict[str, Facts] = {}
        self._unfit: set[str] = set()
        self._looked, self._counted = time.monotonic(), 0
        self._told: list[Any] = []  # what nobody holds is not carried out

    # --- before work starts ---

    def gathered(self) -> Iterator[Note | None]:
        """Wait until a worker is there, and look at all that are.

        Raises
        ------
        ResourceError
            If workers have other versions, or do not see or write what they must; or if those of this computer end.
        """
        said = False
        while not (there := self._look()):
            self._require_alive()
            if not said and self._start.wanted == 0:
                yield Note(text=f"There is no worker at {self._name} yet; waiting for one (dask worker ADDRESS).")
            elif not said:
                yield Note(text="Waiting for the first worker.")
            said = True
            yield None
            time.sleep(_HEARTBEAT)
        while len(there) < len(self._start.processes):  # those of this computer come together
            self._require_alive()
            yield None
            time.sleep(_HEARTBEAT)
            there = self._look()
        for address, found in there.items():
            self._workers[address] = self._approved(address, found)
        yield from self._introduced()

    def _approved(self, address: str, found: Any) -> Facts:
        """Return what a worker says of itself, if it can do the work."""
        if isinstance(found, ImportError | AttributeError):
            own = dict(self._expected.versions)["napari-nnunet"]
            raise ResourceError(
                f"The worker {address} cannot load napari-nnunet {own} ({found}). Install the same version on all "
                "machines."
            )
        if isinstance(found, BaseException):
            raise ResourceError(f"The worker {address} does not answer as it should: {found}.") from found
        if found.unfit:
            raise self._refused(address, found.unfit)
        known: Facts = found
        return known

    def _look(self) -> dict[str, Any]:
        """Return what every worker says of itself, or the error there."""
        try:
            found: dict[str, Any] = self._client.run(facts, self._expected, on_error="return")
        except Exception as error:  # whatever the library raises when the scheduler goes away
            raise self._lost() from error
        return found

    def _require_alive(self) -> None:
        dead = [process for process in self._start.processes if process.poll() is not None]
        if dead and self._start.printed is not None:
            logs = [log.read_text(errors="replace").split("\n") for log in sorted(self._start.printed.glob("*.log"))]
            lines = [line for log in logs for line in log if line.strip()]
            raise ResourceError(f"A worker could not be started: {lines[-1] if lines else dead[0].returncode}")

    def _refused(self, address: str, why: str) -> ResourceError:
        what = (
            "Install the same versions of napari-nnunet, torch and Python on all machines."
            if why.startswith("has ")
            else "All machines must reach these files under the same path, on a shared disk."
        )
        return ResourceError(f"The worker {address} {why}. {what} Nothing was computed.")

    def _introduced(self) -> Iterator[Note]:
        count = len(self._workers)
        computers = len({found.host for found in self._workers.values()})
        gpu = sum(found.gpu for found in self._workers.values())
        link = self._client.dashboard_link if self._has_dashboard() else ""
        yield Note(
            text=f"{count} worker{'s' if count > 1 else ''} on {computers} computer{'s' if computers > 1 else ''}"
            f"{f', {gpu} with a GPU' if gpu else ''}."
            + (f" Dashboard: {link}" if link else " There is a dashboard where bokeh is installed.")
        )
        many = [address for address, found in self._workers.items() if found.threads > 1]
        if many:
            yield Note(
                level="warning",
                text=f"{many[0]} was started with {self._workers[many[0]].threads} threads, but one task at a time "
                "runs in a worker. Start workers with --nthreads 1, and several of them (--nworkers N) on a computer "
                "with many cores or GPUs.",
            )

    def _has_dashboard(self) -> bool:
        return "dashboard" in (self._client.scheduler_info().get("services") or {})

    # --- work ---

    @property
    def count(self) -> int:
        """How many workers there are, or will be: jobs of a queueing system come one by one."""
        return max(len(self._workers), self._start.wanted)

    def tell(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Let every worker that is there call a function before its next task; nobody waits for it, or asks."""
        for address in self._workers:
            self._told.append(self.submit(function, Task("", arguments, lambda: 0.0), only=address))

    def one(self, function: Callable[..., Any], *arguments: Any) -> Stream:
        """Call a function once, on whichever worker; the outcome comes last."""
        return self.outcomes(function, [Task("", arguments, lambda: 0.0)])

    def outcomes(self, function: Callable[..., Any], tasks: Iterable[Task]) -> Stream:
        """Call a function for every task, and yield what becomes of them as it comes.

        A worker that dies loses nothing: its tasks are carried out by another one.

        Raises
        ------
        ResourceError
            If the scheduler is gone, and does not come back, or no worker can do the work.
        """
        work = _Work(self, function, iter(tasks))
        try:
            yield from work.run()
        finally:
            work.stop()

    @property
    def window(self) -> int:
        """How many tasks are handed over at once; the rest stays here, so that millions would be no burden."""
        return max(_FEWEST, _PER_WORKER * max(len(self._workers), self._start.wanted, self._counted))

    def submit(self, function: Callable[..., Any], task: Task, only: str | None = None) -> Any:
        """Hand a task over, to one worker alone where it is named; returns its future."""
        hosts = Counter(found.host for found in self._workers.values())
        shared = 1 if self._apart else max(hosts.values(), default=1)
        gpu = self._network and only is None and any(found.gpu for found in self._workers.values())
        good = [address for address in self._workers if address not in self._unfit] if self._unfit else None
        return self._client.submit(
            call,
            self._expected,
            shared,
            packed(function, task.arguments),
            key=f"napari-nnunet-{function.__name__}-{secrets.token_hex(8)}",
            pure=False,
            resources={GPU: 1} if gpu else None,
            workers=good if only is None else [only],
        )

    def cancel(self, futures: list[Any]) -> None:
        """Take tasks back; one that runs already is finished by its worker."""
        self._client.cancel(futures, force=True)

    def leave_out(self, address: str, why: str) -> Note | None:
        """Give no more tasks to a worker that came later and is unfit; says so once.

        Raises
        ------
        ResourceError
            If no other worker is left.
        """
        if address in self._unfit:
            return None
        self._unfit.add(address)
        self._workers.pop(address, None)
        if not self._workers:
            raise self._refused(address, why)
        return Note(level="warning", text=f"The worker {address} {why}, and gets no more tasks.")

    @property
    def is_time_to_look(self) -> bool:
        """Whether nobody looked at the workers for some seconds."""
        return time.monotonic() - self._looked > _LOOK_EVERY

    def looked_after(self) -> Iterator[Note | None]:
        """Wait for a scheduler that went away, count the workers, and let the job be cancelled."""
        yield None
        while self._client.status == "connecting":
            yield None
            time.sleep(_HEARTBEAT)
        if self._client.status != "running":
            raise self._lost()
        if self.is_time_to_look:
            self._looked = time.monotonic()
            with suppress(OSError, TimeoutError):
                self._counted = len(self._client.nthreads())
                if not self._counted:
                    yield Note(level="warning", text=f"No worker is left at {self._name}; waiting for another one.")

    def _lost(self) -> ResourceError:
        return ResourceError(
            f"The connection to {self._name} is lost, and its scheduler does not answer any more. What is finished is "
            "kept; start the scheduler and run the same again.",
            shell="Add --continue (predict_image) or --continue_prediction (predict).",
        )


class _Work:
    """Tasks that are handed over, and those that wait to be."""

    def __init__(self, workers: Team, function: Callable[..., Any], tasks: Iterator[Task]) -> None:
        self._team, self._function, self._tasks = workers, function, tasks
        self._running: dict[Any, Task] = {}
        self._done: queue.Queue[Any] = queue.Queue()
        self._forgotten: list[Task] = []
        self._killed = needed("distributed").KilledWorker

    def run(self) -> Stream:
        """Yield outcomes as they come."""
        while True:
            if self._forgotten:
                yield from self._team.looked_after()
                while self._forgotten:
                    self._submit(self._forgotten.pop())
            while len(self._running) < self._team.window and (task := next(self._tasks, None)) is not None:
                self._submit(task)
            if not (self._running or self._forgotten):
                return
            if self._team.is_time_to_look:  # workers come and go while outcomes come without a pause
                yield from self._team.looked_after()
            try:
                future = self._done.get(timeout=_HEARTBEAT)
            except queue.Empty:
                yield from self._team.looked_after()
                continue
            if future in self._running:
                yield self._judged(future, self._running.pop(future))

    def _submit(self, task: Task) -> None:
        future = self._team.submit(self._function, task)
        self._running[future] = task
        future.add_done_callback(self._done.put)

    def _judged(self, future: Any, task: Task) -> Outcome | Note | None:
        """Return what became of a task; one that must be tried again is handed over again."""
        if future.status == "finished":
            result = future.result()
            if not isinstance(result, Unfit):
                return Outcome(task.name, *result)
            said = self._team.leave_out(result.worker, result.why)
            self._submit(task)
            return said
        if future.status == "error":
            return Outcome(task.name, error=self._failed(future.exception()))
        self._forgotten.append(task)  # by a scheduler that went away
        return None

    def _failed(self, error: Any) -> Any:
        if isinstance(error, self._killed):
            return ResourceError(
                "The worker died each time it was tried, on several workers: probably out of memory. Give the workers "
                "more memory, or allow a task less.",
                shell="For large images that is --memory.",
            )
        return for_people(error)

    def stop(self) -> None:
        """Cancel what still runs; everything a worker writes appears whole or not at all."""
        if self._running:
            with suppress(Exception):  # the scheduler may be gone
                self._team.cancel(list(self._running))
            self._running.clear()
