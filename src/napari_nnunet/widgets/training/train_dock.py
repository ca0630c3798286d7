"""The Train dock: start trainings, follow them, look at what they learn and at what they get wrong."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QGroupBox,
    QInputDialog,
    QMessageBox,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.events import Job
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.processes.follow import TrainingView, call_off, find_trainings, waiting_folds
from napari_nnunet.processes.launch import DetachedTraining, end_training, request_of
from napari_nnunet.schema.model_name import ModelName
from napari_nnunet.widgets.frame.forms import scrolling
from napari_nnunet.widgets.frame.panel import RunPanel, State
from napari_nnunet.widgets.frame.preferences import read_preferences
from napari_nnunet.widgets.frame.ready import NotReadyError
from napari_nnunet.widgets.frame.worker import JobWorker, Listener
from napari_nnunet.widgets.training.details import TrainingDetails, dataset_of
from napari_nnunet.widgets.training.form import TrainForm, button_text
from napari_nnunet.widgets.training.layers import FilmLayers, score_layers, show_largest_slice
from napari_nnunet.widgets.training.views import TrainingTable
from napari_nnunet.widgets.training.words import last_time, log_tail

if TYPE_CHECKING:
    import napari

_LOOK_MS = 1000
_LIST_EVERY = 3.0  # seconds between two searches for trainings


class TrainWidget(QWidget):
    """Train folds in processes that outlive the window.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.workspace: Workspace = read_preferences().folders()
        self.views: dict[str, TrainingView] = {}
        self.film: FilmLayers | None = None
        self._started: list[tuple[subprocess.Popen[bytes], Path, DetachedTraining]] = []
        self._listed = 0.0
        self._asked: Path | None = None
        self._openers: list[JobWorker] = []
        self.form = TrainForm(self.workspace)
        self.details = TrainingDetails()
        self.panel = RunPanel("Train", stops="Stop looking at the dataset; nothing was started yet.")
        scrolling(self, (self.form, self.panel, self._make_list(), self.details))
        self._connect()
        self._update_form()
        self.look(now=True)

    # --- making ---

    def _make_list(self) -> QGroupBox:
        box = QGroupBox("2  Trainings")
        column = QVBoxLayout(box)
        self.table = TrainingTable()
        column.addWidget(self.table)
        return box

    def _connect(self) -> None:
        self.form.changed.connect(self._update_form)
        self.panel.start = self.run
        self.panel.finished.connect(self._start_process)
        self.table.chosen.connect(lambda _: self._show())
        self.details.buttons["stop"].clicked.connect(self.stop)
        self.details.buttons["resume"].clicked.connect(self.resume)
        self.details.buttons["finish"].clicked.connect(self._ask_finish)
        self.details.buttons["discard"].clicked.connect(self._ask_discard)
        self.details.buttons["segment"].clicked.connect(self.segment_now)
        self.details.buttons["film"].clicked.connect(self.show_film)
        self.details.scores.opened.connect(self.open_case)
        self.details.correct.clicked.connect(self.save_reference)
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_MS)
        self._timer.timeout.connect(self.look)
        self._timer.start()

    # --- starting ---

    def _update_form(self) -> None:
        try:
            request = self.form.request()
        except NotReadyError as reason:
            self.panel.set_ready(str(reason))
            self.panel.say(str(reason))
            return
        self.panel.rename(button_text(request))
        self.panel.set_ready(None)
        if self.panel.state is State.IDLE:
            self.panel.say("")

    def run(self) -> None:
        """Check what is asked for, then start a process for it."""
        try:
            request = self.form.request()
        except NotReadyError:
            self._update_form()
            return
        self.start(request)

    def start(self, request: DetachedTraining) -> None:
        """Check a request on a thread; its process starts when nothing speaks against it."""
        if self.panel.state is State.IDLE:
            self.panel.run(_check_job(request))

    def _start_process(self, request: DetachedTraining) -> None:
        process, log = request.start()
        self._started.append((process, log, request))
        ahead = sum(view.status == "running" for view in self.views.values())
        self.panel.say(
            "Started; it begins when the trainings before it have ended."
            if ahead
            else "Started. It goes on when napari is closed; this dock finds it again."
        )
        first = FoldFolder.at(_model(request), request.folds[0])
        self._view(first)
        self._listed = 0.0
        self.look(now=True)
        self.table.choose(str(first.path))
        self._show()

    # --- following ---

    def look(self, *, now: bool = False) -> None:
        """Read what the trainings wrote since the last time."""
        self._look_at_children()
        if now or time.monotonic() - self._listed > _LIST_EVERY:
            self._listed = time.monotonic()
            for folder in find_trainings(self.workspace):
                self._view(folder)
            for folder in waiting_folds(self.workspace):
                self._view(folder)
            gone = [
                key for key, view in self.views.items() if not view.folder.path.exists() and not self._expected(key)
            ]
            for key in gone:
                del self.views[key]
        for view in self.views.values():
            view.poll()
        self._forget_stop()
        self._fill()
        self._show()

    def _forget_stop(self) -> None:
        """Once a training has stopped, the next press of Stop asks again instead of ending its process."""
        if self._asked is not None and FoldFolder(self._asked).runner() is None:
            self._asked = None
            self.panel.say("")

    def _view(self, folder: FoldFolder) -> TrainingView:
        return self.views.setdefault(str(folder.path), TrainingView(folder))

    def _expected(self, key: str) -> bool:
        """Whether a fold whose folder does not exist yet is on its way."""
        waiting = {str(folder.path) for folder in waiting_folds(self.workspace)}
        starting = {
            str(FoldFolder.at(_model(request), fold).path)
            for process, _, request in self._started
            for fold in request.folds
            if process.poll() is None
        }
        return key in waiting | starting

    def _look_at_children(self) -> None:
        """Tell of processes that ended without having begun."""
        for entry in list(self._started):
            process, log, _ = entry
            if process.poll() is None:
                continue
            self._started.remove(entry)
            if process.returncode not in (0, None):
                text = log_tail(log)
                self.panel.say(text)
                show_error(text)

    def _status(self, view: TrainingView) -> str:
        status = view.status
        if status != "running" and self._expected(str(view.folder.path)):
            return "waiting"
        return status

    def _fill(self) -> None:
        order = {"running": 0, "waiting": 1}
        rows = [(view, self._status(view)) for view in self.views.values()]
        rows.sort(key=lambda row: (order.get(row[1], 2), -last_time(row[0])))
        self.table.show_trainings(rows)
        if rows and self.table.current() is None:
            self.table.choose(str(rows[0][0].folder.path))

    @property
    def chosen(self) -> TrainingView | None:
        """The training that is selected in the list."""
        path = self.table.current()
        return None if path is None else self.views.get(path)

    def _show(self) -> None:
        view = self.chosen
        self.details.setVisible(view is not None)
        if view is None:
            return
        self.details.show_view(view, self._status(view))
        if self.film is not None and self.film.folder == view.folder.film and self.film.open:
            self.film.update(view.frames)

    # --- what the buttons do ---

    def stop(self) -> None:
        """Let the chosen training save and end, or call it off where it only waits."""
        view = self.chosen
        if view is None:
            return
        if self._status(view) == "waiting":
            call_off(view.folder, self.workspace)
            self.look(now=True)
            return
        runner = view.folder.runner()
        if runner is not None and runner.here and self._asked == view.folder.path:
            if not end_training(runner):  # asked before, and it did not answer
                self.panel.say(
                    f"Process {runner.pid} may be another program by now, so it was not ended. If it is this training, "
                    "end it yourself."
                )
            return
        self._asked = view.folder.path
        view.folder.ask(stop=True)
        self.panel.say("Stopping after this step…")

    def resume(self) -> None:
        """Go on with the chosen training; one that is finished is made longer."""
        view = self.chosen
        if view is None:
            return
        if self._status(view) != "finished":
            self.start(request_of(view.folder, self.workspace))
            return
        more, yes = QInputDialog.getInt(self, "Train longer", "How many epochs more:", 50, 1, 100000)
        if yes:
            self.train_longer(more)

    def train_longer(self, more: int) -> None:
        """Give the chosen training more epochs than it had."""
        view = self.chosen
        if view is not None:
            done = 0 if view.last is None else view.last.epoch + 1
            self.start(request_of(view.folder, self.workspace).lasting(done + more))

    def _ask_finish(self) -> None:
        epochs, yes = QInputDialog.getInt(self, "Finish soon", "Epochs until the learning rate is zero:", 20, 1, 100000)
        if yes:
            self.finish_in(epochs)

    def finish_in(self, epochs: int) -> None:
        """Let the chosen training end after a few more epochs."""
        view = self.chosen
        if view is None:
            return
        if view.folder.runner() is None:
            self.start(request_of(view.folder, self.workspace).finishing(epochs))
        else:
            view.folder.ask(finish_in=epochs)
            self.panel.say(f"It ends after {epochs} more epochs.")

    def _ask_discard(self) -> None:
        view = self.chosen
        if view is None:
            return
        answer = QMessageBox.question(
            self, "Discard this training", f"Delete checkpoints, logs and validation of {view.title}?"
        )
        if answer == QMessageBox.StandardButton.Yes:
            self.discard()

    def discard(self) -> None:
        """Delete the chosen training."""
        view = self.chosen
        if view is not None and view.folder.runner() is None:
            shutil.rmtree(view.folder.path, ignore_errors=True)
            self.views.pop(str(view.folder.path), None)
            self.look(now=True)

    def segment_now(self) -> None:
        """Open the Segment dock with the best state of the chosen training, and run it if an image is ready."""
        view = self.chosen
        if view is None or not view.folder.checkpoints:
            return
        folder = view.folder
        path = next(path for path in (folder.final, folder.best, folder.latest) if path.is_file())
        frame, dock = self.viewer.window.add_plugin_dock_widget("napari-nnunet", "Segment", tabify=True)
        frame.raise_()
        segment: Any = dock
        segment.use(folder.path.parent, checkpoint=path.name, folds=(folder.fold,))

    def show_film(self) -> None:
        """Open the film of the chosen training."""
        view = self.chosen
        info = None if view is None else dataset_of(view)
        if view is None or info is None or not view.frames:
            return
        try:
            self.film = FilmLayers(self.viewer, view.folder.film, info)
        except (OSError, ValueError) as error:
            show_error(f"The film cannot be opened: {error}")
            return
        self.film.update(view.frames)
        show_info("Move the epoch slider to watch the network learn; new frames are added while it trains.")

    def open_case(self, row: int) -> None:
        """Open a validation case with its reference, the result and their differences."""
        view = self.chosen
        if view is None:
            return
        raw = self.workspace.raw / view.folder.path.parents[1].name
        worker = JobWorker(_score_job(raw, self.details.scores.scores[row]))
        Listener(self, worker, returned=self._add_layers, errored=lambda error: show_error(str(error)))
        self._openers = [worker]
        worker.start()

    def _add_layers(self, layers: list[Any]) -> None:
        if not layers:
            return
        if self.film is not None:
            self.film.remove()  # its axes are epochs, not millimetres
        for layer in self.viewer.layers:
            layer.visible = False
        added = [getattr(self.viewer, f"add_{kind}")(data, **options) for data, options, kind in layers]
        self.viewer.reset_view()
        show_largest_slice(self.viewer, added[-1])

    def save_reference(self) -> None:
        """Save the selected labels as the reference of the case they came from."""
        layer = self.viewer.layers.selection.active
        origin = layer.metadata.get("nnunet_case") if isinstance(layer, Labels) else None
        if origin is None:
            show_info("Select the labels of a validation case that was opened from this table, then press again.")
            return
        worker = JobWorker(_correct_job(Path(origin["folder"]), origin["name"], np.asarray(layer.data)))
        Listener(self, worker, returned=self._corrected, errored=lambda error: show_error(str(error)))
        self._openers = [worker]
        worker.start()

    def _corrected(self, path: Path) -> None:
        show_info(f"{path.name} is replaced; the old one is in the dataset's trash. Preprocess before you train again.")


def _model(request: DetachedTraining) -> Path:
    name = ModelName(request.settings.trainer, request.plans, request.configuration)
    return request.workspace.model(request.dataset, name)


def _check_job(request: DetachedTraining) -> Callable[[], Job[DetachedTraining]]:
    def start() -> Job[DetachedTraining]:
        from napari_nnunet.jobs.training.order import check_training  # loads torch

        yield from check_training(request.workspace, request.requests)
        return request

    return start


def _score_job(raw: Path, score: Any) -> Callable[[], Job[Any]]:
    return lambda: score_layers(raw, score)


def _correct_job(folder: Path, name: str, labels: Any) -> Callable[[], Job[Path]]:
    def start() -> Job[Path]:
        from napari_nnunet.jobs.dataset.cases import correct_reference

        return (yield from correct_reference(folder, name, labels))

    return start
