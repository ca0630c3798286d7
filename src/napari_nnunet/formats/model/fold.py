"""The folder of a fold: checkpoints, logs, and how a window or a shell talks to the process that trains it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_nnunet.errors import DatasetError, ModelError, NnunetError
from napari_nnunet.formats.atomic import made, write_error, write_json
from napari_nnunet.formats.claim import Runner, claimed, hold, is_claimed, is_young, runner_of
from napari_nnunet.formats.model.checkpoint import made_with
from napari_nnunet.formats.trash import TRASH, trash_path
from napari_nnunet.schema.dataset import DatasetInfo, LabelScheme
from napari_nnunet.schema.json_text import message
from napari_nnunet.schema.model_name import EnsembleName
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.plans import Plans

CALIBRATION_FILE = "calibration.json"  # of a model, or of an ensemble
FINAL, BEST, LATEST = "checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth"
CONTINUED_FILE = "continued_from.json"  # the model that a training continues, and how good both are
RUNS_FILE = "tracking.json"  # which run of a tracker a training that is resumed continues
_MOST_EPOCHS = 1_000_000


@dataclass(frozen=True)
class Wishes:
    """What a training is asked for while it runs.

    Parameters
    ----------
    stop : bool
        Save and end.
    finish_in : int
        Lower the learning rate to zero in so many epochs, then end; 0 if nobody asked.
    ignored : str
        What was asked for and means nothing, for a note.
    """

    stop: bool = False
    finish_in: int = 0
    ignored: str = ""

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Wishes:
        """Read wishes; whatever is odd is ignored, for a training that runs is worth more than a file beside it."""
        stop, finish = content.get("stop", False), content.get("finish_in", 0)
        good = {"stop": isinstance(stop, bool), "finish_in": type(finish) is int and 0 <= finish <= _MOST_EPOCHS}
        ignored = ", ".join(f"{name}: {value!r:.40}" for name, value in content.items() if not good.get(name))
        return cls(stop if good["stop"] else False, finish if good["finish_in"] else 0, ignored)


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
        return int(name) if name.isdecimal() else "all"

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
        return runner_of(self._running)

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Claim the place of the fold for as long as an earlier training is moved out of it; raises SettingsError."""
        with claimed(self.path.parent, self._busy("trained"), part=self.path.name):
            yield

    def _busy(self, how: str) -> str:
        return f"Fold {self.fold} of {self.path.parent.name} is already being {how}"

    @contextmanager
    def claimed(self, how: str = "trained") -> Iterator[None]:
        """Claim the fold for this process while it is trained or, as ``how`` says, validated.

        Raises
        ------
        SettingsError
            If another process does either.
        """
        with made(self.path), hold(self._running, self._busy(how)):
            with suppress(OSError):  # what cannot be removed, as a folder of that name, is no wish either
                self._wishes.unlink(missing_ok=True)
            yield

    @property
    def trained_cases(self) -> frozenset[str]:
        """The cases that the fold was trained with; empty where nothing says which, as in folds of nnU-Net."""
        found = message(self.path / "debug.json").get("training_cases")
        return frozenset(map(str, found)) if isinstance(found, list) else frozenset()

    def require_unseen(self, cases: Iterable[str], splits: Path) -> None:
        """Raise DatasetError where cases validate now that the fold was trained with."""
        seen = sorted(self.trained_cases.intersection(cases)) if self.checkpoints else []
        if seen:
            listed = ", ".join(seen[:5]) + (", ..." if len(seen) > 5 else "")
            raise DatasetError(
                f"{self.path} was trained with {len(seen)} of the cases that validate it now ({listed}): {splits} was "
                "changed since. Its scores would come out too high. Put the folds back as they were, or train this "
                "fold from its beginning.",
                shell="Leave out --c and --val for that.",
                window="Press Train instead of Resume for that.",
            )

    def put_aside(self) -> Path | None:
        """Move an earlier training to the model's trash; returns where it is, None if there was none."""
        if not self.checkpoints:
            return None
        target = trash_path(self.path.parent / TRASH, self.path.name)
        try:
            os.rename(self.path, target)
        except OSError as error:
            raise write_error(target, error) from error
        self._forget_calibrations()
        return target

    def _forget_calibrations(self) -> None:
        """Remove the calibrations of the model, and of ensembles with it, that this fold had a part in."""
        model = self.path.parent
        found = [model / CALIBRATION_FILE]
        for path in model.parent.glob(f"ensembles/ensemble___*/{CALIBRATION_FILE}"):
            ensemble = EnsembleName.of(path.parent.name)
            found += [path] if ensemble is not None and model.name in ensemble.members else []
        for path in found:
            folds = message(path).get("folds") if path.is_file() else []
            if not isinstance(folds, list) or str(self.fold) in folds:
                with suppress(OSError):
                    path.unlink()

    def ask(self, **wishes: Any) -> None:
        """Tell the process that trains: ``stop=True`` (save and end), or ``finish_in=N`` epochs."""
        write_json(self._wishes, {**message(self._wishes), **wishes})

    def wishes(self) -> Wishes:
        """Return what was asked for and forget it; nothing if there is nothing."""
        if not self._wishes.is_file():
            return Wishes()
        content = message(self._wishes)
        if not content and is_young(self._wishes):  # somebody is just writing it
            return Wishes()
        with suppress(OSError):
            self._wishes.unlink(missing_ok=True)
        return Wishes.parse(content or {self._wishes.name: "unreadable"})


