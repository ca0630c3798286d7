"""Two grids are the same, turned, or apart; and what is turned lands exactly."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.grid import Apart, Grid, Same, Turned, relation
from napari_nnunet.schema.geometry import Geometry

EYE = tuple(np.eye(3).ravel())
FLAT = Geometry(spacing=(3.0, 2.0, 1.0), origin=(10.0, -20.0, 30.0), direction=EYE)


def turned_copy(array, geometry, axes, flips):
    """The same voxels stored in another orientation, with the geometry that says so."""
    grid = Grid(array.shape, geometry)
    n = array.ndim
    stored = np.flip(np.transpose(array, axes), [i for i in range(n) if flips[i]])
    change = np.zeros((n + 1, n + 1))  # from indices of the copy to indices of the original
    change[n, n] = 1
    for i, axis in enumerate(axes):
        change[axis, i] = -1 if flips[i] else 1
        change[axis, n] = array.shape[axis] - 1 if flips[i] else 0
    matrix = grid.matrix @ change
    columns = matrix[:n, :n][:, ::-1]
    spacing = np.linalg.norm(columns, axis=0)
    return stored, Geometry(
        spacing=tuple(spacing[::-1]), origin=tuple(matrix[:n, n]), direction=tuple((columns / spacing).ravel())
    )


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("flips", list(product((False, True), repeat=3)))
def test_each_of_48_ways_lands_on_the_original(axes, flips):
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    stored, geometry = turned_copy(array, FLAT, axes, flips)
    found = relation(Grid(array.shape, FLAT), Grid(stored.shape, geometry))
    if axes == (0, 1, 2) and not any(flips):
        assert found == Same()
    else:
        assert isinstance(found, Turned) and str(found)
        assert (found.turn(stored) == array).all()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    spacing=st.tuples(*[st.floats(0.01, 50)] * 3),
    origin=st.tuples(*[st.floats(-2000, 2000)] * 3),
    angle=st.floats(-3, 3),
    ending=st.sampled_from([".nii.gz", ".nrrd", ".mha"]),
)
def test_what_was_written_and_read_lies_on_the_same_grid(tmp_path_factory, spacing, origin, angle, ending):
    c, s = np.cos(angle), np.sin(angle)
    geometry = Geometry(spacing=spacing, origin=origin, direction=(c, -s, 0, s, c, 0, 0, 0, 1))
    path = tmp_path_factory.mktemp("grid") / f"a{ending}"
    array = np.arange(5 * 6 * 7, dtype=np.uint8).reshape(5, 6, 7)
    write_labels(array, geometry, path)
    _, read = read_labels(path)
    tolerance = 1e-3 + 2000 * 2**-23 / min(spacing)  # float32 of the origin, in voxels
    assert relation(Grid(array.shape, geometry), Grid(array.shape, read), tolerance=tolerance) == Same()


def test_a_nifti_by_two_libraries_is_one_grid(tmp_path):
    path = tmp_path / "a.nii.gz"
    geometry = Geometry(spacing=(3.0, 2.0, 1.0), origin=(1.0, 2.0, 3.0), direction=(0, 1, 0, -1, 0, 0, 0, 0, 1))
    write_labels(np.zeros((3, 4, 5), np.uint8), geometry, path)
    grids = [Grid((3, 4, 5), read_labels(path, reader=name)[1]) for name in ("SimpleITKIO", "NibabelIO")]
    assert relation(*grids) == Same()


@pytest.mark.parametrize(
    ("changes", "said", "elsewhere"),
    [
        ({"origin": (10.0, -20.0, 31.0)}, "1 mm apart", False),
        ({"origin": (10.0, -20.0, 80.0)}, "50 mm apart", True),
        ({"spacing": (3.0, 2.0, 1.1)}, "voxels of 3 x 2 x 1 mm and 3 x 2 x 1.1 mm", False),
        ({"direction": (0.995, -0.0998, 0, 0.0998, 0.995, 0, 0, 0, 1)}, "direction", False),
    ],
)
def test_other_grids_are_told_apart_and_what_differs_is_named(changes, said, elsewhere):
    other = FLAT.model_copy(update=changes)
    found = relation(Grid((8, 9, 10), FLAT), Grid((8, 9, 10), other))
    assert isinstance(found, Apart)
    assert said in str(found)
    assert found.elsewhere is elsewhere
    assert found.voxels > 0.1


def test_other_shapes_in_the_same_place_can_be_resampled():
    finer = FLAT.model_copy(update={"spacing": (1.5, 1.0, 0.5)})
    found = relation(Grid((8, 8, 8), FLAT), Grid((16, 16, 16), finer))
    assert isinstance(found, Apart) and not found.elsewhere
    assert "8 x 8 x 8 voxels and 16 x 16 x 16" in str(found)


def test_pictures_that_know_no_place_are_compared_by_their_size():
    unknown = Geometry(spacing=(1.0, 1.0), spacing_known=False)
    known = Geometry(spacing=(0.3, 0.3), origin=(0.0, 0.0), direction=(1, 0, 0, 1))
    assert relation(Grid((5, 6), unknown), Grid((5, 6), known)) == Same()
    assert isinstance(relation(Grid((5, 6), unknown), Grid((6, 5), known)), Apart)
    stack = Geometry(spacing=(2.0, 1.0, 1.0))
    other = Geometry(spacing=(2.5, 1.0, 1.0))
    assert isinstance(relation(Grid((5, 6, 7), stack), Grid((5, 6, 7), other)), Apart)


def test_a_grid_of_unknown_size_is_no_other_grid_than_one_that_knows_it():
    unsized = Geometry(spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=EYE, spacing_known=False)
    assert relation(Grid((5, 6, 7), unsized), Grid((5, 6, 7), FLAT)) == Same()
    assert isinstance(relation(Grid((5, 6, 7), unsized), Grid((5, 7, 6), FLAT)), Apart)
    away = unsized.model_copy(update={"origin": (50.0, 0.0, 0.0)})
    assert isinstance(relation(Grid((5, 6, 7), unsized), Grid((5, 6, 7), away)), Apart)
