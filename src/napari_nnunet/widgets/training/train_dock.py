"""The Train dock: start trainings, follow them, look at what they learn and at what they get wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from napari.utils.notifications import show_info
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QGroupBox, QInputDialog, QVBoxLayout

from napari_nnunet.errors import ImageError, counted
from napari_nnunet.formats.claim import moving
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.model.model_trash import bring_training_back, folds_in_trash
from napari_nnunet.formats.workspace import stamp
from napari_nnunet.processes.follow import Training, call_off
from napari_nnunet.processes.launch import DetachedTraining, end_fold, improving, request_of
from napari_nnunet.schema.model_name import label_of
from napari_nnunet.widgets.files.trash import Rubbish, TrashButton
from napari_nnunet.widgets.frame.dock import RequestDock
from napari_nnunet.widgets.frame.parts import folded_away, into_sight
from napari_nnunet.widgets.frame.state import state_of
from napari_nnunet.widgets.frame.tabs import leads_to, open_dock
from napari_nnunet.widgets.frame.words import plain_time
from napari_nnunet.widgets.frame.worker import follow, lazy, on_a_thread
from napari_nnunet.widgets.training.correcting import Correcting
from napari_nnunet.widgets.training.details import TrainingDetails
from napari_nnunet.widgets.training.form import Asked, TrainForm
from napari_nnunet.widgets.training.layers import FilmLayers
from napari_nnunet.widgets.training.starting import Starter, needs_of, needs_text
from napari_nnunet.widgets.training.suspects import Suspect, SuspectList
from napari_nnunet.widgets.training.views import TrainingTable
from napari_nnunet.widgets.training.watch import Watch
from napari_nnunet.widgets.training.words import dataset_of, what_happens

if TYPE_CHECKING:
    import napari

    from napari_nnunet.events import Job
    from napari_nnunet.jobs.training.improve import continued
    from napari_nnunet.jobs.training.prepare import Needs
else:
    Needs = Any
    continued = lazy("napari_nnunet.jobs.training.improve:continued")

T = TypeVar("T")
_FINISH_IN = 20  # epochs
_SHOWN_MS = 300  # until a dock that comes to the front is laid out


class TrainWidget(RequestDock[Asked, Needs]):
    """Train folds in processes that outlive the window.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari.
    """

    in_workspace = True
    estimating = "Looking for cases to preprocess…"

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer, "Train", stops="Stop checking the dataset; no training was started yet.")
        self.state = state_of(viewer)
        self.film: FilmLayers | None = None
        self._asked: Path | None = None
        self._train_on: str | None = None
        self._alive: set[Path] = set()
        self.form = TrainForm(self.state, lambda title: leads_to(viewer, title))
        self.table = TrainingTable()
        self.details = TrainingDetails()
        self.trash = TrashButton(self._rubbish)
        self.correcting = Correcting(viewer, self, self.panel.fail, self.state.written.emit)
        self.correcting.before = self._remove_film
        self.suspects = SuspectList(self.state, lambda: self.chosen)
        trainings = QGroupBox("2  Trainings")
        column = QVBoxLayout(trainings)
        for part in (self.table, self.trash):
            column.addWidget(part)
        self.watch = Watch(self.state, self)
        self.starter = Starter(self, self.panel, self.watch, self.state, self.table.choose_when_there)
        self.checking = folded_away("Are the labels right?", self.suspects)
        self.lay_out(self.form, self.summary, self.panel, trainings, self.details, self.checking)
        self._connect()
        self.trash.look_again()
        self._show()
        self.check()

    def _connect(self) -> None:
        self.form.changed.connect(self.check_soon)
        self.watch.seen.connect(self._fill)
        self.watch.died.connect(self.panel.tell_failure)
        self.watch.gone.connect(self._tell_gone)
        self.watch.over.connect(self.state.trained)
        self.trash.emptied.connect(self._brought_back)
        for changed in (self.state.changed, self.state.trained):
            changed.connect(self.trash.look_again)
        self.table.chosen.connect(self._show)
        for name, function in (
            ("stop", self.stop),
            ("resume", self.resume),
            ("finish", self._ask_finish),
            ("discard", self._ask_discard),
            ("segment", self.segment_now),
            ("film", self.show_film),
            ("improve", self.improve),
            ("next", self.label_next),
        ):
            self.details.buttons[name].clicked.connect(function)
        self.details.scores.opened.connect(self.open_case)
        self.details.correct.clicked.connect(self.correcting.save)
        self.suspects.opened.connect(self.open_suspect)
        self.suspects.written.connect(self.state.written)

    # --- starting ---

    def request(self) -> Asked:
        """Return what the form says, and name the button after it."""
        request = self.form.request()
        self.panel.rename(self.form.button_text(request))
        return request

    def describe(self, request: Asked) -> str:
        """Return what pressing the button means."""
        return f"<b>{request.dataset}</b>: {what_happens(request)}"

    def estimate(self, request: Asked) -> Job[Needs]:
        """Look for cases that are to be preprocessed first, and for jobs that are left."""
        return needs_of(request)

    def expect(self, request: Asked, found: Needs) -> str:
        """Return what pressing the button means, and what is done before."""
        return ".<br>".join([self.describe(request), *needs_text(found)]) + "."

    def begin(self, request: Asked) -> None:
        """Start trainings; one that was trained before only after asking."""
        self.starter.begin(request)

    # --- following ---

    def _fill(self) -> None:
        self.table.show_trainings(self.watch.trainings)
        asked = self.watch.find(self._asked)
        if self._asked is not None and (asked is None or asked.status != "running"):
            self._asked = None  # the next press asks again instead of ending the process
            self.panel.say("")
        self._show()
        before, self._alive = self._alive, {t.folder.path for t in self.watch.trainings if t.alive}
        if self.form.on_cluster and self._alive != before:
            self.check_soon()  # other jobs are left
        self.form.look_at_preprocessed()
        if self._train_on is not None:
            self._continue()

    def _tell_gone(self, text: str) -> None:
        self.panel.tell_failure(f"{text} Submit it again to continue.", "")

    @property
    def chosen(self) -> Training | None:
        """The training that is selected in the list."""
        return self.watch.find(self.table.current())

    def _show(self) -> None:
        training = self.chosen
        self.details.setVisible(training is not None)
        self.checking.setVisible(training is not None)
        if training is None:
            return
        self.details.show_training(training, asked=self._asked == training.folder.path)
        if self.film is not None and self.film.folder == training.folder.film and self.film.open:
            self.film.update(training.frames)

    # --- what the buttons do ---

    def _aside(self, function: Callable[[], T], then: Callable[[T], object] = lambda _: None) -> None:
        """Do something with files or processes that may take a while, then something here, then look."""

        def returned(found: T) -> None:
            then(found)
            self.watch.look()

        follow(self, on_a_thread(function), returned=returned, errored=self.panel.fail)

    def stop(self) -> None:
        """Let the chosen training save and end, or call it off where it only waits; asked again, end its process."""
        training = self.chosen
        if training is None:
            return
        folder, workspace = training.folder, self.state.workspace
        if training.status == "waiting":
            self._aside(lambda: call_off(folder, workspace), lambda _: self.watch.withdraw(folder.path))
        elif self._asked == folder.path:
            self._aside(lambda: end_fold(folder, training.job))
        else:
            with self.telling(self.panel):
                folder.ask(stop=True)
                self._asked = folder.path
                self.panel.say("Pausing after this step…")
                self._show()

    def resume(self) -> None:
        """Continue the chosen training; one that is finished is made longer."""
        training = self.chosen
        if training is None:
            return
        if training.status != "finished":
            self._start_again(training, lambda request: request)
            return
        each = "" if training.last is None else f", {plain_time(training.last.seconds)} each"
        more, yes = QInputDialog.getInt(self, "Train longer", f"Additional epochs{each}:", 50, 1, 100_000)
        if yes:
            self.train_longer(more, training)

    def train_on(self) -> None:
        """Continue a training of the dataset that was chosen in another dock, as soon as it is found."""
        self._train_on = self.state.choice.dataset
        self.watch.look()

    def _continue(self) -> None:
        """Continue the latest training that another dock asked for; where there is none, the form is what is left."""
        dataset, self._train_on = self._train_on, None
        there = [t for t in self.watch.trainings if t.folder.path.parents[1].name == dataset]
        alive = next((t for t in there if t.alive), None)
        last = next((t for t in there if t.checkpoints), None)  # one that failed at its beginning has nothing to go on
        if alive is not None:
            self.panel.say(
                f"{alive.title} is under way, with the cases there were when it began. Press 'Train on' again when it "
                "has ended."
            )
        elif last is not None:
            self.table.choose_when_there(last.folder.path)
            self.table.show_trainings(self.watch.trainings)
            self.resume()

    def improve(self) -> None:
        """Continue the model of the chosen training with the cases and classes there are now; it stays itself."""
        training = self.chosen
        if training is not None and not self.busy:
            with self.telling(self.panel):
                request = improving(training.folder, self.state.workspace)
                job = continued(request.workspace, request.requests)
                since = self.state.choice
                self.panel.run(job, done=lambda _: self.starter.start_process(request, since))

    def offer_improving(self) -> None:
        """Choose the newest training of the dataset that can be improved, and say how."""
        there = [t for t in self.watch.trainings if t.folder.path.parents[1].name == self.state.choice.dataset]
        if there:
            self.table.choose_when_there(there[0].folder.path)
            self.table.show_trainings(self.watch.trainings)
        self.panel.say("Press 'Improve…' to continue the chosen model, or train again above.")
        QTimer.singleShot(_SHOWN_MS, self._show_improve)

    def _show_improve(self) -> None:
        """Bring the button into sight when the dock has come to the front and is laid out."""
        into_sight(self.details.buttons["improve"])
        self.details.buttons["improve"].setFocus()

    def _meant(self, training: Training | None) -> Training | None:
        """Return a training that a question was about as it is now, whatever is chosen by then; else the chosen one."""
        return self.chosen if training is None else self.watch.find(training.folder.path)

    def train_longer(self, more: int, asked: Training | None = None) -> None:
        """Give a training, the chosen one if not given, more epochs than it had."""
        training = self._meant(asked)
        if training is not None:
            done = 0 if training.last is None else training.last.epoch + 1
            self._start_again(training, lambda request: request.lasting(done + more))

    def _start_again(self, training: Training, change: Callable[[DetachedTraining], DetachedTraining]) -> None:
        """Continue a training as it was begun, but for a change."""
        with self.telling(self.panel):
            self.starter.start(change(request_of(training.folder, self.state.workspace)))

    def _ask_finish(self) -> None:
        training = self.chosen
        last = None if training is None else training.last
        left = _FINISH_IN if last is None else max(1, min(_FINISH_IN, last.epochs - last.epoch - 1))
        epochs, yes = QInputDialog.getInt(self, "Finish soon", "Epochs until the end:", left, 1, 100_000)
        if yes:
            self.finish_in(epochs, training)

    def finish_in(self, epochs: int, asked: Training | None = None) -> None:
        """Let a training, the chosen one if not given, end after a few more epochs."""
        training = self._meant(asked)
        if training is None:
            return
        if training.status == "running":
            with self.telling(self.panel):
                training.folder.ask(finish_in=epochs)
                self.panel.say(f"Will finish after {counted(epochs, 'more epoch')}.")
        else:
            self._start_again(training, lambda request: request.finishing(epochs))

    def _ask_discard(self) -> None:
        training = self.chosen
        if training is not None and self.starter.confirmed(
            "Discard this training?", f"Move checkpoints, logs and validation of {training.title} to the trash?"
        ):
            self.discard(training)

    def discard(self, asked: Training | None = None) -> None:
        """Move a training, the chosen one if not given, to the trash; one that saved nothing yet is deleted."""
        training = self._meant(asked)
        if training is not None and not training.alive:
            folder = training.folder
            self._aside(lambda: _put_away(folder), lambda _: self.state.trained.emit())

    def _rubbish(self) -> list[Rubbish]:
        """Return the folds that were discarded or trained anew."""
        return [
            Rubbish(
                f"{home.parents[1].name} / {label_of(home.parent.name)}, fold {FoldFolder(home).fold}",
                entry.time,
                partial(bring_training_back, entry, home),
            )
            for entry, home in folds_in_trash(self.state.workspace.results)
        ]

    def _brought_back(self, text: str) -> None:
        self.state.trained.emit()
        self.watch.look()
        self.panel.say(text)

    def segment_now(self) -> None:
        """Open the Segment dock with the best state of the chosen training, and run it if an image is ready."""
        training = self.chosen
        if training is None or not training.checkpoints:
            return
        folder = training.folder
        path = next((path for path in (folder.final, folder.best, folder.latest) if stamp(path) is not None), None)
        if path is None:
            self.panel.say(f"The checkpoints of {training.title} are not there any more.")
            return
        self.state.choose(model=folder.path.parent)
        open_dock(self.viewer, "Segment").use(folder.path.parent, checkpoint=path.name, folds=(folder.fold,))

    def label_next(self) -> None:
        """Open the Next dock with the dataset of the chosen training: its model says what is best labelled next."""
        training = self.chosen
        if training is not None:
            self.state.choose(dataset=training.folder.path.parents[1].name)
            open_dock(self.viewer, "Next")

    def show_film(self) -> None:
        """Open the film of the chosen training."""
        training = self.chosen
        info = None if training is None else dataset_of(training)
        if training is None or info is None or not training.frames:
            return
        try:
            self.film = FilmLayers(self.viewer, training.folder.film, info)
        except ImageError as error:
            self.panel.fail(error)
            return
        self.film.update(training.frames)
        show_info("Move the epoch slider to watch the network learn; new frames are added while it trains.")

    def open_case(self, row: int) -> None:
        """Open a validation case with its reference, the result and their differences."""
        training = self.chosen
        if training is not None:
            score = self.details.scores.scores[row]
            self.correcting.open(self._raw(training), score.name, score.prediction)

    def open_suspect(self, suspect: Suspect) -> None:
        """Open a case whose labels look wrong, at the place."""
        place = None if suspect.part is None else suspect.part.place
        self.correcting.open(suspect.raw, suspect.case.name, suspect.case.prediction, place)

    def _raw(self, training: Training) -> Path:
        return self.state.workspace.raw / training.folder.path.parents[1].name

    def _remove_film(self) -> None:
        if self.film is not None:
            self.film.remove()  # its axes are epochs, not millimetres

    def close_down(self) -> None:
        """Look no more."""
        self.watch.stop()
        super().close_down()


def _put_away(folder: FoldFolder) -> None:
    with moving(folder.path, f"Fold {folder.fold} of {folder.path.parent.name} is already being moved"):
        if folder.put_aside() is None:
            shutil.rmtree(folder.path, ignore_errors=True)
