"""Whatever else is open, and however the view is turned: the slice that napari shows is the one that counts."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.widgets.dataset.case_request import SLICE, WHOLE, CaseChoices, PaintedClass, cut_of, resolve_case
from napari_nnunet.widgets.frame.layers import focus_of, position_in, voxel_in
from napari_nnunet.widgets.frame.ready import NotReadyError

SHAPE = (8, 24, 30)
MM, UM = ["mm"] * 3, ["um"] * 3


def numbered(shape=SHAPE):
    """An array that says of each voxel where it is."""
    return 1 + np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def shown(layer):
    """Where a layer's first voxel on the screen is, by what napari shows there."""
    value = layer.get_value((0,) * layer.ndim)
    return tuple(map(int, np.unravel_index(int(value) - 1, layer.data.shape))) if value else None


def seen(layer, dims):
    """The same by our own count."""
    return tuple(0 if place is None else place for place in voxel_in(layer, dims))


def case(image, labels, dims, extent=SLICE):
    step = voxel_in(labels, dims)
    classes = PaintedClass(0, "background"), PaintedClass(1, "organ")
    workspace = Workspace.around(image.metadata["folder"])
    return resolve_case(
        CaseChoices(workspace, None, None, "New", "c", (image,), ("CT",), labels, extent, step, "", classes)
    )


@pytest.fixture
def scene(tmp_path):
    """A viewer without a window, an image of numbered voxels, and labels over it."""
    viewer = ViewerModel()
    place = {"units": MM, "scale": (2, 0.5, 0.7)}
    image = viewer.add_image(numbered(), name="image", metadata={"folder": tmp_path}, **place)
    labels = viewer.add_labels(np.ones(SHAPE, np.uint8), name="painted", **place)
    return viewer, image, labels


def test_a_layer_in_another_unit_does_not_change_which_slice_is_taken(scene):
    viewer, image, labels = scene
    viewer.add_image(numbered(), units=UM, scale=(2000, 500, 700), name="other")
    viewer.dims.set_point(0, 6000)
    assert seen(labels, viewer.dims) == shown(image) == (3, 0, 0)
    assert case(image, labels, viewer.dims).channels[0][0, 0] == image.data[3, 0, 0]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_the_slice_of_a_rolled_view_is_taken_with_its_own_voxel_size(scene, order):
    viewer, image, labels = scene
    viewer.dims.order = order
    across = order[0]
    viewer.dims.set_point(across, 4 * image.scale[across])
    assert seen(labels, viewer.dims) == shown(image)
    new = case(image, labels, viewer.dims)
    np.testing.assert_array_equal(new.channels[0], np.take(image.data, 4, axis=across))
    assert new.labels.shape == new.channels[0].shape
    assert new.geometry.spacing == pytest.approx([size for axis, size in enumerate(image.scale) if axis != across])


@pytest.mark.parametrize("units", [["pixel"] * 3, MM])
@pytest.mark.parametrize("rotate", [(0, 20, 0), (20, 0, 0), (5, 10, 30)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_of_an_oblique_layer_the_slice_is_the_one_that_napari_draws(units, rotate, order):
    viewer = ViewerModel()
    image = viewer.add_image(numbered((20, 40, 40)), rotate=rotate, units=units)
    viewer.add_image(numbered((20, 40, 40)), translate=(-30, 0, 0), units=units)
    viewer.dims.order = order
    for point in (4, 10, 13):
        viewer.dims.set_point(order[0], point)
        assert seen(image, viewer.dims) == shown(image)


def test_layers_with_fewer_axes_than_the_viewer_have_their_own(scene):
    viewer, image, _ = scene
    flat = viewer.add_image(numbered((24, 30)), units=MM[:2], scale=(0.5, 0.7))
    viewer.add_image(numbered((3, *SHAPE)), units=["s", *UM], scale=(1, 2000, 500, 700))
    viewer.dims.set_point(1, 10_000)
    assert voxel_in(image, viewer.dims) == (5, None, None)
    assert voxel_in(flat, viewer.dims) == (None, None)
    viewer.dims.order = (1, 2, 0, 3)
    assert seen(image, viewer.dims) == shown(image)


def test_units_that_do_not_fit_together_are_plain_numbers_as_they_are_drawn(scene):
    viewer, image, labels = scene
    viewer.add_image(numbered(), units=UM)
    viewer.add_image(numbered(), units=["pixel"] * 3)
    assert viewer.dims.units is None
    viewer.dims.set_point(0, 6)
    assert seen(labels, viewer.dims) == shown(image) == (3, 0, 0)


def test_where_no_slice_is_seen_none_is_taken(scene):
    viewer, image, labels = scene
    viewer.add_image(numbered((30, 24, 30)), units=MM, scale=(2, 0.5, 0.7))
    viewer.dims.set_point(0, 30)
    assert shown(image) is None
    with pytest.raises(NotReadyError, match="stands at slice 15 of 'painted', which has those from 0 to 7. Move it"):
        case(image, labels, viewer.dims)
    assert cut_of(labels, SLICE, voxel_in(labels, viewer.dims))[0] == 7  # whose values the table counts meanwhile
    assert case(image, labels, viewer.dims, WHOLE).labels.shape == SHAPE
    viewer.dims.ndisplay = 3
    with pytest.raises(NotReadyError, match="No slice of 'painted' is the current one, as all are on the screen"):
        case(image, labels, viewer.dims)
    assert case(image, labels, viewer.dims, WHOLE).labels.shape == SHAPE


def series(viewer):
    names = ("t", "z", "y", "x")
    return viewer.add_image(numbered((10, 6, 20, 20)), units=("s", *MM), axis_labels=names, name="series")


def test_a_series_beside_a_layer_in_milliseconds_begins_at_what_is_seen():
    viewer = ViewerModel()
    image = series(viewer)
    viewer.add_labels(np.zeros((10, 6, 20, 20), int), units=("ms", *UM), scale=(1000,) * 4)
    viewer.dims.set_point((0, 1), (4000, 2000))
    assert shown(image) == (4, 2, 0, 0)
    assert position_in(image, viewer.dims) == [pytest.approx(4), pytest.approx(2), None, None]
    assert focus_of(image, "TZYX", viewer.dims) == (pytest.approx(2), None, None)
    viewer.dims.order = (0, 3, 1, 2)
    viewer.dims.set_point(3, 7000)
    assert focus_of(image, "TZYX", viewer.dims) == (None, None, pytest.approx(7))


@pytest.mark.gui
def test_the_current_time_point_is_the_one_on_the_screen(viewer, dock, model, qtbot):
    image = series(viewer)
    viewer.add_labels(np.zeros((20, 6, 20, 20), int), units=("ms", *UM), scale=(1000,) * 4)
    form = dock.form.image
    dock.add_model(model.folder)
    qtbot.waitUntil(lambda: form.axes == "TZYX")
    form.channel_boxes[0].value = image
    form.time_box.value = "Current time point"
    viewer.dims.set_point(0, 4000)
    assert form.times() == (4,)
    viewer.dims.set_point(0, 15_000)
    with pytest.raises(NotReadyError, match="stands at time point 15 of 'series', which has those from 0 to 9"):
        form.times()
    form.time_box.value = "All time points"
    assert form.times() == (9, *range(9))
    form.time_box.value = "Current time point"
    viewer.dims.order = (1, 2, 0, 3)
    with pytest.raises(NotReadyError, match="No time point of 'series' is the current one"):
        form.times()
