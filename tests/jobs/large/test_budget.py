"""What is left for a block does not depend on the moment, but on what a process really holds."""

from types import SimpleNamespace

import numpy as np
import pytest

from napari_nnunet.jobs.large import budget
from napari_nnunet.jobs.large.budget import Budget
from napari_nnunet.jobs.prediction.predictor import borrowed
from napari_nnunet.schema.requests.prediction import PredictSettings


@pytest.fixture
def left(model, monkeypatch):
    """What is left of two gigabytes in a process that holds so many bytes."""

    def found(held):
        memory = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=held))
        monkeypatch.setattr(budget.psutil, "Process", lambda: memory)
        settings = PredictSettings(device="cpu", backend="torch", precision="float32")
        with borrowed(model, settings) as predictor:
            return Budget.of(2).left_beside(model, predictor.ensemble)

    return found


def test_blocks_are_planned_alike_whatever_a_process_that_was_just_started_holds(left):
    assert len({left(held) for held in np.linspace(3e8, 4.7e8, 9)}) == 1


def test_a_process_that_holds_images_has_so_much_less_for_a_block(left):
    assert left(4e8) - 0.75e9 <= left(1.2e9) <= left(4e8) - 0.7e9
    assert left(1.2e9) == left(1.21e9)
