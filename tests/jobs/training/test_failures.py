"""Trainings that fail say why, to whoever watches and to whoever asks later."""

from __future__ import annotations

import pytest
import torch

from helpers import TRAINED, make_trainable
from napari_nnunet.engine.training.learner import Learner
from napari_nnunet.errors import ResourceError
from napari_nnunet.events import drain
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.training.train import train
from napari_nnunet.schema.requests.training import TrainRequest, TrainSettings

SHORT = TrainSettings(epochs=1, iterations=2, validation_iterations=1, workers=0, device="cpu", threads=1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_trainable(tmp_path_factory.mktemp("train"))


@pytest.fixture
def workspace(prepared, tmp_path):
    """The prepared dataset with results of its own."""
    whole = Workspace.at(prepared)
    return Workspace(whole.raw, whole.preprocessed, tmp_path / "results")


def run(workspace, **options):
    return drain(
        train(
            workspace,
            TrainRequest.like(SHORT, dataset=TRAINED, configuration="3d_fullres", fold=0, **options),
        )
    )


def test_a_step_that_memory_does_not_suffice_for_says_what_would_fit(workspace, monkeypatch):
    def huge(*_, **__):
        torch.empty(1 << 58, dtype=torch.uint8)

    monkeypatch.setattr(Learner, "step", huge)
    with pytest.raises(
        ResourceError, match=r"Not enough memory on cpu for a training step with 2 .* A batch of 1 would fit"
    ):
        run(workspace)
