"""Training cases are written, replaced and removed without losing what was there."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import make_dataset, smooth_image
from napari_nnunet.errors import ResourceError
from napari_nnunet.formats.dataset import raw_writer
from napari_nnunet.formats.dataset.raw_writer import create_dataset, drop_case, save_case
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.schema.geometry import Geometry


@pytest.fixture
def raw(tmp_path):
    return make_dataset(tmp_path, cases=2)


def trashed(raw):
    return sorted(path.name for path in (raw / "trash").rglob("*") if path.is_file())


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
