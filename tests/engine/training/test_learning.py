"""What training is made of, away from files: recipes, schedules, logs, cascade masks, the strong augmentation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_nnunet.engine.batches import cascade, randomness, strong_augmentation
from napari_nnunet.engine.batches.batch import make_batch
from napari_nnunet.engine.batches.patches import patch_rule
from napari_nnunet.engine.choosing.metrics import measure_labels, summarize
from napari_nnunet.engine.planning.cost import measure_step, step_bytes
from napari_nnunet.engine.training.learner import Matches
from napari_nnunet.engine.training.log import TrainingLog, pseudo_dice
from napari_nnunet.engine.training.loss import SegmentationLoss, count_matches, count_regions
from napari_nnunet.engine.training.optimizers import learning_rate, make_optimizer
from napari_nnunet.engine.training.schedule import Schedule, fit_to_budget
from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.architecture import Architecture
from napari_nnunet.schema.names import parse_fold
from napari_nnunet.schema.requests.training import TrainSettings, parse_duration, read_class_weights
from napari_nnunet.schema.trainers import TrainerRecipe, recipe_of, trainers
from samples import CASES, rule


def test_nnunets_trainer_names_are_known():
    assert len(trainers()) == 50
    assert recipe_of("nnUNetTrainer") == TrainerRecipe()
    assert recipe_of("nnUNetTrainer_250epochs_NoMirroring") == TrainerRecipe(epochs=250, mirror="none")
    assert recipe_of("nnUNetTrainer_1epoch").epochs == 1
    assert recipe_of("nnUNetTrainerVanillaAdam3en4") == TrainerRecipe(optimizer="adam", rate=3e-4)
    assert TrainSettings(trainer="nnUNetTrainer_5epochs", iterations=7).recipe() == TrainerRecipe(
        epochs=5, iterations=7
    )
    for name in ("nnUNetTrainerAdan", "nnUNet_Primus_S_Trainer", "nnUNetTrainerBenchmark_5epochs", "os.system"):
        with pytest.raises(SettingsError):
            recipe_of(name)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("45m", 2700), ("2h", 7200), ("1h30m", 5400), ("1.5 h", 5400), ("1d", 86400), ("30", 30)]
)  # fmt: skip
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


def test_weights_of_classes_are_read_as_words_and_as_a_line():
    assert read_class_weights(["left part=2", "a=b=.5"]) == {"left part": 2.0, "a=b": 0.5}
    assert read_class_weights("tumour=5, left part=2.5") == {"tumour": 5.0, "left part": 2.5}


@pytest.mark.parametrize("text", ["tumour", "=2", "tumour=", "tumour=-1", "tumour=heavy", "tumour=1e3", "tumour=٣"])
def test_what_is_no_weight_of_a_class(text):
    with pytest.raises(SettingsError, match="write it like tumour=5"):
        read_class_weights([text])


@pytest.mark.parametrize("weight", [0, -1, math.inf, math.nan])
def test_a_weight_is_a_positive_number(weight):
    with pytest.raises(SettingsError, match="positive"):
        TrainSettings(class_weights={"tumour": weight})


@pytest.mark.parametrize("text", ["", "0h", "soon", "2 weeks", "-3h", "h2"])
def test_what_is_no_duration(text):
    with pytest.raises(SettingsError, match="not a duration"):
        parse_duration(text)


def test_folds_as_text():
    assert parse_fold("3") == 3
    assert parse_fold("all") == "all"
    with pytest.raises(SettingsError, match="not a fold"):
        parse_fold("-1")


def test_learning_rates_fall_to_zero_and_warm_up():
    cosine, warm = TrainerRecipe(schedule="cosine"), TrainerRecipe(schedule="warmup")
    assert learning_rate(cosine, 0, 100) == pytest.approx(0.01)
    assert learning_rate(cosine, 50, 100) == pytest.approx(0.005)
    assert learning_rate(warm, 0, 1000) == pytest.approx(0.01 / 50)
    assert learning_rate(warm, 49, 1000) == pytest.approx(0.01)
    assert learning_rate(warm, 525, 1000) == pytest.approx(0.01 * 0.5**0.9)


def test_a_schedule_that_is_asked_to_finish_goes_on_from_where_it_is():
    schedule = Schedule(TrainerRecipe(), 1000)
    finishing = schedule.finishing(400, 20)
    assert finishing.epochs == 420
    assert finishing.rate(399) == pytest.approx(learning_rate(TrainerRecipe(), 399, 420))
    assert finishing.rate(400) == pytest.approx(schedule.rate(400))
    assert finishing.rate(410) == pytest.approx(schedule.rate(400) * 0.5**0.9)
    assert finishing.rate(419) < 0.1 * schedule.rate(400)
    assert Schedule.restored(TrainerRecipe(), finishing.stored()) == finishing
    assert finishing.lasting(9) == finishing
    assert schedule.lasting(9).epochs == 9


def test_a_budget_decides_epochs_and_in_need_steps():
    fitted = fit_to_budget(TrainerRecipe(), 3600 * 10, 0.5)
    assert fitted.iterations == 250
    assert fitted.epochs == pytest.approx(36000 / (0.5 * (250 + 50 / 3)), abs=1)
    short = fit_to_budget(TrainerRecipe(), 120, 0.5)
    assert short.iterations < 250
    assert short.epochs * 0.5 * (short.iterations + short.validation_iterations / 3) == pytest.approx(120, rel=0.1)
    assert fit_to_budget(TrainerRecipe(), 0.001, 10).epochs == 1


def test_the_log_averages_and_an_epoch_without_foreground_does_not_spoil_it():
    log, entry = TrainingLog(), {"train_loss": 0.0, "val_loss": 0.0, "rate": 0.01, "begun": 0.0, "ended": 1.0}
    assert log.add(dice=[0.4, 0.6], **entry)
    assert not log.add(dice=[math.nan, math.nan], **entry)
    assert log.lists["ema_fg_dice"] == [0.5, 0.5]
    assert log.add(dice=[1.0, math.nan], **entry)
    assert log.lists["ema_fg_dice"][-1] == pytest.approx(0.55)
    assert log.best == pytest.approx(0.55)
    again = TrainingLog.restore({k: [np.float32(v) if not isinstance(v, list) else v for v in vs] for k, vs in log.lists.items()}, np.float32(0.55))  # fmt: skip
    assert again.epochs == 3
    assert type(again.lists["train_losses"][0]) is float
    assert TrainingLog.restore({}, None).epochs == 0


def test_pseudo_dice_sums_before_it_divides():
    found = pseudo_dice([Matches(0, (1, 0), (1, 0), (0, 0)), Matches(0, (3, 0), (0, 0), (1, 0))])
    assert found[0] == pytest.approx(2 * 4 / (2 * 4 + 1 + 1))
    assert math.isnan(found[1])


def test_losses_of_the_variants():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, 6, generator=generator)
    target = torch.randint(0, 3, (2, 1, 4, 5, 6), generator=generator)
    whole = SegmentationLoss()(logits, target)
    each = functional.cross_entropy(logits, target[:, 0], reduction="none")
    assert SegmentationLoss(terms="ce")(logits, target).total == pytest.approx(float(each.mean()))
    assert SegmentationLoss(terms="dice")(logits, target).total == pytest.approx(float(whole.dice))
    hardest = each.flatten().sort(descending=True).values[:24].mean()
    assert SegmentationLoss(terms="topk")(logits, target).total == pytest.approx(float(hardest), rel=1e-5)
    both = SegmentationLoss(terms="dice_topk")(logits, target).total
    assert both == pytest.approx(float(hardest + whole.dice), rel=1e-5)
    smooth = functional.cross_entropy(logits, target[:, 0], label_smoothing=0.1)
    assert SegmentationLoss(terms="ce", label_smoothing=0.1)(logits, target).total == pytest.approx(float(smooth))
    with pytest.raises(SettingsError, match="regions"):
        SegmentationLoss(regions=True, terms="topk")


def test_weights_of_classes_make_weighted_means():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 4, 5, 6, generator=generator)
    target = torch.randint(0, 3, (2, 1, 4, 5, 6), generator=generator)
    weights = (0.5, 1.0, 4.0)
    found = SegmentationLoss(class_weights=weights)(logits, target)
    entropy = functional.cross_entropy(logits, target[:, 0], weight=torch.tensor(weights))
    assert found.entropy == pytest.approx(float(entropy), rel=1e-5)
    alone = [float(SegmentationLoss(class_weights=(1.0, 1.0, w))(logits, target).dice) for w in (1e-9, 1e9)]
    assert found.dice == pytest.approx((alone[0] + 4 * alone[1]) / 5, rel=1e-5)
    even = SegmentationLoss(class_weights=(3.0,) * 3)(logits, target)
    assert even.total == pytest.approx(float(SegmentationLoss()(logits, target).total), rel=1e-5)


def test_weighted_losses_leave_out_what_is_ignored_and_find_the_hardest_voxels():
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    target = torch.randint(0, 4, (2, 1, 4, 5), generator=generator)
    weights = torch.tensor((0.5, 1.0, 4.0))
    inside = target[:, 0] != 3
    entropy = functional.cross_entropy(logits.movedim(1, -1)[inside], target[:, 0][inside], weight=weights)
    found = SegmentationLoss(class_weights=(0.5, 1.0, 4.0), ignore_label=3)(logits, target)
    assert found.entropy == pytest.approx(float(entropy), rel=1e-5)
    labels = target[:, 0].clamp(max=2)
    each = functional.cross_entropy(logits, labels, weight=weights, reduction="none").flatten()
    values, places = each.sort(descending=True)
    hardest = values[:4].sum() / weights[labels].flatten()[places[:4]].sum()
    found = SegmentationLoss(terms="topk", class_weights=(0.5, 1.0, 4.0))(logits, labels[:, None])
    assert found.total == pytest.approx(float(hardest), rel=1e-5)


def test_weights_of_regions_are_those_of_their_heads():
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 2, 4, 5, 6, generator=generator)
    target = torch.randint(0, 2, (2, 2, 4, 5, 6), generator=generator).bool()
    found = SegmentationLoss(regions=True, class_weights=(1.0, 3.0))(logits, target)
    heads = [functional.binary_cross_entropy_with_logits(logits[:, h], target[:, h].float()) for h in range(2)]
    assert found.entropy == pytest.approx(float((heads[0] + 3 * heads[1]) / 4), rel=1e-5)


def test_a_loss_summed_over_parts_is_the_loss_of_the_whole():
    """Each process sees a part of the batch and the sums of all; here both parts are put together by hand."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 4, 4, 4, 4, generator=generator)
    target = torch.randint(0, 5, (3, 1, 4, 4, 4), generator=generator)
    even, own_weights = None, (1.0, 2.0, 1.0, 5.0)
    for batch_dice, weights, unlabelled in itertools.product((False, True), (even, own_weights), (0.0, 1.0)):
        scheme = {
            "ignore_label": 4, "batch_dice": batch_dice, "class_weights": weights, "unlabelled": unlabelled,
        }  # fmt: skip
        sums = []
        for part in (slice(0, 2), slice(2, 3)):
            own: list[torch.Tensor] = []
            SegmentationLoss(**scheme, total=_noted(own))(logits[part], target[part])
            sums.append(own)
        joined = iter([a + b for a, b in zip(*sums, strict=True)])
        shared = SegmentationLoss(**scheme, total=_taken(joined))(logits[:2], target[:2])
        assert shared.total == pytest.approx(float(SegmentationLoss(**scheme)(logits, target).total), rel=1e-5)


