"""Output layers are fitted to what a network sees: new classes are found at once, and nothing else is changed."""

from __future__ import annotations

import pytest
import torch

from napari_nnunet.engine.batches.partial import PartialLabels
from napari_nnunet.engine.batches.supervision import downsample_target, output_scales
from napari_nnunet.engine.network.device import BackendChoice
from napari_nnunet.engine.network.unet import build, initialize
from napari_nnunet.engine.training.heads import HeadFit
from napari_nnunet.engine.training.learner import Learner
from napari_nnunet.engine.training.loss import SegmentationLoss
from napari_nnunet.schema.architecture import Architecture
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.trainers import TrainerRecipe

STRIDES = ((1, 1), (2, 2), (2, 2))
ARCHITECTURE = Architecture(
    name="PlainConvUNet", ndim=2, stages=3, features=(8, 16, 16), kernel_sizes=((3, 3),) * 3, strides=STRIDES,
    blocks=(1, 1, 1), decoder_convs=(1, 1),
)  # fmt: skip
CPU = BackendChoice("cpu", "torch", "float32", "a test", 1)
IMAGE = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(5))


def learner_of(heads, loss=None):
    network = build(ARCHITECTURE, 1, heads)
    initialize(network, torch.Generator().manual_seed(0))
    return Learner(network, TrainerRecipe(), loss or SegmentationLoss(), CPU)


def truth_of(learner, heads):
    """Labels (B, 1, y, x) that an output layer of the network could give, but does not."""
    with torch.no_grad():
        features = learner.network.features(IMAGE)
    rows = torch.randn(heads, features.shape[1], generator=torch.Generator().manual_seed(9))
    scores = torch.einsum("hc,bcyx->bhyx", rows, features)
    return (scores - scores.mean((0, 2, 3), keepdim=True)).argmax(1, keepdim=True).float()


def fitted(learner, target, seed=0):
    fit = HeadFit(learner, seed)
    for _ in range(2):
        fit.look(IMAGE, downsample_target(target, output_scales(STRIDES)))
    return fit, fit.fit()


def agreement(learner, truth):
    return float((learner.predict(IMAGE).argmax(1, keepdim=True) == truth).float().mean())


def test_classes_are_found_where_the_network_sees_them_and_only_output_layers_change():
    learner = learner_of(4)
    truth = truth_of(learner, 4)
    before = {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}
    assert agreement(learner, truth) < 0.6
    fit, heads = fitted(learner, truth)
    assert heads == [0, 1, 2, 3]
    assert fit.seen == {0, 1, 2, 3}
    assert agreement(learner, truth) > 0.95
    changed = {name for name, tensor in learner.network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"decoder.seg_layers.1.weight", "decoder.seg_layers.1.bias"}, "the coarsest counts in no loss"


def test_the_same_seed_gives_the_same_layers():
    found = []
    for _ in range(2):
        learner = learner_of(3)
        fitted(learner, truth_of(learner, 3), seed=7)
        found.append(learner.network.decoder.seg_layers[-1].weight.detach().clone())
    assert torch.equal(*found)


def test_layers_that_fit_already_are_hardly_changed():
    learner = learner_of(4)
    draw = torch.Generator().manual_seed(3)
    truth = truth_of(learner, 4)
    truth = torch.where(torch.rand(truth.shape, generator=draw) < 0.4, 0.0, truth)  # what no layer explains wholly
    layer = learner.network.decoder.seg_layers[-1]
    moved = []
    for _ in range(3):
        before = layer.weight.detach().clone()
        fitted(learner, truth)
        moved.append(float((layer.weight.detach() - before).abs().max()))
    assert moved[2] < 0.2 * moved[0]


def test_a_class_that_no_batch_shows_stays_as_it_is():
    learner = learner_of(4)
    truth = truth_of(learner, 4)
    truth[truth == 2] = 0
    layer = learner.network.decoder.seg_layers[-1]
    before = layer.weight.detach().clone()
    fit, heads = fitted(learner, truth)
    assert heads == [0, 1, 3]
    assert fit.seen == {0, 1, 3}
    assert torch.equal(layer.weight[2], before[2])
    assert not torch.equal(layer.weight[3], before[3])


