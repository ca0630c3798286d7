"""Experiment tracking where a lab already has it: the figures of a training's epochs go to TensorBoard, MLflow or W&B.

They are optional parts of the installation. Each has a thread of its own, so that a server that does not answer holds
nothing up, and none of them can end a training: what goes wrong is said once.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Literal, Protocol, TypeVar
from uuid import uuid4

from napari_nnunet.errors import SettingsError
from napari_nnunet.events import Ended, EpochDone, Job, Note, Pump
from napari_nnunet.formats.atomic import make_folder, write_json
from napari_nnunet.formats.model.fold import RUNS_FILE
from napari_nnunet.schema.json_text import message
from napari_nnunet.schema.requests.training import TrackerName

T = TypeVar("T")
How = Literal["finished", "stopped", "failed"]
_PATIENCE = 20.0  # seconds that the end of a training waits for a tracker
_KEEPING = Lock()  # trackers begin at the same time
_PASSWORD = re.compile(r"(?<=://)[^/\s]+@")  # with the user's name, in an address
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)  # in names of variables
_SHORTEST_KEY = 6  # characters; what is shorter is a word


@dataclass(frozen=True)
class Run:
    """What is tracked.

    Parameters
    ----------
    folder : Path
        Of the fold; what a tracker keeps on this computer lies in it, or beside the models.
    results : Path
        Folder of all models.
    experiment, name : str
        Dataset; model and fold.
    settings : dict of str to str
        How it is trained.
    """

    folder: Path
    results: Path
    experiment: str
    name: str
    settings: Mapping[str, str] = field(default_factory=dict)

    def kept(self, tracker: str) -> str | None:
        """Return the identifier under which a tracker knows this training already."""
        found = message(self.folder / RUNS_FILE).get(tracker)
        return found if isinstance(found, str) else None

    def keep(self, tracker: str, identifier: str) -> None:
        """Remember the identifier, for a training that is resumed."""
        with _KEEPING:
            write_json(make_folder(self.folder) / RUNS_FILE, {**message(self.folder / RUNS_FILE), tracker: identifier})


class Tracker(Protocol):
    """Where figures go. It may raise whatever it likes."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take the figures of an epoch."""

    def close(self, how: How) -> None:
        """Write what is kept back, and end the run."""


class TensorBoard:
    """Event files in the folder of the fold."""

    def __init__(self, run: Run) -> None:
        self._writer: Any = import_module("torch.utils.tensorboard").SummaryWriter(run.folder / "tensorboard")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Append the figures."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, how: How) -> None:
        """Close the file."""
        self._writer.close()


class MLflow:
    """A run of the server that MLFLOW_TRACKING_URI names, else in the folder ``mlruns`` beside the models."""

    _ENDS: Mapping[How, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}

    def __init__(self, run: Run) -> None:
        own = (run.results / "mlruns").absolute()
        if not (os.environ.get("MLFLOW_TRACKING_URI") or own.is_dir()):
            make_folder(own)
        # MLflow 3 writes into plain folders only where that is asked for; a database needs more than the extra brings.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        library: Any = import_module("mlflow.tracking")
        self._client = library.MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or own.as_uri())
        known = run.kept("mlflow")
        if known is None:
            found = self._client.get_experiment_by_name(run.experiment)
            experiment = found.experiment_id if found is not None else self._client.create_experiment(run.experiment)
            known = str(self._client.create_run(experiment, run_name=run.name).info.run_id)
            run.keep("mlflow", known)
            for name, value in run.settings.items():
                self._client.log_param(known, name, value)
        self._run = known
        self._client.update_run(known, status="RUNNING")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log the figures; MLflow allows few marks in names."""
        for name, value in values.items():
            self._client.log_metric(self._run, re.sub(r"[^\w./ -]", "_", name), value, step=step)

    def close(self, how: How) -> None:
        """End the run."""
        self._client.set_terminated(self._run, self._ENDS[how])


class WandB:
    """A run of Weights & Biases, offline unless WANDB_MODE says otherwise: nothing leaves this computer by itself."""

    def __init__(self, run: Run) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # the library reports its own errors to its makers
        wandb: Any = import_module("wandb")
        known = run.kept("wandb")
        identifier = known or uuid4().hex[:12]
        self._run: Any = wandb.init(
            project=run.experiment,
            name=run.name,
            id=identifier,
            resume="allow",
            dir=str(make_folder(run.folder)),
            config=dict(run.settings),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(console="off", silent=True),
        )
        if known is None:
            run.keep("wandb", identifier)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log the figures."""
        self._run.log(dict(values), step=step)

    def close(self, how: How) -> None:
        """End the run."""
        self._run.finish(exit_code=int(how == "failed"))


