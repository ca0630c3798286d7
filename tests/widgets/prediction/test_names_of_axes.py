"""Axes of a layer that have names are taken for nothing else without a word."""

import numpy as np
import pytest
from napari.layers import Image

from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.widgets.frame.ready import NotReadyError
from napari_nnunet.widgets.prediction.request import Choices, default_axes, resolve


def layer_of(names, shape):
    units = [{"t": "s", "c": "pixel"}.get(name[0], "mm") for name in names]
    return Image(np.zeros(shape, np.float32), axis_labels=names, units=units, name="image")


@pytest.mark.parametrize(("names", "shape", "first"), [
    (("t", "y", "x"), (9, 20, 20), "TYX"), (("axis -3", "y", "x"), (9, 20, 20), "ZYX"),
    (("z", "y", "x"), (9, 20, 20), "ZYX"), (("z", "time", "y", "x"), (9, 3, 20, 20), "ZTYX"),
    (("c", "z", "y", "x"), (1, 9, 20, 20), "TZYX"),
])  # fmt: skip
def test_the_first_reading_is_that_of_the_names(model, names, shape, first):
    assert default_axes(model, [layer_of(names, shape)])[0] == first


@pytest.mark.parametrize(("names", "shape", "said"), [
    (("t", "y", "x"), (9, 20, 20), "The model is three-dimensional, but 'image' is read as TYX, without a Z axis"),
    (("c", "z", "y", "x"), (3, 9, 20, 20), "the model takes 1 channel, and no axis has one entry. Right-click the"),
    (("t", "c", "z", "y", "x"), (2, 3, 9, 20, 20), "'image' has 5 axes .* takes 1 channel, and no axis has one entry"),
])  # fmt: skip
def test_time_and_channels_are_not_taken_for_something_else(model, names, shape, said):
    layer = layer_of(names, shape)
    axes = (*default_axes(model, [layer]), "")[0]
    with pytest.raises(NotReadyError, match=said):
        resolve(Choices(model, (layer,), axes, "1 1 1", PredictSettings(), None, None, "Labels"))