def test_what_nobody_annotated_does_not_count():
    learner = learner_of(3, SegmentationLoss(ignore_label=3))
    truth = truth_of(learner, 3)
    spoiled = truth.clone()
    spoiled[..., :16] = 3.0
    fitted(learner, spoiled)
    assert agreement(learner, truth) > 0.9
    nothing = learner_of(3, SegmentationLoss(ignore_label=3))
    before = nothing.network.decoder.seg_layers[-1].weight.detach().clone()
    assert fitted(nothing, torch.full_like(truth, 3.0))[1] == []
    assert torch.equal(nothing.network.decoder.seg_layers[-1].weight, before)


def test_what_is_drawn_of_many_features_stays_within_the_bytes_that_are_allowed(monkeypatch):
    learner, allowed = learner_of(3), 400_000
    target = downsample_target(truth_of(learner, 3), output_scales(STRIDES))
    monkeypatch.setattr("napari_nnunet.engine.training.heads._BYTES", allowed)
    fit = HeadFit(learner, 0, looks=4)
    for _ in range(4):
        fit.look(IMAGE, target)
    drawn = [part for parts in fit._drawn.values() for part in parts]
    held = sum(tensor.nbytes for part in drawn for tensor in (part.features, part.truth, part.counts, part.weights))
    assert allowed / 3 < held <= allowed
    assert len({len(part.weights) for part in fit._drawn[0]} | {0}) > 1
    assert fit.fit() == [0, 1, 2]


def test_a_solution_that_is_not_finite_is_dropped_and_not_called_fitted():
    learner = learner_of(3)
    truth = truth_of(learner, 3)
    layer = learner.network.decoder.seg_layers[-1]
    before = layer.weight.detach().clone()
    fit = HeadFit(learner, 0)
    image = IMAGE.clone()
    image[0] = float("nan")
    fit.look(image, downsample_target(truth, output_scales(STRIDES)))
    assert fit.fit() == []
    assert torch.equal(layer.weight, before)


def test_where_nobody_looked_for_a_class_it_may_be_what_is_called_background():
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "spleen": 2},
        "file_ending": ".nii.gz",
    }
    partial = PartialLabels.in_dataset(DatasetInfo.parse({**content, "napari_nnunet_annotated": {"a": ["liver"]}}))
    agreements = []
    for told in (partial, None):
        learner = learner_of(3, SegmentationLoss(partial=told))
        truth = truth_of(learner, 3)
        target = truth.clone()
        target[:3][target[:3] == 2] = 0  # in three of four samples nobody looked for spleens
        if told is not None:
            target[:3] += told.base * told.of["a"]
        fitted(learner, target)
        agreements.append(agreement(learner, truth))
    assert agreements[0] > 0.9 > agreements[1] + 0.05


def test_regions_are_fitted_each_by_itself():
    learner = learner_of(2, SegmentationLoss(regions=True))
    labels = truth_of(learner, 3)
    truth = torch.cat((labels > 0, labels == 2), 1)
    assert float(((learner.predict(IMAGE) > 0) == truth).float().mean()) < 0.7
    _, heads = fitted(learner, truth)
    assert heads == [0, 1]
    found = (learner.predict(IMAGE) > 0) == truth
    assert float(found[:, 0].float().mean()) > 0.85
    assert float(found[:, 1].float().mean()) > 0.9


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 1.0, 20.0)])
def test_weights_of_classes_count_as_in_the_loss(weights):
    learner = learner_of(3, SegmentationLoss(class_weights=weights))
    truth = truth_of(learner, 3)
    noise = torch.rand(truth.shape, generator=torch.Generator().manual_seed(2)) < 0.3
    blurred = torch.where(noise, 0.0, truth)
    fitted(learner, blurred)
    share = float((learner.predict(IMAGE).argmax(1) == 2).float().mean())
    assert (share > 1.2 * float((truth == 2).float().mean())) is (weights[2] > 1)
