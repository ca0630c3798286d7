"""From the button to a training: what is preprocessed before, what is asked, the process or the jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QMessageBox

from napari_nnunet.errors import counted
from napari_nnunet.processes.launch import ClusterTrainings, DetachedTraining
from napari_nnunet.widgets.frame.dock import Dock
from napari_nnunet.widgets.frame.panel import RunPanel, RunState
from napari_nnunet.widgets.frame.preferences import remember_cluster
from napari_nnunet.widgets.frame.state import Choice, State
from napari_nnunet.widgets.frame.words import as_text
from napari_nnunet.widgets.frame.worker import lazy
from napari_nnunet.widgets.training.form import Asked
from napari_nnunet.widgets.training.watch import Watch
from napari_nnunet.widgets.training.words import again_question, unused_question

if TYPE_CHECKING:
    from napari_nnunet.events import Job
    from napari_nnunet.jobs.scheduling.prepare import Begun, look_at_jobs, submit_trainings
    from napari_nnunet.jobs.training.prepare import Needs, look_at_needs, prepare_training
else:
    Begun = Needs = Any
    look_at_needs = lazy("napari_nnunet.jobs.training.prepare:look_at_needs")
    prepare_training = lazy("napari_nnunet.jobs.training.prepare:prepare_training")
    look_at_jobs = lazy("napari_nnunet.jobs.scheduling.prepare:look_at_jobs")
    submit_trainings = lazy("napari_nnunet.jobs.scheduling.prepare:submit_trainings")


def needs_of(asked: Asked) -> Job[Needs]:
    """Return a job that finds out what is to be done before trainings can begin."""
    if isinstance(asked, ClusterTrainings):
        return look_at_jobs(asked)
    return look_at_needs(asked.workspace, asked.requests[:1])


def needs_text(found: Needs) -> list[str]:
    """Return what is done before, and how many jobs there will be, a sentence without its full stop each."""
    said = []
    if found.cases:
        said.append(f"{counted(len(found.cases), 'case')} will be preprocessed first")
    if found.unused:
        them = "it" if len(found.unused) == 1 else "them"
        said.append(f"{counted(len(found.unused), 'case')} in no fold yet; you will be asked about {them}")
    jobs = getattr(found, "jobs", None)
    if jobs is not None:
        said.append(f"{counted(len(jobs), 'job')} to submit" if jobs else "All of these are trained or under way")
    return said


class Starter:
    """Starts trainings for the Train dock.

    Parameters
    ----------
    dock : Dock
        The dock, for its questions.
    panel : RunPanel
        Runs what comes before, and says what came of it.
    watch : Watch
        Follows the processes.
    state : State
        Of the viewer.
    begun : callable
        Told the folder of the first fold.
    """

    def __init__(
        self, dock: Dock, panel: RunPanel, watch: Watch, state: State, begun: Callable[[Path], object]
    ) -> None:
        self._dock, self._panel, self._watch, self._state, self._begun = dock, panel, watch, state, begun

    def confirmed(self, title: str, question: str) -> bool:
        """Ask a question."""
        return QMessageBox.question(self._dock, title, as_text(question)) == QMessageBox.StandardButton.Yes

    def begin(self, asked: Asked) -> None:
        """Start trainings; one that was trained before only after asking. Jobs continue what is there."""
        question = "" if isinstance(asked, ClusterTrainings) else again_question(asked, self._watch.trainings)
        if not question or self.confirmed("Train again?", question):
            self.start(asked)

    def start(self, asked: Asked) -> None:
        """Do what a request still needs on a thread; it is started when nothing speaks against it."""
        if self._panel.state is RunState.IDLE:
            since = self._state.choice
            self._panel.run(needs_of(asked), done=lambda needs: self._prepare(asked, needs, since))

    def _prepare(self, asked: Asked, needs: Needs, since: Choice) -> str | None:
        if needs.unused and self._dock.closed:
            cases = counted(len(needs.unused), "case")
            return f"Not started: {cases} in no fold yet, and nobody could be asked. Open the Train dock again."
        adopt = needs.unused if needs.unused and self.confirmed("New cases", unused_question(needs)) else ()
        if isinstance(asked, ClusterTrainings):
            jobs = submit_trainings(asked, adopt=adopt)
            self._panel.run(jobs, done=lambda begun: self._submitted(asked, begun, since))
        else:
            job = prepare_training(asked.workspace, asked.requests, adopt=adopt)
            self._panel.run(job, done=lambda _: self.start_process(asked, since))
        return None

    def start_process(self, asked: DetachedTraining, since: Choice) -> str:
        """Start the process of a request; what was chosen when it was asked for is told from what is chosen since."""
        first = self._watch.start(asked)
        self._started(asked, first, since)
        ahead = any(training.status == "running" for training in self._watch.trainings)
        return "Started; it begins when the trainings before it have ended." if ahead else "Started."

    def _submitted(self, asked: ClusterTrainings, begun: Begun, since: Choice) -> str:
        remember_cluster(asked.request.cluster)
        if not begun.folders:
            return "Nothing is left to train: all of these are trained, or submitted already."
        if begun.process is not None and begun.log is not None:
            self._watch.follow(begun.process, begun.log)
        self._watch.look()
        self._started(asked, begun.folders[0], since)
        what = counted(len(begun.folders), "training")
        return f"{what} submitted; the list below shows how far they are."

    def _started(self, asked: Asked, first: Path, since: Choice) -> None:
        self._state.go_on(since, dataset=asked.dataset, plans=asked.plans, configuration=asked.configuration)
        self._begun(first)
