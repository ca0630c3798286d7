"""A short training of tiny cases, and what it leaves."""

from __future__ import annotations

import torch

from helpers import TRAINED
from napari_nnunet.events import drain
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.jobs.training.improve import continued
from napari_nnunet.jobs.training.train import train
from napari_nnunet.schema.requests.training import TrainRequest, TrainSettings

SHORT = TrainSettings(epochs=3, iterations=4, validation_iterations=2, workers=0, device="cpu", threads=1)
MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"
NEW = {"background": 0, "lesion": 1, "organ": 2, "cyst": 3}  # other values, and a class more


def run(workspace, fold=0, *, settings=SHORT, configuration="3d_fullres", **options):
    events = []
    result = drain(
        train(
            workspace,
            TrainRequest.like(settings, dataset=TRAINED, configuration=configuration, fold=fold, **options),
        ),
        events.append,
    )
    return result, events


def folder_of(workspace, fold=0, model=MODEL):
    return FoldFolder.at(workspace.results / TRAINED / model, fold)


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def same(a, b):
    """Whether two trained states are equal to the bit: weights, momentum, log."""
    for key, tensor in a["network_weights"].items():
        assert torch.equal(tensor, b["network_weights"][key]), key
    first, second = a["optimizer_state"]["state"], b["optimizer_state"]["state"]
    assert first.keys() == second.keys()
    for key in first:
        assert torch.equal(first[key]["momentum_buffer"], second[key]["momentum_buffer"])
    for name in ("train_losses", "val_losses", "lrs", "ema_fg_dice", "dice_per_class_or_region"):
        assert str(a["logging"][name]) == str(b["logging"][name])
    assert a["_best_ema"] == b["_best_ema"]
    assert a["current_epoch"] == b["current_epoch"]


def request(**changes):
    return TrainRequest(
        dataset=TRAINED, configuration="3d_fullres", fold=0, **{**SHORT.model_dump(exclude_unset=True), **changes}
    )


def going_on(place, model, name, **options):
    """Continue a model in this process; returns the result and its events."""
    asked = request(continue_from=model, plans=name, epochs=2, iterations=3, **options)
    (made,) = drain(continued(place, [asked]))
    events = []
    return drain(train(place, made), events.append), events
