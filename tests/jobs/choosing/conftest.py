"""A dataset whose best has been chosen."""

from __future__ import annotations

import pytest

from choices import (
    validated,
)
from helpers import smooth_image, write_nifti
from napari_nnunet.events import drain
from napari_nnunet.formats.results.postprocessing import write_cleaning
from napari_nnunet.jobs.choosing.best import find_best
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.schema.requests.choosing import FindBestRequest


@pytest.fixture
def best(tmp_path):
    """A workspace whose best is an ensemble with a postprocessing, and images to segment."""
    workspace = validated(tmp_path, "3d_fullres", (0, 1), quality=0.3)
    validated(tmp_path, "2d", (0, 1), quality=0.3)
    answer = drain(find_best(workspace, FindBestRequest(dataset="Dataset001_Tiny")))
    assert len(answer.best.models) == 2
    write_cleaning(answer.best.postprocessing, Cleaning.of([1]))
    images = tmp_path / "images"
    images.mkdir()
    for i in range(2):
        write_nifti(images / f"n{i}_0000.nii.gz", smooth_image((10, 24, 24), seed=i)[0])
    return workspace, images