_TRACKERS: Mapping[TrackerName, Callable[[Run], Tracker]] = {
    "tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB,
}  # fmt: skip
_TITLES = {"tensorboard": "TensorBoard", "mlflow": "MLflow", "wandb": "Weights & Biases"}


def require_trackers(names: Sequence[TrackerName]) -> None:
    """Raise SettingsError for a tracker that is not installed, before any work."""
    for name in names:
        if find_spec(name) is None:
            raise SettingsError(f"{_TITLES[name]} is not installed: pip install 'napari-nnunet[{name}]'.")


def figures(event: EpochDone) -> dict[str, float]:
    """Return the figures of an epoch by name; those that are not known in it are left out."""
    found = {
        "loss/train": event.train_loss,
        "loss/validation": event.val_loss,
        "pseudo_dice/average": event.average,
        "learning_rate": event.rate,
        "seconds_per_epoch": event.seconds,
        **{f"pseudo_dice/{name}": dice for name, dice in zip(event.names, event.dice, strict=True)},
    }
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}


class _Follower:
    """A tracker on a thread of its own."""

    def __init__(self, name: TrackerName, run: Run) -> None:
        self.name = name
        self.problem: Exception | None = None
        self._how: How = "failed"
        self._entries: SimpleQueue[tuple[int, Mapping[str, float]] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, args=(run,), name=f"tracking by {name}", daemon=True)
        self._thread.start()

    def _work(self, run: Run) -> None:
        try:
            tracker = _TRACKERS[self.name](run)
            while (entry := self._entries.get()) is not None:
                tracker.scalars(*entry)
            tracker.close(self._how)
        except Exception as error:  # whatever a server, a disk or a library does, the training goes on
            self.problem = error

    def take(self, step: int, values: Mapping[str, float]) -> None:
        """Hand on figures, for when the tracker has time."""
        if values:
            self._entries.put((step, values))

    def close(self, how: How) -> None:
        """Let the tracker end, and wait a little for it."""
        self._how = how
        self._entries.put(None)
        self._thread.join(_PATIENCE)
        if self._thread.is_alive() and self.problem is None:
            self.problem = TimeoutError(f"no answer within {_PATIENCE:.0f} s")


def tracked(
    job: Job[T],
    names: Sequence[TrackerName],
    run: Run,
    *,
    ending: Callable[[T], Ended],
    last: Callable[[T], Mapping[str, float]],
) -> Job[T]:
    """Pass a training's events on, and the figures of its epochs to trackers.

    Parameters
    ----------
    job : Job
        A training.
    names : sequence of str
        Which trackers.
    run : Run
        What they call it.
    ending : callable
        How the training ended, by its result.
    last : callable
        Figures of the whole training, by its result.
    """
    followers = [_Follower(name, run) for name in names]
    said: set[str] = set()
    how: How = "failed"
    step = 0
    try:
        with Pump(job) as pump:
            for event in pump:
                yield event
                if isinstance(event, EpochDone):
                    step = event.epoch
                    for follower in followers:
                        follower.take(step, figures(event))
                yield from _problems(followers, said)
            how = ending(pump.result).how
            for follower in followers:
                follower.take(step, last(pump.result))
    except GeneratorExit:
        how = "stopped"
        raise
    finally:
        for follower in followers:
            follower.close(how)
    yield from _problems(followers, said)
    return pump.result


def _without_secrets(text: str) -> str:
    """Return what a library says without passwords in addresses, and without keys that the environment holds.

    Libraries name the address that did not answer as it was set, and the text stays in the training's events.
    """
    text = _PASSWORD.sub("***@", text)
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_KEY and _SECRET.search(name):
            text = text.replace(value, "***")
    return text


def _problems(followers: Sequence[_Follower], said: set[str]) -> Job[None]:
    """Say of each tracker once that it does not work."""
    for follower in followers:
        if follower.problem is not None and follower.name not in said:
            said.add(follower.name)
            why = _without_secrets(" ".join(str(follower.problem).split())) or type(follower.problem).__name__
            yield Note(
                level="warning",
                text=f"{_TITLES[follower.name]} does not get the figures of this training any more ({why:.300}). The "
                "training continues.",
            )
