"""Weights of another training are what a new one begins with, whatever channels and classes they know."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from trainings import SHORT, of, run

from helpers import TRAINED
from napari_nnunet.engine.network.unet import build
from napari_nnunet.engine.training.learner import kernels_for
from napari_nnunet.errors import ModelError, SettingsError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.model.checkpoint import CHECKSUM, OWN, read_raw
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.training.improve import initialised, matching_channels
from napari_nnunet.jobs.training.order import make_order
from napari_nnunet.jobs.training.train import train
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.requests.training import TrainRequest

FIRST = "encoder.stages.0.0.convs.0.conv.weight"


def test_pretrained_weights_begin_all_but_the_heads(workspace, tmp_path):
    first, _ = run(workspace, validation=False)
    other = Workspace(workspace.raw, workspace.preprocessed, tmp_path / "other")
    job = train(
        other,
        TrainRequest.like(
            SHORT.replace(seed=5), dataset=TRAINED, configuration="3d_fullres", fold=0, pretrained=first.folder.final
        ),
    )
    assert any("Initialised from" in event.text for event in job if isinstance(event, Note))
    wrong = tmp_path / "w.pth"
    content = read_raw(first.folder.final)
    content["network_weights"] = {k: v for k, v in content["network_weights"].items() if "stages.0" not in k}
    del content[CHECKSUM]
    torch.save(content, wrong)
    with pytest.raises(ModelError, match="cannot initialise this training"):
        run(other, 1, pretrained=wrong)


def elsewhere(path, folder, *, channels=None, labels=None, kernels=None):
    """Write a checkpoint as if its training had known other channels and classes; returns its content."""
    content = read_raw(path)
    about = content["init_args"]["dataset_json"]
    if channels is not None:
        about["channel_names"] = {str(i): name for i, name in enumerate(channels)}
    if labels is not None:
        about["labels"] = labels
        for name, tensor in content["network_weights"].items():
            if ".seg_layers." in name:
                content["network_weights"][name] = torch.arange(len(labels), dtype=tensor.dtype).view(
                    -1, *(1,) * (tensor.ndim - 1)
                ).expand(len(labels), *tensor.shape[1:]).clone()  # fmt: skip
    for name in [name for name in content["network_weights"] if name.endswith(FIRST)] if kernels is not None else ():
        content["network_weights"][name] = kernels
    del content[CHECKSUM]
    torch.save(content, folder / "elsewhere.pth")
    return content


@pytest.mark.parametrize(
    ("channels", "expected", "said"),
    [
        (("T1", "mr"), lambda k: k[:, 1:2], "MR keep their first kernels, the others begin with zeros"),
        (("T1", "T2"), lambda k: k.sum(1, keepdim=True), "no name is known there"),
    ],
    ids=["a name is known", "none is"],
)
def test_weights_of_other_channels_begin_a_training_by_a_rule_that_is_said(
    workspace, tmp_path, channels, expected, said
):
    first, _ = run(workspace, settings=SHORT.replace(epochs=1), validation=False)
    shape = read_raw(first.folder.final)["network_weights"][FIRST].shape
    kernels = torch.randn(shape[0], 2, *shape[2:], generator=torch.Generator().manual_seed(0))
    elsewhere(first.folder.final, tmp_path, channels=channels, kernels=kernels)
    settings = SHORT.replace(epochs=1, iterations=1)
    result, events = run(workspace, settings=settings, pretrained=tmp_path / "elsewhere.pth", validation=False)
    warned = " ".join(note.text for note in of(Note, events) if note.level == "warning")
    assert f"The weights know 2 channels ({', '.join(channels)}), this training has 1 (MR)" in warned
    assert said in warned
    content = read_raw(result.folder.final)
    torch.testing.assert_close(content["network_weights"][FIRST], expected(kernels), atol=0.02, rtol=0)
    known = 1 if channels[1] == "mr" else None
    assert content[OWN]["begun_with"]["channels"] == [known]
    again, _ = run(workspace, settings=settings.replace(epochs=2), resume=True, validation=False)
    assert read_raw(again.folder.final)[OWN]["begun_with"] == content[OWN]["begun_with"]
    assert (
        json.loads((again.folder.path / "debug.json").read_text(encoding="utf-8"))["begun_with"]
        == content[OWN]["begun_with"]
    )


def test_channels_are_matched_by_name_and_new_ones_begin_with_nothing():
    assert matching_channels(("FLAIR", "t1"), ("T1", "T2", "FLAIR"), 4) == [2, 0, None, None]
    kernels = torch.randn(4, 3, 3, 3)
    made = kernels_for(kernels, [2, None, 0])
    assert torch.equal(made, torch.stack([kernels[:, 2], torch.zeros(4, 3, 3), kernels[:, 0]], 1))
    image = torch.randn(1, 1, 8, 8)
    before = torch.nn.functional.conv2d(image.expand(1, 3, 8, 8), kernels)
    after = torch.nn.functional.conv2d(image.expand(1, 2, 8, 8), kernels_for(kernels, [None, None]))
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-4)


def test_channels_in_another_order_are_not_matched_without_a_word(new_workspace, tmp_path):
    workspace = new_workspace()
    first, _ = run(workspace, settings=SHORT.replace(epochs=1), validation=False)
    order = make_order(workspace, TrainRequest.like(SHORT, dataset=TRAINED, configuration="3d_fullres", fold=0))
    order = replace(drain(order), info=order_info("T1", "T2"))
    network = build(order.architecture, 2, order.info.labels.heads)
    kernels = torch.zeros_like(network.state_dict()[FIRST])
    elsewhere(first.folder.final, tmp_path, channels=("T2", "T1"), kernels=kernels)
    said = []
    drain(initialised(network, order, tmp_path / "elsewhere.pth"), said.append)
    assert "the channels T2, T1 in this order, the dataset has T1, T2. They are used in order" in said[0].text


def order_info(*channels):
    names = {str(i): name for i, name in enumerate(channels)}
    return DatasetInfo.parse({"channel_names": names, "labels": {"background": 0, "organ": 1, "lesion": 2}})


def test_classes_of_the_same_name_keep_their_output_layers_where_that_is_asked_for(workspace, tmp_path):
    first, _ = run(workspace, settings=SHORT.replace(epochs=1), validation=False)
    elsewhere(first.folder.final, tmp_path, labels={"background": 0, "cyst": 1, "lesion": 2, "vessel": 3})
    settings, path = SHORT.replace(epochs=1, iterations=1), tmp_path / "elsewhere.pth"
    result, events = run(workspace, settings=settings, pretrained=path, pretrained_heads=True, validation=False)
    said = " ".join(note.text for note in of(Note, events))
    assert "Output layers kept: background, lesion. New, and untrained: organ." in said
    content = read_raw(result.folder.final)
    heads = content["network_weights"]["decoder.seg_layers.1.weight"].flatten(1)
    torch.testing.assert_close(heads[[0, 2]], torch.tensor([[0.0], [2.0]]).expand(2, heads.shape[1]), atol=0.05, rtol=0)
    assert content[OWN]["begun_with"] == {
        "weights": str(path.resolve()), "channels": None, "classes": ["background", "lesion"]
    }  # fmt: skip


def test_output_layers_of_unknown_classes_are_not_guessed(workspace, tmp_path):
    first, _ = run(workspace, settings=SHORT.replace(epochs=1), validation=False)
    content, path = elsewhere(first.folder.final, tmp_path), tmp_path / "elsewhere.pth"
    del content["init_args"]["dataset_json"]
    torch.save(content, path)
    with pytest.raises(ModelError, match="does not say which classes its output layers are for"):
        run(workspace, pretrained=path, pretrained_heads=True)
    elsewhere(first.folder.final, tmp_path, labels={"background": 0, "whole": [1, 2], "lesion": 2, "b": 3})
    with pytest.raises(ModelError, match="does not say which classes"):  # four outputs, three regions
        run(workspace, pretrained=path, pretrained_heads=True)
    with pytest.raises(SettingsError, match="no weights to begin with are chosen"):
        run(workspace, pretrained_heads=True)
