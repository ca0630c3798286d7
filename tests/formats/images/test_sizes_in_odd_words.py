"""Voxel sizes in the words of other programs: units per axis, other names of units, JSON files that somebody wrote."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.files import read_header, read_volume

STACK = np.arange(5 * 6 * 7, dtype=np.uint8).reshape(5, 6, 7)


def spacing_of(path):
    geometry = read_volume([path]).geometry
    assert read_header(path).geometry == geometry
    return geometry.spacing if geometry.spacing_known else None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("zunit=pixel", None),
        ("zunit=sec", None),
        ("yunit=pixel", None),
        ("zunit=", (0.5, 0.0002, 0.00025)),
        ("zunit=mm", (500.0, 0.0002, 0.00025)),
        ("zunit=nm", (0.0005, 0.0002, 0.00025)),
        ("yunit=mm", (0.5, 0.2, 0.00025)),
    ],
)
def test_an_axis_in_a_unit_of_its_own_is_not_measured_by_that_of_another(tmp_path, words, expected):
    text = f"ImageJ=1.53t\nimages=5\nslices=5\nunit=micron\n{words}\nspacing=500\n"
    tifffile.imwrite(
        tmp_path / "a.tif", STACK, photometric="minisblack", description=text, metadata=None, resolution=(4.0, 5.0)
    )
    assert spacing_of(tmp_path / "a.tif") == (expected and pytest.approx(expected))


@pytest.mark.parametrize("unit", ["micrometres", "micrometers", "micrometer", "\\u03BCm", "\\u03bcm", "Microns"])
def test_a_micrometre_has_many_names(tmp_path, unit):
    words = {"spacing": 0.5, "unit": unit, "axes": "ZYX"}
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=(4.0, 5.0), metadata=words)
    assert spacing_of(tmp_path / "a.tif") == pytest.approx((0.0005, 0.0002, 0.00025))


@pytest.mark.parametrize(("unit", "size"), [("MILLIMETER", 0.25), ("MICROMETER", 0.00025), ("NONE", None)])
def test_resolution_tags_may_count_in_units_of_the_metre(tmp_path, unit, size):
    tifffile.imwrite(tmp_path / "a.tif", STACK[0], resolution=(4.0, 4.0), resolutionunit=unit, metadata=None)
    assert spacing_of(tmp_path / "a.tif") == (size and pytest.approx((size, size)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"voxel_size": [3, 2, 1]}, r"has no 'spacing'; it has voxel_size\. Write \{\"spacing\": \[z, y, x\]\}"),
        ({}, r"has no 'spacing'; it is empty"),
        ({"spacing": {"z": 3, "y": 2, "x": 1}}, r"has the spacing \{'z': 3, 'y': 2, 'x': 1\}\. Write"),
        ({"spacing": 2}, r"has the spacing 2\. Write"),
        ({"spacing": "3 2 1"}, r"has the spacing '3 2 1'\. Write"),
        ({"spacing": [None, 1, 1]}, r"has the spacing \[None, 1, 1\]; write numbers of mm"),
        ({"spacing": [True, True, True]}, r"has the spacing \[True, True, True\]; write numbers of mm"),
    ],
)
def test_a_file_beside_that_says_no_three_sizes_is_refused_with_what_it_says(tmp_path, content, said):
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", metadata=None)
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ImageError, match=said):
        read_volume([tmp_path / "a.tif"])


@pytest.mark.parametrize("key", ["unit", "units", "spacing_unit"])
def test_a_unit_beside_that_is_not_mm_is_said_to_be_ignored(tmp_path, key):
    """nnU-Net takes the numbers as they are, and a model must see what it was trained on."""
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", metadata=None)
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [0.5, 0.25, 0.25], key: "um"}))
    geometry = read_volume([tmp_path / "a.tif"]).geometry
    assert geometry.spacing == (0.5, 0.25, 0.25)
    assert geometry.remarks == ("a.json says that its sizes are in 'um', but they were taken as mm, as nnU-Net does",)
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [0.5, 0.25, 0.25], key: "mm"}))
    assert read_volume([tmp_path / "a.tif"]).geometry.remarks == ()
