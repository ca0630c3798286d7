"""Begin with what was learnt elsewhere: the weights of a file, or a whole model that is continued on other cases.

Channels and classes are matched by name where there are others than before.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from napari_nnunet.engine.network.unet import UNet, own_state
from napari_nnunet.engine.training.heads import HeadFit
from napari_nnunet.engine.training.learner import first_convolution, load_pretrained
from napari_nnunet.engine.training.schedule import Schedule
from napari_nnunet.errors import DatasetError, ModelError, SettingsError, counted
from napari_nnunet.events import Job, Note, Progress, Stage
from napari_nnunet.formats.atomic import copy_file, write_json
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.dataset.raw_dataset import open_dataset, reader_of
from napari_nnunet.formats.model.checkpoint import read_raw
from napari_nnunet.formats.model.fold import CONTINUED_FILE, FoldFolder
from napari_nnunet.formats.model.folder import TrainedModel, is_model_folder, load_model
from napari_nnunet.formats.preprocessed.plans import read_plans
from napari_nnunet.formats.results.summary import SUMMARY_FILE, Summary, find_summary
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.splits import SPLITS_FILE
from napari_nnunet.jobs.planning.folds import take_raw_folds
from napari_nnunet.jobs.training.loader import Place
from napari_nnunet.jobs.training.order import Order
from napari_nnunet.jobs.training.prepare import (
    look_at_likeness,
    look_at_needs,
    prepare_training,
    require_continuable,
    shares_data,
)
from napari_nnunet.jobs.training.session import Session
from napari_nnunet.jobs.training.validate import measured_anew
from napari_nnunet.schema.dataset import DatasetInfo, LabelScheme
from napari_nnunet.schema.json_text import message
from napari_nnunet.schema.model_name import DEFAULT_PLANS, continued_plans
from napari_nnunet.schema.names import Fold, require_plain
from napari_nnunet.schema.requests.training import TrainRequest
from napari_nnunet.schema.trainers import recipe_of

T = TypeVar("T", bound=TrainRequest)
_SAMPLES, _LOOKS = 32, 32  # that output layers are fitted to at least; batches at most
_OF_BUDGET = 1 / 4  # of a time budget may go into looking, for what is left has to be learnt in it
_FASTER, _FASTEST = 3, 0.003  # times the learning rate where classes are new, and up to which; docs/benchmarks.md
_SHORTER = 4  # times: of the trainer's epochs, where nothing else is said


def continued(workspace: Workspace, requests: Sequence[T]) -> Job[list[T]]:
    """Take over the plans of the model that trainings begin with, preprocess what is new, choose how long they take.

    Parameters
    ----------
    workspace : Workspace
        Where the dataset lies.
    requests : sequence of TrainRequest
        Folds of one configuration, with ``continue_from``.

    Returns
    -------
    list of TrainRequest
        The same with the name of the plans, which is another one than the model's: the model stays. Without a length
        of their own they take a quarter of the trainer's epochs. Cases that are in no fold yet train in every fold:
        they are what the model is continued for.

    Raises
    ------
    ModelError, DatasetError, SettingsError
        If the model has another configuration or other channels, or would be replaced.
    """
    first = requests[0]
    if first.continue_from is None:
        return list(requests)
    model = load_model(first.continue_from)
    dataset = workspace.dataset_name(first.dataset)
    require_continuable(model, first, workspace.raw / dataset)
    raw = open_dataset(workspace.raw / dataset)
    yield from look_at_likeness(model, raw)
    channels = raw.info.channel_names
    if channels != model.dataset.channel_names:
        yield Note(
            level="warning",
            text=f"{dataset} has the channels {', '.join(channels)}, {model.name} was trained with "
            f"{', '.join(model.dataset.channel_names)}; its rules are used. Both must be the same kind of image.",
        )
    own_name = first.plans if "plans" in first.model_fields_set else ""
    name = require_plain(own_name or continued_plans(model.plans.plans_name or DEFAULT_PLANS), "The name of the plans")
    yield from _take_over(workspace.preprocessed / dataset, workspace.raw / dataset, model, name)
    if not (workspace.preprocessed / dataset / SPLITS_FILE).is_file():
        take_raw_folds(workspace, dataset)
    changes: dict[str, Any] = {"plans": name}
    if first.epochs is None and first.time_budget is None:
        epochs = recipe_of(first.trainer).epochs
        changes["epochs"] = max(1, epochs // _SHORTER)
        yield Note(
            text=f"{counted(changes['epochs'], 'epoch')}, a quarter of {first.trainer}'s: the model has learnt already."
        )
    made = [request.model_copy(update=changes) for request in requests]
    needs = yield from look_at_needs(workspace, made[:1])
    yield from prepare_training(workspace, made, adopt=needs.unused)
    return made


def _take_over(base: Path, raw: Path, model: TrainedModel, name: str) -> Iterator[Note]:
    """Write the model's plans under another name for a dataset; those that are there already must be the same."""
    with claimed(base, f"{name} of {base.name} are already being planned", part=f"{name}.json"):
        _write_plans(base, raw, model, name)
    yield Note(text=f"The plans of {model.folder} are used as {name}.")


