"""What headers say twice is told once, and only where the two differ by what matters."""

from __future__ import annotations

import math
import struct

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_nnunet.formats.images.oddities import as_said, oddities_of, slope_remarks, unit_of, with_oddities
from napari_nnunet.formats.images.text.headers import TextFacts
from napari_nnunet.schema.geometry import Geometry

SIZE = (2.0, 0.5, 0.75)  # z, y, x
TURNED = np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]], float)
UPRIGHT = Geometry(spacing=SIZE, origin=(-10.0, -20.0, 30.0), direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))  # of AFFINE
AFFINE = np.array([[0.75, 0, 0, 10], [0, 0.5, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1.0]])


def header(sform=AFFINE, qform=AFFINE, *, codes=(1, 1), order="<", shape=(7, 6, 5), unit="mm"):
    """Return the first bytes of a file with two transforms (RAS), qform first by its code."""
    made = nibabel.Nifti1Header(endianness=order)
    made.set_data_shape(shape)
    made.set_xyzt_units(unit)
    made.set_qform(qform, codes[0])
    made.set_sform(sform, codes[1])
    made["magic"] = b"n+1"
    return made.binaryblock + b"\0" * 4


def scaled(by):
    out = AFFINE.copy()
    out[:3, :3] *= by
    return out


@pytest.mark.parametrize("order", "<>")
def test_a_header_that_says_the_same_twice_is_not_odd(order):
    assert oddities_of(header(order=order)) == (None, None)
    assert oddities_of(header(scaled(1.005), order=order)) == (None, None)  # as rounded headers are
    assert with_oddities(UPRIGHT, header(order=order)) is UPRIGHT


@pytest.mark.parametrize("order", "<>")
def test_two_sizes_of_a_voxel_are_told_with_the_one_that_was_taken(order):
    start = header(scaled(2), codes=(0, 1), order=order)
    found = oddities_of(start)
    assert found.places is None
    np.testing.assert_allclose(found.sizes, [SIZE[::-1], [1.5, 1.0, 4.0]])
    (remark,) = with_oddities(UPRIGHT, start).remarks
    assert "2 x 0.5 x 0.75 mm (pixdim) and 4 x 1 x 1.5 mm (sform); 2 x 0.5 x 0.75 mm was used" in remark


def test_where_the_second_transform_has_no_code_there_is_one_only():
    assert oddities_of(header(scaled(2), codes=(1, 0))) == (None, None)
    assert oddities_of(header(scaled(2), codes=(0, 0))) == (None, None)


@pytest.mark.parametrize("taken", ["qform", "sform"])
def test_two_places_are_told_and_the_other_one_is_kept(taken):
    other = np.diag([-1.0, 1, 1, 1]) @ AFFINE  # mirrored: x leads to the left
    forms = {"qform": AFFINE, "sform": other} if taken == "qform" else {"sform": AFFINE, "qform": other}
    found = with_oddities(UPRIGHT, header(**forms))
    (remark,) = found.remarks
    both = "RAS (qform) and LAS (sform)" if taken == "qform" else "LAS (qform) and RAS (sform)"
    assert f"two orientations, {both}; the {taken} was used" in remark
    np.testing.assert_allclose(found.other_affine, other, atol=1e-5)


def test_places_that_differ_by_less_than_a_tenth_of_a_voxel_agree():
    near, far = AFFINE.copy(), AFFINE.copy()
    near[0, 3] += 0.04
    far[0, 3] += 0.06
    assert oddities_of(header(near)).places is None
    assert oddities_of(header(far)).places is not None


def test_small_angles_count_by_what_they_do_at_the_far_corner():
    angle = 0.002
    turn = np.eye(4)
    turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    tilted = AFFINE.copy()
    tilted[:3, :3] = turn[:3, :3] @ AFFINE[:3, :3]
    assert oddities_of(header(tilted, shape=(7, 6, 5))).places is None
    assert oddities_of(header(tilted, shape=(512, 512, 5))).places is not None


def test_a_shift_alone_is_kept_without_a_word_about_axes():
    moved = AFFINE.copy()
    moved[:3, 3] += 40
    found = with_oddities(UPRIGHT, header(moved))
    assert found.remarks == ()
    np.testing.assert_allclose(found.other_affine, moved)


@pytest.mark.parametrize(("unit", "times"), [("mm", 1.0), ("meter", 1000.0), ("micron", 0.001), ("unknown", 1.0)])
def test_lengths_are_told_in_mm_whatever_the_unit(unit, times):
    assert unit_of(header(unit=unit)) == times
    sizes = oddities_of(header(scaled(2), codes=(0, 1), unit=unit)).sizes
    np.testing.assert_allclose(sizes[0], np.array(SIZE[::-1]) * times, rtol=1e-6)


def test_units_of_time_beside_those_of_length_change_nothing():
    start = bytearray(header(unit="micron"))
    start[123] |= 8  # seconds
    assert unit_of(bytes(start)) == 0.001


@given(st.binary(min_size=352, max_size=352))
def test_whatever_bytes_a_header_has_a_grid_comes_back(noise):
    for start in (b"\x5c\x01\0\0" + noise[4:], noise):
        found = with_oddities(UPRIGHT, start)
        assert found.spacing == UPRIGHT.spacing
        assert all(isinstance(remark, str) for remark in (*found.remarks, *slope_remarks(start)))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("slope", "intercept", "told"), [(0, 3, True), (0, 0, False), (1, 3, False), (math.nan, 3, False)]
)
def test_an_intercept_without_a_slope_is_told(order, slope, intercept, told):
    start = header(order=order)
    start = start[:112] + struct.pack(f"{order}2f", slope, intercept) + start[120:]
    said = slope_remarks(start)
    assert bool(said) == told
    assert not told or "slope 0, which means that values are not scaled, but an intercept of 3" in said[0]


def test_directions_of_a_text_header_that_are_no_right_angles_are_told():
    def grid(*direction):
        return UPRIGHT.model_copy(update={"direction": direction})

    straight = grid(1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert as_said(straight, TextFacts()) is straight
    rounded = grid(1, 0, 0, 0, 0.99999, -0.001, 0, 0.001, 0.99999)
    assert as_said(rounded, TextFacts()) is rounded
    leaning = as_said(grid(1, 0.1, 0, 0, 0.995, 0, 0, 0, 1), TextFacts(remarks=("odd",)))
    assert leaning.remarks[:2] == ("odd", "its axes are not at right angles; its voxels were read as they lie")
    long = as_said(grid(1, 0, 0, 0, 2, 0, 0, 0, 1), TextFacts())
    assert "lengths of 1 x 2 x 1 instead of 1" in long.remarks[0]
    assert not as_said(straight, TextFacts(spacing_known=False)).spacing_known
    flat = Geometry(spacing=(1.0, 1.0), spacing_known=False)
    assert not as_said(flat, TextFacts()).spacing_known
