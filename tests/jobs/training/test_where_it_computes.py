"""Compiled networks, and where patches are augmented: what a training decides at its beginning."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest
import torch
from trainings import SHORT, folder_of, of, run, same

from napari_nnunet.engine.network import unet
from napari_nnunet.engine.network.device import BackendChoice
from napari_nnunet.engine.training.learner import Learner
from napari_nnunet.engine.training.loss import SegmentationLoss
from napari_nnunet.engine.training.parallel import Group
from napari_nnunet.errors import ResourceError
from napari_nnunet.events import Note, Stage
from napari_nnunet.formats.model.checkpoint import read_raw
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.training import begin
from napari_nnunet.jobs.training.loader import Place
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
    ("asked", "told", "device", "steps", "compiles"),
    [
        (None, "", "cuda:0", 5000, True),
        (None, "", "cuda:0", 100, False),
        (None, "", "cpu", 5000, False),
        (None, "t", "cuda:0", 100, True),
        (None, "t", "cpu", 5000, False),  # as nnU-Net, which compiles on CUDA only
        (None, "False", "cuda:0", 5000, False),
        (False, "1", "cuda:0", 5000, False),
        (True, "f", "cpu", 100, True),
    ],
)
def test_the_request_and_then_the_environment_say_whether_to_compile(monkeypatch, asked, told, device, steps, compiles):
    monkeypatch.setenv("nnUNet_compile", told)
    monkeypatch.setattr(begin, "find_spec", lambda _: True)
    order = SimpleNamespace(
        settings=SimpleNamespace(compile=asked, time_budget=None), recipe=SimpleNamespace(iterations=steps, epochs=1)
    )
    assert begin._compiles(order, BackendChoice(device, "torch", "float32", "", 1)) is compiles


def test_without_triton_nothing_is_compiled_by_itself(monkeypatch):
    monkeypatch.setenv("nnUNet_compile", "t")
    monkeypatch.setattr(begin, "find_spec", lambda _: None)
    order = SimpleNamespace(settings=SimpleNamespace(compile=None, time_budget=None))
    assert begin._compiles(order, BackendChoice("cuda:0", "torch", "float32", "", 1)) is False


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


def _begun(making, asked="auto", kind="cuda", *, can=True, step=lambda *_: (0.1, "")):
    batch = SimpleNamespace(image=None, targets=None)
    return SimpleNamespace(
        learner=SimpleNamespace(compiled=False, choice=SimpleNamespace(kind=kind, device="cuda:0"), try_step=step),
        source=SimpleNamespace(unfinished=False, can_be_unfinished=can, tried=lambda: (making, batch)),
        order=SimpleNamespace(settings=SimpleNamespace(augment_on=asked)),
        group=Group(),
        aside=0.0,
    )


@pytest.mark.parametrize(
    ("session", "resumed", "here"),
    [
        (_begun(1.2), False, True),  # three processes make 2.5 batches a second, a GPU takes ten
        (_begun(0.3), False, False),
        (_begun(1.2, "workers"), False, False),
        (_begun(1.2, kind="cpu"), False, False),
        (_begun(1.2, kind="mps"), False, False),
        (_begun(1.2, can=False), False, False),  # the processes finish them whatever is asked
        (_begun(1.2), True, False),  # it goes on as it began
    ],
)
def test_a_gpu_augments_what_it_would_wait_for(session, resumed, here):
    said = list(begin._try(session, 3, resumed=resumed))
    assert session.source.unfinished is here
    assert bool(said) is here
    assert session.aside > 0
    if here:
        assert "a step takes 0.10 s: 3 would keep cuda:0 waiting" in said[0].text


def test_a_step_that_does_not_fit_when_it_is_tried_says_which_batch_would(monkeypatch):
    def step(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.1 GiB.")

    monkeypatch.setattr(begin, "too_large", lambda *_, tried: ResourceError(f"a batch of 1 would fit {tried}"))
    with pytest.raises(ResourceError, match="a batch of 1 would fit True"):
        list(begin._try(_begun(1.2, step=step), 3, resumed=False))


def test_a_source_that_was_tried_can_be_sent_to_processes(workspace, monkeypatch):
    tried, real = [], begin.BatchLoader

    def loader(source, *args, **named):
        seconds, batch = source.tried()
        assert seconds > 0
        assert batch.image.shape[0] == len(batch.cases)
        tried.append(pickle.loads(pickle.dumps(source)))  # maps of open cases cannot be pickled
        assert not source._open
        assert not source._held
        return real(source, *args, **named)

    monkeypatch.setattr(begin, "BatchLoader", loader)
    run(workspace, settings=ONE, validation=False)
    assert tried[0].make(Place("train", 0, 1)).cases
