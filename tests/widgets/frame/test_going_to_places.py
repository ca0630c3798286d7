"""Who is shown a place sees that place, whatever units other layers have, and however the view is turned."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.widgets.frame.layers import voxel_in
from napari_nnunet.widgets.labelling.place_layers import look_at_place
from napari_nnunet.widgets.objects.look import go_to, on_screen, show_fullest_slice, show_voxel
from napari_nnunet.widgets.objects.repair import RepairTools
from napari_nnunet.widgets.training.layers import FilmLayers

SHAPE = (8, 20, 24)
ORDERS = [(0, 1, 2), (1, 0, 2), (2, 0, 1), (2, 1, 0)]


def shown(image):
    """Where the first voxel on the screen is, by what napari shows there."""
    return tuple(map(int, np.unravel_index(int(image.get_value((0, 0, 0))) - 1, image.data.shape)))


@pytest.fixture(params=["mm beside µm", "µm", "mm beside pixels"])
def scene(request):
    """A viewer with an image of numbered voxels and labels over it, and a layer in another unit."""
    viewer = ViewerModel()
    own, other = {"mm beside µm": ("mm", "um"), "µm": ("um", "um"), "mm beside pixels": ("mm", "pixel")}[request.param]
    place = {"units": [own] * 3, "scale": (2, 0.5, 0.7), "translate": (-3, 10, 0)}
    numbers = 1 + np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    image = viewer.add_image(numbers, **place)
    labels = viewer.add_labels(np.zeros(SHAPE, np.uint8), **place)
    viewer.add_image(np.zeros(SHAPE), units=[other] * 3, scale=(900, 600, 700))
    return viewer, image, labels


@pytest.mark.parametrize("order", ORDERS)
def test_the_slice_with_the_most_is_shown(scene, order):
    viewer, image, labels = scene
    labels.data[5, 3:6, 7] = 1
    labels.data[5, 4, 3:9] = 1
    viewer.dims.order = order
    show_fullest_slice(viewer, labels)
    assert shown(image)[order[0]] == (5, 4, 7)[order[0]]


def test_where_nothing_differs_the_view_stays(scene):
    viewer, _, labels = scene
    viewer.dims.set_point(0, viewer.dims.point[0])
    before = viewer.dims.point
    show_fullest_slice(viewer, labels)
    assert viewer.dims.point == before


@pytest.mark.parametrize("order", ORDERS)
def test_an_object_is_in_the_middle_of_the_view_and_close(scene, order):
    viewer, image, labels = scene
    viewer.dims.order = order
    viewer.scene.camera.zoom = 1e-4
    factor = 1000 if viewer.dims.units is not None and viewer.dims.units[0] != labels.units[0] else 1
    go_to(viewer, labels, (5, 4, 7))
    assert shown(image)[order[0]] == (5, 4, 7)[order[0]]
    world = np.asarray(labels.data_to_world((5, 4, 7))) * factor
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], world[list(order[1:])])
    step = max(labels.scale[list(order[1:])]) * factor  # of a voxel, as the view counts
    assert viewer.scene.camera.zoom * step == pytest.approx(2)
    go_to(viewer, labels, (2, 3, 3), closer=False)
    assert shown(image)[order[0]] == (2, 3, 3)[order[0]]


def test_a_suggested_place_is_shown_in_its_plane(scene):
    viewer, image, labels = scene
    place = SimpleNamespace(box=((0, 8), (6, 7), (0, 24)), middle=(4, 6, 5), partial=True)
    look_at_place(viewer, labels, place)
    assert viewer.dims.order == (1, 0, 2)
    assert shown(image)[1] == 6
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], on_screen(labels, (4, 6, 5), viewer.dims))


@pytest.mark.parametrize("units", ["pixel", "mm"])
@pytest.mark.parametrize("rotate", [(0, 20, 0), (20, 0, 0), (5, 10, 30)])
@pytest.mark.parametrize("order", ORDERS)
def test_of_an_oblique_layer_the_slice_with_the_voxel_is_shown(units, rotate, order):
    viewer = ViewerModel()
    shape = (20, 24, 28)
    numbers = 1 + np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    image = viewer.add_image(numbers, rotate=rotate, units=[units] * 3)
    viewer.dims.order = order
    for place in ((9, 10, 11), (12, 9, 14)):
        show_voxel(viewer, image, place)
        assert shown(image)[order[0]] == place[order[0]]


def test_a_click_means_the_object_that_is_seen_there(scene, qtbot):
    viewer, _, labels = scene
    labels.data[5, 4, 7], labels.data[5, 10, 7] = 3, 4
    tools = RepairTools(viewer, lambda: labels)
    qtbot.addWidget(tools)
    show_voxel(viewer, labels, (5, 4, 7))
    tools.use("out")
    world = np.array(viewer.dims.point)
    world[1:] = on_screen(labels, (5, 4, 7), viewer.dims)
    tools.click(labels, tuple(world))
    assert sorted(np.unique(labels.data)) == [0, 4]


def test_a_film_shows_its_last_frame_beside_layers_that_begin_elsewhere(tmp_path):
    for name in ("image", "reference", *"ab"):
        np.save(tmp_path / f"{name}.npy", np.full((6, 7), name == "b", np.uint8))
    viewer = ViewerModel()
    viewer.add_image(np.zeros((40, 6, 7)), translate=(-20, 0, 0), scale=(0.5, 1, 1))
    info = SimpleNamespace(labels=LabelScheme(labels={"background": 0, "organ": 1}))
    film = FilmLayers(viewer, tmp_path, info)
    film.update({1: str(tmp_path / "a.npy")})
    film.update({1: str(tmp_path / "a.npy"), 2: str(tmp_path / "b.npy")})
    assert voxel_in(film.labels, viewer.dims)[0] == 1
    assert film.labels.get_value((1, 3, 3)) == 1
    show_voxel(viewer, film.labels, (0, 0, 0))
    film.update({epoch: str(tmp_path / "a.npy") for epoch in (1, 2, 3)})
    assert voxel_in(film.labels, viewer.dims)[0] == 0  # who looks at another frame goes on doing so
