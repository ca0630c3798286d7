"""Train a fold: nnU-Net's loop, which can be stopped at any step and resumed exactly there."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from napari_nnunet.engine.network import unet
from napari_nnunet.engine.network.backends import torch_threads
from napari_nnunet.engine.network.device import PRECISIONS, BackendChoice, gpu_count
from napari_nnunet.engine.training.log import pseudo_dice
from napari_nnunet.engine.training.parallel import Group, joined_processes, own_device
from napari_nnunet.errors import ModelError, NnunetError, ResourceError, SettingsError, TrainingError, counted
from napari_nnunet.events import Ended, EpochDone, Job, Note, Previewed, Progress, Stage
from napari_nnunet.formats import speed
from napari_nnunet.formats.model.checkpoint import epochs_in, read_raw
from napari_nnunet.formats.model.fold import BEST, FINAL, FoldFolder, give_way
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.arithmetic import REAL, step_key, training_choice, training_device
from napari_nnunet.jobs.training.begin import Fresh, Start, begin, fresh_network, kept_arithmetic, require_the_same
from napari_nnunet.jobs.training.improve import compared, continued
from napari_nnunet.jobs.training.order import Order, make_order
from napari_nnunet.jobs.training.session import Session
from napari_nnunet.jobs.training.validate import ValidationResult, validate_fold
from napari_nnunet.processes.follow import PREPARING
from napari_nnunet.processes.notice import noticed
from napari_nnunet.processes.record import PROGRESS_EVERY, Recorder, recorded
from napari_nnunet.processes.tracking import Run, require_trackers, tracked
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.requests.training import TrainRequest, TrainSettings

_MEASURED_STEPS = 5  # of a training with a time budget, after two that are not typical
_IN_MINUTES = 120  # seconds of a time budget from which on it is said in minutes
_SKIPS = 5  # steps in a row whose loss may leave the range of float16


@dataclass(frozen=True)
class TrainResult:
    """What became of a training.

    Parameters
    ----------
    folder : FoldFolder
        Checkpoints and logs.
    finished : bool
        False if it was stopped; it can be resumed.
    epochs : int
        Epochs that are done.
    validation : ValidationResult, optional
        Of the fold's validation cases.
    signal : int
        The one that announced the end of this process, so that it was stopped; 0 if none did.
    """

    folder: FoldFolder
    finished: bool
    epochs: int
    validation: ValidationResult | None = None
    signal: int = 0


def train(workspace: Workspace, request: TrainRequest, anew: Sequence[Fold] = ()) -> Job[TrainResult]:
    """Train one fold of a configuration and segment its validation cases.

    Parameters
    ----------
    workspace : Workspace
        Where dataset and models lie.
    request : TrainRequest
        Which fold, and how.
    anew : sequence of int or "all"
        Folds that are trained anew as well, after this one: earlier ones with other plans or classes are put away.

    Yields
    ------
    Event
        Stage, Progress, EpochDone, CheckpointSaved, Previewed, Note, Ended; also in ``events.jsonl``.

    Returns
    -------
    TrainResult
        Where the checkpoints are and how good the fold is.

    Raises
    ------
    DatasetError, PlanError, SettingsError, ModelError, ResourceError
        Before any work: what is missing, stale, contradictory or too large.
    TrainingError
        If the loss is no longer a number; the last good checkpoint is kept.
    """
    if request.validate_only:
        return (yield from validate(workspace, request))
    resume = request.resume
    if resume and request.pretrained is not None:
        raise SettingsError(
            "A training is either resumed or begun from other weights.",
            shell="Leave out --c or -pretrained_weights.",
            window="Press Resume, or choose weights and press Train.",
        )
    if request.finish_in is not None and not resume:
        raise SettingsError(
            "Only a training that was begun can be finished.",
            shell="Resume it with --c --finish-in N.",
            window="Choose it in the list of trainings and press 'Finish soon'.",
        )
    if request.pretrained_heads and request.pretrained is None:
        raise SettingsError(
            "There are no output layers to keep: no weights to begin with are chosen.",
            shell="Give -pretrained_weights FILE, or leave --pretrained_heads out.",
            window="Choose a file at 'Begin with', or switch 'Also output layers' off.",
        )
    start = Start(resume, request.finish_in, request.pretrained, request.pretrained_heads, request.continue_from)
    device = training_device(request, own_device(request.device))
    require_trackers(request.trackers)
    order = yield from make_order(workspace, request, anew=anew)
    choice = training_choice(request, order.architecture, device, order.configuration.patch_size)
    with joined_processes(choice.device) as group, ExitStack() as stack:
        # Each process of a group measures for itself; they compute alike.
        precision = PRECISIONS[int(group.agree(float(PRECISIONS.index(choice.precision))))]
        choice = replace(choice, precision=precision)
        if resume:
            choice = yield from kept_arithmetic(order, choice)
        fresh = yield from fresh_network(order, choice, group, start)
        job = _train(order, fresh, choice, group, start, request)
        if not group.leads:
            with Recorder(order.folder.events).failures():
                return (yield from job)
        with order.folder.arriving():
            require_the_same(order)
            if not resume:
                yield from _make_room(order.folder)
                yield from _others_aside(order, anew)
            stack.enter_context(order.folder.claimed())
        if request.trackers:
            job = tracked(job, request.trackers, _run_of(order), ending=_ending, last=_last_figures)
        return (yield from recorded(job, order.folder.events, ending=_ending, between=PROGRESS_EVERY))


def train_one(workspace: Workspace, request: TrainRequest) -> Job[TrainResult]:
    """Train a fold as :func:`train` does; where it continues a model, its plans are used first."""
    (request,) = yield from continued(workspace, [request])
    return (yield from train(workspace, request))


def require_gpus(settings: TrainSettings, device: str, processes: int) -> str:
    """Check that a training can be shared among processes where it is asked for; return what should be known of it.

    Raises
    ------
    ResourceError, SettingsError
        As :func:`training_device`, and if there are fewer GPUs than processes.
    """
    choice = training_device(settings, device)
    if choice.kind == "cuda" and processes > gpu_count():
        raise ResourceError(
            f"{processes} GPUs were asked for, but this computer has {gpu_count()}.",
            shell="Give the number of its GPUs (-num_gpus).",
        )
    if choice.kind != "cuda" and device.strip().lower() != "cpu":
        return f"There is no CUDA GPU here; {processes} processes share each batch on the {choice.device}."
    return ""


def _make_room(folder: FoldFolder) -> Job[None]:
    """Move an earlier training of the fold to the trash: a new one would overwrite it."""
    if folder.runner() is None:
        aside = folder.put_aside()
        if aside is not None:
            yield Note(
                text=f"The earlier training of this fold was moved to {aside}; delete it when you no longer need it."
            )
        folder.events.unlink(missing_ok=True)
        folder.forget_origin()


def _others_aside(order: Order, anew: Sequence[Fold]) -> Job[None]:
    """Move earlier trainings of folds to come to the trash where they could not be used with the files of this one."""
    folds = [fold for fold in anew if fold != order.fold]
    for fold, aside in give_way(order.model, folds, order.plans, order.info, order.configuration.name):
        yield Note(text=f"The earlier training of fold {fold}, with other plans or classes, was moved to {aside}.")


def validate(workspace: Workspace, request: TrainRequest) -> Job[TrainResult]:
    """Segment the validation cases of a fold that is trained already, and measure them.

    Parameters
    ----------
    workspace, request
        As for :func:`train`; ``validate_best`` takes the best checkpoint instead of the final one.

    Raises
    ------
    ModelError
        If the fold has no such checkpoint.
    SettingsError
        If another process trains or validates it.
    """
    choice = training_device(request, own_device(request.device))
    order = yield from make_order(workspace, request)
    checkpoint = BEST if request.validate_best else FINAL
    with order.folder.claimed("validated"):
        require_the_same(order)
        network, epochs = _trained(order, checkpoint)
        result = yield from validate_fold(order, network, choice)
    return TrainResult(order.folder, finished=checkpoint == FINAL, epochs=epochs, validation=result)


def _trained(order: Order, checkpoint: str) -> tuple[unet.UNet, int]:
    """Return the network of a checkpoint, and how many epochs it was trained."""
    path = order.folder.path / checkpoint
    if not path.is_file():
        there = ", ".join(found.name for found in order.folder.checkpoints) or "none"
        raise ModelError(f"{order.folder.path} has no {checkpoint} (there: {there}). Train the fold first.")
    content = read_raw(path)
    network = unet.build(order.architecture, order.channels_in, order.info.labels.heads)
    unet.load_state(network, content["network_weights"], where=str(path))
    return network, epochs_in(content) or 0


def _ending(result: TrainResult) -> Ended:
    if not result.finished:
        by = f" by {signal.Signals(result.signal).name}" if result.signal else ""
        return Ended(how="stopped", text=f"Stopped{by} after {counted(result.epochs, 'epoch')}; it can be resumed.")
    found = result.validation
    dice = f" Mean validation Dice {found.dice:.4f}." if found is not None and found.dice is not None else ""
    return Ended(how="finished", text=f"Finished after {counted(result.epochs, 'epoch')}.{dice}")


def _run_of(order: Order) -> Run:
    """Return what trackers call a training."""
    settings = {name: str(value) for name, value in order.settings.model_dump(mode="json", exclude_unset=True).items()}
    settings |= {"dataset": order.dataset_name, "configuration": order.configuration.name, "fold": str(order.fold)}
    name = f"{order.model.name} fold {order.fold}"
    return Run(order.folder.path, order.workspace.results, order.dataset_name, name, settings)


def _last_figures(result: TrainResult) -> dict[str, float]:
    return {} if (found := result.validation) is None or found.dice is None else {"validation/dice": found.dice}


def _train(
    order: Order, fresh: Fresh, choice: BackendChoice, group: Group, start: Start, request: TrainRequest
) -> Job[TrainResult]:
    with torch_threads(choice.threads), ExitStack() as stack:
        if group.leads:
            order.folder.note_origin(model=start.continue_from, weights=start.pretrained)
        yield Stage(name=PREPARING)
        session = yield from begin(order, fresh, choice, group, start)
        stack.callback(session.close)
        finished = yield from _learn(session)
        _remember(session, choice)
        if not finished:
            return TrainResult(order.folder, finished=False, epochs=session.epoch, signal=session.notice.signal)
        if not group.leads:
            return TrainResult(order.folder, finished=True, epochs=session.epoch)
        yield from session.finish()
        network = session.learner.network
    if request.validate_best:
        network, _ = _trained(order, BEST)
    found = (yield from validate_fold(order, network, choice)) if request.validation else None
    yield from compared(order)
    return TrainResult(order.folder, finished=True, epochs=session.epoch, validation=found)


def _learn(session: Session) -> Job[bool]:
    """Run all epochs; returns False if somebody asked to stop."""
    with _saved_when_cancelled(session), noticed() as session.notice:
        if session.epoch < session.schedule.epochs:
            session.load_batches()
            if not (yield from _fit_to_budget(session)):
                yield from session.save_latest()
                return False
        while session.epoch < session.schedule.epochs:
            try:
                going_on = yield from _epoch(session)
            except ResourceError:  # a process that makes batches had the signal, too, and ended
                if not session.notice.signal:
                    raise
                return False  # continued from the newest checkpoint
            if not going_on:
                yield from session.save_latest()
                return False
    return True


@contextmanager
def _saved_when_cancelled(session: Session) -> Iterator[None]:
    """Keep the place where the job was closed or interrupted; no more events can be sent."""
    try:
        yield
    except (GeneratorExit, KeyboardInterrupt):
        if session.group.leads:
            for _ in session.save_latest():
                pass
        raise


def _fit_to_budget(session: Session) -> Job[bool]:
    """Take the first steps, if there is a time budget, and choose epochs and steps that fit into it.

    Returns False if somebody asked to stop.
    """
    budget = session.order.settings.time_budget
    if budget is None or session.measured:
        return True
    yield Stage(name="Measuring the training step", total=_MEASURED_STEPS + 2)
    session.set_rate()
    times = []
    for i in range(min(_MEASURED_STEPS + 2, session.recipe.iterations)):
        begun = time.monotonic()
        yield from _step(session)
        times.append(time.monotonic() - begun)
        yield Progress(done=i + 1, total=_MEASURED_STEPS + 2)
        if (yield from session.obey()):
            return False
    step = session.group.agree(sum(times[2:] or times) / len(times[2:] or times))
    left = session.fit_to_budget(budget, step)
    fitting = f"{counted(session.schedule.epochs, 'epoch')} of {counted(session.recipe.iterations, 'step')}"
    length = counted(round(budget / 60), "minute") if budget >= _IN_MINUTES else counted(round(budget), "second")
    if session.aside and left <= session.schedule.epochs * session.recipe.iterations * step / 2:
        yield Note(
            level="warning",
            text=f"What comes before the epochs took {session.aside:.0f} s of {length}, and a step takes {step:.2f} s. "
            f"Hardly anything can be learnt in what is left; {fitting} are trained all the same. Give it more time.",
        )
        return True
    before = f" What came before took {session.aside:.0f} s of them." if budget - left >= 1 else ""
    yield Note(text=f"A step takes {step:.2f} s, so {length} allow {fitting}.{before}")
    return True


def _remember(session: Session, choice: BackendChoice) -> None:
    """Note how long a step took here, so that the next plan says what trainings really take."""
    order = session.order
    if session.group.alone and not order.settings.threads and session.epoch and session.seconds_per_step > 0:
        key = step_key(order.configuration, order.channels_in, order.info.labels.heads, choice)
        speed.remember(f"{key}-{REAL}", session.seconds_per_step)


def _epoch(session: Session) -> Job[bool]:
    """Run (the rest of) an epoch; returns False if somebody asked to stop."""
    epochs, recipe = session.schedule.epochs, session.recipe
    steps = recipe.iterations + recipe.validation_iterations
    yield Stage(name=f"Epoch {session.epoch + 1} of {epochs}", total=steps)
    session.set_rate()
    while session.iteration < recipe.iterations:
        yield from _step(session)
        yield Progress(done=session.iteration, total=steps, seconds_left=session.seconds_left())
        if (yield from session.obey()):
            return False
        yield from session.save_by_time()
    matches = []
    for i in range(recipe.validation_iterations):
        matches.append(session.compare())
        yield Progress(done=recipe.iterations + i + 1, total=steps, seconds_left=session.seconds_left())
        if (yield from session.obey()):
            return False  # resumed, the epoch is validated again
    dice = pseudo_dice(matches)
    done = session.end_epoch(sum(m.loss for m in matches) / len(matches), dice)
    yield done
    yield from _after_epoch(session, done)
    return True


def _after_epoch(session: Session, done: EpochDone) -> Job[None]:
    """Save, draw, show, and see whether the end has moved."""
    if done.best:
        yield from session.save_best()
    yield from session.save_after_epoch()
    if session.group.leads and session.film.wants(session.epoch, session.schedule.epochs):
        try:
            yield Previewed(path=str(session.film.shoot(session.learner, session.epoch)), epoch=session.epoch)
        except NnunetError as error:
            yield Note.about("No preview of this epoch:", error)
    yield from session.adapt_length()


def _step(session: Session) -> Job[None]:
    """Learn from the next batch; a loss that is not finite ends the training before it can do harm."""
    loss, cases = session.learn()
    if math.isfinite(loss):
        return
    who = ", ".join(sorted(set((suspects := session.suspects()) or cases)))
    if session.learner.scaler is not None and not suspects and session.left_out <= _SKIPS:
        yield Note(level="warning", text=f"float16 overflowed on {who}; this step was skipped.")
        return
    found = session.last_checkpoint()
    kept = f"The last good state is kept in {found}" if found else "Nothing was saved yet"
    why = (
        "Check the images of these cases for values that are not finite or far outside the usual range."
        if suspects
        else "The network itself diverged: train with a lower learning rate or in float32."
    )
    raise TrainingError(
        f"The loss is {loss} in epoch {session.epoch}, step {session.iteration}, on {who}. {why} {kept}."
    )
