"""The temperature undoes what made probabilities too sure or too timid, and never makes them worse."""

from __future__ import annotations

import numpy as np
import pytest

from napari_nnunet.engine.choosing.calibration import fit_temperature


def honest(voxels=20_000, classes=3, seed=0):
    """Return probabilities (N, C), and classes drawn by them."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), size=voxels)
    truth = (rng.random((voxels, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)
    return p, truth


def heated(p, temperature):
    raised = p ** (1 / temperature)
    return raised / raised.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_temperature_that_was_applied_is_found(temperature):
    p, truth = honest()
    found = fit_temperature(heated(p, 1 / temperature), truth)
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.loss_after <= found.loss_before
    assert found.error_after < 0.02
    if temperature != 1:
        assert found.error_before > 4 * found.error_after
    assert found.voxels == len(truth)


def test_what_is_always_right_may_be_as_sure_as_is_allowed():
    found = fit_temperature(np.tile([0.8, 0.2], (9, 1)), np.zeros(9, int))
    assert found.temperature == pytest.approx(0.1, rel=0.01)
    assert found.loss_after < found.loss_before


def test_what_is_sure_and_always_wrong_may_be_as_unsure_as_is_allowed():
    found = fit_temperature(np.tile([1.0, 0.0], (9, 1)), np.ones(9, int))
    assert found.temperature == pytest.approx(20, rel=0.01)
    assert np.isfinite([found.loss_before, found.loss_after]).all()
    assert found.error_before == pytest.approx(1)


def test_one_voxel_of_half_precision_is_enough():
    found = fit_temperature(np.array([[0.5, 0.5]], np.float16), np.array([1]))
    assert found.loss_before == pytest.approx(np.log(2))
    assert found.error_before == pytest.approx(0.5)


def test_the_error_does_not_depend_on_the_scale_of_the_probabilities():
    p, truth = honest(voxels=500)
    assert fit_temperature(p * 0.5, truth).error_before == pytest.approx(fit_temperature(p, truth).error_before)


def test_nothing_cannot_be_calibrated_with():
    with pytest.raises(ValueError, match="no voxel"):
        fit_temperature(np.zeros((0, 2)), np.zeros(0, int))
