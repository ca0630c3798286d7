"""Training cases are written, replaced and removed without losing what was there."""

from __future__ import annotations

import os
import subprocess
import sys

import imageio.v3 as iio
import numpy as np
import pytest

from helpers import make_dataset, smooth_image
from napari_nnunet.errors import DatasetError, ImageError, ResourceError
from napari_nnunet.formats.dataset import raw_writer, relabel
from napari_nnunet.formats.dataset.changing import changing
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.dataset.raw_writer import create_dataset, drop_case, save_case
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.schema.geometry import Geometry


@pytest.fixture
def raw(tmp_path):
    return make_dataset(tmp_path, cases=2)


def trashed(raw):
    files = (path.name for path in (raw / "trash").rglob("*") if path.is_file())
    return sorted(name for name in files if name != "classes.json")  # what values meant


def replace(raw, image, labels):
    geometry = read_volume([raw / "imagesTr" / "c0_0000.nii.gz"]).geometry
    return save_case(raw, "c0", [image], labels, geometry)


def test_a_replaced_case_is_kept_in_the_trash(raw):
    image = read_volume([raw / "imagesTr" / "c0_0000.nii.gz"]).array[0]
    labels, _ = read_labels(raw / "labelsTr" / "c0.nii.gz")
    replace(raw, image + 1, 1 - labels)
    assert trashed(raw) == ["c0.nii.gz", "c0_0000.nii.gz"]
    kept = next((raw / "trash").rglob("c0.nii.gz"))
    np.testing.assert_array_equal(read_labels(kept)[0], labels)
    np.testing.assert_array_equal(read_labels(raw / "labelsTr" / "c0.nii.gz")[0], 1 - labels)


def test_an_image_that_is_the_same_is_neither_written_nor_put_aside(raw):
    path = raw / "imagesTr" / "c0_0000.nii.gz"
    before = path.stat()
    labels, _ = read_labels(raw / "labelsTr" / "c0.nii.gz")
    replace(raw, read_volume([path]).array[0], 1 - labels)
    assert trashed(raw) == ["c0.nii.gz"]
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(("high", "kind"), [(255, np.uint8), (256, np.uint16)])
def test_pictures_store_the_whole_numbers_that_came_as_floating_point(tmp_path, high, kind):
    folder = tmp_path / "Dataset001_P"
    create_dataset(folder, ("EM",), {"background": 0, "membrane": 1}, ".png")
    image = np.array([[0.0, 3.0], [high, 1.0]], np.float32)
    case = save_case(folder, "p", [image], np.eye(2, dtype=np.uint8), Geometry(spacing=(1.0, 1.0)))
    stored = iio.imread(case.images[0])
    assert stored.dtype == kind
    np.testing.assert_array_equal(stored, image)


@pytest.mark.parametrize("value", [0.5, -1.0, 65536.0, np.nan])
def test_what_a_picture_cannot_store_is_refused(tmp_path, value):
    folder = tmp_path / "Dataset001_P"
    create_dataset(folder, ("EM",), {"background": 0, "membrane": 1}, ".png")
    image = np.full((2, 2), value, np.float32)
    with pytest.raises(ImageError, match="PNG stores whole numbers from 0 to 65535"):
        save_case(folder, "p", [image], np.eye(2, dtype=np.uint8), Geometry(spacing=(1.0, 1.0)))


def test_where_the_new_files_cannot_be_written_the_old_ones_come_back(raw, monkeypatch):
    def full(*_):
        raise ResourceError("The disk is full.")

    monkeypatch.setattr(raw_writer, "write_labels", full)
    before = {path: path.read_bytes() for path in raw.rglob("c0*") if path.is_file()}
    with pytest.raises(ResourceError, match="disk is full"):
        replace(raw, smooth_image((20, 24, 22), seed=9)[0], np.zeros((20, 24, 22), np.uint8))
    assert {path: path.read_bytes() for path in raw.rglob("c0*") if path.is_file()} == before


def test_the_voxel_size_beside_a_picture_stays_with_it_and_goes_with_it(tmp_path):
    folder = tmp_path / "Dataset001_Stacks"
    create_dataset(folder, ("DAPI",), {"background": 0, "cell": 1}, ".tif", overwrite_image_reader_writer="Tiff3DIO")
    image, geometry = smooth_image((4, 10, 12))[0], Geometry(spacing=(2.0, 0.5, 0.5))
    for value in (0, 1):
        save_case(folder, "a", [image], np.full((4, 10, 12), value, np.uint8), geometry)
    volume = read_volume([folder / "imagesTr" / "a_0000.tif"], reader="Tiff3DIO")
    assert volume.geometry.spacing == pytest.approx((2.0, 0.5, 0.5))
    assert trashed(folder) == ["a.json", "a.tif"]
    drop_case(folder, "a")
    assert not list((folder / "imagesTr").iterdir())
    assert not list((folder / "labelsTr").iterdir())


