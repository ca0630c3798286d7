"""Label files of others: whole numbers of at most 32 bits are kept, everything else is refused."""

from __future__ import annotations

import os

import imageio.v3 as iio
import numpy as np
import pytest
import SimpleITK as sitk

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.files import read_header, read_labels, read_stored, read_volume, write_image
from napari_nnunet.schema.geometry import Geometry


@pytest.mark.parametrize("values", [[1e12, 0.0], [-3e9, 0.0]])
def test_label_files_with_values_that_are_no_labels_are_refused(tmp_path, values):
    sitk.WriteImage(sitk.GetImageFromArray(np.array([[values]])), str(tmp_path / "a.nrrd"))
    with pytest.raises(ImageError, match="labels are whole numbers of at most 32 bits"):
        read_labels(tmp_path / "a.nrrd")


def test_labels_are_not_read_from_a_format_that_changes_them(tmp_path):
    iio.imwrite(tmp_path / "a.JPG", np.zeros((8, 8), np.uint8), extension=".jpg")
    with pytest.raises(ImageError, match=r"a\.JPG is a JPEG, which changes the values of labels"):
        read_labels(tmp_path / "a.JPG")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes with a name")
@pytest.mark.parametrize(
    ("read", "what"),
    [
        (read_labels, "label file"),
        (read_header, "image file"),
        (lambda path: read_volume([path]), "channel file"),
        (lambda path: read_stored(path, "SimpleITKIO"), "file"),
    ],
    ids=["labels", "header", "volume", "stored"],
)
def test_what_is_no_file_is_called_what_it_is(tmp_path, read, what):
    os.mkfifo(tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").mkdir()
    for name, words in (
        ("a", "is a pipe"),
        ("b", f"is a folder; the {what} is expected"),
        ("c", f"[Mm]issing {what}|The {what} .* does not exist"),
    ):
        with pytest.raises(ImageError, match=words):
            read(tmp_path / f"{name}.nii.gz")


@pytest.mark.parametrize("kind", [np.uint32, np.int64, np.uint64])
def test_label_values_beyond_32_bits_do_not_turn_into_others(tmp_path, kind):
    sitk.WriteImage(sitk.GetImageFromArray(np.array([[[2**32 - 1, 3]]], dtype=kind)), str(tmp_path / "a.nrrd"))
    with pytest.raises(ImageError, match="values from 3 to 4294967295"):
        read_labels(tmp_path / "a.nrrd")
    sitk.WriteImage(sitk.GetImageFromArray(np.array([[[2**31 - 1, 3]]], dtype=kind)), str(tmp_path / "a.nrrd"))
    assert read_labels(tmp_path / "a.nrrd")[0].tolist() == [[[2**31 - 1, 3]]]


@pytest.mark.parametrize("values", [[np.nan, 1.0], [np.inf, 1.0], [-np.inf, 0.0]])
def test_labels_that_are_no_numbers_are_counted(tmp_path, values):
    sitk.WriteImage(sitk.GetImageFromArray(np.array([[values]])), str(tmp_path / "a.nrrd"))
    with pytest.raises(ImageError, match=r"a\.nrrd has 1 voxel that is NaN or infinite; labels are 0, 1, 2"):
        read_labels(tmp_path / "a.nrrd")


def test_float_labels_are_whole_but_for_the_precision_of_float32_and_negative_ones_kept(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.float32([[[-1.0, 2.0000002, 0.9999999]]])), str(tmp_path / "a.nrrd"))
    found, _ = read_labels(tmp_path / "a.nrrd")
    assert found.dtype == np.int32
    assert found.tolist() == [[[-1, 2, 1]]]


@pytest.mark.parametrize("value", [0.25, 0.999, 1.0001, 254.99])
def test_labels_that_are_no_whole_numbers_are_refused_not_rounded(tmp_path, value):
    for ending in (".nrrd", ".nii.gz", ".nii", ".tif"):
        path = tmp_path / f"a{ending}"
        write_image(np.float32([[[0, value, 1]]]), Geometry(spacing=(1.0, 1.0, 1.0)), path)
        with pytest.raises(ImageError, match=f"a{ending} has the value {value:g}, and 1 voxel that is no whole"):
            read_labels(path)


@pytest.mark.parametrize(("kind", "kept"), [("u1", "u1"), ("i2", "i2"), ("u4", "u4"), ("i8", "i4"), ("f4", "i4")])
def test_labels_are_kept_as_stored_where_that_saves_memory(tmp_path, kind, kept):
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((2, 3, 4), kind)), str(tmp_path / "a.nrrd"))
    assert read_labels(tmp_path / "a.nrrd", as_stored=True)[0].dtype == np.dtype(kept)


def test_label_files_of_several_channels_are_refused(tmp_path):
    volumes = sitk.JoinSeries([sitk.GetImageFromArray(np.ones((2, 3, 4), np.uint8))] * 2)
    sitk.WriteImage(volumes, str(tmp_path / "a.nii.gz"))
    with pytest.raises(ImageError, match="has 2 channels; a label file must have one"):
        read_labels(tmp_path / "a.nii.gz")
    with pytest.raises(ImageError, match="does not exist"):
        read_labels(tmp_path / "b.nii.gz")
