"""What is segmented block by block equals what is segmented in memory."""

import numpy as np
import pytest

from helpers import Recipe, make_model, smooth_image
from napari_nnunet import predict, predict_image
from napari_nnunet.engine.large import blocks, parts

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
pytest.importorskip("yaozarrs", reason="yaozarrs is not installed: it comes with napari-nnunet[large]")
pytestmark = pytest.mark.usefixtures("known_arithmetic")
FAST = {"device": "cpu", "backend": "torch", "precision": "float32"}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Cut tiny volumes as large ones are: into awkward blocks, read in small pieces."""
    monkeypatch.setattr(blocks, "_MOST_VOXELS", 3000)
    monkeypatch.setattr(parts, "PIECE_VOXELS", 2000)
    monkeypatch.setattr(parts, "_SMALLEST", 4)


def both(tmp_path, model, array, spacing, chunk, **changes):
    """Return the labels of both ways."""
    whole = predict(model, array, spacing=spacing, **FAST, **changes).labels
    found = predict_image(model, array, tmp_path / "large.zarr", spacing=spacing, chunk=chunk, **FAST, **changes)
    labels = zarr.open(tmp_path / "large.zarr/0", mode="r")[:]
    assert found.blocks > 3, "it was not cut"
    assert found.counts == tuple(np.bincount(labels.ravel(), minlength=len(found.counts)))
    return whole, labels


def hollow(shape, channels=1):
    """Return an image with an empty border of another width on each side."""
    image = smooth_image(shape, channels=channels)
    image[:, :3, :, :] = 0
    image[:, :, :, -5:] = 0
    return image


CASES = {
    "as it is": (Recipe(), (1.0, 1.0, 1.0), (24, 40, 50), (7, 11, 13), {}),
    "resampled": (Recipe(spacing=(1.5, 0.8, 0.8)), (1.0, 1.0, 1.0), (20, 30, 34), (9, 16, 13), {}),
    "finer than the model": (Recipe(spacing=(2.0, 2.0, 2.0)), (0.9, 0.7, 0.7), (24, 44, 45), (8, 17, 19), {}),
    "thick slices": (Recipe(spacing=(5.0, 1.0, 1.0)), (4.0, 0.7, 0.7), (14, 41, 53), (5, 16, 16), {}),
    "turned": (Recipe(transpose=(2, 0, 1), spacing=(1.2, 1.0, 1.0)), (1.0, 1.0, 0.9), (20, 40, 36), (9, 13, 8), {}),
    "turned, thick slices": (
        Recipe(transpose=(1, 0, 2), spacing=(6.0, 1.0, 1.0)), (0.8, 5.0, 0.8), (40, 12, 43), (13, 5, 14), {},
    ),
    "two-dimensional": (
        Recipe(patch=(16, 16), spacing=(1.0, 1.0), configuration="2d"), (3.0, 1.3, 1.3), (7, 44, 50), (2, 13, 20), {},
    ),
    "regions": (
        Recipe(labels={"background": 0, "all": [1, 2], "core": 2}, regions_class_order=(1, 2)),
        (1.3, 0.9, 1.0), (14, 30, 30), (7, 13, 13), {},
    ),
    "folds": (Recipe(folds=(0, 1)), (1.0, 1.2, 1.0), (20, 32, 40), (7, 13, 13), {}),
    "channels": (
        Recipe(channels=("CT", "MR"), schemes=("CTNormalization", "ZScoreNormalization"), spacing=(1.2, 1.0, 1.0)),
        (1.0, 1.0, 1.0), (20, 32, 40), (7, 13, 13), {},
    ),
    "many classes": (
        Recipe(labels={"background": 0, **{f"c{i}": i for i in range(1, 21)}}, spacing=(1.2, 1.2, 1.2)),
        (1.0, 1.0, 1.0), (14, 28, 30), (7, 13, 13), {},
    ),
    "far apart windows": (Recipe(), (1.0, 1.0, 1.0), (24, 40, 50), (7, 11, 13), {"step": 1.0, "gaussian": False}),
    "smaller than a window": (Recipe(patch=(16, 32, 32)), (1.0, 1.0, 1.0), (9, 50, 20), (4, 11, 9), {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_labels_equal_those_in_memory(tmp_path, case):
    recipe, spacing, shape, chunk, changes = CASES[case]
    model = make_model(tmp_path, recipe)
    changes = {"mirroring": False, **changes}
    whole, labels = both(tmp_path, model, hollow(shape, len(recipe.channels)), spacing, chunk, **changes)
    assert len(np.unique(whole)) > 2
    assert np.mean(whole != labels) < 1e-5


def test_pieces_of_a_survey_cover_every_voxel_once():
    from napari_nnunet.engine.large.boxes import cut_into_boxes

    seen = np.zeros((9, 20, 31), dtype=int)
    for box in cut_into_boxes(seen.shape, (4, 8, 8), 600):
        part = seen[tuple(slice(lo, hi) for lo, hi in box)]
        part += 1
        assert part.size <= 600
    assert (seen == 1).all()
