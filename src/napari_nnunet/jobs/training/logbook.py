"""What a training leaves to read: training_log_*.txt, progress.png, debug.json."""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from napari_nnunet.engine.training.log import TrainingLog
from napari_nnunet.formats.atomic import write_json, written_beside
from napari_nnunet.version import __version__

_PICTURE_SHARE = 0.02  # of the time may go into drawing progress.png


class Logbook:
    """Writes text and pictures; a full disk never ends the training.

    Parameters
    ----------
    folder : Path
        Of the fold.
    """

    def __init__(self, folder: Path) -> None:
        now = datetime.now()
        name = f"training_log_{now.year}_{now.month}_{now.day}_{now:%H_%M_%S}.txt"
        self._path = folder / name
        self._picture = folder / "progress.png"
        self._next_picture = 0.0

    def say(self, *lines: str) -> None:
        """Append lines, each with the time before it."""
        stamp = datetime.now()
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.writelines(f"{stamp}: {line} \n" for line in lines)

    def epoch(self, log: TrainingLog, names: Sequence[str], *, better: bool) -> None:
        """Write down the last epoch in nnU-Net's words."""
        last = {key: values[-1] for key, values in log.lists.items()}
        dice = ", ".join(f"{value:.4f}" for value in last["dice_per_class_or_region"])
        self.say(
            f"Epoch {log.epochs - 1}",
            f"Current learning rate: {round(last['lrs'], 5)}",
            f"train_loss {last['train_losses']:.4f}",
            f"val_loss {last['val_losses']:.4f}",
            f"Pseudo dice [{dice}] ({', '.join(names)})",
            f"Epoch time: {last['epoch_end_timestamps'] - last['epoch_start_timestamps']:.2f} s",
        )
        if better:
            self.say(f"New best EMA pseudo Dice: {last['ema_fg_dice']:.4f}")

    def draw(self, log: TrainingLog, *, now: bool = False) -> None:
        """Draw progress.png, if the last time was long enough ago."""
        begun = time.monotonic()
        if log.epochs and (now or begun >= self._next_picture):
            with suppress(Exception):  # a picture is not worth a training
                draw_progress(log, self._picture)
            self._next_picture = time.monotonic() + (time.monotonic() - begun) / _PICTURE_SHARE


def draw_progress(log: TrainingLog, path: Path) -> None:
    """Draw losses, pseudo Dice, epoch times and learning rates as nnU-Net does, at a size that a screen can show."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # a second to load, when an epoch is over
    from matplotlib.figure import Figure  # likewise

    lists = log.lists
    x = list(range(log.epochs))
    figure = Figure(figsize=(12, 14), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    top, middle, bottom = figure.subplots(3, 1)
    right = top.twinx()
    top.plot(x, lists["train_losses"], color="tab:blue", label="training loss")
    top.plot(x, lists["val_losses"], color="tab:red", label="validation loss")
    right.plot(x, lists["mean_fg_dice"], color="tab:green", linestyle=":", label="pseudo Dice")
    right.plot(x, lists["ema_fg_dice"], color="tab:green", label="pseudo Dice (moving average)")
    top.set(xlabel="epoch", ylabel="loss")
    right.set(ylabel="pseudo Dice", ylim=(0, 1))
    handles, labels = (a + b for a, b in zip(*(axis.get_legend_handles_labels() for axis in (top, right)), strict=True))
    top.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=4, frameon=False)
    seconds = [b - a for a, b in zip(lists["epoch_start_timestamps"], lists["epoch_end_timestamps"], strict=True)]
    middle.plot(x, seconds, color="tab:blue")
    middle.set(xlabel="epoch", ylabel="seconds per epoch", ylim=(0, None))
    bottom.plot(x, lists["lrs"], color="tab:blue")
    bottom.set(xlabel="epoch", ylabel="learning rate")
    with written_beside(path, suffix=".png", durable=False) as temporary:
        figure.savefig(temporary)


def write_debug(path: Path, facts: Mapping[str, Any]) -> None:
    """Write debug.json: settings and what this computer is."""
    about = {
        "napari_nnunet": __version__,
        "torch_version": str(torch.__version__),
        "python": platform.python_version(),
        "hostname": socket.gethostname(),
        "gpu_name": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cudnn_version": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
    }
    write_json(
        path,
        {**{key: value if isinstance(value, dict | list) else str(value) for key, value in facts.items()}, **about},
    )
