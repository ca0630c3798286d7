"""Training batches: repeatable, of the right shapes, with foreground where it is promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_nnunet.engine.batches import batch as batch_module
from napari_nnunet.engine.batches.batch import draw_batch, finish_batch, make_batch, target_of
from napari_nnunet.engine.batches.supervision import output_weights
from napari_nnunet.engine.training.loss import SegmentationLoss, supervised
from napari_nnunet.schema.dataset import LabelScheme
from samples import CASES, PLAIN, Case, rule

REGIONS = LabelScheme(labels={"background": 0, "whole": (1, 2), "core": (2,), "ignore": 3}, regions_class_order=(1, 2))


def batch(how, *, cases=CASES, seed=0, epoch=0, index=0):
    return make_batch(sorted(cases), cases.__getitem__, how, seed=seed, epoch=epoch, index=index)


@pytest.mark.parametrize("patch", [(8, 16, 16), (4, 24, 24), (16, 24)])
@pytest.mark.parametrize("augmented", [True, False])
def test_shapes_and_kinds(patch, augmented):
    made = batch(rule(patch, augmented=augmented))
    assert tuple(made.image.shape) == (3, 2, *patch)
    assert made.image.dtype == torch.float32
    assert [tuple(t.shape[2:]) for t in made.targets] == [
        patch, tuple(n // s for n, s in zip(patch, (1, 2, 2)[-len(patch):], strict=True))
    ]  # fmt: skip
    assert all(t.dtype == torch.int16 and int(t.min()) >= 0 for t in made.targets)
    assert len(made.cases) == 3


def test_a_batch_is_a_function_of_seed_epoch_and_index():
    first, again = batch(rule(), index=5), batch(rule(), index=5)
    assert torch.equal(first.image, again.image)
    assert all(torch.equal(a, b) for a, b in zip(first.targets, again.targets, strict=True))
    assert first.cases == again.cases
    for other in ({"seed": 1}, {"epoch": 1}, {"index": 6}):
        assert not torch.equal(first.image, batch(rule(), **{"index": 5, **other}).image)


def test_the_last_third_of_a_validation_batch_holds_foreground():
    how = rule(augmented=False)
    forced, free = [], []
    for i in range(60):
        target = batch(how, index=i).targets[0]
        forced.append(bool((target[2] > 0).any()))
        free.append(bool((target[0] > 0).any()))
    assert all(forced)
    assert 0 < np.mean(free) < 0.6
    seen = {int(v) for i in range(60) for v in batch(how, index=i).targets[0][2].unique()}
    assert seen == {0, 1, 2}


def test_all_cases_are_drawn_alike():
    names = [name for i in range(300) for name in batch(rule(augmented=False), index=i).cases]
    counts = np.array([names.count(name) for name in "abcd"])
    assert np.abs(counts / counts.sum() - 0.25).max() < 0.06


def test_regions_and_ignored_voxels_become_channels():
    labels = torch.tensor([[[[0, 1], [2, 3]]]], dtype=torch.int16)
    channels = target_of(labels, REGIONS)
    assert channels.dtype == torch.bool
    assert channels[0].tolist() == [
        [[False, True], [True, False]],
        [[False, False], [True, False]],
        [[False, False], [False, True]],
    ]
    assert target_of(labels, PLAIN) is labels
    cases = {name: Case(i, REGIONS) for i, name in enumerate("ab")}
    made = batch(rule(scheme=REGIONS), cases=cases)
    assert made.targets[0].shape[1] == 3
    assert made.targets[0].dtype == torch.bool


def test_sparsely_annotated_cases_give_annotated_patches():
    cases = {name: Case(i, REGIONS) for i, name in enumerate("ab")}
    how = rule(scheme=REGIONS, augmented=False)
    for i in range(30):
        ignored = batch(how, cases=cases, index=i).targets[0][:, -1]
        assert all(not bool(sample.all()) for sample in ignored)


def test_patches_of_scribbles_lie_anywhere_but_for_those_that_must_hold_foreground():
    cases = {name: Case(i, REGIONS) for i, name in enumerate("ab")}
    how = rule((4, 8, 8), scheme=REGIONS, augmented=False, anywhere=True)
    ignored = [batch(how, cases=cases, index=i).targets[0][:, -1] for i in range(60)]
    assert any(bool(sample.all()) for samples in ignored for sample in samples[:2])
    assert not any(bool(samples[2].all()) for samples in ignored)


def test_jitter_moves_forced_patches():
    still, moved = rule(augmented=False), rule(augmented=False, jitter=0.3)
    assert any(not torch.equal(batch(still, index=i).image[2], batch(moved, index=i).image[2]) for i in range(5))
    assert torch.equal(batch(still).image[0], batch(replace(moved)).image[0])  # free patches stay


def test_the_loss_takes_a_batch_as_it_is():
    made = batch(rule())
    outputs = [torch.zeros(3, 3, *target.shape[2:]) for target in made.targets]
    value = supervised(SegmentationLoss(batch_dice=True), outputs, made.targets, output_weights(2))
    assert torch.isfinite(value)


def test_a_batch_that_is_finished_elsewhere_is_the_same():
    how = rule()
    drawn = draw_batch(sorted(CASES), CASES.__getitem__, how, seed=1, epoch=2, index=3)
    whole, elsewhere = batch(how, seed=1, epoch=2, index=3), finish_batch(drawn, how, "cpu")
    assert any(sample.numbers is not None for sample in drawn.samples)
    assert torch.equal(whole.image, elsewhere.image)
    assert all(torch.equal(a, b) for a, b in zip(whole.targets, elsewhere.targets, strict=True))
    assert whole.cases == elsewhere.cases


@pytest.mark.parametrize("patch", [(8, 16, 16), (4, 24, 24), (16, 24)])
def test_of_large_samples_only_those_that_are_turned_are_read_beyond_the_patch(monkeypatch, patch):
    monkeypatch.setattr(batch_module, "_TOGETHER", 1)  # voxels: all are large
    cut, read = batch_module._patch, []

    def middles(*args, middle):
        read.append(middle)
        return cut(*args, middle=middle)

    monkeypatch.setattr(batch_module, "_patch", middles)
    found = [batch(rule(patch), index=i) for i in range(8)]
    assert 4 <= sum(read) <= 20  # of 24: chance turns some
    monkeypatch.setattr(batch_module, "_patch", lambda *args, middle: cut(*args))
    for i, own in enumerate(found):
        whole = batch(rule(patch), index=i)
        assert torch.equal(own.image, whole.image)
        assert all(torch.equal(a, b) for a, b in zip(own.targets, whole.targets, strict=True))
