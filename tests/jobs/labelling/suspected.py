"""Twelve cases that a network saw, of which tests spoil some."""

from __future__ import annotations

import numpy as np

from helpers import write_nifti
from napari_nnunet.formats.results.probabilities import write_probabilities
from napari_nnunet.schema.requests.labelling import FindLabelErrorsRequest

DATASET = "Dataset001_Tiny"
CASES = 12


def truth(number):
    labels = np.zeros((8, 24, 22), dtype=np.uint8)
    labels[2:6, 3 + number % 3 : 10, 4:14] = 1
    labels[2:6, 10:16, 4 : 12 + number % 4] = 2
    return labels


def see(model, number, seen):
    """Let the network see something else in a case; it is sure of it."""
    folder = model / f"fold_{number % 3}" / "validation"
    p = np.full((3, *seen.shape), 0.01, dtype=np.float32)
    np.put_along_axis(p, seen[None].astype(np.intp), np.float32(0.98), axis=0)
    write_nifti(folder / f"c{number:02}.nii.gz", seen)
    write_probabilities(p, folder / f"c{number:02}.npz")


def elsewhere(number):
    """A mask at another place of the image."""
    return np.roll(np.flip(truth(number), 0), (1, 7, 5), axis=(0, 1, 2))


def request(**changes):
    return FindLabelErrorsRequest(dataset="1", **changes)
