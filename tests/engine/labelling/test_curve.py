"""The learning curve says what more cases bring, and how sure that is."""

from __future__ import annotations

from napari_nnunet.engine.labelling.curve import CurvePoint, expected_gain


def points(*pairs, error=0.004):
    return [CurvePoint(n, dice, error) for n, dice in pairs]


def test_two_numbers_of_cases_say_nothing():
    assert expected_gain(points((5, 0.7), (10, 0.8), (10, 0.81)), 5) is None


def test_a_curve_that_still_climbs_promises_more():
    gain = expected_gain(points(*[(n, 0.95 - 1.2 / n) for n in (4, 8, 16)]), 16)
    assert gain.low < 1.2 / 16 - 1.2 / 32 < gain.high
    assert gain.pays
    assert "16 more cases bring +0.0" in gain.text


def test_the_curve_is_of_what_is_labelled_next():
    known = points(*[(n, 0.95 - 1.2 / n) for n in (4, 8, 16)])
    assert "16 more slices bring +0.0" in expected_gain(known, 16, "slices").text
    assert "1 more box brings +0.0" in expected_gain(known, 1, "boxes").text


def test_a_flat_curve_says_that_labelling_more_is_unlikely_to_pay():
    gain = expected_gain(points((20, 0.9), (40, 0.901), (80, 0.9005), error=0.002), 5)
    assert not gain.pays
    assert gain.text.startswith("Labelling more is unlikely to pay")


def test_less_certain_points_leave_more_open():
    pairs = [(5, 0.7), (10, 0.76), (20, 0.79)]
    sure, unsure = (expected_gain(points(*pairs, error=error), 20) for error in (0.002, 0.03))
    assert unsure.high - unsure.low > 2 * (sure.high - sure.low)


def test_no_curve_promises_more_than_a_dice_of_one():
    gain = expected_gain(points((2, 0.9), (4, 0.97), (8, 0.995), error=0.002), 10_000)
    assert 0.995 + gain.high <= 1.01