def test_unlabelled_voxels_of_scribbles_count_as_background_together_as_much_as_the_others():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 16, 16, generator=generator)
    target = torch.full((2, 1, 16, 16), 3)
    target[0, 0, 2, :4], target[1, 0, 0, :2] = torch.tensor([0, 1, 2, 1]), 2
    ignored = SegmentationLoss(ignore_label=3)(logits, target)
    found = SegmentationLoss(ignore_label=3, unlabelled=1.0)(logits, target)
    each = functional.cross_entropy(logits, torch.where(target[:, 0] == 3, 0, target[:, 0]), reduction="none")
    known = target[:, 0] != 3
    expected = (each[known].mean() + each[~known].mean()) / 2
    assert float(found.entropy) == pytest.approx(float(expected), rel=1e-5)
    assert float(ignored.entropy) == pytest.approx(float(each[known].mean()), rel=1e-5)
    away = logits.clone()
    away[1, 1, 5:, 5:] += 9.0  # a class where nobody annotated
    for terms in ("dice", "ce", "dice_ce"):
        told = SegmentationLoss(ignore_label=3, unlabelled=1.0, terms=terms, batch_dice=True)
        assert told(away, target).total > told(logits, target).total
        left = SegmentationLoss(ignore_label=3, terms=terms)
        assert left(away, target).total == left(logits, target).total
    target[0], target[1, 0, 2:] = 0, 3  # a picture that is labelled wholly, and strokes: no more than a twentieth each
    known = target[:, 0] != 3
    each = functional.cross_entropy(logits, torch.where(known, target[:, 0], 0), reduction="none")
    weights = torch.where(known, 1.0, 0.05)
    found = SegmentationLoss(ignore_label=3, unlabelled=1.0)(logits, target)
    assert float(found.entropy) == pytest.approx(float((each * weights).sum() / weights.sum()), rel=1e-5)
    nothing = SegmentationLoss(ignore_label=3, unlabelled=1.0)(logits, torch.full_like(target, 3))
    assert float(nothing.entropy) == 0.0


