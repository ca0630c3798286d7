"""What a training step costs is measured the way training runs it."""

from __future__ import annotations

import torch

from napari_nnunet.engine.network.blocks import InstanceNorm
from napari_nnunet.engine.planning import cost
from napari_nnunet.schema.plans import Architecture


def test_the_fastest_of_several_steps_in_the_layout_of_training_counts(monkeypatch):
    architecture = Architecture(
        name="PlainConvUNet", ndim=3, features=(4, 8), kernel_sizes=((3, 3, 3),) * 2,
        strides=((1, 1, 1), (2, 2, 2)), blocks=(2, 2), decoder_convs=(2,),
    )  # fmt: skip
    seconds, seen = iter([9.0, 9.0, 3.0, 1.0, 2.0]), []  # the first two warm up and count memory

    def timed(trial):
        seen.append(trial)
        return next(seconds)

    monkeypatch.setattr(cost.Trial, "step", timed)
    found = cost.measure_step(architecture, 1, 3, (16, 16, 16), 2, device="cpu")
    assert found.seconds == 2.0  # two samples of one second each
    for trial in seen:
        assert trial.image.is_contiguous(memory_format=torch.channels_last_3d)
        assert all(part.path == "samples" for part in trial.network.modules() if isinstance(part, InstanceNorm))
