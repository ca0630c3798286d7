"""Intensities that a model cannot know are said: another modality, a lost offset, another scale."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest

from napari_nnunet.engine.image.intensities import intensity_warnings
from napari_nnunet.schema.plans import IntensityStatistics

LIVER = IntensityStatistics(mean=100, std=40, percentile_00_5=-20, percentile_99_5=210)
HU = np.linspace(-1000, 1500, 12 * 20 * 20).reshape(1, 12, 20, 20).astype(np.float32)


def said(array, scheme="CTNormalization"):
    plans = SimpleNamespace(intensities=(LIVER,))
    configuration = SimpleNamespace(normalization_schemes=(scheme,))
    return intensity_warnings(array, plans, configuration, ("CT",))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (HU + 1024, r"have nothing below 0, as CT .*Is an offset of 1024 missing"),
        ((HU + 1000) / 2500, "span a small part of the training's: .* -20 to 210.*scaled, to 0..1"),
        (np.abs(HU) + 4000, "are not those of the training: .*another modality"),
    ],
    ids=["offset", "scaled", "another modality"],
)
def test_a_ct_that_is_none_in_hounsfield_units_is_named(array, words):
    (text,) = said(array)
    assert text.startswith("The intensities of CT, ")
    assert re.search(words, text), text


def test_a_ct_is_taken_without_a_word_and_so_is_what_is_normalised_by_itself():
    assert said(HU) == ()
    assert said(np.clip(HU, -200, 300)) == ()
    for array in (HU + 1024, HU / 5, HU * 2 - 500):
        assert said(array, "ZScoreNormalization") == ()


@pytest.mark.parametrize("array", [HU / 2500, HU * 1e6])
def test_another_range_is_said_of_what_is_normalised_by_itself_too(array):
    (text,) = said(array, "ZScoreNormalization")
    assert "far from those of the training: the structures it was trained on have -20 to 210" in text
    assert "If they were only scaled, the result is the same" in text


def test_a_few_cases_of_another_scale_in_the_training_do_not_make_the_others_odd():
    """Those of the hippocampus dataset: the median lies near the lower end of what the structures have."""
    own = IntensityStatistics(mean=21972, std=60203, percentile_00_5=28, percentile_99_5=278769, median=357)
    plans = SimpleNamespace(intensities=(own,))
    configuration = SimpleNamespace(normalization_schemes=("ZScoreNormalization",))
    usual = np.linspace(57, 1176, 400).reshape(1, 20, 20)
    for scale, odd in ((1, False), (0.1, False), (200, False), (1 / 1000, True), (1e5, True)):
        assert bool(intensity_warnings(usual * scale, plans, configuration, ("MR",))) is odd, scale


def test_pictures_have_0_to_255():
    picture = np.linspace(0, 255, 400).reshape(1, 20, 20)
    assert said(picture, "RGBTo01Normalization") == ()
    assert "Was the image scaled?" in said(picture / 255, "RGBTo01Normalization")[0]
    assert "Convert it first" in said(picture * 257, "RGBTo01Normalization")[0]
    assert said(np.zeros((1, 20, 20)), "RGBTo01Normalization") == ()


def test_values_that_are_no_numbers_are_passed_over():
    assert said(np.full((1, 4, 4, 4), np.nan)) == ()


def test_the_median_is_no_part_of_what_decides_whether_cases_are_preprocessed_anew():
    figures = {"mean": 1.0, "std": 2.0, "percentile_00_5": 0.0, "percentile_99_5": 4.0}
    assert IntensityStatistics(**figures, median=1.0).model_dump() == figures