def _noted(values):
    def total(value):
        values.append(value)
        return value

    return total


def _taken(values):
    return lambda _: next(values)


def test_optimizers():
    weights = [torch.nn.Parameter(torch.ones(2))]
    assert isinstance(make_optimizer(weights), torch.optim.SGD)
    adamw = make_optimizer(weights, TrainerRecipe(optimizer="adamw"))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["amsgrad"]
    assert type(make_optimizer(weights, TrainerRecipe(optimizer="adam"))) is torch.optim.Adam


def test_counts_agree_with_metrics():
    generator = torch.Generator().manual_seed(2)
    prediction = torch.randint(0, 3, (2, 5, 6, 7), generator=generator)
    target = torch.randint(0, 4, (2, 1, 5, 6, 7), generator=generator)
    hits, wrong, missed = count_matches(prediction, target, 4, target != 3)
    joined = measure_labels(
        target[:, 0].reshape(-1, 6, 7).numpy(), prediction.reshape(-1, 6, 7).numpy(), (1, 2, (1, 2)), 3
    )
    for label in (1, 2):
        assert (joined[label]["TP"], joined[label]["FP"], joined[label]["FN"]) == (
            int(hits[label]), int(wrong[label]), int(missed[label]),
        )  # fmt: skip
    regions = torch.cat([target == 1, (target == 1) | (target == 2), target == 3], 1)
    guess = torch.stack([prediction == 1, prediction > 0], 1)
    hits, wrong, missed = count_regions(guess, regions, masked=True)
    assert (joined[1, 2]["TP"], joined[1, 2]["FP"], joined[1, 2]["FN"]) == (int(hits[1]), int(wrong[1]), int(missed[1]))


