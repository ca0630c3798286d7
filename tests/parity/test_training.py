"""Single parts of training against recorded figures of nnU-Net (needs NAPARI_NNUNET_TEST_DATA)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_nnunet.engine.batches import augmentation
from napari_nnunet.engine.batches.patches import corner_around, corner_range, forced_foreground, patch_rule
from napari_nnunet.engine.batches.supervision import downsample_target, output_scales, output_weights
from napari_nnunet.engine.network import unet
from napari_nnunet.engine.network.device import BackendChoice
from napari_nnunet.engine.training import learner as learner_module
from napari_nnunet.engine.training.learner import Learner
from napari_nnunet.engine.training.loss import SegmentationLoss, count_matches, supervised
from napari_nnunet.engine.training.optimizers import poly_rate
from napari_nnunet.engine.training.splits import Split, make_splits, split_of
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.trainers import TrainerRecipe

pytestmark = pytest.mark.parity


@pytest.fixture
def numerics(real_data: Path):
    base = real_data / "parity" / "numerics"

    def load(name: str):
        arrays = base / f"{name}.npz"
        return json.loads((base / f"{name}.json").read_text(encoding="utf-8")), np.load(
            arrays
        ) if arrays.is_file() else {}

    return load


def test_folds(numerics):
    recorded, _ = numerics("splits")
    for case in recorded["five_folds"]:
        mine = make_splits(case["keys"])
        assert [{"train": list(s.train), "val": list(s.val)} for s in mine] == case["splits"]
    for case in recorded["fold_beyond_file"]:
        names = [f"case_{i:03d}" for i in range(case["n"])]
        split = split_of(names, case["fold"], [Split((), ())] * 5)
        assert (list(split.train), list(split.val)) == (case["train"], case["val"])


def test_learning_rates(numerics):
    for case in numerics("learning_rate")[0]["cases"]:
        for epoch, rate in zip(case["epochs"], case["lr"], strict=True):
            assert poly_rate(epoch, case["num_epochs"], case["initial_lr"]) == pytest.approx(rate, rel=1e-12)


def test_patches(numerics):
    for case in numerics("patches")[0]["cases"]:
        rule = patch_rule(case["patch_size"])
        assert rule.rotation == pytest.approx(case["rotation_range"][1])
        assert (rule.dummy_2d, list(rule.initial)) == (case["dummy_2d"], case["initial_patch_size"])
        assert list(rule.mirror_axes) == case["mirror_axes"]


def test_sampling(numerics):
    recorded = numerics("sampling")[0]
    for case in recorded["oversampling"]:
        assert forced_foreground(case["batch_size"]) == case["forced_foreground"]
    for case in recorded["boxes"]:
        low, high = corner_range(case["shape"], case["initial_patch"], case["final_patch"])
        assert (list(low), list(high)) == (case["lower_bounds"], case["upper_bounds"])
        assert list(corner_around(case["voxel"], low, case["initial_patch"])) == case["forced_corner"]


def test_targets_of_deep_supervision(numerics):
    recorded, arrays = numerics("deep_supervision")
    for case in recorded["cases"]:
        scales = output_scales(case["strides"])
        np.testing.assert_allclose(scales, case["scales"])
        np.testing.assert_allclose(output_weights(len(scales)), case["weights"])
        for i, target in enumerate(downsample_target(torch.from_numpy(arrays[f"{case['id']}_seg"]), scales)):
            np.testing.assert_array_equal(target, arrays[f"{case['id']}_target{i}"])


def _loss(case):
    regions = "bce" in case["loss"]
    ignore = case.get("ignore_label")
    if regions and case.get("last_target_channel_is_ignore_mask"):
        ignore = 255  # any: the target says which voxels
    return SegmentationLoss(regions=regions, ignore_label=ignore, batch_dice=case["batch_dice"])


def test_losses_and_their_gradients(numerics):
    recorded, arrays = numerics("losses")
    for case in recorded["single"]:
        logits = torch.from_numpy(arrays[f"{case['id']}_logits"]).requires_grad_()
        parts = _loss(case)(logits, torch.from_numpy(arrays[f"{case['id']}_target"]))
        assert float(parts.total.detach()) == pytest.approx(case["value"], abs=1e-5)
        assert float(parts.entropy.detach()) == pytest.approx(case["ce_or_bce_part"], abs=1e-5)
        assert float(parts.dice.detach()) == pytest.approx(case["dice_part"], abs=1e-5)
        parts.total.backward()
        np.testing.assert_allclose(logits.grad.numpy(), arrays[f"{case['id']}_grad"], atol=1e-6)


def test_losses_over_all_outputs(numerics, real_data):
    recorded = numerics("losses")[0]["deep_supervision"]
    arrays = np.load(real_data / "parity" / "numerics" / "losses_deep_supervision.npz")
    for case in recorded:
        count = case["outputs"]
        outputs = [torch.from_numpy(arrays[f"{case['id']}_logits{i}"]) for i in range(count)]
        targets = [torch.from_numpy(arrays[f"{case['id']}_target{i}"]) for i in range(count)]
        value = supervised(SegmentationLoss(batch_dice=case["batch_dice"]), outputs, targets, case["weights"])
        assert float(value) == pytest.approx(case["value"], abs=1e-5)


def test_counts_of_the_pseudo_dice(numerics, real_data):
    arrays = np.load(real_data / "parity" / "numerics" / "pseudo_dice.npz")
    for case in numerics("losses")[0]["pseudo_dice"]:
        name = str(case["id"])
        valid = torch.from_numpy(arrays[f"{name}_mask"]) if f"{name}_mask" in arrays else None
        found = count_matches(
            torch.from_numpy(arrays[f"{name}_prediction"]),
            torch.from_numpy(arrays[f"{name}_target"]),
            len(case["tp"]),
            valid,
        )
        for mine, key in zip(found, ("tp", "fp", "fn"), strict=True):
            assert mine.tolist() == case[key], key


@pytest.mark.parametrize(("layout", "steps", "closeness"), [("plain", 6, 1e-5), ("channels_last", 1, 3e-5)])
def test_six_steps_move_the_weights_as_nnunets_do(numerics, monkeypatch, layout, steps, closeness):
    """In the quick layout sums are rounded otherwise, which six steps at a loss of 12 magnify."""
    monkeypatch.setattr(learner_module, "best_layout", lambda *_, **__: layout)
    recorded, arrays = numerics("train_steps")
    for case in recorded["cases"]:
        name, patch = case["name"], arrays[f"{case['name']}/data0"].shape[2:]
        entries = {
            "patch_size": list(patch), "spacing": [1.0] * len(patch), "normalization_schemes": ["ZScoreNormalization"],
            "architecture": case["architecture"],
        }  # fmt: skip
        plans = Plans.parse({"configurations": {"x": entries}})
        regions = case["regions_class_order"] is not None
        heads = len(case["regions_class_order"]) if regions else len(
            [n for n in case["labels"] if n != "ignore"]
        )  # fmt: skip
        net = unet.build(plans.configuration("x").architecture, arrays[f"{name}/data0"].shape[1], heads)
        before = {
            key.split("/", 2)[2]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith(f"{name}/before/")
        }
        unet.load_state(net, before)
        loss = SegmentationLoss(
            regions=regions, ignore_label=case["labels"].get("ignore"), batch_dice=case["batch_dice"]
        )
        learner = Learner(net, TrainerRecipe(), loss, BackendChoice("cpu", "torch", "float32", "", 1))
        weights = case["deep_supervision_weights"]
        assert learner.weights == pytest.approx(weights)
        for i, step in enumerate(case["steps"][:steps]):
            learner.set_rate(poly_rate(step["epoch"], case["num_epochs"]))
            targets = [torch.from_numpy(arrays[f"{name}/target{i}_{o}"]) for o in range(len(weights))]
            value = learner.step(torch.from_numpy(arrays[f"{name}/data{i}"]), targets)
            assert value == pytest.approx(step["loss"], rel=closeness, abs=closeness)
            assert float(learner.last_norm) == pytest.approx(step["gradient_norm_before_clipping"], rel=10 * closeness)
        moved = dict(unet.nnunet_state(net))
        for key in before if steps == 6 else ():
            np.testing.assert_allclose(moved[key].numpy(), arrays[f"{name}/after/{key}"], atol=10 * closeness)


def _augmented(case, image):
    match case["transform"]:
        case "brightness":
            return augmentation.brightness(image, case["factors"])
        case "contrast":
            return augmentation.contrast(image, case["factors"])
        case "gamma":
            return augmentation.gamma(image, case["gammas"], inverted=case["inverted"])
        case "low_resolution":
            return augmentation.low_resolution(
                image, case["scales"], keep_first_axis=case.get("first_axis_untouched", False)
            )
        case "blur":
            return augmentation.blur(image, [[case["sigma"]] * (image.ndim - 1)] * len(image))
    raise AssertionError(case["transform"])


def test_augmentations_with_given_numbers(numerics):
    recorded, arrays = numerics("augmentation")
    for case in recorded["cases"]:
        image = torch.from_numpy(arrays[f"{case['id']}_in_image"])
        expected = arrays[f"{case['id']}_out_image"]
        if case["transform"] != "spatial":
            np.testing.assert_allclose(_augmented(case, image).numpy(), expected, atol=1e-5, err_msg=str(case))
            continue
        seg = torch.from_numpy(arrays[f"{case['id']}_in_seg"])
        how = None
        if case["angles"] is not None:
            angles = case["angles"] if len(case["patch"]) == 3 else case["angles"][-1:]
            how = augmentation.Turn(tuple(angles), case["scale"])
        moved, labels = augmentation.turn(image, seg, case["patch"], how)
        np.testing.assert_allclose(moved.numpy(), expected, atol=1e-5, err_msg=str(case))
        assert (labels.numpy() != arrays[f"{case['id']}_out_seg"]).sum() <= 2, case
