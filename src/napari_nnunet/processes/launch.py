"""Start jobs in processes of their own: detached from a window, or several for one training."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from napari_nnunet.engine.machine import LAUNCHER
from napari_nnunet.errors import TrainingError
from napari_nnunet.formats.atomic import make_folder
from napari_nnunet.formats.claim import Runner
from napari_nnunet.formats.model.fold import RUNS_FILE, FoldFolder
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.processes.alone import python
from napari_nnunet.processes.queue import queue_folder
from napari_nnunet.processes.submitted import Submitted
from napari_nnunet.schema.json_text import message
from napari_nnunet.schema.model_name import ModelName, continued_plans
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.requests.training import TrainAllRequest, TrainCommand, TrainSettings
from napari_nnunet.schema.requests.words import words

_SHORTER = 4  # times: a model that is continued has learnt already
_OF_CORES = 4  # times as many processes or threads as there are cores make nothing faster


def relaunch_distributed(processes: int, arguments: Sequence[str]) -> int:
    """Run the command line again in several processes that share each batch; returns the exit status.

    Parameters
    ----------
    processes : int
        How many; on GPUs one per GPU.
    arguments : sequence of str
        Of the command line, beginning with the verb.
    """
    command = [python(), "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = {**os.environ, LAUNCHER: str(os.getpid())}
    return subprocess.run([*command, "-m", "napari_nnunet", *arguments], check=False, env=environment).returncode


_children: list[subprocess.Popen[bytes]] = []  # asked now and then, so that none stays a zombie


def start_detached(arguments: Sequence[str], log: Path, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Run the command line in a process that outlives this one.

    Parameters
    ----------
    arguments : sequence of str
        Of the command line, beginning with the verb.
    log : Path
        Gets what it prints.
    variables : mapping of str to str
        Environment variables it has besides those of this process.
    """
    make_folder(log.parent)
    options: dict[str, Any] = {"start_new_session": True}
    if os.name == "nt":
        options = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined]
    # Threads that wait for each other give their core away: beside a busy window they would hold each other up
    # (measured with one other busy process on two cores: 1.3 instead of 2.3 s per step; alone it makes no difference).
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **variables}
    with log.open("ab") as output:
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [python(), "-m", "napari_nnunet", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            close_fds=True,
            env=environment,
            **options,
        )
    _children[:] = [child for child in _children if child.poll() is None]
    _children.append(process)
    return process


def end_training(runner: Runner, *, patience: float = 5.0) -> bool:
    """End the process of a training and all it started: first asked, then killed.

    Returns
    -------
    bool
        False if that process cannot be told from another one beyond doubt, or is no process of the command line that
        trains: a notebook or a window that does has more to lose. Nothing is ended then.
    """
    process = runner.process()
    if process is None or not _only_trains(process):
        return False
    family = [process]
    with suppress(psutil.Error):
        family += process.children(recursive=True)
    for member in family:
        with suppress(psutil.Error):
            member.terminate()
    _, alive = psutil.wait_procs(family, timeout=patience)
    for member in alive:
        with suppress(psutil.Error):
            member.kill()
    return True


def end_fold(folder: FoldFolder, job: Submitted | None) -> None:
    """End what trains a fold at once: the process, or where another computer runs it, its job.

    Raises
    ------
    TrainingError
        If it cannot be ended from here, or may be something else.
    """
    runner = folder.runner()
    if runner is None:
        return
    if not runner.here:
        if job is None or not job.cancel():
            raise TrainingError(
                f"Process {runner.pid} runs on {runner.host} and cannot be ended from this computer. It was asked to "
                f"save and stop; if it does not, end {'it' if job is None else job.told} there."
            )
    elif not end_training(runner):
        raise TrainingError(
            f"Process {runner.pid} may be another program by now, or one that does more than this training, so it was "
            "not ended. If it is this training, end it yourself."
        )


