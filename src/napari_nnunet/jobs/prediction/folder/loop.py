"""Cases of a folder, one after the other in this process, or side by side on a cluster; a bad one ends no other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import zip_longest

from napari_nnunet.errors import NnunetError, for_people, memory_told
from napari_nnunet.events import CaseDone, CaseFailed, Found, Job, Note, Progress
from napari_nnunet.formats.dataset.case_files import Case
from napari_nnunet.formats.results.objects import found_file
from napari_nnunet.formats.results.recipe import write_recipe
from napari_nnunet.jobs.prediction.folder.case import (
    Done,
    FolderWork,
    Opened,
    arithmetic_of,
    opened_case,
    out_of,
    segment_case,
    segment_elsewhere,
)
from napari_nnunet.jobs.prediction.folder.kept import note_made
from napari_nnunet.jobs.prediction.table import QualityTable
from napari_nnunet.processes.cluster.team import Elsewhere, result_of, team
from napari_nnunet.processes.pool import Outcome, Task


@dataclass(frozen=True)
class FolderResult:
    """Names of the cases by what became of them; of those that failed, the error."""

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: dict[str, NnunetError]


@dataclass(eq=False)
class Tally:
    """What became of the cases of a folder so far.

    Parameters
    ----------
    cases : sequence of Case
        All of them.
    work : FolderWork
        What is done with each.
    kept : mapping of int to tuple of Found
        Those that are there already, by their place.
    quality : QualityTable, optional
        Where predicted Dice goes.
    """

    cases: Sequence[Case]
    work: FolderWork
    kept: Mapping[int, tuple[Found, ...]]
    quality: QualityTable | None
    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, NnunetError] = field(default_factory=dict)

    @property
    def todo(self) -> list[int]:
        """Places of the cases that are to be segmented."""
        return [i for i in range(len(self.cases)) if i not in self.kept]

    @property
    def result(self) -> FolderResult:
        """What became of all."""
        return FolderResult(tuple(self.done), tuple(self.skipped), self.failed)

    def skip(self, index: int) -> CaseDone:
        """Note a case that is there already."""
        self.skipped.append(self.cases[index].name)
        return self._told(index, 0.0, self.kept[index], skipped=True)

    def write(self, index: int, done: Done) -> Job[None]:
        """Write what is kept of all cases together."""
        write_recipe(self.work.folder.target, done.recipe)
        note_made(self.cases[index], self.work, done.files)
        if self.quality is not None and done.quality is not None:
            yield self.quality.add(self.cases[index].name, done.quality)

    def finish(self, index: int, done: Done, seconds: float) -> CaseDone:
        """Note a case that is written."""
        self.done.append(self.cases[index].name)
        return self._told(index, seconds, done.found)

    def fail(self, index: int, error: NnunetError) -> CaseFailed:
        """Note a case that failed."""
        name = self.cases[index].name
        self.failed[name] = error
        return CaseFailed.of(name, error, index, len(self.cases))

    def _told(self, index: int, seconds: float, found: tuple[Found, ...], *, skipped: bool = False) -> CaseDone:
        case, work = self.cases[index], self.work
        return CaseDone(
            case=case.name,
            index=index,
            total=len(self.cases),
            path=str(found_file(out_of(case, work.model, work.folder))),
            seconds=seconds,
            skipped=skipped,
            found=found,
        )


def in_turn(tally: Tally) -> Job[None]:
    """Segment one case after the other; reading the next image overlaps with segmenting this one."""
    work, todo = tally.work, tally.todo
    following = dict(zip_longest(todo, todo[1:]))
    ahead: Future[Opened] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        for index, case in enumerate(tally.cases):
            if index in tally.kept:
                yield tally.skip(index)
                continue
            began = time.monotonic()
            current = ahead or reader.submit(opened_case, case, work)
            upcoming = following[index]
            ahead = None
            if upcoming is not None:
                ahead = reader.submit(opened_case, tally.cases[upcoming], work)
            try:
                with memory_told("Segment fewer cases at a time, or close other programs."):
                    done = yield from segment_case(case, current.result(), work)
                yield from tally.write(index, done)
            except Exception as unforeseen:  # whatever it is, the cases after it are segmented
                yield tally.fail(index, for_people(unforeseen))
                continue
            yield tally.finish(index, done, time.monotonic() - began)


def on_cluster(tally: Tally, cluster: str) -> Job[None]:
    """Let workers of a cluster segment the cases; all use the arithmetic that the first of them chooses.

    Raises
    ------
    SettingsError, ResourceError
        If there is no such cluster, or its workers cannot do the work.
    """
    work, todo = tally.work, tally.todo
    for index in tally.kept:
        yield tally.skip(index)
    if not todo:
        return
    first = tally.cases[todo[0]].files[:1]
    need = Elsewhere(cluster, reads=(work.model.folder, *first), writes=work.folder.target, network=True)
    with team(need) as workers:
        yield from result_of(workers.gathered())
        settings, chosen = yield from result_of(workers.one(arithmetic_of, work.model.folder, work.settings))
        yield Note(text=f"Computing on {chosen}.")
        tasks = (
            Task(str(i), (tally.cases[i], work.model.folder, work.folder, settings, work.output), lambda: 0.0)
            for i in todo
        )
        with closing(workers.outcomes(segment_elsewhere, tasks)) as stream:
            for item in stream:
                if isinstance(item, Outcome):
                    yield from _settled(tally, item)
                else:
                    yield item or Progress(done=len(tally.done) + len(tally.failed), total=len(tally.cases))


def _settled(tally: Tally, outcome: Outcome) -> Job[None]:
    index = int(outcome.name)
    if outcome.error is not None:
        yield tally.fail(index, outcome.error)
        return
    done, notes = outcome.result
    yield from notes
    try:
        yield from tally.write(index, done)
    except Exception as unforeseen:  # as in this process
        yield tally.fail(index, for_people(unforeseen))
        return
    yield tally.finish(index, done, outcome.seconds)
