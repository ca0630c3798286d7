"""Where probabilities lie is told by what is beside them; members are brought onto the first one's grid, or refused."""

from __future__ import annotations

import shutil
from contextlib import closing

import numpy as np
import pytest
import SimpleITK as sitk

from choices import SHAPE, member_folder
from helpers import write_nifti
from napari_nnunet.errors import DatasetError, ImageError
from napari_nnunet.formats.results.places import Members
from napari_nnunet.formats.results.probabilities import ProbabilityReader, write_probabilities, write_properties


def members(*folders, case="a"):
    return Members(case, tuple(folder / f"{case}.npz" for folder in folders), ".nii.gz", "SimpleITKIO")


def together(found):
    """Return the probabilities of all members, read plane by plane as far as one goes."""
    readers = [ProbabilityReader(path) for path in found.paths]
    try:
        out = []
        for reader in found.together(readers):
            planes = [reader.read(2) for _ in range(3 * readers[0].shape[1] // 2)]
            out.append(np.concatenate(planes).reshape(readers[0].shape))
        return out
    finally:
        for reader in readers:
            reader.close()


def placed(path, array, *, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1), origin=(3.0, 2.0, 1.0), spacing=(1.0, 1.0, 1.0)):
    """Write what the properties beside probabilities say of their place, and the probabilities."""
    path.parent.mkdir(exist_ok=True)
    write_probabilities(array, path)
    said = {"spacing": spacing, "origin": origin, "direction": direction}
    write_properties({"spacing": list(spacing[::-1]), "sitk_stuff": said}, path.with_suffix(".pkl"))


@pytest.fixture
def two(tmp_path):
    arrays = [member_folder(tmp_path / name, ("a",), seed=i)["a"] for i, name in enumerate("xy")]
    return tmp_path / "x", tmp_path / "y", arrays


def test_members_on_one_grid_are_read_as_they_lie(two):
    x, y, arrays = two
    for found, own in zip(together(members(x, y)), arrays, strict=True):
        np.testing.assert_array_equal(found, own)
    assert members(x, y).grid(SHAPE).origin == (3.0, 2.0, 1.0)


def test_a_member_that_is_stored_the_other_way_is_turned_class_by_class(two):
    x, y, (first, second) = two
    mirrored = (-1, 0, 0, 0, 1, 0, 0, 0, -1)
    placed(y / "a.npz", second[:, ::-1, :, ::-1], direction=mirrored, origin=(3.0 + 8, 2.0, 1.0 + 5))
    found = together(members(x, y))
    np.testing.assert_array_equal(found[0], first)
    np.testing.assert_array_equal(found[1], second)


@pytest.mark.parametrize(
    ("changes", "shape"),
    [({"origin": (90.0, 2.0, 1.0)}, SHAPE), ({"spacing": (1.0, 1.0, 2.0)}, SHAPE), ({}, (6, 10, 8))],
)
def test_a_member_that_lies_elsewhere_is_refused(two, changes, shape):
    x, y, _ = two
    placed(y / "a.npz", np.zeros((3, *shape), np.float32), **changes)
    with pytest.raises(ImageError, match=r"a.npz and .*a.npz do not lie on the same grid: .*Segment the same images"):
        together(members(x, y))


def test_without_any_place_other_voxels_are_told_by_their_number(two):
    x, y, _ = two
    write_probabilities(np.zeros((3, 6, 9, 10), np.float32), y / "a.npz")
    for folder in (x, y):
        (folder / "a.pkl").unlink()
    with pytest.raises(ImageError, match="6 x 10 x 9 voxels and 6 x 9 x 10"):
        together(members(x, y))


def test_without_any_place_the_same_voxels_are_taken_and_the_grid_is_asked_for(two):
    x, y, arrays = two
    for folder in (x, y):
        (folder / "a.pkl").unlink()
    np.testing.assert_array_equal(together(members(x, y))[1], arrays[1])
    with pytest.raises(DatasetError, match=r"Neither a.nii.gz nor a.pkl is next to .*a.npz"):
        members(x, y).grid(SHAPE)


def test_another_member_may_tell_the_place(two):
    x, y, _ = two
    (x / "a.pkl").unlink()
    assert members(x, y).grid(SHAPE).origin == (3.0, 2.0, 1.0)


def test_a_segmentation_beside_tells_the_place_where_it_lies_as_the_probabilities_do(two):
    x, y, _ = two
    image = sitk.GetImageFromArray(np.zeros(SHAPE, np.uint8))
    image.SetOrigin((3.0, 2.0, 1.0004))
    sitk.WriteImage(image, str(x / "a.nii.gz"))
    assert members(x, y).grid(SHAPE).origin == pytest.approx((3.0, 2.0, 1.0004), abs=1e-6)
    image.SetOrigin((40.0, 2.0, 1.0))  # saved anew since, elsewhere
    sitk.WriteImage(image, str(x / "a.nii.gz"))
    assert members(x, y).grid(SHAPE).origin == (3.0, 2.0, 1.0)
    write_nifti(x / "a.nii.gz", np.zeros((6, 10, 8), np.uint8))
    assert members(x, y).grid(SHAPE).origin == (3.0, 2.0, 1.0)


def test_a_segmentation_of_other_voxels_is_no_place(two):
    x, y, _ = two
    (x / "a.pkl").unlink()
    write_nifti(x / "a.nii.gz", np.zeros((6, 10, 8), np.uint8))
    with pytest.raises(
        ImageError, match=r"a.nii.gz has 6 x 10 x 8 voxels, the probabilities a.npz beside it have 6 x 10 x 9"
    ):
        together(members(x, y))


def test_properties_that_are_none_are_named(two):
    x, y, _ = two
    write_properties({}, x / "a.pkl")
    shutil.copy(y / "a.npz", y / "b.npz")
    (x / "a.pkl").write_bytes(b"\x80\x04]\x94.")  # an empty list
    with pytest.raises(DatasetError, match=r"a.pkl does not contain the properties of a case"):
        together(members(x, y))


def test_readers_are_not_closed_by_whoever_puts_them_together(two):
    x, y, arrays = two
    with closing(ProbabilityReader(x / "a.npz")) as one, closing(ProbabilityReader(y / "a.npz")) as other:
        assert members(x, y).together([one, other]) == [one, other]
        np.testing.assert_array_equal(one.read(1)[0], arrays[0][0, 0])
