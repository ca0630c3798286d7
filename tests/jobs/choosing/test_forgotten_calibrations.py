"""A calibration is used for the models that it was measured with, and for no others."""

from __future__ import annotations

import json

import pytest

from helpers import Recipe, make_model
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.jobs.choosing.calibrate import calibration_path, known_temperature


@pytest.fixture
def models(tmp_path):
    """Two calibrated models of one dataset, calibrated as an ensemble too."""
    results = tmp_path / "nnUNet_results"
    flat = Recipe(configuration="2d", patch=(16, 16), spacing=(1.0, 1.0), folds=(0, 1))
    found = [make_model(results, recipe).folder for recipe in (Recipe(folds=(0, 1)), flat)]
    for members in ([found[0]], [found[1]], found):
        path = calibration_path(members, (0,))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"temperature": 2.5, "folds": ["0"]}))
    return found


def test_a_fold_that_is_put_aside_takes_the_calibrations_it_had_a_part_in_along(models):
    volume, flat = models
    FoldFolder(volume / "fold_1").put_aside()  # it had none
    assert known_temperature(models) == known_temperature([volume]) == 2.5
    FoldFolder(volume / "fold_0").put_aside()
    assert known_temperature(models) is None
    assert known_temperature([volume]) is None
    assert known_temperature([flat]) == 2.5


def test_a_model_of_another_dataset_has_not_the_calibration_of_one_of_its_name(models, tmp_path):
    recipe = Recipe(configuration="2d", patch=(16, 16), spacing=(1.0, 1.0), name="Dataset002_Other")
    other = make_model(tmp_path / "nnUNet_results", recipe).folder
    assert other.name == models[1].name
    assert known_temperature([models[0], other]) is None
    assert known_temperature(models) == 2.5
