"""The folder of a fold: checkpoints, logs, and how a window or a shell talks to the process that trains it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_nnunet.errors import DatasetError, ModelError, SettingsError, some
from napari_nnunet.formats.atomic import made, make_folder, write_error, write_json
from napari_nnunet.formats.claim import Runner, claimed, hold, is_claimed, is_young, runner_of
from napari_nnunet.formats.model.checkpoint import made_with, not_compared, told_apart
from napari_nnunet.formats.trash import TRASH, trash_path
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.json_text import message
from napari_nnunet.schema.model_name import EnsembleName
from napari_nnunet.schema.names import Fold, typed
from napari_nnunet.schema.plans import Plans

CALIBRATION_FILE = "calibration.json"  # of a model, or of an ensemble
FINAL, BEST, LATEST = "checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth"
CONTINUED_FILE = "continued_from.json"  # the model that a training continues, and how good both are
WEIGHTS_FILE = "pretrained_weights.json"  # the file of weights that a training begins with
RUNS_FILE = "tracking.json"  # which run of a tracker a training that is resumed continues
NOT_COMPARED = "could not be compared with the files in"
_MOST_EPOCHS = 1_000_000
_ORIGINS = (  # file, its key, the flag and what to press
    (CONTINUED_FILE, "model", "--continue_from", "Choose that model in the list and press 'Improve…' again."),
    (WEIGHTS_FILE, "weights", "-pretrained_weights", "Choose these weights at 'Begin with' and press Train."),
)


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
        with made(self.path):
            before = _written(self._wishes)
            with hold(self._running, self._busy(how)):
                # a wish that came since is of somebody who saw the claim, and counts
                if before is not None and _written(self._wishes) == before:
                    with suppress(OSError):  # what cannot be removed, as a folder of that name, is no wish either
                        self._wishes.unlink(missing_ok=True)
                yield

    @property
    def trained_cases(self) -> frozenset[str]:
        """The cases that the fold was trained with; empty where nothing says which, as in folds of nnU-Net."""
        found = message(self.path / "debug.json").get("training_cases")
        return frozenset(map(str, found)) if isinstance(found, list) else frozenset()

    def require_unseen(self, cases: Iterable[str], splits: Path, *, continued: bool = False) -> None:
        """Raise DatasetError where cases validate now that the fold, or its continuation, was trained with."""
        seen = sorted(self.trained_cases.intersection(cases)) if self.checkpoints else []
        if not seen:
            return
        listed = some(seen)
        if continued:
            raise DatasetError(
                f"{self.path}, which is to be continued, was trained with {len(seen)} of the cases that validate fold "
                f"{self.fold} in {splits} ({listed}). Its scores would come out too high. Put the folds that the model "
                "was trained with into that file (and move splits_final.json of the raw dataset away), or "
                "train the fold "
                "'all'."
            )
        raise DatasetError(
            f"{self.path} was trained with {len(seen)} of the cases that validate it now ({listed}): {splits} was "
            "changed since. Its scores would come out too high. Put the folds back as they were, or train this "
            "fold from its beginning.",
            shell="Leave out --c and --val for that.",
            window="Press Train instead of Resume for that.",
        )

    def note_origin(self, *, model: Path | None = None, weights: Path | None = None) -> None:
        """Keep what a training begins with, before anything of it can be ended: whoever resumes it has to know."""
        for name, key, path in ((CONTINUED_FILE, "model", model), (WEIGHTS_FILE, "weights", weights)):
            if path is not None:
                write_json(make_folder(self.path) / name, {key: str(path.resolve())})

    def forget_origin(self) -> None:
        """Remove what an earlier training began with."""
        for name in (CONTINUED_FILE, WEIGHTS_FILE):
            (self.path / name).unlink(missing_ok=True)

    def require_begun(self) -> None:
        """Check that a fold that is resumed does not begin at random, where it or another fold of its model did not.

        Raises
        ------
        ModelError
            If nothing of it was saved, and it was to begin with a model or with weights.
        """
        if self.checkpoints:
            return
        others = sorted(path for path in self.path.parent.glob("fold_*") if path != self.path)
        for path in (self.path, *others):
            for name, key, flag, window in _ORIGINS:
                if not (path / name).is_file():
                    continue
                origin = message(path / name).get(key, f"another {key}")
                ended, now = "was ended before anything of it was saved, and was to begin", "again"
                if path != self.path:
                    ended, now = f"has saved nothing yet, and {path.name} of the same model began", "with that, too"
                raise ModelError(
                    f"{self.path} cannot be resumed: it {ended} with the {key} {origin}. It would begin with random "
                    "weights.",
                    shell=f"Start it {now}: {flag} {typed(origin)}. To begin at random, leave --c out.",
                    window=window,
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


def cannot_compare(path: Path, odd: Sequence[str], folder: Path) -> str:
    """Return the sentence for a checkpoint of which :func:`not_compared` finds something."""
    return (
        f"{path} {NOT_COMPARED} {folder}: {' and '.join(odd)}. Make sure that they belong "
        "together: with other plans or classes than it was trained with, what it segments is wrong."
    )


def _apart(folder: FoldFolder, plans: Plans, info: DatasetInfo, configuration: str) -> list[str]:
    there = folder.checkpoints
    return told_apart(made_with(there[0]), plans, info, configuration) if there else []


def give_way(
    model: Path, folds: Iterable[Fold], plans: Plans, info: DatasetInfo, configuration: str
) -> Iterator[tuple[Fold, Path]]:
    """Move earlier trainings with other rules to the trash, as they will be trained anew; gives each and its place.

    Raises
    ------
    SettingsError
        If one of them is trained now, or validated.
    """
    for folder in (FoldFolder.at(model, fold) for fold in folds):
        if _apart(folder, plans, info, configuration):
            with folder.arriving():
                if folder.runner() is not None:
                    raise SettingsError(f"{folder.path} is being trained. Wait for that, or stop it first.")
                target = folder.put_aside()
            if target is not None:
                yield folder.fold, target


def require_same_rules(
    model: Path,
    plans: Plans,
    info: DatasetInfo,
    configuration: str,
    *,
    fold: Fold,
    own: bool,
    others: bool,
    anew: Collection[Fold] = (),
) -> list[str]:
    """Raise ModelError where a training would use, or write beside trained folds, what these were not trained with.

    Returns sentences about those of which that cannot be told.

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
    anew : collection of int or "all"
        Folds that the same request trains from their beginning: :func:`give_way` puts them away.
    """
    mine, doubts = FoldFolder.at(model, fold), []
    for folder in map(FoldFolder, sorted(model.glob("fold_*"))):
        asked = own if folder.path == mine.path else others
        if not asked or (folder.path != mine.path and folder.fold in anew):
            continue
        apart = _apart(folder, plans, info, configuration)
        if not apart:
            there = folder.checkpoints[:1]
            odd = [found for path in there for found in not_compared(made_with(path), plans, info, configuration)]
            doubts += [cannot_compare(there[0], odd, model)] if odd else []
            continue
        if folder.path == mine.path:
            raise ModelError(
                f"{folder.checkpoints[0]} was trained otherwise than {plans.where} and dataset.json say now: "
                f"{'; '.join(apart)}. Its weights cannot be used with that. Put back what was changed, or train this "
                "fold from its beginning.",
                shell="Leave out --c and --val for that.",
                window="Press Train instead of Resume for that.",
            )
        raise ModelError(
            f"{folder.checkpoints[0]} was trained otherwise than {plans.where} and dataset.json say now: "
            f"{'; '.join(apart)}. All folds of {model.name} share one plans.json and one dataset.json, so that fold "
            f"{folder.fold} could no longer be used once fold {fold} is trained. Give the new plans a name of their "
            "own, or move the earlier folds away.",
            shell="Plan with -overwrite_plans_name NAME and train with -p NAME, or move their folders elsewhere.",
            window="Write a name at 'Plans name' in the Plan dock and choose it in the Train dock, or press 'Discard…' "
            "for each of them there.",
        )
    return doubts


def _written(path: Path) -> tuple[int, int, int] | None:
    """Return what tells which file stands there, None where none does."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
