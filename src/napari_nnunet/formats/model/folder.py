"""Model folders: plans.json, dataset.json, fold_*/checkpoint_*.pth."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from napari_nnunet.errors import ModelError
from napari_nnunet.formats.images.files import ADAPTERS
from napari_nnunet.formats.model.checkpoint import Checkpoint, not_compared, read_checkpoint, told_apart, weights_of
from napari_nnunet.formats.model.fold import cannot_compare
from napari_nnunet.formats.regular import file_hash
from napari_nnunet.formats.results.summary import find_summary
from napari_nnunet.schema.architecture import Architecture
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.json_text import message
from napari_nnunet.schema.model_name import DEFAULT_TRAINER, ModelName
from napari_nnunet.schema.names import Fold, is_plain, typed
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.schema.plans import Configuration, Plans
from napari_nnunet.schema.requests.prediction import Average

#: The plans of a model of nnU-Net v1, and what to do with one.
V1_PLANS = "plans.pkl"
V1_WAY = (
    "Import it with 'napari-nnunet import_old_nnunet_model FOLDER DatasetXXX_Name', where FOLDER is the one with "
    "plans.pkl; it can then be used as any other model."
)
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth")


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained model on disk; weights are read when they are needed.

    Parameters
    ----------
    folder : Path
        ``TRAINER__PLANS__CONFIGURATION``, or any folder with the same content.
    plans, dataset
        Parsed plans.json and dataset.json.
    trainer : str
        Name of nnU-Net's trainer class, from the folder's name or a checkpoint.
    configuration : Configuration
        The one this model was trained for.
    """

    folder: Path
    plans: Plans
    dataset: DatasetInfo
    trainer: str
    configuration: Configuration

    @property
    def name(self) -> str:
        """A name for people: dataset and configuration."""
        dataset = self.plans.dataset_name or self.folder.parent.name
        return f"{dataset} {self.configuration.name}"

    @property
    def channels_in(self) -> int:
        """Input channels of the network, one-hot channels of a previous stage included."""
        previous = len(self.dataset.labels.foreground_labels) if self.configuration.previous_stage else 0
        return len(self.dataset.channel_names) + previous

    @property
    def architecture(self) -> Architecture:
        """The network of the plans; trainer variants with BatchNorm replace the normalisation."""
        architecture = self.configuration.architecture
        return architecture.replace_norm("batch") if self.trainer.endswith("BN") else architecture

    @property
    def reader(self) -> str:
        """Name of the reader that its images are read by."""
        return self.dataset.reader if self.dataset.reader in ADAPTERS else self.plans.reader

    @property
    def turns(self) -> bool:
        """Whether that reader turns images to RAS, so that the network knows no others."""
        return self.reader in ADAPTERS and ADAPTERS[self.reader].reorients

    @property
    def average(self) -> Average:
        """What is averaged over windows, mirrors and folds: logits, or for models of nnU-Net v1 probabilities."""
        return "probabilities" if self.dataset.raw.get("inference_average") == "probabilities" else "logits"

    def folds(self, checkpoint: str = CHECKPOINTS[0]) -> tuple[Fold, ...]:
        """Return the trained folds: numbers first, "all" only where it is the only one."""
        numbered: list[Fold] = []
        whole = False
        for path in self.folder.glob(f"fold_*/{checkpoint}"):
            name = path.parent.name.removeprefix("fold_")
            if name.isdecimal():
                numbered.append(int(name))
            whole = whole or name == "all"
        return tuple(sorted(numbered, key=int)) or (("all",) if whole else ())

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Checkpoint names that at least one fold has."""
        return tuple(name for name in CHECKPOINTS if any(self.folder.glob(f"fold_*/{name}")))

    @property
    def first_checkpoint(self) -> str:
        """The checkpoint to take where none was asked for; what is done with it says if there is none at all."""
        return next(iter(self.checkpoints), CHECKPOINTS[0])

    def checkpoint_path(self, fold: Fold, checkpoint: str) -> Path:
        """Return the path of a fold's checkpoint.

        Raises
        ------
        ModelError
            If it is not there; the message lists what is.
        """
        path = self.folder / f"fold_{fold}" / checkpoint
        if path.is_dir():
            raise ModelError(f"{path} is a folder; the checkpoint of fold {fold} is a file of that name.")
        if not path.is_file():
            self._require_there()
            there = sorted(str(p.relative_to(self.folder)) for p in self.folder.glob("fold_*/*.pth"))
            raise ModelError(
                f"Fold {fold} has no {checkpoint}. {self.folder} has "
                + (f"{', '.join(there)}." if there else "no checkpoint at all; the training did not finish.")
            )
        return path

    def resolve_folds(self, asked: tuple[Fold, ...] | None, checkpoint: str) -> tuple[Fold, ...]:
        """Return the folds to use: those asked for, or all that were trained."""
        folds = self.folds(checkpoint) if asked is None else asked
        if not folds:
            names = self.checkpoints
            self._require_there()
            if not names:
                raise ModelError(f"{self.folder} has no checkpoint at all; the training did not finish.")
            raise ModelError(
                f"No fold of {self.folder} has a {checkpoint}; it has {' and '.join(names)}.",
                shell=f"Choose that one (-chk {typed(names[0])}).",
                window="Choose that checkpoint.",
            )
        for fold in folds:
            self.checkpoint_path(fold, checkpoint)
        return folds

    def _require_there(self) -> None:
        if not self.folder.is_dir():
            raise ModelError(f"{self.folder} is no longer there.")

    def read_fold(self, fold: Fold, checkpoint: str) -> Checkpoint:
        """Read one fold's weights and facts; raises ModelError where they do not belong to plans and dataset."""
        path = self.checkpoint_path(fold, checkpoint)
        found = read_checkpoint(path)
        apart = told_apart(found.made_with, self.plans, self.dataset, self.configuration.name, used=True)
        if apart:
            raise ModelError(
                f"{path} was trained otherwise than the files in {self.folder} say: {'; '.join(apart)}. What it "
                "segments would be wrong. Put back the plans.json and dataset.json that it was trained with, or train "
                f"fold {fold} again.",
                shell="Other folds can be chosen with -f.",
                window="Other folds can be chosen in the Segment dock.",
            )
        odd = not_compared(found.made_with, self.plans, self.dataset, self.configuration.name)
        return replace(found, doubt=cannot_compare(path, odd, self.folder) if odd else "")

    def hashes(self, folds: tuple[Fold, ...], checkpoint: str) -> dict[str, str]:
        """Return the SHA-256 of every checkpoint used."""
        return {f"fold_{fold}": file_hash(self.checkpoint_path(fold, checkpoint)) for fold in folds}

    @cached_property
    def validation_dice(self) -> dict[str, float]:
        """Mean foreground Dice of each fold's validation, with nnU-Net's full settings, where recorded."""
        found = {}
        for path in sorted(self.folder.glob("fold_*/validation/summary.json")):
            summary = find_summary(path.parent)
            if summary is not None and math.isfinite(summary.dice):
                found[path.parent.parent.name] = summary.dice
        return found

    @property
    def eight_bit_path(self) -> Path:
        """The file with what the model needs to run in 8-bit arithmetic; there is none before it was quantised."""
        return self.folder / "eight_bit.json"

    @cached_property
    def preset_dice(self) -> dict[str, float]:
        """Mean foreground Dice of each preset if somebody measured it (``measure_presets``) with these weights."""
        try:
            content = message(self.folder / "inference_presets.json")
            dice = {str(name): float(entry["dice"]) for name, entry in content["presets"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {}
        return dice if has_weights(self.folder, content.get("weights")) else {}

    @property
    def presets_outdated(self) -> bool:
        """Whether the Dice of presets was measured, but with other weights than those that are there."""
        return not has_weights(self.folder, message(self.folder / "inference_presets.json").get("weights"))

    def previous_stage_folder(self) -> Path | None:
        """Return the folder of the previous stage's model beside this one, if the configuration has one."""
        stage = self.configuration.previous_stage
        if stage is None:
            return None
        return self.folder.parent / ModelName(self.trainer, self.plans.plans_name, stage).folder


def weights_in(base: Path, places: Iterable[str]) -> dict[str, str]:
    """Return what tells the final weights of folds from others, for what is measured with them.

    Parameters
    ----------
    base : Path
        A model, or the folder of several.
    places : iterable of str
        Folders of folds below it, such as "fold_0".
    """
    return {place: weights_of(base / place / CHECKPOINTS[0]) for place in places}


def has_weights(base: Path, noted: Any) -> bool:
    """Whether the weights are there that :func:`weights_in` noted; earlier versions noted none, and are believed."""
    if not isinstance(noted, Mapping):
        return True
    places = [str(place) for place in noted if all(is_plain(part) for part in str(place).split("/"))]
    return weights_in(base, places) == noted


def load_model(folder: str | Path) -> TrainedModel:
    """Open a model folder.

    Parameters
    ----------
    folder : str or Path
        The folder that holds plans.json, dataset.json and ``fold_*``.

    Returns
    -------
    TrainedModel
        Nothing but the two JSON files has been read.

    Raises
    ------
    ModelError
        If the folder is not a model; where one lies a level higher or lower, the message says which.
    PlanError, DatasetError
        If its files do not make sense.
    """
    path = Path(folder).expanduser().absolute()
    _check_folder(path)
    plans = Plans.read(path / "plans.json")
    dataset = DatasetInfo.read(path / "dataset.json")
    ObjectScheme.of(dataset)  # what it says of objects can be read
    name = ModelName.of(path.name)
    if name is not None and name.configuration in plans.configurations:
        trainer, configuration = name.trainer, name.configuration
    else:
        trainer, configuration = _from_checkpoint(path, plans)
    return TrainedModel(path, plans, dataset, trainer, plans.configuration(configuration))


def is_model_folder(path: Path) -> bool:
    """True if a folder looks like a trained model."""
    try:
        return (path / "plans.json").is_file() and (path / "dataset.json").is_file() and any(path.glob("fold_*"))
    except OSError:  # the name is longer than any can be, or the disk is gone
        return False


def holds_models(root: Path, *, most: int = 5000) -> bool:
    """True if a folder is a model, or one in it is; only the first names are looked at, so that it takes a moment."""
    return is_model_folder(root) or any(is_model_folder(child) for child in _folders_in(root, most))


def _folders_in(root: Path, most: int | None = None) -> Iterator[Path]:
    try:
        with os.scandir(root) as entries:
            named = (entry for entry in islice(entries, most) if not entry.name.startswith("."))
            yield from (root / entry.name for entry in named if _is_folder(entry))
    except OSError:
        return


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """As the folder's own table says; only links are looked at, and one that leads back to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def find_models(root: Path, *, depth: int = 3) -> list[Path]:
    """Return the model folders at or below ``root``, sorted."""
    if is_model_folder(root):
        return [root]
    if depth == 0 or not root.is_dir():
        return []
    return [found for child in sorted(_folders_in(root)) for found in find_models(child, depth=depth - 1)]


def _check_folder(path: Path) -> None:
    if is_model_folder(path):
        return
    if not path.exists():
        raise ModelError(f"The model folder {path} does not exist.")
    if not path.is_dir():
        raise ModelError(
            f"{path} is a file; the folder of a model is expected, which holds plans.json, dataset.json and fold_0."
        )
    old = next((p for p in (path, path.parent, *sorted(path.glob("*"))) if (p / V1_PLANS).is_file()), None)
    if old is not None and not find_models(path, depth=2):
        raise ModelError(f"{old} is a model of nnU-Net v1. {V1_WAY}")
    for parent in path.parents[:2]:
        if is_model_folder(parent):
            raise ModelError(f"{path} lies inside a model. The model folder is {parent}; choose that one.")
    below = find_models(path, depth=2) if path.is_dir() else []
    if below:
        choices = "\n".join(f"  {found}" for found in below[:8])
        choices += f"\n  and {len(below) - 8} more" if len(below) > 8 else ""
        raise ModelError(f"{path} is not a model folder itself, but it contains:\n{choices}\nChoose one of these.")
    missing = [name for name in ("plans.json", "dataset.json") if not (path / name).is_file()]
    missing += [] if any(path.glob("fold_*")) else ["fold_0 (or another fold)"]
    raise ModelError(
        f"{path} is not a model folder: it lacks {', '.join(missing)}. A model folder looks like "
        "Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres."
    )


def _from_checkpoint(path: Path, plans: Plans) -> tuple[str, str]:
    """Find trainer and configuration in a checkpoint, for folders that were renamed."""
    for checkpoint in sorted(path.glob("fold_*/checkpoint_*.pth")):
        content = read_checkpoint(checkpoint)
        if content.configuration in plans.configurations:
            return content.trainer, str(content.configuration)
    if len(plans.configurations) == 1:
        return DEFAULT_TRAINER, next(iter(plans.configurations))
    raise ModelError(
        f"Could not determine the configuration of {path}: its name is not TRAINER__PLANS__CONFIGURATION "
        f"and no checkpoint names one. The plans have: {', '.join(plans.configurations)}."
    )


def origin_of(model: TrainedModel, folds: tuple[Fold, ...], checkpoint: str) -> dict[str, Any]:
    """Return where a result comes from: model, folds and hashes, in plain values."""
    return {
        "model": model.name,
        "folder": str(model.folder),
        "trainer": model.trainer,
        "plans": model.plans.plans_name,
        "configuration": model.configuration.name,
        "folds": [str(fold) for fold in folds],
        "checkpoint": checkpoint,
        "sha256": model.hashes(folds, checkpoint),
    }
