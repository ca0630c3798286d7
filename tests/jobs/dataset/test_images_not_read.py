"""Where the voxels of an image lie is asked of its header: a corrected reference does not wait for the image."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from helpers import make_dataset
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.read_case import grid_of_image
from napari_nnunet.formats.images.files import ADAPTERS, read_labels, read_volume
from napari_nnunet.grid import Grid
from napari_nnunet.jobs.dataset.cases import correct_reference


@pytest.mark.parametrize(
    "reader", [None, *(name for name in ADAPTERS if "NaturalImage" not in name and "Tiff" not in name)]
)
def test_a_header_tells_where_voxels_lie_as_the_image_does(tmp_path, reader):
    affine = np.array([[0, 0, 3, 1], [-1, 0, 0, 2], [0, 2, 0, 3], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(np.zeros((7, 6, 5), np.int16), affine), tmp_path / "a.nii.gz")
    volume = read_volume([tmp_path / "a.nii.gz"], reader=reader)
    assert grid_of_image(tmp_path / "a.nii.gz", reader) == Grid(volume.shape, volume.geometry)


def test_a_reference_is_corrected_though_the_voxels_of_its_image_cannot_be_read(tmp_path):
    raw = make_dataset(tmp_path, cases=1)
    (image,) = (raw / "imagesTr").iterdir()
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    labels = read_labels(raw / "labelsTr" / "c0.nii.gz")[0]
    corrected = np.ones_like(labels)
    drain(correct_reference(raw, "c0", corrected, seen=labels))
    assert np.array_equal(read_labels(raw / "labelsTr" / "c0.nii.gz")[0], corrected)