def _only_trains(process: psutil.Process) -> bool:
    """Whether a process was started as ``napari-nnunet train ...`` or ``python -m napari_nnunet train ...``."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    names = [Path(word).name.removesuffix(".exe").replace("-", "_") for word in words]
    return ("napari_nnunet", "train") in zip(names, words[1:], strict=False)


@dataclass(frozen=True)
class DetachedTraining:
    """Folds to train, one after the other, in a process of their own.

    Parameters
    ----------
    workspace : Workspace
        Where they lie.
    dataset, configuration, plans : str
        Names.
    folds : tuple
        Numbers or "all".
    settings : TrainSettings
        How.
    resume : bool
        Continue where they were.
    pretrained : Path, optional
        Weights to begin with.
    pretrained_heads : bool
        With ``pretrained``: also the output layers of classes of the same name.
    finish_in : int, optional
        With ``resume``: end after so many epochs.
    continue_from : Path, optional
        Model to continue under other plans.
    """

    workspace: Workspace
    dataset: str
    configuration: str
    plans: str
    folds: tuple[Fold, ...]
    settings: TrainSettings
    resume: bool = False
    pretrained: Path | None = None
    finish_in: int | None = None
    continue_from: Path | None = None
    pretrained_heads: bool = False

    def finishing(self, epochs: int) -> DetachedTraining:
        """Return the request that resumes and ends after a few epochs."""
        return replace(self, resume=True, finish_in=epochs)

    def lasting(self, epochs: int) -> DetachedTraining:
        """Return the request that resumes with another number of epochs in all."""
        return replace(self, resume=True, settings=self.settings.replace(epochs=epochs, time_budget=None))

    @property
    def requests(self) -> list[TrainCommand]:
        """One request per fold; each waits for the trainings before it."""
        return [
            TrainCommand.like(
                self.settings.only(TrainSettings),
                dataset=self.dataset,
                configuration=self.configuration,
                fold=fold,
                plans=self.plans,
                resume=self.resume,
                pretrained=self.pretrained,
                pretrained_heads=self.pretrained_heads,
                finish_in=self.finish_in,
                continue_from=self.continue_from,
                wait=True,
            )
            for fold in self.folds
        ]

    def arguments(self) -> list[str]:
        """Return the words of the command line."""
        return ["train", *words(self.requests), "--no_pbar"]

    def start(self) -> tuple[subprocess.Popen[bytes], Path]:
        """Start a process that waits for the trainings before it; returns it and the file with what it prints."""
        return _start(self.arguments(), self.workspace)


@dataclass(frozen=True)
class ClusterTrainings:
    """Configurations and folds to train as jobs of a scheduler.

    Parameters
    ----------
    workspace : Workspace
        Where they lie.
    request : TrainAllRequest
        Its configurations are named.
    """

    workspace: Workspace
    request: TrainAllRequest

    @property
    def dataset(self) -> str:
        """``DatasetXXX_Name``."""
        return self.request.dataset

    @property
    def plans(self) -> str:
        """Name of the plans."""
        return self.request.plans

    @property
    def configuration(self) -> str:
        """The first one."""
        return (self.request.configurations or ("",))[0]

    @property
    def requests(self) -> list[TrainCommand]:
        """One request per configuration, which says what has to be there before any of its folds can be trained."""
        fold = (self.request.folds or (0,))[0]
        names = self.request.configurations or ()
        shared = {"dataset": self.dataset, "plans": self.plans, "fold": fold}
        return [TrainCommand.like(self.request.only(TrainSettings), configuration=name, **shared) for name in names]

    def start(self) -> tuple[subprocess.Popen[bytes], Path]:
        """Start a process that runs the jobs on this computer; returns it and the file with what it prints."""
        return _start(["train_all", *words([self.request]), "--no_pbar"], self.workspace)


def _start(arguments: Sequence[str], workspace: Workspace) -> tuple[subprocess.Popen[bytes], Path]:
    log = queue_folder(workspace.results) / f"{time.strftime('%Y-%m-%d_%H.%M.%S')}-{time.time_ns() % 10**6}.log"
    return start_detached(arguments, log, workspace.variables()), log


def request_of(folder: FoldFolder, workspace: Workspace) -> DetachedTraining:
    """Return the request that resumes a training, with the settings it was begun with."""
    name = ModelName.parse(folder.path.parent.name)
    stored = message(folder.path / "debug.json").get("settings")
    try:
        settings = TrainSettings.model_validate(stored if isinstance(stored, dict) else {})
    except ValueError:
        settings = TrainSettings()
    settings = _on_this_computer(settings, folder)
    if folder.checkpoints:
        # They know how long the training lasts, also where that was changed since it began.
        settings = settings.replace(epochs=None, iterations=None, validation_iterations=None)
    return DetachedTraining(
        workspace,
        folder.path.parents[1].name,
        name.configuration,
        name.plans,
        (folder.fold,),
        settings.replace(trainer=name.trainer),
        resume=True,
    )


def _on_this_computer(settings: TrainSettings, folder: FoldFolder) -> TrainSettings:
    """Return settings of a fold that may have been trained by somebody else, on a larger computer or with a tracker."""
    most, known = _OF_CORES * (os.cpu_count() or 1), message(folder.path / RUNS_FILE)
    track = tuple(name for name in settings.track if name == "tensorboard" or name in known)
    changes: dict[str, Any] = {} if track == settings.track else {"track": track}
    changes |= {"workers": None} if (settings.workers or 0) > most else {}
    changes |= {"threads": 0} if settings.threads > most else {}
    return settings.replace(**changes) if changes else settings


def improving(folder: FoldFolder, workspace: Workspace) -> DetachedTraining:
    """Return the request that continues a model with the cases and classes there are now; the model itself stays.

    It takes a quarter of the time of the training that made the model, where that was trained by time, else a quarter
    of the trainer's epochs.
    """
    before = request_of(folder, workspace)
    names = [*(name.plans for name in workspace.models(before.dataset)), before.plans]
    budget = before.settings.time_budget
    settings = before.settings.replace(epochs=None, time_budget=None if budget is None else budget / _SHORTER)
    plans = continued_plans(before.plans, names)
    return replace(before, plans=plans, settings=settings, resume=False, continue_from=folder.path.parent)
