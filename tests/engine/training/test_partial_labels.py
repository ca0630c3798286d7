"""Cases in which not every class was looked for: what the loss, the batches and the counts make of them."""

from __future__ import annotations

import math

import pytest
import torch

from napari_nnunet.engine.batches.batch import target_of, with_patterns
from napari_nnunet.engine.batches.partial import PartialLabels
from napari_nnunet.engine.batches.supervision import downsample_target
from napari_nnunet.engine.choosing.metrics import blanked, measure_labels, summarize
from napari_nnunet.engine.training.loss import SegmentationLoss, count_regions, unknown_heads, with_background
from napari_nnunet.errors import DatasetError, SettingsError
from napari_nnunet.schema.dataset import DatasetInfo, unknown_regions

CONTENT = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1, "spleen": 2, "kidney": 3},
    "file_ending": ".nii.gz",
    "napari_nnunet_annotated": {"a": ["liver"], "b": ["liver", "spleen", "kidney"], "c": ["spleen", "background"]},
}
REGIONS = {
    **CONTENT,
    "labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3},
    "regions_class_order": [1, 2],
    "napari_nnunet_annotated": {"a": ["whole"]},
}


def _partial(content=CONTENT):
    found = PartialLabels.in_dataset(DatasetInfo.parse(content))
    assert found is not None
    return found


def _logits(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_patterns_of_a_dataset():
    info = DatasetInfo.parse(CONTENT)
    partial = _partial()
    assert partial.base == 4
    assert partial.of == {"a": 1, "c": 2}, "all classes of b were looked for"
    assert partial.patterns[1:] == ((False, False, True, True), (False, True, False, True))
    assert unknown_regions(info, "a") == {2, 3}
    assert unknown_regions(info, "somebody else") == frozenset()
    assert PartialLabels.in_dataset(DatasetInfo.parse({**CONTENT, "napari_nnunet_annotated": {}})) is None
    assert unknown_regions(DatasetInfo.parse(REGIONS), "a") == {(2,)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"a": ["lver"]}, "'lver'; the dataset has liver, spleen, kidney"),
        ({"a": []}, "names no class"),
        ({"a": "liver"}, "such as {'case_1': \\['liver'\\]}"),
        (["a"], "such as"),
        ({"a": ["background"]}, "names no class"),
    ],
)
def test_what_cannot_be_meant_is_a_sentence(given, said):
    with pytest.raises(DatasetError, match=said):
        DatasetInfo.parse({**CONTENT, "napari_nnunet_annotated": given})


def test_an_unknown_class_counts_as_background_where_nobody_looked_for_it():
    partial = _partial()
    logits = _logits(2, 4, 3, 5)
    target = torch.tensor([[0, 1, 0, 1, 0]] * 3).expand(2, 1, 3, 5)
    coded = with_patterns(target, ("a", "b"), partial, regions=False)
    assert unknown_heads(coded, partial).tolist() == [[False, False, True, True], [False] * 4]
    p = logits.softmax(1)
    joined = torch.stack((p[0, 0] + p[0, 2] + p[0, 3], p[0, 1]))
    entropy = -joined.log().gather(0, target[0]).mean()
    found = SegmentationLoss(terms="ce", partial=partial)(logits[:1], coded[:1])
    assert found.total.item() == pytest.approx(entropy.item(), rel=1e-5)
    # a case with all classes is compared as ever, also in the same batch
    plain = SegmentationLoss(terms="ce")
    both = SegmentationLoss(terms="ce", partial=partial)(logits, coded).total
    assert both.item() == pytest.approx((entropy.item() + plain(logits[1:], target[1:]).total.item()) / 2, rel=1e-5)


@pytest.mark.parametrize("terms", ["dice_ce", "dice", "ce", "topk", "dice_topk"])
@pytest.mark.parametrize("batch_dice", [True, False])
def test_nothing_is_learned_of_a_class_that_nobody_looked_for(terms, batch_dice):
    """Whether it is background or the unknown class makes no difference, so no gradient tells them apart."""
    partial = _partial()
    logits = _logits(1, 4, 4, 6).requires_grad_()
    target = (torch.arange(24).reshape(1, 1, 4, 6) % 5 == 0).long()
    loss = SegmentationLoss(terms=terms, batch_dice=batch_dice, partial=partial)
    loss(logits, with_patterns(target, ("a",), partial, regions=False)).total.backward()
    grad = logits.grad
    assert torch.isfinite(grad).all()
    assert grad[0, 1].abs().max() > 0
    moved = logits.detach().clone()
    moved[:, 0], moved[:, 2] = logits.detach()[:, 2], logits.detach()[:, 0]
    values = [loss(x, with_patterns(target, ("a",), partial, regions=False)).total.item() for x in (logits, moved)]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_joining_keeps_the_other_probabilities():
    logits = _logits(1, 4, 2, 2)
    joined = with_background(logits, torch.tensor([[False, False, True, False]])).softmax(1)
    p = logits.softmax(1)
    torch.testing.assert_close(joined[:, 0], p[:, 0] + p[:, 2])
    torch.testing.assert_close(joined[:, [1, 3]], p[:, [1, 3]])
    assert (joined[:, 2] == 0).all()


