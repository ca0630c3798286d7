"""What the table of objects says is in physical units and true."""

from __future__ import annotations

import math

import numpy as np
import pytest

from napari_nnunet.engine.objects.table import object_table


def test_a_rectangle_has_the_area_and_place_it_was_drawn_with() -> None:
    objects = np.zeros((20, 30), dtype=np.uint32)
    objects[4:8, 10:20] = 300_000_000
    image = np.stack([np.broadcast_to(np.arange(30.0), (20, 30)), np.full((20, 30), 7.0)])
    (row,) = object_table(objects, (0.5, 0.25), image, ["dapi", "gfp"], {300_000_000: "nucleus"})
    assert (row["object"], row["kind"], row["voxels"], row["cut"]) == (300_000_000, "nucleus", 40, False)
    assert row["area"] == pytest.approx(40 * 0.125)
    assert (row["y"], row["x"]) == (pytest.approx(5.5 * 0.5), pytest.approx(14.5 * 0.25))
    assert row["diameter"] == pytest.approx(2 * math.sqrt(5 / math.pi))
    assert (row["mean dapi"], row["sum gfp"], row["spread gfp"]) == (14.5, 280.0, 0.0)


def test_the_axes_of_an_ellipsoid_are_found_with_anisotropic_voxels() -> None:
    spacing = (2.0, 0.5, 0.5)
    z, y, x = (np.arange(n) * s for n, s in zip((30, 80, 100), spacing, strict=True))
    inside = ((z[:, None, None] - 30) / 12) ** 2 + ((y[:, None] - 20) / 8) ** 2 + ((x - 25) / 20) ** 2 <= 1
    (row,) = object_table(inside.astype(np.uint8), spacing)
    assert row["volume"] == pytest.approx(4 / 3 * math.pi * 12 * 8 * 20, rel=0.02)
    assert row["length"] == pytest.approx(40, rel=0.03)
    assert row["width"] == pytest.approx(16, rel=0.03)
    assert row["elongation"] == pytest.approx(2.5, rel=0.05)
    assert (row["z"], row["y"], row["x"]) == (pytest.approx(30), pytest.approx(20), pytest.approx(25))


def test_what_the_picture_cuts_is_said_and_the_order_is_that_of_the_numbers() -> None:
    objects = np.zeros((1, 10, 10), dtype=np.uint16)
    objects[0, 0:3, 0:3], objects[0, 5:7, 5:7] = 9, 2
    assert [(row["object"], row["cut"]) for row in object_table(objects, (1, 1, 1))] == [(2, False), (9, True)]


def test_no_objects_make_no_rows() -> None:
    assert list(object_table(np.zeros((4, 4), dtype=int), (1, 1))) == []