@pytest.mark.parametrize("name", ["", " ", "x_seg", "a/b", "../a", ".a", "Fäll", "a\0", "-a"])
def test_names_that_files_cannot_have_are_refused_before_anything_is_written(raw, name):
    before = sorted(raw.rglob("*"))
    image = np.zeros((20, 24, 22), np.float32)
    with pytest.raises(DatasetError, match="cannot name a case"):
        save_case(raw, name, [image], image.astype(np.uint8), Geometry(spacing=(1, 1, 1)))
    assert sorted(raw.rglob("*")) == before


@pytest.mark.parametrize(
    ("channels", "labels", "said"),
    [
        ([], np.zeros((2, 3)), "has 1 channel"), ([np.zeros((2, 3))] * 2, np.zeros((2, 3)), "but 2 were given"),
        ([np.zeros((2, 3))], np.zeros((3, 2)), "must have the same shape"),
        ([np.zeros((2, 3))], np.full((2, 3), 7), "contain 7, which dataset.json does not define"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_dataset_is_no_case(raw, channels, labels, said):
    with pytest.raises(DatasetError, match=said):
        save_case(raw, "new", channels, labels.astype(np.uint8), Geometry(spacing=(1, 1)))
    assert not list(raw.rglob("new*"))


def test_removing_a_case_leaves_those_whose_names_begin_alike(tmp_path):
    folder = tmp_path / "Dataset001_A"
    create_dataset(folder, ("MR",), {"background": 0, "cell": 1}, ".png")
    picture = np.zeros((4, 5), np.uint8)
    for name in ("a", "a_0000", "a.b", "ab"):
        save_case(folder, name, [picture], picture, Geometry(spacing=(1, 1)))
    drop_case(folder, "a")
    assert [case.name for case in open_dataset(folder).cases] == ["a.b", "a_0000", "ab"]
    assert open_dataset(folder).info.raw["numTraining"] == 3
    with pytest.raises(DatasetError, match="has no case a"):
        drop_case(folder, "a")


@pytest.mark.parametrize(
    ("values", "ignore", "expected"),
    [
        ([], None, {0: 0}), ([255], None, {0: 0, 255: 1}), ([0, 3, 3, 7], None, {0: 0, 3: 1, 7: 2}),
        ([0, 3, 7], 3, {0: 0, 7: 1, 3: 2}), ([1], 9, {0: 0, 1: 1, 9: 2}),
    ],
)  # fmt: skip
def test_values_are_numbered_in_their_order_with_background_first_and_ignore_last(values, ignore, expected):
    assert relabel.compact_values(values, ignore) == expected


def test_values_without_an_entry_stay_and_swapped_ones_do_not_meet():
    labels = np.array([[0, 3, 7], [65535, 7, 3]], np.uint16)
    assert relabel.remap(labels, {3: 7, 7: 3}).tolist() == [[0, 7, 3], [65535, 3, 7]]
    assert relabel.remap(np.zeros((0, 3), np.uint8), {1: 2}).shape == (0, 3)


def test_a_voxel_size_is_written_into_the_cases_that_were_named(raw):
    raw_writer.set_spacing(raw, (3.0, 0.5, 0.25), ["c1"])
    sizes = {path.name: read_volume([path]).geometry.spacing for path in sorted(raw.rglob("*.nii.gz"))}
    assert sizes["c1_0000.nii.gz"] == sizes["c1.nii.gz"] == (3.0, 0.5, 0.25)
    assert sizes["c0_0000.nii.gz"] == sizes["c0.nii.gz"] == pytest.approx((1.0, 0.8, 0.8))


def test_a_picture_has_no_voxel_size_to_set(tmp_path):
    folder = tmp_path / "Dataset001_A"
    create_dataset(folder, ("MR",), {"background": 0, "cell": 1}, ".png")
    picture = np.zeros((4, 5), np.uint8)
    save_case(folder, "a", [picture], picture, Geometry(spacing=(1, 1)))
    with pytest.raises(DatasetError, match="the format does not store it"):
        raw_writer.set_spacing(folder, (2.0, 2.0))


def test_classes_that_break_a_rule_leave_the_others(raw):
    before = (raw / "dataset.json").read_bytes()
    with pytest.raises(DatasetError, match="background"):
        raw_writer.set_labels(raw, {"cell": 1})
    assert (raw / "dataset.json").read_bytes() == before


def test_what_a_killed_process_left_half_written_goes_with_the_next_change(tmp_path):
    raw = make_dataset(tmp_path, cases=1)
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    gone, own = (f".b.nii.gz.partial-{pid}-0a1b2c.nii.gz" for pid in (int(ended.stdout), os.getpid()))
    with changing(raw):
        for name in (gone, own):  # its workers end a little later than a process that is killed
            (raw / "labelsTr" / name).touch()
    assert not (raw / "labelsTr" / gone).exists()
    assert (raw / "labelsTr" / own).exists()
