"""Signs count where cases that were left out are predicted better with them, and not otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from napari_nnunet.engine.prediction.regression import fitted, logit


def data(count, *, telling, seed=0):
    """Cases of equal expected Dice, whose true Dice falls with the first of three signs, or with none."""
    rng = np.random.default_rng(seed)
    expected, signs = rng.uniform(0.84, 0.86, count), rng.normal(size=(count, 3))
    fall = 0.07 * signs[:, 0] if telling else 0.0
    return expected, np.clip(0.8 - fall + rng.normal(0, 0.02, count), 0, 1), signs


def missed(fit, expected, dice, signs):
    found = [fit.interval(e, s, 0.9) for e, s in zip(expected, signs, strict=True)]
    return float(np.mean([abs(middle - d) for (middle, _, _), d in zip(found, dice, strict=True)]))


def test_a_sign_that_tells_is_used_and_halves_the_error():
    expected, dice, signs = data(40, telling=True)
    with_signs = fitted(expected, dice, signs, [str(i) for i in range(40)])
    without = fitted(expected, dice, signs[:, :0], [str(i) for i in range(40)])
    new = data(100, telling=True, seed=1)
    assert with_signs.signs
    assert missed(with_signs, *new) < 0.5 * missed(without, new[0], new[1], new[2][:, :0])


@pytest.mark.parametrize("truth", [0.02, 0.35, 0.45, 0.65, 0.85])
@pytest.mark.parametrize("signs", [0, 7])
def test_networks_that_are_sure_of_what_is_wrong_are_not_believed(truth, signs):
    rng = np.random.default_rng(0)
    expected, dice = rng.uniform(0.88, 0.97, 32), np.clip(truth + rng.uniform(-0.15, 0.15, 32), 0, 1)
    fit = fitted(expected, dice, rng.normal(size=(32, signs)), [str(i) for i in range(32)])
    middle, low, high = fit.interval(0.93, np.zeros(signs), 0.9)
    assert abs(middle - dice.mean()) < 0.05
    assert low <= middle <= high and high - low < 0.5


def test_weights_are_those_of_the_least_loss():
    """Compared with another way to find it."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        expected, dice, signs = rng.uniform(0, 1, 20), rng.beta(0.5, 0.5, 20), rng.normal(size=(20, 2))
        line = fitted(expected, dice, signs[:, :0], [str(i) for i in range(20)]).line
        u = logit(expected)

        def loss(w, u=u, dice=dice):
            value = w[0] + w[1] * (u - u.mean())
            return np.logaddexp(0, value).sum() - dice @ value + 0.1 * ((w[0] - u.mean()) ** 2 + (w[1] - 1) ** 2)

        least = minimize(loss, (u.mean(), 1.0), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10})
        np.testing.assert_allclose(line.weights, (least.x[0], max(least.x[1], 0)), atol=1e-4)


def test_signs_that_tell_nothing_do_no_harm():
    expected, dice, signs = data(40, telling=False)
    fit = fitted(expected, dice, signs, [str(i) for i in range(40)])
    without = fitted(expected, dice, signs[:, :0], [str(i) for i in range(40)])
    new = data(200, telling=False, seed=1)
    assert missed(fit, *new) < 1.15 * missed(without, new[0], new[1], new[2][:, :0])


def test_copies_of_a_case_are_left_out_together():
    """Signs that only recognise the case would predict its copies, and no other case."""
    rng = np.random.default_rng(0)
    cases = np.repeat(np.arange(8), 5)
    dice = np.repeat(rng.uniform(0.5, 0.9, 8), 5)
    signs = np.repeat(rng.normal(size=(8, 6)), 5, axis=0)
    together = fitted(np.full(40, 0.8), dice, signs, [str(c) for c in cases])
    apart = fitted(np.full(40, 0.8), dice, signs, [str(i) for i in range(40)])
    assert np.abs(together.misses).mean() > 1.5 * np.abs(apart.misses).mean()


def test_a_strange_sign_moves_the_prediction_only_so_far():
    expected, dice, signs = data(40, telling=True)
    fit = fitted(expected, dice, signs, [str(i) for i in range(40)])
    far, further = (fit.interval(0.85, np.array([x, 0.0, 0.0]), 0.9) for x in (10.0, 1000.0))
    assert far == further


def test_a_single_case_says_how_far_the_probabilities_were_off():
    fit = fitted(np.array([0.9]), np.array([0.7]), np.zeros((1, 0)), ["only"])
    middle, low, high = fit.interval(0.9, np.zeros(0), 0.9)
    assert 0 <= low <= middle <= high <= 1 and low <= 0.75