def test_metrics_of_nothing_are_not_numbers():
    empty = np.zeros((2, 3, 4), np.uint8)
    found = measure_labels(empty, empty, (1,))
    assert math.isnan(found[1]["Dice"])
    assert found[1]["TN"] == 24
    full = measure_labels(empty + 1, empty + 1, (1,))
    assert summarize([found, full], (1,))[0]["Dice"] == 1.0
    with pytest.raises(ValueError, match="shape"):
        measure_labels(empty, empty[0], (1,))


# --- the cascade's masks ---


def test_masks_of_the_previous_stage():
    previous = np.array([[0, 1], [2, 1]])
    assert cascade.one_hot(previous, (1, 2)).tolist() == [[[0, 1], [0, 1]], [[0, 0], [1, 0]]]


def test_morphology_by_balls():
    mask = np.zeros((21, 21), bool)
    mask[10, 10] = True
    grown = cascade.morphology(mask, "dilate", 3.2)
    y, x = np.indices(mask.shape) - 10
    assert (grown == (y**2 + x**2 <= 9)).all()
    assert (cascade.morphology(grown, "erode", 3.2) == mask).all()
    assert (cascade.morphology(grown, "open", 3.2) == grown).all()
    whole = np.ones((9, 9, 9), bool)
    assert cascade.morphology(whole, "erode", 2.0).all()  # what lies outside does not erode
    assert not cascade.morphology(~whole, "close", 2.0).any()


