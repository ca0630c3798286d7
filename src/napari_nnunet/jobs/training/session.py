"""The state of a running training: where it is, what it saves, how it is asked to end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_nnunet.engine.batches.batch import Batch
from napari_nnunet.engine.network.layout import Norms
from napari_nnunet.engine.network.unet import Biases
from napari_nnunet.engine.training.learner import Learner, Matches
from napari_nnunet.engine.training.log import TrainingLog
from napari_nnunet.engine.training.parallel import Group
from napari_nnunet.engine.training.schedule import Schedule, fit_to_budget
from napari_nnunet.errors import ResourceError, counted, is_out_of_memory
from napari_nnunet.events import CheckpointSaved, EpochDone, Job, Note, Progress
from napari_nnunet.formats.model.checkpoint import OWN, write_checkpoint
from napari_nnunet.formats.model.fold import FoldFolder, Wishes
from napari_nnunet.jobs.training.film import Film
from napari_nnunet.jobs.training.loader import BatchLoader, BatchSource, Role
from napari_nnunet.jobs.training.logbook import Logbook
from napari_nnunet.jobs.training.memory import too_large
from napari_nnunet.jobs.training.order import Order
from napari_nnunet.processes.notice import Notice
from napari_nnunet.schema.trainers import TrainerRecipe

_LENGTHS = ("rate", "iterations", "validation_iterations")  # that a training keeps where nothing else is asked for
_SAVING_SHARE = 0.05  # of the time may go into writing checkpoints
_SAVE_EVERY = 60.0  # seconds, within an epoch
_RETRY_EVERY = 10.0  # seconds between two tries to write the last checkpoint
_RETRIES = 60
_LOOK_EVERY = 0.5  # seconds between two looks at what is asked for, while it waits
_SMOOTHING = 0.9  # of the measured times
_ADAPT = 0.05  # of the epochs that are left: smaller corrections of the length are not worth a word


@dataclass(eq=False)
class Session:
    """A training in progress; see :func:`napari_nnunet.jobs.training.begin.begin`.

    Parameters
    ----------
    order, learner, group
        What is trained, the network, the processes.
    source, loader : BatchSource, BatchLoader
        Batches.
    recipe, schedule, log
        Steps per epoch; number of epochs and rates; what happened so far.
    seed : int
        Decides every batch.
    epoch, iteration : int
        The next step.
    losses : list of float
        Of this epoch's steps.
    spent, aside : float
        Seconds of training so far, and of what came before its steps, once: a time budget holds both.
    measured : bool
        Whether the time budget was turned into epochs.
    left_out : int
        Steps in a row whose loss was not finite.
    begun_with : dict, optional
        What the first weights were taken from, in plain values.
    """

    order: Order
    learner: Learner
    group: Group
    source: BatchSource
    loader: BatchLoader
    recipe: TrainerRecipe
    schedule: Schedule
    seed: int
    log: TrainingLog = field(default_factory=TrainingLog)
    epoch: int = 0
    iteration: int = 0
    losses: list[float] = field(default_factory=list)
    spent: float = 0.0
    aside: float = 0.0
    measured: bool = False
    left_out: int = 0
    begun_with: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.folder: FoldFolder = self.order.folder
        self.film = Film(self.order, self.source)
        self.logbook = Logbook(self.folder.path)
        self.notice = Notice()
        self._batch: Batch | None = None
        self._epoch_seconds = self._waited = 0.0
        self._times = {"train": 0.0, "val": 0.0}
        self._saved_at = time.monotonic()
        self._saving = 0.0

    # --- one step ---

    def load_batches(self) -> None:
        """Let the workers begin at the next step."""
        self.loader.start(self.epoch, self.iteration, self.recipe.iterations, self.recipe.validation_iterations)

    def set_rate(self) -> None:
        """Set the learning rate of this epoch."""
        self.learner.set_rate(self.schedule.rate(self.epoch))

    def learn(self) -> tuple[float, tuple[str, ...]]:
        """Do the next training step; returns its loss and cases."""
        with self._timed("train"):
            batch = self._next()
            # Whatever chance is in the network (dropout) depends on the place alone, as the batches do.
            torch.manual_seed(self._place_seed())
            loss = self.learner.step(batch.image, batch.targets, processes=self.group.size)
        self.iteration += 1
        self.left_out = 0 if math.isfinite(loss) else self.left_out + 1
        if math.isfinite(loss):
            self.losses.append(loss)
        return loss, batch.cases

    def _place_seed(self) -> int:
        place = (self.seed, self.epoch, self.iteration, self.group.rank)
        return int(np.random.SeedSequence(place).generate_state(1)[0])

    def compare(self) -> Matches:
        """Do the next validation step."""
        with self._timed("val"):
            batch = self._next()
            found = self.learner.validate(batch.image, batch.targets)
        if self.group.alone:
            return found
        counts = (self.group.sums(part) for part in (found.hits, found.false_positives, found.false_negatives))
        return Matches(found.loss, *counts)

    def suspects(self) -> list[str]:
        """Return the cases of the last batch whose images are not finite; else whose loss is not, if not all are so."""
        batch = self._batch
        if batch is None:
            return []
        bad = [not bool(torch.isfinite(image).all()) for image in batch.image]
        if not any(bad):
            losses = self.learner.sample_losses(batch.image, batch.targets)
            bad = [not math.isfinite(loss) for loss in losses]
            if all(bad):
                return []
        return [name for name, flag in zip(batch.cases, bad, strict=True) if flag]

    def _next(self) -> Batch:
        begun = time.monotonic()
        self._batch = self.loader.next()
        self._waited += time.monotonic() - begun
        return self._batch

    @contextmanager
    def _timed(self, role: Role) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise too_large(self.order, self.learner.choice, tried=True) from error
        seconds = time.monotonic() - begun
        self._epoch_seconds += seconds
        self.spent += seconds
        before = self._times[role] or seconds
        self._times[role] = _SMOOTHING * before + (1 - _SMOOTHING) * seconds

    @property
    def seconds_per_step(self) -> float:
        """The smoothed seconds of a training step with its waiting for data; 0 before the first."""
        return self._times["train"]

    def seconds_left(self) -> float:
        """Return how long all remaining epochs will take at the present pace."""
        recipe, train, val = self.recipe, self._times["train"], self._times["val"] or self._times["train"] / 3
        whole = recipe.iterations * train + recipe.validation_iterations * val
        return max(0.0, whole * (self.schedule.epochs - self.epoch) - self.iteration * train)

    # --- one epoch ---

    def end_epoch(self, val_loss: float, dice: list[float]) -> EpochDone:
        """Write down the epoch and go to the next."""
        now, rate = time.time(), self.schedule.rate(self.epoch)
        loss = sum(self.losses) / len(self.losses) if self.losses else math.nan
        better = self.log.add(
            train_loss=loss, val_loss=val_loss, dice=dice, rate=rate, begun=now - self._epoch_seconds, ended=now
        )
        names = self.order.info.labels.head_names[0 if self.order.info.labels.has_regions else 1 :]
        seconds, waited = self._epoch_seconds, self._waited
        self.epoch, self.iteration = self.epoch + 1, 0
        self.losses, self._epoch_seconds, self._waited = [], 0.0, 0.0
        if self.group.leads:
            self.logbook.epoch(self.log, names, better=better)
            self.logbook.draw(self.log)
        average = self.log.lists["ema_fg_dice"][-1]
        return EpochDone(
            epoch=self.epoch - 1,
            epochs=self.schedule.epochs,
            train_loss=loss,
            val_loss=val_loss,
            dice=tuple(None if math.isnan(v) else v for v in dice),
            names=names,
            average=None if math.isnan(average) else average,
            rate=rate,
            seconds=seconds,
            waiting=waited / max(seconds, 1e-9),
            seconds_left=self.seconds_left(),
            best=better,
        )

    # --- how long ---

    def fit_to_budget(self, seconds: float, step: float) -> float:
        """Choose epochs and steps for the time there is, and return what of it is theirs; the workers restart."""
        left = max(0.0, seconds - self.group.agree(self.aside))
        self.recipe = fit_to_budget(self.recipe, left, step)
        self.schedule = Schedule(self.recipe, self.recipe.epochs)
        self.measured = True
        self.iteration = min(self.iteration, self.recipe.iterations)
        self.load_batches()
        return left

    def obey(self) -> Job[bool]:
        """See what was asked for; returns whether to stop."""
        wishes = self.folder.wishes() if self.group.leads else Wishes()
        if wishes.ignored:
            yield Note(
                level="warning",
                text=f"A request to this training is ignored, as it is not understood: {wishes.ignored}.",
            )
        if self.group.agree(float(wishes.stop or self.notice.signal > 0)):
            return True
        more = int(self.group.agree(float(wishes.finish_in)))
        if more > 0:
            self.schedule = self.schedule.finishing(self.epoch, more)
            yield Note(text=f"Finishing: will end after epoch {self.schedule.epochs}.")
        return False

    def adapt_length(self) -> Job[None]:
        """Keep to the time budget, and stop early if nothing gets better any more."""
        settings, schedule = self.order.settings, self.schedule
        if schedule.finish_from is not None or self.epoch >= schedule.epochs:
            return
        averages = self.log.lists["ema_fg_dice"]
        if settings.early_stop is not None and self.log.best is not None:
            since = len(averages) - 1 - averages.index(self.log.best)
            if since >= settings.early_stop:
                self.schedule = schedule = schedule.finishing(self.epoch, max(1, settings.early_stop // 4))
                yield Note(text=f"No improvement for {counted(since, 'epoch')}; stopping at epoch {schedule.epochs}.")
                return
        if settings.time_budget is not None:
            per_epoch = self.spent / self.epoch
            fitting = self.epoch + max(0, round((settings.time_budget - self.aside - self.spent) / per_epoch))
            fitting = int(self.group.agree(float(fitting)))
            if abs(fitting - schedule.epochs) > max(1, _ADAPT * (schedule.epochs - self.epoch)):
                # one more at least, so that the last epoch always has the smallest learning rate
                self.schedule = schedule.lasting(max(fitting, self.epoch + 1))
                fit = f"so {counted(self.schedule.epochs, 'epoch')} fit the time budget instead of {schedule.epochs}"
                yield Note(level="detail", text=f"An epoch takes {per_epoch:.1f} s, {fit}.")

    # --- what is kept ---

    def save_by_time(self) -> Job[None]:
        """Save within an epoch, about every minute."""
        if time.monotonic() - self._saved_at >= max(_SAVE_EVERY, self._saving / _SAVING_SHARE):
            yield from self.save_latest()

    def save_after_epoch(self) -> Job[None]:
        """Save after an epoch, unless saving would take a large part of the time."""
        if time.monotonic() - self._saved_at >= self._saving / _SAVING_SHARE:
            yield from self.save_latest()

    def save_latest(self) -> Job[None]:
        """Save a checkpoint; if the disk is full, warn and try again later."""
        said = "The checkpoint could not be saved; the training continues and will try again."
        yield from self._save(self.folder.latest, said)

    def save_best(self) -> Job[None]:
        """Save the best state so far."""
        now = "the one on disk is of an earlier epoch" if self.folder.best.is_file() else "there is none yet"
        said = f"The best checkpoint could not be saved, so that {now}; the training continues."
        yield from self._save(self.folder.best, said)

    def _save(self, path: Path, problem: str) -> Job[None]:
        if not (self.group.leads and self.order.settings.checkpoints):
            return
        begun = time.monotonic()
        try:
            self._write(path)
        except ResourceError as error:
            self._saved_at = time.monotonic()
            yield Note.about(problem, error)
            return
        self._saved_at = time.monotonic()
        self._saving = self._saved_at - begun
        yield CheckpointSaved(path=str(path), epoch=self.epoch)

    def finish(self) -> Job[None]:
        """Write the final checkpoint, however long the disk takes to have room for it."""
        self.loader.close()
        self.logbook.draw(self.log, now=True)
        if not self.order.settings.checkpoints:
            return
        for attempt in range(_RETRIES):
            try:
                self._write(self.folder.final)
                break
            except ResourceError as error:
                retrying = f"The final checkpoint could not be saved; trying again every {_RETRY_EVERY:.0f} s."
                yield Note.about(retrying, error)
                if attempt == _RETRIES - 1 or (yield from self._asked_to_stop_within(_RETRY_EVERY)):
                    raise
        self.folder.latest.unlink(missing_ok=True)
        yield CheckpointSaved(path=str(self.folder.final), epoch=self.epoch)

    def _asked_to_stop_within(self, seconds: float) -> Job[bool]:
        """Wait, but not for whoever wants it to end."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if (yield from self.obey()):
                return True
            yield Progress(done=0, total=1)  # a job is cancelled when it yields
            time.sleep(min(left, _LOOK_EVERY))
        return False

    def _write(self, path: Path) -> None:
        order = self.order
        write_checkpoint(
            path,
            self.learner.state(),
            plans=order.plans.raw,
            dataset=order.info.raw,
            configuration=order.configuration.name,
            fold=order.fold,
            mirror_axes=order.mirror_axes or None,
            epoch=self.epoch,
            trainer=order.settings.trainer,
            logging=self.log.lists,
            best=self.log.best,
            own={
                "seed": self.seed,
                "norms": self.learner.norms,
                "biases": self.learner.network.decoder.biases,
                "precision": self.learner.choice.precision,
                "iteration": self.iteration,
                "augmented_there": self.source.unfinished,
                "favours_annotated": self.source.favours,
                "losses": list(self.losses),
                "epoch_seconds": self._epoch_seconds,
                "spent": self.spent,
                "aside": self.aside,
                "measured": self.measured,
                "schedule": self.schedule.stored(),
                **{name: getattr(self.recipe, name) for name in _LENGTHS},
                "class_weights": dict(order.recipe.class_weights),
                "scribbles": order.recipe.scribbles,
                "begun_with": self.begun_with,
            },
        )

    def restore(self, content: Mapping[str, Any], where: str) -> None:
        """Continue from a checkpoint of ours or nnU-Net's."""
        self.learner.load(content, where=where)
        self.log = TrainingLog.restore(content.get("logging") or {}, content.get("_best_ema"))
        self.epoch = int(content.get("current_epoch") or 0)
        own = content.get(OWN) or {}
        if own:
            known: dict[Any, Norms] = {"kernels": "kernels", "samples": "samples"}
            biases: Biases = "rounded" if own.get("biases") == "rounded" else "apart"
            self.learner.use_norms(known.get(str(own.get("norms")), "torch"), biases)
        settings = self.order.settings
        self.seed = self.source.seed = int(own.get("seed", self.seed))
        if settings.augment_on == "auto" and self.learner.choice.kind == "cuda":
            self.source.unfinished = bool(own.get("augmented_there", False))
        lengths = {name: own[name] for name in _LENGTHS if name in own and getattr(settings, name, None) is None}
        self.recipe = self.recipe.replace(**lengths)
        self.schedule = Schedule.restored(self.recipe, own.get("schedule") or {})
        if settings.epochs is not None and settings.epochs != self.schedule.epochs:
            self.schedule = Schedule(self.recipe, settings.epochs)
        self.iteration, self.aside = int(own.get("iteration", 0)), float(own.get("aside", 0.0))
        self.losses = [float(v) for v in own.get("losses", ())]
        self._epoch_seconds, self.spent = float(own.get("epoch_seconds", 0.0)), float(own.get("spent", 0.0))
        self.measured, self.begun_with = bool(own.get("measured", False)), own.get("begun_with")

    def last_checkpoint(self) -> Path | None:
        """Return the newest checkpoint of this fold."""
        return max(self.folder.checkpoints, key=lambda path: path.stat().st_mtime, default=None)

    def close(self) -> None:
        """End the workers."""
        self.loader.close()