def test_regions_that_nobody_looked_for_do_not_count():
    info = DatasetInfo.parse(REGIONS)
    partial = _partial(REGIONS)
    labels = torch.tensor([[0, 1, 1, 3]]).reshape(1, 1, 1, 4)
    target = with_patterns(target_of(labels, info.labels), ("a",), partial, regions=True)
    logits = _logits(1, 2, 1, 4).requires_grad_()
    SegmentationLoss(regions=True, ignore_label=3, partial=partial)(logits, target).total.backward()
    assert (logits.grad[0, 1] == 0).all(), "the core was not looked for"
    assert (logits.grad[0, 0, 0, :3] != 0).all()
    assert logits.grad[0, 0, 0, 3] == 0, "ignored"
    hits, wrong, missed = count_regions(torch.ones(1, 2, 1, 4, dtype=torch.bool), target, masked=True)
    assert (hits.tolist(), wrong.tolist(), missed.tolist()) == ([2, 0], [1, 0], [0, 0])
    # without a pattern the target has the channels of ever, and the loss is the same for cases with all regions
    plain, full = (
        target_of(labels, info.labels),
        with_patterns(target_of(labels, info.labels), ("z",), partial, regions=True),
    )
    expected = SegmentationLoss(regions=True, ignore_label=3)(logits, plain).total
    assert SegmentationLoss(regions=True, ignore_label=3, partial=partial)(logits, full).total == expected


def test_coarser_targets_carry_the_pattern():
    partial = _partial()
    target = with_patterns(torch.zeros(1, 1, 8, 8, dtype=torch.int16), ("c",), partial, regions=False)
    for small in downsample_target(target, ((1.0, 1.0), (0.5, 0.5), (0.25, 0.25))):
        assert unknown_heads(small, partial).tolist() == [[False, True, False, True]]


def test_label_smoothing_is_refused():
    with pytest.raises(SettingsError, match="Label smoothing"):
        SegmentationLoss(partial=_partial(), label_smoothing=0.1)


def test_what_nobody_looked_for_is_in_no_mean():
    reference, prediction = torch.tensor([1, 0, 0]).numpy(), torch.tensor([1, 2, 0]).numpy()
    complete = measure_labels(reference, prediction, (1, 2))
    assert complete[2]["Dice"] == 0
    found = blanked(complete, {2})
    assert found[1] == complete[1]
    assert math.isnan(found[2]["Dice"]) and math.isnan(found[2]["FP"])
    _, means = summarize([found, measure_labels(prediction, prediction, (1, 2))], (1, 2))
    assert means["2"]["Dice"] == 1


STROKES = {**CONTENT, "labels": {"background": 0, "liver": 1, "ignore": 2}, "napari_nnunet_annotated": {}}


def _loss_of(logits, target, cases, wholly):
    """The loss of a training on strokes, of cases of which some have whole slices."""
    info = DatasetInfo.parse(STROKES)
    partial = PartialLabels.in_dataset(info, wholly)
    if partial is not None:
        target = with_patterns(target, cases, partial, regions=False)
    return SegmentationLoss(ignore_label=2, unlabelled=1.0, partial=partial)(logits, target)


def test_what_nobody_annotated_counts_as_background_in_strokes_and_not_beside_whole_slices():
    target = torch.full((2, 1, 4, 6, 6), 2)
    target[:, :, 2, 2:4] = 1
    target[:, :, 2, 4:] = 0
    logits = _logits(2, 2, 4, 6, 6).requires_grad_()
    empty = (target == 2).squeeze(1)
    taught = {}
    for wholly in ((), ("b",), ("a", "b")):
        (found,) = torch.autograd.grad(_loss_of(logits, target, ("a", "b"), wholly).total, logits)
        taught[wholly] = [bool((found[n].abs().sum(0)[empty[n]] > 0).any()) for n in (0, 1)]
    assert taught == {(): [True, True], ("b",): [True, False], ("a", "b"): [False, False]}
    plain = SegmentationLoss(ignore_label=2)(logits, target)
    assert torch.allclose(_loss_of(logits, target, ("a", "b"), ("a", "b")).total, plain.total)


def test_slices_among_strokes_keep_what_is_known_of_their_classes():
    info = DatasetInfo.parse({**CONTENT, "labels": {**CONTENT["labels"], "ignore": 4}})
    partial = PartialLabels.in_dataset(info, ("a", "d"))
    assert partial.base == 5 and partial.wholly == (False, True, False, True)
    assert partial.of == {"a": 1, "c": 2, "d": 3} and partial.patterns[3] == partial.patterns[0]