def _write_plans(base: Path, raw: Path, model: TrainedModel, name: str) -> None:
    dataset = open_dataset(raw)
    content = dict(model.plans.raw)
    content.update(dataset_name=base.name, plans_name=name, image_reader_writer=reader_of(dataset))
    if not shares_data(base, model):
        content["configurations"] = {
            key: {**entry, "data_identifier": f"{name}_{key}"} if "data_identifier" in entry else entry
            for key, entry in content["configurations"].items()
        }
    path = base / f"{name}.json"
    if path.is_file() and dict(read_plans(base, name).raw) != content:
        raise SettingsError(
            f"{path} holds other plans than those of {model.name}. Remove it, or choose another name for the plans.",
            shell="Give another name with -p.",
        )
    copy_file(dataset.folder / "dataset.json", base / "dataset.json")
    write_json(path, content)


def matching_heads(new: LabelScheme, old: LabelScheme) -> list[int | None]:
    """Return for every head of a network the head of another one with the same name, None where there is none."""
    known = {name: index for index, name in enumerate(old.head_names)}
    return [known.get(name) for name in new.head_names]


def matching_channels(new: Sequence[str], old: Sequence[str], inputs: int) -> list[int | None]:
    """Return for every input of a network the channel of the same name elsewhere, None where there is none.

    Inputs beyond the channels are segmentations of a previous stage, which have no counterpart.
    """
    known = {name.casefold(): index for index, name in reversed(list(enumerate(old)))}
    return [known.get(name.casefold()) for name in new] + [None] * (inputs - len(new))


def initialised(network: UNet, order: Order, path: Path, *, heads: bool = False) -> Job[dict[str, Any]]:
    """Load weights of a file into a network, whatever channels and classes they know.

    Parameters
    ----------
    network, order
        What will be trained.
    path : Path
        A checkpoint.
    heads : bool
        Whether classes of the same name keep their output layers; else these stay untrained, as in nnU-Net.

    Returns
    -------
    dict
        What was taken from where, in plain values, for checkpoints and debug.json.

    Raises
    ------
    ModelError
        If the weights do not fit, or ``heads`` is asked for and they do not say what their classes are.
    """
    content = read_raw(path)
    info = _dataset_of(content)
    state = own_state(content["network_weights"])
    matched = _heads_by_name(order, state, info, path) if heads else None
    channels = yield from _channels_by_name(network, order, state, info)
    fresh = load_pretrained(network, state, where=str(path), heads=matched, channels=channels)
    names = order.info.labels.head_names
    kept = [name for name, head in zip(names, matched or [], strict=False) if head is not None]
    text = f"{len(fresh)} output-layer tensors start untrained."
    if matched is not None:
        new = ", ".join(name for name in names if name not in kept)
        text = f"Output layers kept: {', '.join(kept) or 'none'}." + (f" New, and untrained: {new}." if new else "")
    yield Note(text=f"Initialised from {path}; {text}")
    return {"weights": str(path.resolve()), "channels": channels, "classes": kept}


def _dataset_of(content: Mapping[str, Any]) -> DatasetInfo | None:
    """Return what a checkpoint says of its dataset, None where it says nothing that can be read."""
    arguments = content.get("init_args")
    try:
        return DatasetInfo.parse((arguments if isinstance(arguments, Mapping) else {})["dataset_json"])
    except (KeyError, DatasetError):
        return None


