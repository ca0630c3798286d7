"""``train`` with nnU-Net's flags and our own."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from napari_nnunet.cli._checked import checked
from napari_nnunet.cli._plan import add_output, run_shown
from napari_nnunet.cli._predict import Verbs
from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.model_name import DEFAULT_TRAINER, ModelName
from napari_nnunet.schema.names import parse_fold
from napari_nnunet.schema.requests.training import TrainSettings, parse_duration

_BETWEEN_LOOKS = 1.0  # seconds, while waiting for other trainings


def add_verbs(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "train",
        help="train folds of a configuration",
        description="Train folds of a planned and preprocessed dataset, one after the other, and validate each.",
        allow_abbrev=False,
    )
    parser.add_argument("dataset", metavar="DATASET", help="dataset number or name")
    parser.add_argument("configuration", metavar="CONFIGURATION", help="2d, 3d_fullres, 3d_lowres, 3d_cascade_fullres")
    parser.add_argument("folds", nargs="+", metavar="FOLD", help="0 to 4, or 'all' to hold out no case")
    _add_nnunet(parser)
    _add_own(parser)
    add_output(parser)
    parser.set_defaults(run=_train)


def _add_nnunet(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-tr", default=DEFAULT_TRAINER, metavar="TRAINER", help="nnU-Net's trainer name (default: %(default)s)")
    add("-p", default="nnUNetPlans", metavar="PLANS", help="plans name (default: %(default)s)")
    add("-pretrained_weights", type=Path, metavar="FILE", help="checkpoint to begin with; its heads are left out")
    add(
        "-num_gpus",
        type=int,
        default=1,
        metavar="N",
        help="share each batch among N GPUs (or processes)",
    )
    add("--npz", action="store_true", help="also keep the validation's probabilities, for ensembles")
    add("--c", action="store_true", help="go on from the newest checkpoint, exactly where it was")
    add("--val", action="store_true", help="only validate, with the final checkpoint")
    add("--val_best", action="store_true", help="validate with the best checkpoint")
    add("--disable_checkpointing", action="store_true", help="keep nothing of the training")
    add("-device", default="auto", metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)")


def _add_own(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--epochs", type=int, metavar="N", help="instead of the trainer's (1000); with --c also more than before")
    add("--iterations", type=int, metavar="N", help="steps per epoch instead of 250")
    add("--validation_iterations", type=int, metavar="N", help="validation steps per epoch instead of 50")
    add("--time_budget", "--time-budget", metavar="TIME", help="choose the epochs so that training takes 45m, 2h, 1d")
    add("--early_stop", "--early-stop", type=int, metavar="N", help="end after N epochs without a better pseudo Dice")
    add(
        "--finish_in", "--finish-in", type=int, metavar="N",
        help="let a running training (or with --c a stopped one) end after N more epochs, learning rate going to zero",
    )  # fmt: skip
    add("--wait", action="store_true", help="begin when the trainings of this workspace before it have ended")
    add("--stop", action="store_true", help="let a running training save and end; --c goes on later")
    add(
        "--foreground_jitter", "--foreground-jitter", type=float, default=0.0, metavar="J",
        help="shift patches around foreground by up to J of their size; 0 is nnU-Net's, 0.25 helps small structures",
    )  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="the same seed repeats a training (default: %(default)s)")
    add("--precision", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    add("--compile", action="store_true", help="torch.compile the network")
    add("--threads", type=int, default=0, metavar="N", help="CPU threads (default: all cores)")
    add("--augment_on", choices=["workers", "device"], default="workers", help="who augments (default: %(default)s)")
    add("--tensorboard", action="store_true", help="also write scalars for TensorBoard, which must be installed")
    add("--workers", type=int, metavar="N", help="processes that make batches (default: as many as are needed)")


def _settings(options: argparse.Namespace) -> TrainSettings:
    with checked():
        return TrainSettings(
            trainer=options.tr,
            epochs=options.epochs,
            iterations=options.iterations,
            validation_iterations=options.validation_iterations,
            time_budget=None if options.time_budget is None else parse_duration(options.time_budget),
            early_stop=options.early_stop,
            foreground_jitter=options.foreground_jitter,
            seed=options.seed,
            device=options.device,
            precision=options.precision,
            compile=options.compile,
            threads=options.threads,
            workers=options.workers,
            augment_on=options.augment_on,
            tensorboard=options.tensorboard,
            checkpoints=not options.disable_checkpointing,
            probabilities=options.npz,
        )


def _train(options: argparse.Namespace) -> int:
    from napari_nnunet.formats.model.fold import FoldFolder
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.processes.queue import ticket

    settings = _settings(options)
    _check_flags(options)
    workspace = Workspace.resolve(options.workspace, os.environ)
    dataset = workspace.dataset_name(options.dataset)
    folds = [parse_fold(text) for text in options.folds]
    if options.stop or (options.finish_in is not None and not options.c):
        return _ask(options, workspace, dataset, folds)
    model = workspace.model(dataset, ModelName(options.tr, options.p, options.configuration))
    if "RANK" in os.environ:  # one of several processes, of which the first one stands in line
        return _each(options, workspace, dataset, folds, settings)
    with ticket(workspace.results, [FoldFolder.at(model, fold).path for fold in folds]) as own:
        if options.wait and not _wait(own, workspace.results):
            print("Called off while it waited.")
            return 0
        if options.num_gpus > 1:
            from napari_nnunet.processes.launch import relaunch_distributed

            return relaunch_distributed(options.num_gpus, _shared(sys.argv[1:]))
        return _each(options, workspace, dataset, folds, settings)


def _each(options: argparse.Namespace, workspace: Any, dataset: str, folds: list[Any], settings: TrainSettings) -> int:
    """Train fold after fold; whoever stops one stops them all."""
    for i, fold in enumerate(folds):
        if not _one(options, workspace, dataset, fold, settings):
            left = ", ".join(map(str, folds[i + 1 :]))
            print(f"Fold {fold} was stopped; --c goes on." + (f" Not begun: {left}." if left else ""))
            break
    return 0


def _wait(own: Any, results: Path) -> bool:
    """Wait for the trainings before; returns False where this one was called off."""
    from napari_nnunet.processes.queue import ahead_of

    told = None
    while (ahead := ahead_of(own, results)) != 0:
        if ahead is None:
            return False
        if ahead != told:
            print(f"Waiting for {ahead} training{'s' if ahead > 1 else ''} before this one.", flush=True)
            told = ahead
        time.sleep(_BETWEEN_LOOKS)
    return True


def _check_flags(options: argparse.Namespace) -> None:
    for first, second in (("c", "val"), ("c", "pretrained_weights"), ("val_best", "disable_checkpointing")):
        if getattr(options, first) and getattr(options, second):
            dashes = "-" if second == "pretrained_weights" else "--"
            raise SettingsError(f"--{first} and {dashes}{second} exclude each other.")


def _ask(options: argparse.Namespace, workspace: Any, dataset: str, folds: list[Any]) -> int:
    """Tell trainings that run what to do."""
    from napari_nnunet.formats.model.fold import FoldFolder

    folder = workspace.model_folder(dataset, trainer=options.tr, plans=options.p, configuration=options.configuration)
    for fold in folds:
        place = FoldFolder.at(folder, fold)
        if place.runner() is None:
            hint = (
                f"resume it with --c --finish_in {options.finish_in}"
                if options.finish_in
                else "there is nothing to stop"
            )
            raise SettingsError(f"Fold {fold} of {folder.name} is not being trained now; {hint}.")
        if options.stop:
            place.ask(stop=True)
            print(f"Fold {fold} will save and end.")
        else:
            place.ask(finish_in=options.finish_in)
            print(f"Fold {fold} will end after {options.finish_in} more epochs.")
    return 0


def _one(options: argparse.Namespace, workspace: Any, dataset: str, fold: Any, settings: TrainSettings) -> bool:
    """Train or validate a fold and print how good it is; returns False where it was stopped."""
    from napari_nnunet.formats.model.fold import BEST, FINAL
    from napari_nnunet.jobs.training.train import train, validate

    where = (workspace, dataset, options.configuration, fold)
    if options.val:
        result = run_shown(
            validate(*where, plans_name=options.p, settings=settings, checkpoint=BEST if options.val_best else FINAL),
            options,
        )
    else:
        job = train(
            *where,
            plans_name=options.p,
            settings=settings,
            resume=options.c,
            finish_in=options.finish_in,
            pretrained=options.pretrained_weights,
            validation=not options.val_best,
        )
        result = run_shown(job, options)
        if options.val_best and result.finished:
            again = validate(*where, plans_name=options.p, settings=settings, checkpoint=BEST)
            result = run_shown(again, options)
    print(result.folder.path)
    found = result.validation
    if found is not None:
        for label, dice in found.per_class.items():
            print(f"Dice of label {label}: {dice:.4f}")
        print(f"Mean validation Dice: {found.dice:.4f}" if found.dice is not None else "No validation Dice.")
        for case, reason in found.failed.items():
            print(f"{case} FAILED: {reason}", file=sys.stderr)
    return result.finished or options.val


def _shared(arguments: list[str]) -> list[str]:
    """Return the arguments for each of several processes."""
    place = arguments.index("-num_gpus")
    return [word for word in arguments[:place] + arguments[place + 2 :] if word != "--wait"]
