"""Compiled networks, and where patches are augmented: what a training decides at its beginning."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from trainings import SHORT, folder_of, of, run, same

from napari_nnunet.engine.network import unet
from napari_nnunet.engine.network.device import BackendChoice
from napari_nnunet.engine.training.learner import Learner
from napari_nnunet.engine.training.loss import SegmentationLoss
from napari_nnunet.engine.training.parallel import Group
from napari_nnunet.events import Note, Stage
from napari_nnunet.formats.model.checkpoint import read_raw
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.training import begin
from napari_nnunet.schema.architecture import Architecture
from napari_nnunet.schema.trainers import TrainerRecipe

ONE = SHORT.replace(epochs=1, workers=0)


class _Uncompilable(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.within = [network]

    def forward(self, _):
        raise RuntimeError("Cannot find a working triton installation.\nmore of it")


def test_a_network_that_cannot_be_compiled_learns_without(workspace, tmp_path, monkeypatch):
    run(workspace, settings=ONE.replace(compile=False), validation=False)
    other = Workspace(workspace.raw, workspace.preprocessed, tmp_path / "compiled")
    norms = Learner.use_norms
    monkeypatch.setattr(torch, "compile", _Uncompilable)
    # those of a network that is not compiled, for the same numbers
    monkeypatch.setattr(Learner, "use_norms", lambda self, *_: norms(self, "samples"))
    _, events = run(other, settings=ONE.replace(compile=True), validation=False)
    said = [note for note in of(Note, events) if "cannot be compiled" in note.text]
    assert [note.level for note in said] == ["warning"]
    assert "(RuntimeError: Cannot find a working triton installation.)" in said[0].text
    assert any(stage.name.startswith("Compiling the network") for stage in of(Stage, events))
    same(read_raw(folder_of(workspace).final), read_raw(folder_of(other).final))


def test_on_a_cpu_nothing_is_compiled_unless_asked_for(workspace, monkeypatch):
    monkeypatch.setattr(torch, "compile", _Uncompilable)
    _, events = run(workspace, settings=ONE, validation=False)
    assert not any("ompil" in event.name for event in of(Stage, events))


@pytest.mark.parametrize(
    ("asked", "told", "compiles"),
    [(None, "", False), (None, "t", True), (None, "False", False), (False, "1", False), (True, "f", True)],
)
def test_the_request_and_then_the_environment_say_whether_to_compile(monkeypatch, asked, told, compiles):
    monkeypatch.setenv("nnUNet_compile", told)
    order = SimpleNamespace(settings=SimpleNamespace(compile=asked))
    assert begin._compiles(order, BackendChoice("cpu", "torch", "float32", "", 1)) is compiles


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_step_that_is_tried_changes_nothing(norm):
    architecture = Architecture(
        name="PlainConvUNet", ndim=2, features=(4, 8), kernel_sizes=((3, 3),) * 2, strides=((1, 1), (2, 2)), blocks=(1, 1),
        decoder_convs=(1,), norm=norm,
    )  # fmt: skip
    network = unet.build(architecture, 1, 2)
    unet.initialize(network, torch.Generator().manual_seed(0))
    learner = Learner(network, TrainerRecipe(), SegmentationLoss(), BackendChoice("cpu", "torch", "float32", "", 1))
    image, target = torch.randn(2, 1, 8, 8), torch.ones(2, 1, 8, 8, dtype=torch.int16)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    seconds, problem = learner.try_step(image, [target])
    assert seconds > 0
    assert not problem
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert all(p.grad is None for p in network.parameters())
    assert not learner.optimizer.state


@pytest.mark.parametrize(
    ("making", "asked", "kind", "here"),
    [
        (1.2, "auto", "cuda", True),  # three processes make 2.5 batches a second, a GPU takes ten
        (0.3, "auto", "cuda", False),
        (1.2, "workers", "cuda", False),
        (1.2, "auto", "cpu", False),
    ],
)
def test_a_gpu_augments_what_it_would_wait_for(monkeypatch, making, asked, kind, here):
    batch = SimpleNamespace(image=None, targets=None)
    monkeypatch.setattr(begin, "_finished_batch", lambda _: (making, batch))
    learner = SimpleNamespace(
        compiled=False, choice=SimpleNamespace(kind=kind, device="cuda:0"), try_step=lambda *_: (0.1, "")
    )
    source = SimpleNamespace(unfinished=False)
    session = SimpleNamespace(
        learner=learner,
        source=source,
        order=SimpleNamespace(settings=SimpleNamespace(augment_on=asked)),
        group=Group(),
    )
    said = list(begin._try(session, 3))
    assert source.unfinished is here
    assert bool(said) is here
    if here:
        assert "a step takes 0.10 s: 3 would keep cuda:0 waiting" in said[0].text
