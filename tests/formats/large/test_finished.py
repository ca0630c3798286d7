"""Label images in OME-Zarr are told from everything else at a glance, and opened without a voxel being read."""

import json
import os
import time

import numpy as np
import pytest

from formats_large import ome_zarr
from napari_nnunet.errors import ImageError
from napari_nnunet.formats.large.finished import is_label_image, is_unfinished, open_finished
from napari_nnunet.formats.large.unpacking import bounded

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
LABELS = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 3


def label_image(path, *, version="0.5", about=None, labels=LABELS, **more):
    """Write a label image of another program."""
    ome_zarr(path, [labels], version=version, **more)
    group = zarr.open_group(str(path), mode="r+")
    known = group.attrs.asdict()
    content = known["ome"] if version == "0.5" else known
    content["image-label"] = {} if about is None else about
    group.attrs.put(known)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_label_images_of_both_versions_are_told_from_images(tmp_path, version):
    assert is_label_image(label_image(tmp_path / "labels.zarr", version=version))
    assert not is_label_image(ome_zarr(tmp_path / "image.zarr", [LABELS], version=version))


def test_what_is_no_label_image_is_told_within_ten_milliseconds(tmp_path):
    image = ome_zarr(tmp_path / "image.zarr", [np.zeros((64, 64, 64), np.uint8)])
    group = zarr.open_group(str(image), mode="r+")
    group.attrs["omero"] = {"channels": [{"label": f"'image-label' {i}"} for i in range(10_000)]}
    plain = tmp_path / "folder"
    plain.mkdir()
    for path in (image, image / "0", plain, tmp_path / "none"):
        began = min(_seconds(is_label_image, path) for _ in range(3))
        assert began < 0.01, path


def _seconds(function, path):
    began = time.perf_counter()
    assert not function(path)
    return time.perf_counter() - began


@pytest.mark.parametrize("content", [b'{"image-label"', b"[" * 100_000 + b'"image-label"', b'"image-label"', b'["image-label"]',
                                     b'{"attributes": {"ome": 5}, "x": "image-label"}'])  # fmt: skip
@pytest.mark.parametrize("name", ["zarr.json", ".zattrs"])
def test_attributes_that_are_none_are_no_label_image(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    assert not is_label_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes")
def test_a_pipe_in_the_place_of_attributes_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "zarr.json")
    assert not is_label_image(tmp_path)


def test_names_and_colours_are_those_of_the_file_and_odd_entries_are_passed_over(tmp_path):
    about = {
        "properties": [{"label-value": 1, "name": "a"}, {"label-value": "2", "name": "b"}, 5, {"label-value": 2}],
        "colors": [{"label-value": 1, "rgba": [255, 0, 51, 255]}, {"label-value": 2, "rgba": [1, 2]}, {"label-value": 10**30}],
    }  # fmt: skip
    found = open_finished(label_image(tmp_path / "labels.zarr", about=about))
    assert found.names == {1: "a"} and found.colours == {1: (1, 0, 0.2, 1)} and not found.origin


def test_values_that_are_no_labels_are_refused(tmp_path):
    path = label_image(tmp_path / "labels.zarr", labels=LABELS.astype(np.float32))
    with pytest.raises(
        ImageError, match=r"holds values of type float32; labels are whole numbers. Open it as an image"
    ):
        open_finished(path)


def test_levels_that_contradict_each_other_are_refused(tmp_path):
    path = ome_zarr(tmp_path / "l.zarr", [np.ones((8, 40, 40), np.uint8), np.ones((8, 9, 20), np.uint8)])
    with pytest.raises(ImageError, match="The levels of l.zarr contradict each other: along z"):
        open_finished(path)


def test_a_plain_array_is_no_label_image(tmp_path):
    zarr.save_array(str(tmp_path / "a.zarr"), LABELS)
    with pytest.raises(ImageError, match="is a zarr array without the metadata of an image"):
        open_finished(tmp_path / "a.zarr")


def test_a_result_that_is_not_complete_is_told_by_its_journal(tmp_path):
    folder = tmp_path / "labels.zarr.unfinished"
    folder.mkdir()
    assert not is_unfinished(folder)
    (folder / ".napari-nnunet.jsonl").write_text(json.dumps({"work": {}}) + "\n")
    assert is_unfinished(folder)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_is_read_within_bounds_can_be_written_too(tmp_path, version):
    path = label_image(tmp_path / "labels.zarr", version=version)
    array = bounded(zarr.open_array(str(path / "0"), mode="r+"), "labels")
    array[1, :2, 1:] = 7  # a part of a chunk
    expected = LABELS.copy()
    expected[1, :2, 1:] = 7
    assert np.array_equal(zarr.open_array(str(path / "0"), mode="r")[:], expected)


def test_masks_of_true_and_false_are_given_as_numbers(tmp_path):
    mask = LABELS > 0
    (array,) = open_finished(label_image(tmp_path / "mask.zarr", labels=mask)).arrays
    assert array.dtype == np.uint8 and array.shape == mask.shape and array.ndim == 3
    assert np.array_equal(np.asarray(array), mask) and array[1:, :2].dtype == np.uint8
    assert np.array_equal(array[1:, :2], mask[1:, :2])
