"""What the Train dock says of a validation."""

from __future__ import annotations

import math

import pytest

from napari_nnunet.formats.results.summary import Summary
from napari_nnunet.widgets.training.words import validation_line

NAMES = {"1": "Organ", "2": "Lesion"}


@pytest.mark.parametrize(
    ("lesion", "said"),
    [
        (0.2, "mean Dice 0.5500 (over cases, then over classes)"),
        (math.nan, "no mean Dice, for Lesion occurs in no validation case"),
    ],
)
def test_a_mean_says_what_it_is_taken_over_and_a_missing_one_says_why(lesion, said):
    classes = {"1": {"Dice": 0.9}, "2": {"Dice": lesion}}
    summary = Summary({"Dice": (0.9 + lesion) / 2}, classes)
    assert said in validation_line(summary, NAMES)
