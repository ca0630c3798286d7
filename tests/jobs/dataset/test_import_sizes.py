"""The voxel size goes with the images of an import: given, in the files, in their masks, or missed aloud."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from as_people_have_them import Said, voxels
from napari_nnunet.cli.main import main

pytestmark = pytest.mark.usefixtures("in_one_process")

SHAPE = (6, 10, 12)


def image(seed):
    return np.random.default_rng(seed).integers(0, 200, SHAPE).astype(np.uint8)


def mask(seed):
    found = np.zeros(SHAPE, np.uint8)
    found[1:4, 2 + seed : 6, 3:9] = 1
    return found


def tiff(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, photometric="minisblack", **options)


def nifti(path, array, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(array.T), affine), path)


@pytest.fixture
def imported(tmp_path, capfd):
    """Import ``images`` and ``masks`` of the folder; returns what was said and the dataset."""

    def run(*words):
        capfd.readouterr()
        where = ("-i", tmp_path / "images", "-m", tmp_path / "masks", "-n", "New", "--workspace", tmp_path / "ws")
        status = main(["import_folders", *map(str, where), *words])
        return Said(status, "".join(capfd.readouterr())), tmp_path / "ws" / "nnUNet_raw" / "Dataset001_New"

    return run


def beside(dataset, part, name):
    return json.loads((dataset / part / f"{name}.json").read_text(encoding="utf-8"))["spacing"]


def test_a_size_inside_a_tiff_lies_beside_its_copy_where_nnunet_looks(tmp_path, imported):
    for i in range(2):
        for part, array in (("images", image(i)), ("masks", mask(i))):
            path = tmp_path / part / f"c{i}.tif"
            path.parent.mkdir(exist_ok=True)
            tifffile.imwrite(
                path, array, imagej=True, resolution=(4, 4), metadata={"spacing": 0.5, "unit": "um", "axes": "ZYX"}
            )
    said, dataset = imported()
    assert said.status == 0
    assert beside(dataset, "imagesTr", "c1") == beside(dataset, "labelsTr", "c1") == [0.0005, 0.00025, 0.00025]


def test_a_missing_size_is_named_and_can_be_given(tmp_path, imported):
    for i in range(2):
        tiff(tmp_path / "images" / f"c{i}.tif", image(i))
        tiff(tmp_path / "masks" / f"c{i}.tif", mask(i))
    said, dataset = imported("--spacing", "2", "0.5", "0.25")
    assert said.status == 0
    assert "No voxel size" not in said.text
    assert beside(dataset, "imagesTr", "c0") == beside(dataset, "labelsTr", "c0") == [2.0, 0.5, 0.25]


def test_a_size_that_is_given_takes_the_place_of_one_that_cannot_be_read(tmp_path, imported):
    for part, array in (("images", image(0)), ("masks", mask(0))):
        tiff(tmp_path / part / "c0.tif", array)
        (tmp_path / part / "c0.json").write_text("{")
    said, dataset = imported("--spacing", "2", "0.5", "0.25")
    assert said.status == 0, said.text
    assert beside(dataset, "imagesTr", "c0") == beside(dataset, "labelsTr", "c0") == [2.0, 0.5, 0.25]


def test_stacks_without_a_size_are_imported_with_a_warning(tmp_path, imported):
    tiff(tmp_path / "images" / "c0.tif", image(0))
    tiff(tmp_path / "masks" / "c0.tif", mask(0))
    said, _ = imported()
    assert said.status == 0
    assert "No voxel size in the files of 1 of 1 case (c0); 1 mm is assumed" in said.text


def test_an_image_without_a_size_takes_that_of_its_mask(tmp_path, imported):
    tiff(tmp_path / "images" / "c0.tif", image(0))
    nifti(tmp_path / "masks" / "c0.nii.gz", mask(0), np.diag([-0.5, -0.5, 2.0, 1.0]))
    said, dataset = imported()
    assert said.has("have no voxel size; that of their masks is used (c0)")
    for path in (dataset / "imagesTr" / "c0_0000.nii.gz", dataset / "labelsTr" / "c0.nii.gz"):
        assert sitk.ReadImage(str(path)).GetSpacing() == pytest.approx((0.5, 0.5, 2.0))


def test_a_size_that_is_given_counts_more_than_headers_and_masks_are_turned_all_the_same(tmp_path, imported):
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    turned = affine @ np.array([[-1, 0, 0, SHAPE[2] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    nifti(tmp_path / "images" / "c0.nii.gz", image(0), affine)
    nifti(tmp_path / "masks" / "c0.nii.gz", mask(0)[..., ::-1], turned)
    said, dataset = imported("--spacing", "3", "1", "1")
    assert said.status == 0
    label = dataset / "labelsTr" / "c0.nii.gz"
    assert np.array_equal(voxels(label), mask(0))
    assert sitk.ReadImage(str(label)).GetSpacing() == pytest.approx((1.0, 1.0, 3.0))
    assert np.array_equal(voxels(dataset / "imagesTr" / "c0_0000.nii.gz"), image(0))


def test_a_size_with_another_number_of_axes_is_a_sentence(tmp_path, imported):
    nifti(tmp_path / "images" / "c0.nii.gz", image(0), np.eye(4))
    nifti(tmp_path / "masks" / "c0.nii.gz", mask(0), np.eye(4))
    said, _ = imported("--spacing", "3", "1")
    assert said.status == 1
    assert said.has("2 voxel sizes were given for an image with 3 axes")


def test_subfolders_are_named_and_looked_into_on_request(tmp_path, imported):
    for i, (folder, one, other) in enumerate(
        [(".", "top", "top"), ("p1", "image", "mask"), ("p2/day1", "scan", "seg"), ("p3", "x_1", "x_1")]
    ):
        nifti(tmp_path / "images" / folder / f"{one}.nii.gz", image(i), np.eye(4))
        nifti(tmp_path / "masks" / folder / f"{other}.nii.gz", mask(i), np.eye(4))
    nifti(tmp_path / "images" / "p9" / "image.nii.gz", image(9), np.eye(4))
    said, dataset = imported("--subfolders")
    assert said.status == 0
    assert said.has("1 file is left out (no mask has its name): p9/image.nii.gz")
    names = sorted(path.name for path in (dataset / "labelsTr").iterdir())
    assert names == ["p1.nii.gz", "p2_day1.nii.gz", "p3_x_1.nii.gz", "top.nii.gz"]
    said, _ = imported()
    assert said.has("(in a subfolder): ", "p1/image.nii.gz")


def test_black_drawings_on_white_are_said_and_can_be_exchanged(tmp_path, imported):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for i in range(2):
        Image.fromarray(image(i)[0]).save(tmp_path / "images" / f"c{i}.png")
        Image.fromarray(np.where(mask(i)[2], 0, 255).astype(np.uint8)).save(tmp_path / "masks" / f"c{i}.png")
    said, _ = imported()
    assert said.has("becomes the foreground. If 0 is what was drawn: --map 0=object 255=background")


def test_complex_numbers_are_refused(tmp_path, imported):
    tiff(tmp_path / "images" / "c0.tif", image(0))
    tiff(tmp_path / "masks" / "c0.tif", mask(0).astype(np.complex64))
    said, _ = imported()
    assert said.status == 1
    assert said.has("c0.tif holds complex numbers")
