"""The folder of a fold: checkpoints, logs, and how a window or a shell talks to the process that trains it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from napari_nnunet.errors import SettingsError
from napari_nnunet.formats.atomic import make_folder, trash_path, write_error, write_json
from napari_nnunet.schema.names import Fold

FINAL, BEST, LATEST = "checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth"
_CLOCK_TOLERANCE = 2.0  # seconds between what two programs say about the start of a process


@dataclass(frozen=True)
class Runner:
    """The process that trains a fold.

    Parameters
    ----------
    pid : int
        Its number.
    host : str
        Its computer.
    created : float
        When it began, so that another process with the same number is not taken for it.
    """

    pid: int
    host: str
    created: float

    @property
    def here(self) -> bool:
        """Whether it runs on this computer."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether it still runs; True for processes of other computers, of which nothing can be known."""
        if not self.here:
            return True
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return abs(process.create_time() - self.created) < _CLOCK_TOLERANCE
        except psutil.Error:
            return False


@dataclass(frozen=True)
class FoldFolder:
    """``nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION/fold_X``.

    Parameters
    ----------
    path : Path
        The folder; it need not exist.
    """

    path: Path

    @classmethod
    def at(cls, model: Path, fold: Fold) -> FoldFolder:
        """Return the folder of a fold of a model."""
        return cls(model / f"fold_{fold}")

    @property
    def fold(self) -> Fold:
        """The fold's name."""
        name = self.path.name.removeprefix("fold_")
        return int(name) if name.isdigit() else "all"

    @property
    def final(self) -> Path:
        """Checkpoint of a finished training."""
        return self.path / FINAL

    @property
    def best(self) -> Path:
        """Checkpoint with the best moving average of the pseudo Dice."""
        return self.path / BEST

    @property
    def latest(self) -> Path:
        """Checkpoint of a training that is not finished."""
        return self.path / LATEST

    @property
    def events(self) -> Path:
        """Every event of the training, one JSON line each."""
        return self.path / "events.jsonl"

    @property
    def film(self) -> Path:
        """Folder with the previews."""
        return self.path / "film"

    @property
    def validation(self) -> Path:
        """Folder with the validation cases and summary.json."""
        return self.path / "validation"

    @property
    def _running(self) -> Path:
        return self.path / "running.json"

    @property
    def _wishes(self) -> Path:
        return self.path / "control.json"

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints that exist."""
        return [path for path in (self.final, self.latest, self.best) if path.is_file()]

    def runner(self) -> Runner | None:
        """Return the process that trains this fold now, None if there is none."""
        content = read_json(self._running)
        try:
            found = Runner(int(content["pid"]), str(content["host"]), float(content["created"]))
        except (KeyError, TypeError, ValueError):
            return None
        return found if found.alive else None

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Claim the fold for this process while it trains.

        Raises
        ------
        SettingsError
            If another process trains it.
        """
        make_folder(self.path)
        other = self.runner()
        if other is not None and (other.pid, other.host) != (os.getpid(), socket.gethostname()):
            where = "" if other.here else f" on {other.host}; if it is not running there, delete {self._running}"
            raise SettingsError(
                f"Fold {self.fold} of {self.path.parent.name} is already being trained (process {other.pid}{where}). "
                "Wait for it, or stop it first."
            )
        self._wishes.unlink(missing_ok=True)
        process = psutil.Process()
        entry = {"pid": process.pid, "host": socket.gethostname(), "created": process.create_time()}
        write_json(self._running, {**entry, "started": time.time()})
        try:
            yield
        finally:
            with suppress(OSError):
                self._running.unlink(missing_ok=True)

    def put_aside(self) -> Path | None:
        """Move an earlier training to the model's trash; returns where it is, None if there was none."""
        if not self.checkpoints:
            return None
        target = trash_path(self.path.parent / "trash", self.path.name)
        try:
            os.rename(self.path, target)
        except OSError as error:
            raise write_error(target, error) from error
        return target

    def ask(self, **wishes: Any) -> None:
        """Tell the process that trains: ``stop=True`` (save and end), or ``finish_in=N`` epochs."""
        write_json(self._wishes, {**read_json(self._wishes), **wishes})

    def wishes(self) -> dict[str, Any]:
        """Return what was asked for and forget it; empty if there is nothing."""
        if not self._wishes.exists():
            return {}
        content = read_json(self._wishes)
        with suppress(OSError):
            self._wishes.unlink(missing_ok=True)
        return content


def find_folds(results: Path, dataset: str | None = None) -> list[FoldFolder]:
    """Return every fold whose training was ever started, sorted by path.

    Parameters
    ----------
    results : Path
        ``nnUNet_results``.
    dataset : str, optional
        Only those of one dataset.
    """
    found = results.glob(f"{dataset or 'Dataset*'}/*__*__*/fold_*")
    return [FoldFolder(path) for path in sorted(found) if path.is_dir()]


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