def test_disturbed_masks_stay_apart_and_change_as_often_as_they_should():
    masks = np.zeros((2, 24, 24, 24), np.float32)
    masks[0, 4:9, 4:9, 4:9] = masks[1, 14:20, 4:9, 4:9] = masks[0, 4:7, 18:21, 18:21] = 1
    changed, lost = 0, 0
    for seed in range(150):
        found = cascade.disturb(np.random.default_rng(seed), masks)
        assert set(np.unique(found)) <= {0.0, 1.0}
        changed += bool((found != masks).any())
        lost += bool(found[1].sum() == 0)
    assert 0.2 < changed / 150 < 0.6
    assert lost > 0
    assert (masks.sum((1, 2, 3)) == (152, 150)).all()


# --- the strong augmentation ---


@pytest.mark.parametrize("patch", [(16, 16, 16), (4, 24, 24), (20, 28)])
def test_the_strong_augmentation_keeps_shapes_and_labels(patch):
    how = rule(patch, strong=True, mirror_axes=None)
    seen = set()
    for index in range(12):
        batch = make_batch(sorted(CASES), CASES.__getitem__, how, seed=3, epoch=0, index=index)
        assert batch.image.shape[2:] == patch
        assert torch.isfinite(batch.image).all()
        assert set(batch.targets[0].unique().tolist()) <= {0, 1, 2}
        again = make_batch(sorted(CASES), CASES.__getitem__, how, seed=3, epoch=0, index=index)
        assert torch.equal(batch.image, again.image)
        seen.add(round(float(batch.image.std()), 3))
    assert len(seen) == 12


def test_the_strong_augmentation_turns_as_often_as_nnunets():
    how = patch_rule((16, 24, 24), scale=strong_augmentation.SCALE[0])
    turns = [strong_augmentation.draw_turn(np.random.default_rng(i), how) for i in range(2000)]
    drawn = [turn for turn in turns if turn is not None]
    assert len(drawn) / 2000 == pytest.approx(1 - 0.6 * 0.8, abs=0.04)
    scaled = [turn.scale for turn in drawn if isinstance(turn.scale, tuple)]
    assert len(scaled) / 2000 == pytest.approx(0.2, abs=0.03)
    assert len({len(s) for s in scaled}) == 1
    angles = np.array([turn.angles for turn in drawn])
    assert (angles == 0).mean() == pytest.approx(1 - 0.4 * 0.5 / (1 - 0.6 * 0.8), abs=0.04)


def test_nearest_interpolation_makes_no_new_values():
    how = patch_rule((16, 24, 24))
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 5, (1, *how.initial))).float()
    turn = randomness.Turn((0.2, 0.1, -0.3), 1.2)
    moved, _ = randomness.turn_patch(turn, how, image, image.long(), (0, 0))
    assert set(moved.unique().tolist()) <= {0, 1, 2, 3, 4}
    smooth, _ = randomness.turn_patch(turn, how, image, image.long(), (1, 1))
    assert len(smooth.unique()) > 100


# --- memory ---


@pytest.mark.parametrize("features", [(8, 16, 32), (16, 32, 64)])
def test_the_memory_of_a_step_is_known_without_running_one(features):
    architecture = Architecture(
        name="PlainConvUNet", ndim=3, features=features, kernel_sizes=((3, 3, 3),) * 3,
        strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)), blocks=(2, 2, 2), decoder_convs=(2, 2),
    )  # fmt: skip
    measured = measure_step(architecture, 1, 3, (32, 32, 32), 2, device="cpu")
    assert step_bytes(architecture, 1, 3, (32, 32, 32), 2) == pytest.approx(measured.bytes, rel=0.35)
