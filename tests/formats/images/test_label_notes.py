"""Labels in files keep what is known of them."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.images.label_note import LabelNote
from napari_nnunet.formats.results.noted import read_note, read_noted
from napari_nnunet.schema.geometry import Geometry

SPACES = {"YX": (0.5, 0.25), "ZYX": (2.0, 0.5, 0.25), "TYX": (0.5, 0.25), "TZYX": (2.0, 0.5, 0.25)}


def _noted(axes, *, seed=0):
    spacing = SPACES[axes]
    n = len(spacing)
    geometry = Geometry(spacing=spacing, origin=(7.0, -8.0, 9.0)[:n], direction=tuple(np.eye(n).ravel()))
    shape = tuple({"T": 3, "Z": 4, "Y": 6, "X": 5}[letter] for letter in axes)
    labels = np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)
    names, colours = {1: "Kern µ", 2: 'a "b"\n'}, {1: "#102030"}
    return labels, LabelNote(
        axes=axes, shape=shape, geometry=geometry, time_step=4.5, time_unit="second", names=names, colours=colours
    )


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".tif", ".png"])
@pytest.mark.parametrize("axes", list(SPACES))
def test_labels_come_back_with_their_classes_axes_and_place(tmp_path, axes, ending):
    labels, note = _noted(axes)
    if ending == ".png" and axes != "YX":
        pytest.skip("a picture holds one picture")
    path = tmp_path / f"a{ending}"
    write_labels(labels, note.geometry, path, note=note)
    found = read_note(path)
    assert found == note
    back, read = read_noted(path, found)
    np.testing.assert_array_equal(back, labels)
    np.testing.assert_allclose(read.geometry.spacing, note.geometry.spacing)
    assert read.names == note.names
    assert read.geometry.origin is not None or read.geometry.affine is not None


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".tif", ".png"])
def test_a_note_changes_nothing_for_who_does_not_know_it(tmp_path, ending):
    labels, note = _noted("YX" if ending == ".png" else "ZYX")
    plain, noted = tmp_path / f"plain{ending}", tmp_path / f"noted{ending}"
    write_labels(labels, note.geometry, plain)
    write_labels(labels, note.geometry, noted, note=note)
    assert read_note(plain) is None
    for before, after in zip(read_labels(plain), read_labels(noted), strict=True):
        np.testing.assert_array_equal(before, after) if isinstance(before, np.ndarray) else None
        assert isinstance(before, np.ndarray) or before == after
    if "nii" in ending:
        assert np.array_equal(nibabel.load(noted).get_fdata(), nibabel.load(plain).get_fdata())
    if ending not in (".png", ".tif"):
        assert np.array_equal(*(sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in (plain, noted)))


def test_a_sheared_volume_is_written_with_its_note(tmp_path):
    labels, note = _noted("ZYX")
    affine = ((0.25, 0.1, 0, 1), (0, 0.5, 0, 2), (0, 0, 2.0, 3), (0, 0, 0, 1))
    write_labels(labels, Geometry(spacing=SPACES["ZYX"], affine=affine), tmp_path / "a.nii.gz", note=note)
    back, read = read_noted(tmp_path / "a.nii.gz", read_note(tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(back, labels)
    np.testing.assert_allclose(read.geometry.affine, affine, atol=1e-6)


def test_a_note_of_another_size_is_not_believed(tmp_path):
    labels, note = _noted("ZYX")
    write_labels(labels[:-1], note.geometry, tmp_path / "a.nrrd", note=note)
    assert read_noted(tmp_path / "a.nrrd", read_note(tmp_path / "a.nrrd")) is None


def test_a_damaged_file_has_no_note(tmp_path):
    for ending in (".nii.gz", ".nii", ".nrrd", ".mha", ".tif", ".png"):
        (tmp_path / f"a{ending}").write_bytes(b"nothing")
        assert read_note(tmp_path / f"a{ending}") is None
