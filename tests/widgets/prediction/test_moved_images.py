"""A result goes on where its image lies: nothing that was begun or done before the image was moved passes for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.volume import digest_of
from napari_nnunet.widgets.prediction.many import open_images
from napari_nnunet.widgets.prediction.request import Choices, resolve
from napari_nnunet.widgets.prediction.result import ResultLayers

MIRRORED = np.diag([-1.0, 1.0, 1.0, 1.0])
MOVES = {
    "moved": {"translate": (50, 0, 0)},
    "mirrored": {"affine": MIRRORED},
    "turned": {"rotate": (0, 0, 30)},
    "sheared": {"shear": (0.1, 0, 0)},
    "scaled": {"scale": (2, 0.9, 0.7)},
    "in another unit": {"units": ["um"] * 3},
}


def choices_of(model, layer, spacing="2 0.8 0.7"):
    return Choices(model, (layer,), "ZYX", spacing, PredictSettings(), None, None, "Labels")


@pytest.fixture
def image():
    place = {"scale": (2, 0.8, 0.7), "translate": (3, 0, 0), "units": ["mm"] * 3}
    return Image(np.zeros((8, 24, 24), np.float32), name="image", **place)


def move(layer, changes):
    for name, value in changes.items():
        setattr(layer, name, value)


@pytest.mark.parametrize("moved", MOVES)
def test_a_cancelled_run_does_not_go_on_in_a_layer_that_lies_elsewhere(model, image, moved):
    before = resolve(choices_of(model, image))  # the voxel size is typed, so that it does not change
    result = ResultLayers(before)
    assert result.is_for(resolve(choices_of(model, image)))
    old = {name: getattr(image, name) for name in MOVES[moved]}
    move(image, MOVES[moved])
    after = resolve(choices_of(model, image))
    assert not result.is_for(after)
    again = ResultLayers(after).labels
    for corner in ((0, 0, 0), (7, 3, 5)):
        np.testing.assert_allclose(again.data_to_world(corner), image.data_to_world(corner))
    move(image, old)
    assert result.is_for(resolve(choices_of(model, image)))


def test_what_a_reader_rounds_is_no_move(model):
    data, size = np.zeros((8, 24, 24), np.float32), np.array((0.0005, 0.00031, 0.00031))
    image = Image(data, scale=size, translate=(1e3, -1e3, 7), units=["m"] * 3)
    before = ResultLayers(resolve(choices_of(model, image)))
    image.scale, image.translate = size * (1 + 1e-12), np.array((1e3, -1e3, 7)) * (1 + 1e-12)
    assert before.is_for(resolve(choices_of(model, image)))
    image.translate = (1e3 + 0.01, -1e3, 7)
    assert not before.is_for(resolve(choices_of(model, image)))


@pytest.mark.parametrize("moved", ["moved", "mirrored"])
def test_a_result_of_before_is_none_of_an_image_that_was_moved(model, image, moved):
    viewer = ViewerModel()
    viewer.add_layer(image)
    result = ResultLayers(resolve(choices_of(model, image, "")))
    viewer.add_layer(result.labels)
    result.labels.metadata["nnunet"] = {"partial": False, "request": result.request.key, "model": str(Path())}
    result.leave({}).looked.append(digest_of(image.data))  # as a run does
    every = choices_of(model, None, "")
    assert open_images(every, [image], {}, viewer.layers).done == (result.labels,)
    move(image, MOVES[moved])
    assert open_images(every, [image], {}, viewer.layers).done == (None,)
