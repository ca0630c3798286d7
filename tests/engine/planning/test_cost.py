"""What a training step costs is measured the way training runs it."""

from __future__ import annotations

import time

import torch

from napari_nnunet.engine.network.blocks import InstanceNorm
from napari_nnunet.engine.planning import cost
from napari_nnunet.schema.plans import Architecture

ARCHITECTURE = Architecture(
    name="PlainConvUNet", ndim=3, features=(4, 8), kernel_sizes=((3, 3, 3),) * 2,
    strides=((1, 1, 1), (2, 2, 2)), blocks=(2, 2), decoder_convs=(2,),
)  # fmt: skip


def test_the_fastest_of_several_steps_in_the_layout_of_training_counts(monkeypatch):
    seconds, seen = iter([9.0, 9.0, 3.0, 1.0, 2.0]), []  # the first two warm up and count memory

    def timed(trial):
        seen.append(trial)
        return next(seconds)

    monkeypatch.setattr(cost.Trial, "step", timed)
    monkeypatch.setattr(cost.Trial, "step_alone", lambda trial: (0.6, 0.7))  # small networks gain nothing by threads
    found = cost.measure_step(ARCHITECTURE, 1, 3, (16, 16, 16), 2, device="cpu")
    assert not found.busy
    assert found.seconds == 2.0  # two samples of one second each
    for trial in seen:
        assert trial.image.is_contiguous(memory_format=torch.channels_last_3d)
        assert all(part.path == "samples" for part in trial.network.modules() if isinstance(part, InstanceNorm))


def test_other_programs_do_not_make_a_step_dearer_and_it_is_known_that_they_were_there(monkeypatch):
    step = cost.Trial.step

    def held_up(trial):
        time.sleep(0.3)
        return step(trial) + 0.3

    monkeypatch.setattr(cost.Trial, "step", held_up)
    found = cost.measure_step(ARCHITECTURE, 1, 3, (16, 16, 16), 2, device="cpu")
    assert found.busy and found.seconds < 0.3  # two samples, each of which waited for as long


def test_threads_that_wait_for_each_other_are_known_where_one_alone_is_not_held_up(monkeypatch):
    monkeypatch.setattr(cost.Trial, "step", lambda trial: 3.0)
    monkeypatch.setattr(cost.Trial, "step_alone", lambda trial: (1.0, 1.1))
    found = cost.measure_step(ARCHITECTURE, 1, 3, (16, 16, 16), 2, device="cpu")
    assert found.busy and found.seconds == 2.0


def test_one_thread_is_one_and_others_have_as_many_as_before():
    before, seen = torch.get_num_threads(), []
    trial = cost.Trial(ARCHITECTURE, 1, 3, (16, 16, 16), device="cpu", precision="float32")
    trial.network.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    computed, passed = trial.step_alone()
    assert computed > 0 and passed > 0
    assert (seen, torch.get_num_threads()) == ([1], before)