def _channels_by_name(
    network: UNet, order: Order, state: Mapping[str, Any], info: DatasetInfo | None
) -> Job[list[int | None] | None]:
    """Return the channels to take the first kernels from; None where there are as many, which are taken in order."""
    first = first_convolution(network.state_dict())
    inputs, own = order.channels_in, order.info.channel_names
    there = int(state[first].shape[1]) if first in state and state[first].ndim > 1 else inputs
    names = () if info is None else info.channel_names[:there]
    if there == inputs:
        if sorted(own) == sorted(names) and own != names:
            yield Note(
                level="warning",
                text=f"The weights were trained with the channels {', '.join(names)} in this order, the dataset has "
                f"{', '.join(own)}. They are used in order, not by name.",
            )
        return None
    channels = matching_channels(own, names, inputs)
    kept = [name for name, channel in zip(own, channels, strict=False) if channel is not None]
    rule = "no name is known there, so all begin with the mean of its first kernels"
    if kept:
        rule = f"{', '.join(kept)} keep their first kernels, the others begin with zeros"
    said = ", ".join(names) or "without names"
    yield Note(
        level="warning",
        text=f"The weights know {there} channel{'s' * (there != 1)} ({said}), this training has {inputs} "
        f"({', '.join(own)}{' and the previous stage' * (len(own) < inputs)}): {rule}.",
    )
    return channels


def _heads_by_name(order: Order, state: Mapping[str, Any], info: DatasetInfo | None, path: Path) -> list[int | None]:
    own = order.info.labels
    outputs = {int(tensor.shape[0]) for name, tensor in state.items() if ".seg_layers." in name and tensor.ndim}
    kinds = {True: "regions", False: "classes"}
    if info is None or outputs != {info.labels.heads}:
        why = f"{path} does not say which classes its output layers are for."
    elif own.has_regions != info.labels.has_regions:
        why = (
            f"{path} was trained for {kinds[info.labels.has_regions]}, {order.dataset_name} has "
            f"{kinds[own.has_regions]}: its output layers cannot be used."
        )
    else:
        return matching_heads(own, info.labels)
    raise ModelError(why, shell="Leave --pretrained_heads out.", window="Switch 'Also output layers' off.")


def going_on(network: UNet, order: Order, folder: Path) -> Job[dict[str, Any]]:
    """Load the weights of a model into a network, class by class.

    Returns
    -------
    dict
        What was taken from where, in plain values: "weights", "classes" that keep their output layers, those that are
        "new" and those that are "gone".

    Raises
    ------
    ModelError
        If they do not fit.
    """
    model = load_model(folder)
    if model.folder.resolve() == order.model.resolve():
        raise SettingsError(
            f"The training would replace the model that it begins with ({folder}).",
            shell="Give the plans another name (-p), or leave -p out.",
        )
    fold = _fold_for(model, order.fold)
    if fold == order.fold and fold != "all" and model.plans.dataset_name == order.dataset_name:
        FoldFolder.at(folder, fold).require_unseen(order.split.val, order.base / SPLITS_FILE, continued=True)
    checkpoint = model.first_checkpoint
    heads = matching_heads(order.info.labels, model.dataset.labels)
    path = model.checkpoint_path(fold, checkpoint)
    found = model.read_fold(fold, checkpoint)
    load_pretrained(network, found.weights, where=str(path), heads=heads)
    names = order.info.labels.head_names
    new = [name for name, head in zip(names, heads, strict=True) if head is None]
    gone = sorted(set(model.dataset.labels.head_names) - set(names))
    yield Note(
        text=f"Continuing fold {fold} of {model.folder}."
        + (f" New: {', '.join(new)}." if new else "")
        + (f" No longer asked for: {', '.join(gone)}." if gone else "")
    )
    if found.scribbles and not order.recipe.scribbles:
        text = f"{model.name} was trained on labels that are strokes, and this training is not. Where they are, "
        yield Note(level="warning", text=f"{text}add --scribbles.", in_window=f"{text}switch 'Scribbles' on.")
    if fold != order.fold:
        yield Note(
            level="warning",
            text=f"The model has no fold {order.fold}; fold {fold} may have been trained on cases that validate here, "
            "so that the Dice of the validation may be too high.",
        )
    kept = [name for name in names if name not in new]
    return {"weights": str(path.resolve()), "classes": kept, "new": new, "gone": gone}


