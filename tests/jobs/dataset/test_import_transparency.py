"""Grey pictures with transparency, which nnU-Net does not read, are rewritten without it; what is lost is said."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest

from choices import notes
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.import_folders import import_folders
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest

pytestmark = pytest.mark.usefixtures("in_one_process")

SHAPE = (24, 30)
LEFT_OUT = "it is transparent in places; its transparency was left out"


def grey(seed):
    return np.random.default_rng(seed).integers(0, 256, SHAPE).astype(np.uint8)


def drawn(i):
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:12, 5 : 20 + i] = 1
    return mask


def seen(array, opaque=255):
    """Return a picture with how opaque it is."""
    return np.stack([array, np.broadcast_to(np.asarray(opaque, np.uint8), SHAPE)], axis=-1)


def imported(root, images, masks, prefix="c", **more):
    places = {"images": root / prefix / "images", "masks": root / prefix / "masks"}
    for part, pictures in (("images", images), ("masks", masks)):
        places[part].mkdir(parents=True)
        for i, picture in enumerate(pictures):
            iio.imwrite(places[part] / f"{prefix}{i}.png", picture)
    request = ImportFoldersRequest(**places, workers=1, **(more or {"name": "New"}))
    path, said = notes(import_folders(Workspace.at(root), request))
    return open_dataset(path), said


@pytest.mark.parametrize("which", ["images", "masks"])
def test_opaque_ones_are_written_without_a_word(tmp_path, which):
    images, masks = [grey(i) for i in range(2)], [drawn(i) for i in range(2)]
    given = {"images": images, "masks": masks}
    given[which] = [seen(given[which][0]), given[which][1]]
    dataset, said = imported(tmp_path, **given)
    assert "transparen" not in said and dataset.info.file_ending == ".png"
    for case, image, mask in zip(dataset.cases, images, masks, strict=True):
        np.testing.assert_array_equal(iio.imread(case.images[0]), image)
        np.testing.assert_array_equal(iio.imread(case.label), mask)


def test_what_is_transparent_of_an_image_is_said(tmp_path):
    images = [seen(grey(0), np.where(drawn(0), 0, 200)), seen(grey(1))]
    dataset, said = imported(tmp_path, images, [drawn(0), drawn(1)])
    assert f"c0: {LEFT_OUT}." in said and "c1" not in said
    np.testing.assert_array_equal(iio.imread(dataset.cases[0].images[0]), grey(0))


def test_transparent_pixels_of_a_mask_are_background_and_half_transparent_ones_keep_their_value(tmp_path):
    clear, half = np.full(SHAPE, 255, np.uint8), np.full(SHAPE, 255, np.uint8)
    clear[4:6], half[4:6] = 0, 90
    masks = [seen(drawn(0), clear), seen(drawn(1), half), seen(drawn(2), np.where(drawn(2), 255, 0))]
    dataset, said = imported(tmp_path, [grey(i) for i in range(3)], masks)
    assert "c0: of its mask: its transparent pixels count as 0, whatever value they hide." in said
    assert f"c1: of its mask: {LEFT_OUT}." in said and "c2" not in said
    stored = [iio.imread(case.label) for case in dataset.cases]
    np.testing.assert_array_equal(stored, [drawn(0) * (clear > 0), drawn(1), drawn(2)])


def test_those_that_are_added_to_a_dataset_are_rewritten_too(tmp_path):
    dataset, _ = imported(tmp_path, [grey(0)], [drawn(0)])
    dataset, _ = imported(tmp_path, [seen(grey(1))], [seen(drawn(1))], "d", dataset=dataset.folder.name)
    added = next(case for case in dataset.cases if case.name == "d0")
    np.testing.assert_array_equal(iio.imread(added.images[0]), grey(1))
    np.testing.assert_array_equal(iio.imread(added.label), drawn(1))
