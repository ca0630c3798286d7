"""What is left for a block does not depend on the moment, but on what a process really holds."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from napari_nnunet.errors import ResourceError
from napari_nnunet.events import drain
from napari_nnunet.formats.large.opening import image_of
from napari_nnunet.jobs.large import budget
from napari_nnunet.jobs.large.budget import Budget
from napari_nnunet.jobs.large.ready import as_large_as_allowed, planned, record_of
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


@pytest.mark.parametrize(("asked", "free", "said"), [
    (8, 20, ""), (None, 20, ""), (1.0, 20, "do not fit"), (None, 0.1, "do not fit"), (None, 3.5, "take more than that"),
])  # fmt: skip
def test_blocks_that_were_chosen_with_more_memory_are_told_before_they_take_it(model, monkeypatch, asked, free, said):
    image = image_of(np.broadcast_to(np.float32(1), (512, 512, 512)), (1.0, 1.0, 1.0))
    settings = PredictSettings(device="cpu", backend="torch", precision="float32")
    monkeypatch.setattr(budget, "available_memory", lambda: free * 1e9)
    with borrowed(model, settings) as predictor:
        layout = planned(predictor, record_of(model, image, None), (128, 128, 128), settings, Budget(8e9))
        events = []
        with pytest.raises(ResourceError) if said == "do not fit" else nullcontext() as caught:
            drain(as_large_as_allowed(predictor, layout, settings, asked and Budget(asked * 1e9)), events.append)
    texts = [event.text for event in events] if caught is None else [caught.value.message]
    assert [said in text for text in texts] == ([True] if said else [])
    assert all("were chosen with more memory than the " in text for text in texts)
