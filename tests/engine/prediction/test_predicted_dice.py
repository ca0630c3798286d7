"""Predicted Dice follows what is known of a model, its interval holds, and strange images are named."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import smooth_image
from napari_nnunet.engine.prediction.looks import DEGRADED, degrade, look_of
from napari_nnunet.engine.prediction.quality import MEAN, KnownResult, QualityModel
from napari_nnunet.schema.geometry import Geometry

SPACING = (1.0, 1.0, 1.0)


def look(array=None, spacing=SPACING, absolute=False, volumes=None):
    array = smooth_image((12, 20, 20)) if array is None else array
    return look_of(array, Geometry(spacing=spacing), ("MR",), (absolute,), volumes or {"organ": 500.0})


def scored(count, truth, *, seed=0):
    """Cases whose probabilities expect a Dice between 0.4 and 0.95, and whose true Dice is a function of it."""
    rng = np.random.default_rng(seed)
    entries = []
    for i, expected in enumerate(rng.uniform(0.4, 0.95, count)):
        dice = float(np.clip(truth(expected, rng), 0, 1))
        values = {"organ": float(expected), MEAN: float(expected)}
        entries.append(KnownResult(case=str(i), plain=True, expected=values, dice={"organ": dice, MEAN: dice}))
    return tuple(entries)


def known(truth, count=30, looks=()):
    return QualityModel(scored=scored(count, truth), looks=tuple(looks))


def test_a_network_that_is_too_sure_is_corrected():
    model = known(lambda expected, rng: expected - 0.2 + rng.normal() * 0.02, 60)
    for expected in (0.6, 0.8):
        middle, low, high = model.judge({"organ": expected}, look()).dice["organ"]
        assert middle == pytest.approx(expected - 0.2, abs=0.06)
        assert low < expected - 0.2 < high


def test_the_interval_holds_the_truth_of_about_nine_in_ten_new_cases():
    def truth(expected, rng):
        return expected - 0.1 + rng.normal() * 0.05

    model = known(truth, 60)
    held = []
    for entry in scored(200, truth, seed=1):
        _, low, high = model.judge({"organ": entry.expected["organ"]}, look()).dice["organ"]
        held.append(low <= entry.dice["organ"] <= high)
    assert 0.85 <= np.mean(held) <= 0.98


def test_few_cases_make_a_wide_interval_and_stay_near_what_the_network_says():
    few = known(lambda expected, rng: expected - 0.1, 5).judge({"organ": 0.8}, look()).dice["organ"]
    assert 0.65 < few[0] < 0.8


def test_a_class_that_no_known_case_had_is_judged_as_the_mean_is():
    model = known(lambda expected, rng: expected - 0.2, 40)
    assert model.judge({"new": 0.8}, look()).dice["new"][0] == pytest.approx(0.6, abs=0.06)


def drawn_in(cases, known=20, overlooked=0):
    """A model of two classes that knows 20 cases; "tumour" is in some of them, and was overlooked in a few of these."""
    entries = []
    for n in range(known):
        seen = {"organ": 0.8, **({"tumour": 0.7} if overlooked <= n < cases else {})}
        values = {**seen, MEAN: float(np.mean(list(seen.values())))}
        drawn = ("organ", "tumour") if n < cases else ("organ",)
        entries.append(KnownResult(case=str(n), plain=True, expected=values, dice=values, drawn=drawn))
    return QualityModel(scored=tuple(entries), looks=())


def test_where_nothing_is_found_and_nothing_is_expected_nothing_is_claimed():
    found = QualityModel(scored=(), looks=()).judge({}, look())
    assert np.isnan(found.mean)
    assert "unknown, as nothing was found" in found.text


def test_a_class_that_is_wholly_missed_makes_a_case_look_worse_and_is_said():
    model = drawn_in(19)
    whole, missed = model.judge({"organ": 0.8, "tumour": 0.7}, look()), model.judge({"organ": 0.8}, look())
    assert whole.missing == () and missed.mean < whole.mean - 0.3
    assert missed.missing == ("tumour, which 19 of 20 known cases have",)
    assert "Nothing was found of tumour, which 19 of 20 known cases have: look whether it is there" in missed.text
    assert missed.dice["tumour"] == (0.0, 0.0, 0.0)
    _, low, high = missed.dice[MEAN]
    assert low <= missed.mean <= high


def test_where_nothing_is_found_of_a_class_that_all_known_cases_have_the_mean_is_0():
    found = drawn_in(20).judge({}, look())
    assert found.mean == 0 and len(found.missing) == 2


def test_a_class_that_is_rightly_absent_does_not_make_a_case_look_worse():
    """Half of the cases have no tumour, and the network never overlooked one."""
    model = drawn_in(10)
    found = model.judge({"organ": 0.8}, look())
    assert found.missing == () and found.mean == pytest.approx(found.dice["organ"][0], abs=0.05)
    assert found.absent == ("tumour, which 10 of 20 known cases have",) and "which 10 of 20" in found.text
    assert found.dice[MEAN][1] < 0.5  # it may be there
    assert drawn_in(1).judge({"organ": 0.8}, look()).absent == ()


def test_a_class_that_is_mostly_overlooked_is_expected_although_half_of_the_cases_have_it():
    assert drawn_in(16, overlooked=16).judge({"organ": 0.8}, look()).missing
    assert drawn_in(16, overlooked=0).judge({"organ": 0.8}, look()).missing == ()


def test_files_of_earlier_versions_go_by_what_was_found_in_the_known_cases():
    entries = tuple(entry.model_copy(update={"drawn": None}) for entry in drawn_in(19).scored)
    found = QualityModel(scored=entries, looks=()).judge({"organ": 0.8}, look())
    assert found.missing == ("tumour, which 19 of 20 known cases have",)


@pytest.mark.parametrize(
    ("strange", "said"),
    [
        (look(spacing=(4.0, 1.0, 1.0)), "voxel size along z is 4 mm, in the known cases 1 mm"),
        (look(smooth_image((12, 20, 60))), "field of view along x is 60 mm"),
        (look(volumes={"organ": 5000.0}), "volume of organ is 5e+03 mm³"),
        (look(np.random.default_rng(0).normal(size=(1, 12, 20, 20))), "noise or sharpness of MR"),
    ],
)
def test_an_image_unlike_the_known_ones_is_named_with_the_reason(strange, said):
    looks = [look(smooth_image((12, 20, 20), seed=n)) for n in range(6)]
    model = known(lambda expected, rng: expected, looks=looks)
    assert model.unlike(look(smooth_image((12, 20, 20), seed=9))) == ()
    assert any(text.startswith(said) for text in model.unlike(strange))
    assert "Unlike the training data" in model.judge({"organ": 0.8}, strange).text


def test_the_scale_of_intensities_counts_only_where_it_means_something():
    image = smooth_image((12, 20, 20))
    for absolute in (False, True):
        looks = [look(smooth_image((12, 20, 20), seed=n), absolute=absolute) for n in range(6)]
        model = known(lambda expected, rng: expected, looks=looks)
        assert bool(model.unlike(look(image * 10, absolute=absolute))) is absolute


@pytest.mark.parametrize("how", DEGRADED)
def test_degraded_copies_are_others_of_the_same_size(how):
    image = smooth_image((12, 20, 20), channels=2)
    worse = degrade(image, how, np.random.default_rng(0))
    assert worse.shape == image.shape
    assert worse.dtype == np.float32
    assert not np.allclose(worse, image)
