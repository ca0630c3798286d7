"""Networks are kept for the next image, but not for ever."""

from __future__ import annotations

from contextlib import closing

import pytest
import torch

from napari_nnunet.events import Note, drain
from napari_nnunet.jobs.prediction import predict as module
from napari_nnunet.jobs.prediction import predictor
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.schema.requests.prediction import PredictSettings

FOLDS = (0, 1, 2, 3, 4)


@pytest.fixture
def members(new_model, monkeypatch):
    """An ensemble of five members, and how often a member's networks were built."""
    model = new_model(folds=FOLDS)
    built, real = [], predictor.build_predictor

    def build(model, settings, choice):
        built.append((settings.folds, settings.mirroring))
        return real(model, settings, choice)

    monkeypatch.setattr(predictor, "build_predictor", build)
    return model, built


def use(model, folds, **changes):
    for fold in folds:
        settings = PredictSettings(device="cpu", backend="torch", threads=1, folds=(fold,), **changes)
        with predictor.borrowed(model, settings):
            pass


def test_the_second_image_of_a_five_member_ensemble_builds_nothing(members):
    model, built = members
    use(model, FOLDS)
    use(model, FOLDS)
    assert len(built) == 5


def test_no_more_networks_are_kept_than_two_stages_of_five_members_have(members):
    model, built = members
    for step in (0.5, 0.25):
        use(model, FOLDS, mirroring=True, step=step)
        use(model, FOLDS, mirroring=False, step=step)
    assert len(built) == 10  # another step needs no other network
    use(model, FOLDS, precision="bfloat16")
    assert len(predictor._cache) == 10


def test_networks_are_kept_in_a_share_of_the_memory_only_the_last_one_whatever_it_takes(members, monkeypatch):
    model, _ = members
    monkeypatch.setattr(predictor, "free_memory", lambda _: 0.0)
    use(model, FOLDS)
    assert [kept.folds for kept in predictor._cache.values()] == [(4,)]


def test_they_go_when_their_memory_is_needed_and_the_image_is_tried_again(members, volume, monkeypatch):
    model, _ = members
    use(model, FOLDS[:4])
    real, asked = module.prepare, []

    def scarce(*args, **kwargs):
        asked.append(len(predictor._cache))
        if predictor._cache:
            torch.empty(1 << 58, dtype=torch.uint8)
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "prepare", scarce)
    with closing(predict(model, volume, PredictSettings(device="cpu", backend="torch", folds=(4,)))) as job:
        notes = []
        drain(job, lambda event: notes.append(event.text) if isinstance(event, Note) else None)
    assert asked == [4, 0]
    assert sum("networks of earlier images were dropped" in text for text in notes) == 1


def test_they_go_before_an_image_is_refused_for_its_memory(members, volume, monkeypatch):
    model, _ = members
    use(model, FOLDS[:4])
    monkeypatch.setattr(module, "available_memory", lambda: 1000 if predictor._cache else 1 << 40)
    assert drain(predict(model, volume, PredictSettings(device="cpu", backend="torch", folds=(4,)))).labels.any()
