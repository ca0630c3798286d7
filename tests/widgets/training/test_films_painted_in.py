"""A layer of a training's film that somebody painted in is theirs; on a model of a viewer."""

from __future__ import annotations

import json

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.widgets.training.layers import FilmLayers

SPOT = tuple(np.array([at]) for at in (0, 1, 1))
INFO = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "organ": 1},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}


@pytest.fixture
def film(tmp_path):
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0" / "film"
    folder.mkdir(parents=True)
    for name in ("image", "reference", *"0123"):
        np.save(folder / f"{name}.npy", np.full((4, 5), int(name) if name.isdigit() else 0, np.uint8))
    (tmp_path / "dataset.json").write_text(json.dumps(INFO))
    return FilmLayers(ViewerModel(), folder, DatasetInfo.read(tmp_path / "dataset.json"))


def frames(film, *epochs):
    return {epoch: str(film.folder / f"{epoch}.npy") for epoch in epochs}


def test_what_somebody_painted_stays_when_the_next_picture_comes(film):
    film.update(frames(film, 0))
    first = film.labels
    film.update(frames(film, 0, 1))
    assert film.labels is first and first.data.shape == (2, 4, 5)
    first.data_setitem(SPOT, 1)
    painted = first.data.copy()
    film.update(frames(film, 0, 1, 2))
    assert film.labels is not first and film.labels.data.shape == (3, 4, 5) and film.open
    np.testing.assert_array_equal(first.data, painted)
    second = film.labels
    film.update(frames(film, 0, 1, 2, 3))
    assert film.labels is second and len(second.data) == 4
    film.remove()
    assert list(film.viewer.layers) == [first]


def test_a_reference_that_somebody_painted_in_stays_when_the_film_goes(film):
    film.reference.visible = True
    film.reference.data_setitem(SPOT[1:], 1)
    film.update(frames(film, 0))
    film.remove()
    assert list(film.viewer.layers) == [film.reference]