def fit_output_layers(session: Session) -> Job[None]:
    """Fit the output layers of a model that goes on with other classes to what its network sees of them.

    Nothing is done where all classes are as they were. What was fitted is noted in ``session.begun_with``. With Adam,
    whose steps are as long as its rate says, all of the network learns faster then where classes are new, up to the
    rate that was measured.
    """
    begun = session.begun_with or {}
    if not begun.get("new") and not begun.get("gone"):
        return
    began = time.monotonic()
    names, source = session.order.info.labels.head_names, session.source.whole()
    least = min(_LOOKS, -(-_SAMPLES // session.order.configuration.batch_size))
    budget = session.order.settings.time_budget
    fit = HeadFit(session.learner, session.seed, looks=_LOOKS)
    yield Stage(name="Fitting the output layers", total=least)
    for index in range(_LOOKS):
        batch: Any = source.make(Place("train", 0, index))  # what is learnt from first
        fit.look(batch.image, batch.targets)
        yield Progress(done=min(index + 1, least), total=least)
        if index + 1 >= least and fit.seen >= {names.index(name) for name in begun["new"]}:
            break
        spent = budget is not None and time.monotonic() - began >= _OF_BUDGET * budget
        if session.group.agree(float(spent)):  # else processes of one training would fit, and learn, differently
            break
    fitted = [names[head] for head in fit.fit()]
    rate = session.recipe.rate
    if session.recipe.optimizer != "sgd" and {*begun["new"]} & {*fitted}:  # SGD's steps grow by themselves
        session.recipe = session.recipe.replace(rate=min(_FASTER * rate, max(rate, _FASTEST)))
        session.schedule = Schedule(session.recipe, session.schedule.epochs)
    session.begun_with = {**begun, "fitted": fitted, "rate": session.recipe.rate}
    session.aside += time.monotonic() - began
    if fitted:
        yield Note(
            text=f"Output layers fitted to what the network sees: {', '.join(fitted)}. All of it learns from here on, "
            f"first with a rate of {session.recipe.rate:g}."
        )
    else:
        yield Note(level="warning", text="The output layers could not be fitted: they learn from where they begin.")
    if missing := [name for name in begun["new"] if names.index(name) not in fit.seen]:
        yield Note(
            level="warning",
            text=f"No voxel of {', '.join(missing)} was in the {index + 1} batches that were looked at; what is "
            "rare is learnt from the beginning.",
        )


def _fold_for(model: TrainedModel, wanted: Fold) -> Fold:
    there = model.folds(model.first_checkpoint)
    if not there:
        raise ModelError(f"{model.folder} has no checkpoint at all; the training did not finish.")
    return wanted if wanted in there else there[0]


def compared(order: Order) -> Iterator[Note]:
    """Say how good the earlier model and the new one are on the cases that both validated, and keep it for the dock.

    Nothing is said of a training that continued no model, or a model that is gone or was not validated.
    """
    path = order.folder.path / CONTINUED_FILE
    after_file = order.folder.validation / SUMMARY_FILE
    if not path.is_file() or not after_file.is_file():
        return
    folder = Path(str(message(path).get("model", "")))
    if not is_model_folder(folder):
        return
    model = load_model(folder)
    before = find_summary(model.folder / f"fold_{order.fold}" / "validation")
    if before is None:
        return
    ending = order.info.file_ending
    old = {case.name.removesuffix(ending): case.dice for case in before.cases}
    after = Summary.read(after_file, ending=ending).cases
    values = {
        v: value
        for value, name in order.info.labels.names.items()
        for v, n in model.dataset.labels.names.items()
        if n == name
    }
    gone = yield from measured_anew(order, model, {c.name: c.reference for c in after if c.name in old}, values, old)
    new = {case.name: case.dice for case in after if case.name not in (gone or ())}
    cases = sorted(set(old) & set(new))
    dice: dict[str, tuple[float, float]] = {}
    for earlier, value in values.items():
        name = order.info.labels.names[value]
        was = _mean([old[case].get(str(earlier), math.nan) for case in cases])
        now = _mean([new[case].get(str(value), math.nan) for case in cases])
        if not math.isnan(was) and not math.isnan(now):
            dice[name] = (was, now)
    if dice:
        kept = {"model": str(folder), "cases": len(cases), "dice": {k: list(v) for k, v in dice.items()}}
        write_json(path, kept if gone is not None else {**kept, "note": _FIGURES_ONLY})
        yield from (Note(text=_FIGURES_ONLY),) if gone is None else ()
        told = ", ".join(f"{name} {was:.4f} -> {now:.4f}" for name, (was, now) in dice.items())
        yield Note(text=f"Dice on the {counted(len(cases), 'case')} that both models validated: {told}.")


_FIGURES_ONLY = (
    "The earlier model came without its segmentations of these cases: its Dice is that against the labels of when it "
    "was validated. If labels were changed since, before and after cannot be compared."
)


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
