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


def test_pictures_have_0_to_255():
    picture = np.linspace(0, 255, 400).reshape(1, 20, 20)
    assert said(picture, "RGBTo01Normalization") == ()
    assert "Was the image scaled?" in said(picture / 255, "RGBTo01Normalization")[0]
    assert "Convert it first" in said(picture * 257, "RGBTo01Normalization")[0]
    assert said(np.zeros((1, 20, 20)), "RGBTo01Normalization") == ()


def test_values_that_are_no_numbers_are_passed_over():
    assert said(np.full((1, 4, 4, 4), np.nan)) == ()
