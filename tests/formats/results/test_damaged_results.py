"""Files beside segmentations that are damaged, or hold one wrong value, are refused in words."""

from __future__ import annotations

from contextlib import closing, suppress

import numpy as np
import pytest

import nasty
from helpers import read_probabilities
from napari_nnunet.errors import DatasetError, ImageError, ModelError
from napari_nnunet.formats.results.inference_information import read_best
from napari_nnunet.formats.results.postprocessing import read_cleaning, write_cleaning
from napari_nnunet.formats.results.probabilities import ProbabilityReader, is_complete, write_probabilities
from napari_nnunet.formats.results.recipe import STYLES, read_recipe
from napari_nnunet.formats.results.summary import Summary
from napari_nnunet.schema.cleaning import Cleaning

MEMBER = {
    "model": "m", "folder": "f", "trainer": "t", "plans": "p", "configuration": "c", "folds": ["0"],
    "checkpoint": "x.pth", "sha256": {"fold_0": "ab"}, "step": 0.5, "mirror_axes": [0], "backend": "b",
    "precision": "float32", "versions": {"a": "1"},
}  # fmt: skip
ENSEMBLE = {
    "folder": "f", "members": [MEMBER, MEMBER], "method": "soft", "weights": [1, 2],
    "postprocessing": [{"labels_or_regions": 1}], "postprocessing_kept": ["a"], "versions": {"a": "1"},
}  # fmt: skip
SUMMARY = {
    "foreground_mean": {"Dice": 0.5},
    "mean": {"1": {"Dice": 0.5}},
    "metric_per_case": [{"prediction_file": "a.nii.gz", "reference_file": "b.nii.gz", "metrics": {"1": {"Dice": 0.5}}}],
}
CLEANING = {
    "postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"],
    "postprocessing_kwargs": [{"labels_or_regions": [1, 2], "background_label": 0}],
}


def test_probabilities_of_any_shape_come_back(tmp_path):
    for shape in ((1, 1, 1, 1), (2, 3, 4, 5), (3, 1, 7, 1)):
        p = np.random.default_rng(0).random(shape).astype(np.float32)
        write_probabilities(p, tmp_path / "ä 1.npz")
        np.testing.assert_array_equal(read_probabilities(tmp_path / "ä 1.npz"), p)
        assert is_complete(tmp_path / "ä 1.npz")


def test_damaged_probabilities_are_not_complete_and_never_another_error(tmp_path):
    write_probabilities(np.random.default_rng(0).random((2, 3, 4, 5)).astype(np.float32), tmp_path / "a.npz")
    path, incomplete = tmp_path / "b.npz", 0
    for data in nasty.damaged((tmp_path / "a.npz").read_bytes()):
        path.write_bytes(data)
        incomplete += not is_complete(path)
        with suppress(ImageError), closing(ProbabilityReader(path)) as reader:
            reader.read(reader.shape[1])
    assert incomplete > 100


@pytest.mark.parametrize("recipe", [MEMBER, ENSEMBLE], ids=["model", "ensemble"])
def test_a_recipe_that_is_read_can_be_said_in_every_style(tmp_path, recipe):
    for _, content in nasty.all_spoiled(recipe):
        nasty.write(tmp_path / "recipe.json", content)
        with suppress(DatasetError):
            found = read_recipe(tmp_path)
            assert all(say(found) for say in STYLES.values())


@pytest.mark.parametrize(
    ("read", "content"), [(lambda path: Summary.read(path, ending=".nii.gz"), SUMMARY), (read_cleaning, CLEANING)]
)
def test_scores_and_postprocessings_with_one_wrong_value_are_read_or_refused(tmp_path, read, content):
    path = nasty.write(tmp_path / "x.json", content)
    read(path)
    for _, wrong in nasty.all_spoiled(content):
        nasty.write(path, wrong)
        with suppress(DatasetError):
            read(path)


@pytest.mark.parametrize("fold", [float("inf"), float("nan"), "x", None, [], {}])
def test_a_best_of_folds_that_are_none_is_refused(tmp_path, fold):
    best = {
        "selected_model_or_models": [{"trainer": "t", "plans_identifier": "p", "configuration": "c"}],
        "result_on_crossval_pre_pp": 0.5, "result_on_crossval_post_pp": 0.5,
        "postprocessing_file": str(tmp_path / "p.pkl"), "some_plans_file": str(tmp_path / "plans.json"),
    }  # fmt: skip
    content = {"folds": [fold], "all_results": {}, "best_model_or_ensemble": best}
    nasty.write(tmp_path / "inference_information.json", content)
    with pytest.raises(ModelError, match="inference_information"):
        read_best(tmp_path)


def test_what_a_killed_job_left_of_a_postprocessing_goes_when_it_is_written_again(tmp_path):
    left = tmp_path / ".postprocessing.pkl.partial-4000000-abc"
    left.write_bytes(b"half")
    write_cleaning(tmp_path / "postprocessing.pkl", Cleaning.of([1]))
    assert [path.name for path in tmp_path.iterdir()] == ["postprocessing.pkl"]
