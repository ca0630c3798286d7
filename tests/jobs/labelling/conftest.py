"""A workspace of cases whose labels are held against a network."""

from __future__ import annotations

import numpy as np
import pytest
from suspected import CASES, DATASET, truth

from helpers import Recipe, make_model, write_nifti
from napari_nnunet.formats.results.probabilities import write_probabilities
from napari_nnunet.formats.workspace import Workspace


@pytest.fixture
def suspected(tmp_path):
    """A workspace with twelve cases in three validated folds; returns it and a function that spoils labels."""
    model = make_model(tmp_path / "nnUNet_results", Recipe(folds=(0, 1, 2)))
    references = tmp_path / "nnUNet_raw" / DATASET / "labelsTr"
    references.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(CASES):
        labels = truth(number)
        write_nifti(references / f"c{number:02}.nii.gz", labels)
        folder = model.folder / f"fold_{number % 3}" / "validation"
        folder.mkdir(exist_ok=True)
        seen = labels.copy()
        seen[2:6, 9, 4:14] = rng.integers(0, 3, (4, 10))  # what no network gets right
        p = np.full((3, *seen.shape), 0.01, dtype=np.float32)
        np.put_along_axis(p, seen[None].astype(np.intp), np.float32(0.98), axis=0)
        p[:, 2:6, 9, 4:14] = np.array([0.3, 0.36, 0.34], dtype=np.float32)[:, None, None]
        write_nifti(folder / f"c{number:02}.nii.gz", p.argmax(axis=0).astype(np.uint8))
        write_probabilities(p, folder / f"c{number:02}.npz")

    def spoil(number, labels):
        write_nifti(references / f"c{number:02}.nii.gz", labels)

    return Workspace.at(tmp_path), spoil, model.folder
