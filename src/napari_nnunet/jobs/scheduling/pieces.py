"""Which jobs a set of trainings is made of: one per configuration and fold, those that others need first."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from napari_nnunet.errors import SettingsError
from napari_nnunet.events import Job, Note
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.results.summary import SUMMARY_FILE
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.crossval import dataset_folds
from napari_nnunet.jobs.dataset.splits import SPLITS_FILE
from napari_nnunet.jobs.training.order import make_order, plans_to_train
from napari_nnunet.processes.submitted import Submitted, submitted
from napari_nnunet.schema.model_name import ModelName
from napari_nnunet.schema.names import Fold, typed
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.choosing import FindBestRequest
from napari_nnunet.schema.requests.training import TrainAllRequest, TrainCommand, TrainSettings
from napari_nnunet.schema.requests.words import words

CHOOSING = "choosing"


@dataclass(frozen=True)
class Piece:
    """A job.

    Parameters
    ----------
    name : str
        Configuration and fold, or "choosing".
    words : tuple of str
        Of the command line, beginning with the verb.
    folder : FoldFolder, optional
        That it trains.
    needs : tuple of str
        Names of the pieces, or of jobs submitted earlier, that must have ended well.
    """

    name: str
    words: tuple[str, ...]
    folder: FoldFolder | None = None
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobsLeft:
    """Jobs in an order in which they can run, and those there are already.

    Parameters
    ----------
    jobs : tuple of Piece
        To be submitted.
    earlier : dict of str to Submitted
        Jobs submitted before, of the same names, that wait or run.
    """

    jobs: tuple[Piece, ...] = ()
    earlier: dict[str, Submitted] = field(default_factory=dict)


def make_pieces(workspace: Workspace, request: TrainAllRequest) -> Job[JobsLeft]:
    """Find out which trainings are left to do, and check each as it would check itself.

    Yields
    ------
    Note
        What is skipped, and why.

    Raises
    ------
    DatasetError, PlanError, SettingsError
        What a training refuses, unknown folds, and trainings that others need and that nobody was asked for.
    """
    if not request.checkpoints:
        raise SettingsError(
            "Jobs that keep nothing of a training cannot be continued after their time limit, nor compared.",
            shell="Leave --disable_checkpointing out.",
        )
    dataset = workspace.dataset_name(request.dataset)
    plans = plans_to_train(workspace, dataset, request.plans)
    names = _in_order(plans, request.configurations)
    if not (workspace.preprocessed / dataset / SPLITS_FILE).is_file():
        yield from make_order(workspace, _command(request, names[0], 0), later=True)  # it makes the folds
    every = dataset_folds(workspace, dataset)
    folds = every if request.folds is None else tuple(dict.fromkeys(request.folds))
    unknown = [fold for fold in folds if fold not in every]
    if unknown:
        raise SettingsError(f"There is no fold {unknown[0]}: the folds of {dataset} are 0 to {len(every) - 1}.")
    finding = _Finding(workspace, request, dataset, plans)
    for name in names:
        for fold in folds:
            yield from finding.add(name, fold, every)
    if request.choose:
        yield from finding.choose(names, folds)
    return JobsLeft(tuple(finding.jobs), finding.earlier)


def _in_order(plans: Plans, asked: Collection[str] | None) -> tuple[str, ...]:
    """Return configurations, those whose segmentations others need before these."""
    names = tuple(dict.fromkeys(plans.configurations if asked is None else asked))
    stages = {name: plans.configuration(name).previous_stage for name in names}
    return tuple(sorted(names, key=lambda name: stages[name] is not None))


def _command(request: TrainAllRequest, configuration: str, fold: Fold, *, validate: bool = False) -> TrainCommand:
    return TrainCommand.like(
        request.only(TrainSettings),
        dataset=request.dataset,
        configuration=configuration,
        fold=fold,
        plans=request.plans,
        resume=not validate,
        validate_only=validate,
        processes=1 if validate else request.processes,
    )


class _Finding:
    """Collects the jobs of a request."""

    def __init__(self, workspace: Workspace, request: TrainAllRequest, dataset: str, plans: Plans) -> None:
        self.workspace, self.request, self.dataset, self.plans = workspace, request, dataset, plans
        self.jobs: list[Piece] = []
        self.earlier: dict[str, Submitted] = {}
        self._there = {entry.folder: entry for entry in submitted(workspace.results) if entry.folder}
        self._running: dict[str, str] = {}

    def add(self, configuration: str, fold: Fold, every: Sequence[Fold]) -> Job[None]:
        """Add the training of a fold, unless it is at its end, or under way."""
        name, folder = _name(configuration, fold), self._folder(configuration, fold)
        runner, entry = folder.runner(), self._there.get(str(folder.path))
        if entry is not None:
            self.earlier[name] = entry
            yield Note(text=f"{name} is {entry.told} already; it is not submitted again.")
            return
        if runner is not None:
            where = "" if runner.here else f" on {runner.host}"
            again = "" if runner.here else f" If it no longer runs, delete {folder.path / 'running.json'}."
            self._running[name] = f"{name} is being trained by process {runner.pid}{where}."
            yield Note(level="warning", text=f"{self._running[name]} It is not submitted again.{again}")
            return
        if _finished(folder, probabilities=self.request.probabilities):
            yield Note(text=f"{name} is trained and validated already; skipped.")
            return
        trained = folder.final.is_file()
        command = _command(self.request, configuration, fold, validate=trained)
        previous = self.plans.configuration(configuration).previous_stage
        yield from make_order(self.workspace, command, later=previous is not None)
        needs = () if previous is None else tuple(self._needed(name, previous, every))
        self.jobs.append(Piece(name, ("train", *words([command]), "--no_pbar"), folder, needs))

    def choose(self, configurations: Sequence[str], folds: Sequence[Fold]) -> Job[None]:
        """Add the choice between all that is trained."""
        needs = tuple(self._all_of([_name(name, fold) for name in configurations for fold in folds], CHOOSING))
        if len(configurations) > 1 and not self.request.probabilities:
            yield Note(
                text="Ensembles need the probabilities of the validation (--npz); without, single models are compared."
            )
        found = FindBestRequest(
            dataset=self.request.dataset,
            configurations=tuple(configurations),
            trainers=(self.request.trainer,),
            plans=(self.request.plans,),
            folds=tuple(folds),
        )
        self.jobs.append(Piece(CHOOSING, ("find_best_configuration", *words([found]), "--no_pbar"), None, needs))

    def _needed(self, name: str, previous: str, every: Sequence[Fold]) -> Iterator[str]:
        """Return the folds of the previous stage that are not at their end yet."""
        names = [_name(previous, fold) for fold in every]
        yield from self._all_of(names, name)
        coming = {piece.name for piece in self.jobs} | set(self.earlier)
        missing = [
            fold
            for fold in every
            if _name(previous, fold) not in coming and not _finished(self._folder(previous, fold), probabilities=False)
        ]
        if missing:
            raise SettingsError(
                f"{name} needs the segmentations of all folds of {previous}, of which {', '.join(map(str, missing))} "
                f"{'is' if len(missing) == 1 else 'are'} not trained.",
                shell=f"Train these, too: --configurations {typed(previous, name.partition(' ')[0])} --folds all.",
                window=f"Tick {previous} and all folds, too.",
            )

    def _all_of(self, names: Sequence[str], who: str) -> Iterator[str]:
        running = [self._running[name] for name in names if name in self._running]
        if running:
            raise SettingsError(f"{running[0]} The job {who} needs it, and cannot wait for it. Submit it afterwards.")
        coming = {piece.name for piece in self.jobs} | set(self.earlier)
        yield from (name for name in names if name in coming)

    def _folder(self, configuration: str, fold: Fold) -> FoldFolder:
        name = ModelName(self.request.trainer, self.request.plans, configuration)
        return FoldFolder.at(self.workspace.model(self.dataset, name), fold)


def _name(configuration: str, fold: Fold) -> str:
    return f"{configuration} fold {fold}"


def _finished(folder: FoldFolder, *, probabilities: bool) -> bool:
    """Whether a fold is trained and validated, with probabilities where these are wanted."""
    if not (folder.final.is_file() and (folder.validation / SUMMARY_FILE).is_file()):
        return False
    return not probabilities or any(folder.validation.glob("*.npz"))


def script(workspace: Workspace, pieces: Sequence[Piece]) -> str:
    """Return the jobs as commands of a shell, each with the numbers of those that must have ended well before it."""
    place = [] if workspace.folder is None else ["--workspace", str(workspace.folder)]
    variables = [] if place else [f"{name}={shlex.quote(value)}" for name, value in workspace.variables().items()]
    numbers = {piece.name: i + 1 for i, piece in enumerate(pieces)}
    lines = []
    for piece in pieces:
        after = ", ".join(str(numbers[name]) for name in piece.needs if name in numbers)
        lines.append(f"# {numbers[piece.name]}: {piece.name}" + (f", after {after}" if after else ""))
        lines.append(" ".join([*variables, shlex.join(["napari-nnunet", *piece.words, *place])]))
    return "\n".join(lines) + "\n"