def folds_in_use(results: Path, dataset: str) -> list[FoldFolder]:
    """Return the folds of a dataset that a process trains or validates, or is about to; sorted by path."""
    claims = (results / dataset).glob("*__*__*/.fold_*.claimed")
    arriving = {path.with_name(path.name[1:].removesuffix(".claimed")) for path in claims}
    found = {path for path in arriving if is_claimed(path.parent, path.name)}
    found |= {fold.path for fold in find_folds(results, dataset) if fold.runner() is not None}
    return [FoldFolder(path) for path in sorted(found)]


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


def told_apart(
    made: Mapping[str, Any], plans: Plans, info: DatasetInfo, configuration: str, *, used: bool = False
) -> list[str]:
    """Return what weights rely on that plans and dataset say otherwise than when they were trained.

    Sizes of patch and batch are no such thing, nor are new names of classes and channels.

    Parameters
    ----------
    made : mapping
        ``init_args`` of a checkpoint; nothing is said of what it lacks.
    plans, info, configuration
        What its weights would be used with.
    used : bool
        Whether a model is used and nothing trained: people may have corrected a voxel size whose unit was wrong, or
        chosen a faster way to resample results.
    """
    found = []
    try:
        before = Plans.parse(made["plans"], where="its plans")
        then, now = _relied_on(before, configuration), _relied_on(plans, configuration)
        found += [
            f"'{key}' in plans.json was {_short(then[key])} and is {_short(now[key])}"
            for key in then
            if then[key] != now[key] and (not used or key not in _OF_USE)
        ]
    except _UNSAID:
        pass
    try:
        old = DatasetInfo.parse(made["dataset_json"], where="its dataset.json")
    except _UNSAID:
        return found
    if _others(_values(old.labels), _values(info.labels)) or (
        info.labels.has_regions and old.labels.regions_class_order != info.labels.regions_class_order
    ):
        found.append(f"'labels' in dataset.json were {_short(old.labels.labels)} and are {_short(info.labels.labels)}")
    if len(old.channel_names) != len(info.channel_names) or _others(
        *(_places(one.channel_names) for one in (old, info))
    ):
        was, are = (", ".join(one.channel_names) for one in (old, info))
        found.append(f"'channel_names' in dataset.json were {was} and are {are}")
    return found


_OF_USE = ("spacing", "resampling_fn_probabilities")
_UNSAID = (NnunetError, LookupError, TypeError, ValueError, AttributeError)  # what a checkpoint lacks or says oddly


def _relied_on(plans: Plans, name: str) -> dict[str, Any]:
    """Return what decides of a prediction, by its key in plans.json."""
    found = plans.configuration(name)
    used = [i for i, scheme in enumerate(found.normalization_schemes) if scheme == "CTNormalization"]
    return {
        "spacing": list(found.spacing),
        "normalization_schemes": list(found.normalization_schemes),
        "use_mask_for_norm": list(found.use_mask_for_norm),
        **{f"architecture: {k}": v for k, v in found.architecture.model_dump().items() if k != "dropout"},
        "resampling_fn_data": found.resample_data.model_dump(),
        "resampling_fn_probabilities": found.resample_probabilities.model_dump(),
        "transpose_forward": list(plans.transpose_forward),
        "foreground_intensity_properties_per_channel": {i: plans.intensities[i].model_dump() for i in used},
    }


def _values(labels: LabelScheme) -> dict[str, Any]:
    if not labels.has_regions:
        return dict(labels.meanings)
    return {name: (place, values) for place, (name, values) in enumerate(labels.meanings.items())}


def _others(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a name means something else, or what is named is not the same; names may be new."""
    moved = any(now[name] != value for name, value in then.items() if name in now)
    return moved or sorted(map(str, then.values())) != sorted(map(str, now.values()))


def _places(names: Sequence[str]) -> dict[str, int]:
    """Return where each channel is; those of the same name cannot be told apart."""
    return {name if names.count(name) == 1 else f"{name} {i}": i for i, name in enumerate(names)}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def require_same_rules(
    model: Path, plans: Plans, info: DatasetInfo, configuration: str, *, fold: Fold, own: bool, others: bool
) -> None:
    """Raise ModelError where a training would use, or write beside trained folds, what these were not trained with.

    Parameters
    ----------
    model : Path
        The model's folder: its folds share one plans.json and one dataset.json.
    plans, info, configuration
        What is to be trained.
    fold : int or "all"
        Which fold.
    own, others : bool
        Whether it goes on with what that fold learnt, and whether it writes what the others share.
    """
    mine = FoldFolder.at(model, fold)
    for folder in map(FoldFolder, sorted(model.glob("fold_*"))):
        asked = own if folder.path == mine.path else others
        if not asked or not folder.checkpoints:
            continue
        apart = told_apart(made_with(folder.checkpoints[0]), plans, info, configuration)
        if not apart:
            continue
        if folder.path == mine.path:
            raise ModelError(
                f"{folder.checkpoints[0]} was trained otherwise than {plans.where} and dataset.json say now: "
                f"{'; '.join(apart)}. Its weights mean nothing with that. Put back what was changed, or train this "
                "fold from its beginning.",
                shell="Leave out --c and --val for that.",
                window="Press Train instead of Resume for that.",
            )
        raise ModelError(
            f"{folder.checkpoints[0]} was trained otherwise than {plans.where} and dataset.json say now: "
            f"{'; '.join(apart)}. All folds of {model.name} share one plans.json and one dataset.json, so that fold "
            f"{folder.fold} could no longer be used once fold {fold} is trained. Give the new plans a name of their "
            "own, or put the folds that were trained before away.",
            shell="Plan with -overwrite_plans_name NAME and train with -p NAME, or move their folders elsewhere.",
            window="Write a name at 'Plans name' in the Plan dock and choose it in the Train dock, or press 'Discard…' "
            "for each of them there.",
        )
