"""Channels of a TIFF beside masks of pictures are channels, whatever their number and order; slices stay slices."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile

from choices import notes
from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.images.files import read_header, read_labels, read_volume
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.import_folders import import_folders
from napari_nnunet.jobs.dataset.look import look_at
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest

pytestmark = pytest.mark.usefixtures("in_one_process")

SHAPE = (24, 30)
WAYS = {
    "ImageJ": {"imagej": True, "metadata": {"axes": "CYX"}},
    "planar": {"photometric": "minisblack", "planarconfig": "separate"},
    "side by side": {"photometric": "minisblack", "planarconfig": "contig"},
    "OME": {"ome": True, "metadata": {"axes": "CYX"}, "photometric": "minisblack"},
}
OPAQUE = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]}


def drawn(i, shape=SHAPE):
    mask = np.zeros(shape, np.uint8)
    mask[..., 4:12, 5 : 20 + i] = 1
    return mask


def values(i, count):
    return np.random.default_rng(i).integers(0, 60000, (count, *SHAPE), np.uint16)


def imported(root, images, masks, **how):
    places = {"images": root / "images", "masks": root / "masks"}
    for place in places.values():
        place.mkdir()
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        tifffile.imwrite(places["images"] / f"c{i}.tif", image, **how)
        (tifffile if mask.ndim == 3 else iio).imwrite(
            places["masks"] / f"c{i}.{'tif' if mask.ndim == 3 else 'png'}", mask
        )
    path, said = notes(import_folders(Workspace.at(root), ImportFoldersRequest(**places, name="New", workers=1)))
    return open_dataset(path), said


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("way", WAYS)
def test_channels_of_a_tiff_become_channels_of_the_case(tmp_path, way, count):
    images = [values(i, count) for i in range(2)]
    stored = [np.moveaxis(image, 0, -1) if way == "side by side" else image for image in images]
    dataset, _ = imported(tmp_path, stored, [drawn(i) for i in range(2)], **WAYS[way])
    assert len(dataset.info.channel_names) == count
    for case, image, i in zip(dataset.cases, images, range(2), strict=True):
        np.testing.assert_array_equal(read_volume(case.images).array, image)
        np.testing.assert_array_equal(read_labels(case.label)[0], drawn(i))
        if count not in (3, 4):  # nnU-Net reads no others in one file
            assert len(case.images) == count


def test_planes_that_are_named_channels_stay_slices_where_the_mask_has_them(tmp_path):
    images, masks = [values(i, 5) for i in range(2)], [drawn(i, (5, *SHAPE)) for i in range(2)]
    dataset, said = imported(tmp_path, images, masks, **WAYS["ImageJ"])
    assert len(dataset.info.channel_names) == 1
    assert "its planes are named channels (C), and were read as the slices of a stack (z)" in said
    assert read_volume(dataset.cases[0].images).shape == (5, *SHAPE)


@pytest.mark.parametrize("count", [2, 5])
def test_values_side_by_side_are_channels_by_the_ending_alone(tmp_path, count):
    image = values(0, count)
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(image, 0, -1), **WAYS["side by side"])
    np.testing.assert_array_equal(read_volume([tmp_path / "a.tif"]).array, image)
    assert read_header(tmp_path / "a.tif").shape == image.shape
    found = look_at(tmp_path / "a.tif")
    assert (found.channels, found.shape, found.error) == (count, SHAPE, "")


def test_grey_with_transparency_is_imported_without_it(tmp_path):
    image, clear = values(0, 1)[0], np.full(SHAPE, 65535, np.uint16)
    clear[4:6] = 0
    masks = tmp_path / "masks"
    dataset, said = imported(tmp_path, [np.stack([image, clear], -1)], [drawn(0)], **OPAQUE)
    assert "it is transparent in places; its transparency was left out" in said
    np.testing.assert_array_equal(iio.imread(dataset.cases[0].images[0]), image)
    (masks / "c0.png").unlink()
    opacity = np.full(SHAPE, 255, np.uint8)
    opacity[4:6] = 0
    tifffile.imwrite(masks / "c0.tif", np.stack([drawn(0), opacity], -1), **OPAQUE)
    request = ImportFoldersRequest(images=tmp_path / "images", masks=masks, name="Other", workers=1)
    path, said = notes(import_folders(Workspace.at(tmp_path), request))
    assert "of its mask: its transparent pixels count as 0, whatever value they hide" in said
    label = open_dataset(path).cases[0].label
    assert iio.imread(label).shape == SHAPE
    np.testing.assert_array_equal(read_labels(label)[0], drawn(0) * (opacity > 0))


@pytest.mark.parametrize("how", [{}, {"imagej": True, "metadata": {"axes": "TYX"}}])
def test_planes_that_are_not_named_channels_beside_masks_of_pictures_are_refused_with_the_ways_out(tmp_path, how):
    with pytest.raises(DatasetError) as caught:
        imported(tmp_path, [values(0, 2)], [drawn(0)], **how)
    text = str(caught.value)
    assert "c0.tif has 2 x 24 x 30 voxels, its mask c0.png 24 x 30" in text
    assert "name them so (axis C), or save each as a file of its own (CASE_0000" in text


def test_a_picture_with_a_mask_of_slices_is_refused_with_the_ways_out(tmp_path):
    with pytest.raises(DatasetError, match="24 x 30 voxels, its mask c0.tif 2 x 24 x 30. Save the one slice of the"):
        imported(tmp_path, [values(0, 1)[0]], [drawn(0, (2, *SHAPE))])
