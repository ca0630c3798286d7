"""What is visible, and what was drawn, is found in the image, whatever else is open."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_nnunet.widgets.frame.ready import NotReadyError
from napari_nnunet.widgets.prediction.request import shape_box, visible_box

MM, UM = ["mm"] * 3, ["um"] * 3


def beside(ndim, shape, corners):
    """A viewer with some axes, and an image of which napari says that its corners are on the screen."""
    viewer = ViewerModel()
    viewer.add_image(np.zeros((10,) * ndim))
    image = viewer.add_image(np.zeros(shape, np.float32))
    image.corner_pixels = np.array(corners)
    return viewer, image


def test_of_a_picture_beside_a_volume_what_is_on_the_screen_is_visible():
    viewer, picture = beside(3, (40, 50), [[10, 12], [20, 30]])
    assert visible_box(picture, "YX", viewer.dims) == ((10, 21), (12, 31))


def test_of_a_volume_beside_a_series_what_is_on_the_screen_is_visible():
    viewer, volume = beside(4, (8, 40, 50), [[0, 10, 12], [0, 20, 30]])
    assert visible_box(volume, "ZYX", viewer.dims) == ((0, 8), (10, 21), (12, 31))
    viewer.dims.order = (0, 3, 1, 2)
    volume.corner_pixels = np.array([[2, 10, 0], [5, 20, 0]])
    assert visible_box(volume, "ZYX", viewer.dims) == ((2, 6), (10, 21), (0, 50))


def test_what_is_visible_beside_layers_in_other_units_is_not_guessed():
    """napari 0.9 passes over units where it counts which corner of a layer is on the screen."""
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((8, 40, 50)), units=MM, name="image")
    image.corner_pixels = np.array([[0, 10, 12], [0, 20, 30]])
    assert visible_box(image, "ZYX", viewer.dims) == ((0, 8), (10, 21), (12, 31))
    viewer.add_image(np.zeros((8, 40, 50)), units=UM)
    with pytest.raises(NotReadyError, match=r"visible of 'image' could not be determined, .* or draw a rectangle"):
        visible_box(image, "ZYX", viewer.dims)


@pytest.mark.parametrize("drawn", [MM, UM])
def test_what_was_drawn_in_another_unit_lies_where_it_is_seen(drawn):
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((6, 40, 40)), units=MM, scale=(2, 0.5, 0.5))
    viewer.add_image(np.zeros((6, 40, 40)), units=UM, scale=(2000, 500, 500))
    shapes = viewer.add_shapes(ndim=3, units=drawn)
    step = 1 if drawn == MM else 1000
    shapes.add(np.array([[4, 5, 5], [4, 5, 10], [4, 10, 10], [4, 10, 5]], float) * step)
    assert shape_box(image, "ZYX", shapes, viewer.dims) == ((0, 6), (10, 21), (10, 21))


def test_what_was_drawn_where_units_do_not_fit_together_lies_where_it_is_seen():
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((6, 40, 40)), units=MM)
    viewer.add_image(np.zeros((6, 40, 40)))
    shapes = viewer.add_shapes([[[2, 10, 10], [2, 10, 20], [2, 20, 20], [2, 20, 10]]], shape_type="rectangle", units=UM)
    assert viewer.dims.units is None
    assert shape_box(image, "ZYX", shapes, viewer.dims) == ((0, 6), (10, 21), (10, 21))
