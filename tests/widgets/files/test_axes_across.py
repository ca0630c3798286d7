"""Volumes whose axes run across those of the world, such as sagittal ones, are shown, and keep their place."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from docks import open_dock
from napari.layers import Labels

from helpers import smooth_image
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.grid import Grid, Same, relation
from napari_nnunet.widgets.dataset.case_request import SLICE, cut_of
from napari_nnunet.widgets.files.overlay import grid_of_layer, require_over
from napari_nnunet.widgets.files.place import ACROSS, geometry_to_save, placement
from napari_nnunet.widgets.files.reader import get_reader
from napari_nnunet.widgets.files.writer import write_labels_layer
from napari_nnunet.widgets.frame.ready import NotReadyError

SHAPE = (6, 10, 14)
WAYS = [(order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)]
SAGITTAL = (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def write(path, direction):
    image = sitk.GetImageFromArray(smooth_image(SHAPE)[0])
    image.SetDirection(direction)
    image.SetSpacing((0.9, 0.8, 2.5))
    image.SetOrigin((3.0, -40.0, 25.0))
    sitk.WriteImage(image, str(path))
    return path


def added(viewer, path):
    data, keywords, _ = get_reader(str(path))(str(path))[0]
    return viewer.add_image(data, **keywords)


def drawn(viewer, qtbot):
    """Let the canvas draw: what goes wrong there is raised."""
    for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        viewer.dims.order = order
        qtbot.wait(20)
        viewer.screenshot(flash=False)


def test_every_order_of_axes_is_shown_upright_and_keeps_its_place():
    for order, signs in WAYS:
        direction = np.zeros((3, 3))
        direction[list(order), range(3)] = signs
        angle = 0.2  # oblique besides
        turn = np.array([(np.cos(angle), -np.sin(angle), 0), (np.sin(angle), np.cos(angle), 0), (0, 0, 1)])
        for matrix in (direction, turn @ direction):
            geometry = read_volume_geometry(matrix)
            place = placement(geometry)
            shown = np.asarray(place.get("affine", np.eye(4)))[:3, :3]
            assert np.all(np.abs(np.diag(shown)) > 0.9)  # napari can invert what it draws of any two axes
            assert geometry_to_save(SHAPE, place, "ZYX") == geometry
            without = {name: value for name, value in place.items() if name != "metadata"}
            found = Grid(SHAPE, geometry_to_save(SHAPE, without, "ZYX"))
            assert isinstance(relation(Grid(SHAPE, geometry), found), Same)
            assert (place["axis_labels"] == ["z", "y", "x"]) is (order == (0, 1, 2))


def read_volume_geometry(matrix):
    from napari_nnunet.schema.geometry import Geometry

    return Geometry(spacing=(2.5, 0.8, 0.9), origin=(3.0, -40.0, 25.0), direction=tuple(map(float, matrix.ravel())))


@pytest.mark.gui
def test_a_sagittal_volume_is_drawn_and_what_is_made_over_it_is_saved_on_its_place(viewer, qtbot, tmp_path):
    path = write(tmp_path / "a.nii.gz", SAGITTAL)
    layer = added(viewer, path)
    drawn(viewer, qtbot)
    assert sorted(layer.axis_labels) == sorted(ACROSS)
    expected = read_volume([path]).geometry
    viewer._new_labels()  # napari's own button: some of its versions copy names of axes
    place = {name: getattr(layer, name) for name in ("scale", "translate", "affine", "units")}
    unnamed = viewer.add_labels(np.zeros(SHAPE, np.uint8), name="unnamed", **place)
    viewer.add_shapes([[[2, 1, 1], [2, 5, 5]]], shape_type="line", axis_labels=layer.axis_labels)
    viewer.add_points(np.ones((1, 3)), axis_labels=layer.axis_labels)
    here = read_volume([path], reader="SimpleITKIO").geometry
    for own in (viewer.layers[1], unnamed):
        assert isinstance(own, Labels) and own.data.shape == SHAPE
        own.data[2, 3:6, 4:9] = 1
        require_over(layer, own, "ZYX")
        drawn(viewer, qtbot)
        data, attributes, _ = own.as_layer_data_tuple()
        write_labels_layer(str(tmp_path / "own.nii.gz"), data, attributes)
        labels, geometry = read_labels(tmp_path / "own.nii.gz", reader="SimpleITKIO")
        np.testing.assert_array_equal(labels, own.data)
        assert isinstance(relation(Grid(SHAPE, here), Grid(SHAPE, geometry)), Same)
    assert isinstance(relation(Grid(SHAPE, expected), grid_of_layer(layer, "ZYX")), Same)


@pytest.mark.gui
def test_volumes_stored_in_another_order_do_not_pass_for_lying_over_each_other(viewer, tmp_path):
    first = added(viewer, write(tmp_path / "a.nii.gz", SAGITTAL))
    other = added(viewer, write(tmp_path / "b.nii.gz", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)))
    with pytest.raises(NotReadyError):
        require_over(first, other, "ZYX")
    require_over(first, added(viewer, tmp_path / "a.nii.gz"), "ZYX")


@pytest.mark.gui
def test_the_dock_reads_its_axes_as_they_are_stored(viewer, workspace, qtbot, tmp_path):
    added(viewer, write(tmp_path / "a.nii.gz", SAGITTAL))
    dock = open_dock(viewer, "Segment")
    qtbot.waitUntil(lambda: dock.form.image.axes == "ZYX")


@pytest.mark.gui
def test_volumes_that_look_alike_only_as_they_are_shown_do_not_lie_over_each_other(viewer, tmp_path):
    cube = smooth_image((9, 9, 9))[0]
    layers = []
    for name, direction in (("a", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)), ("b", SAGITTAL)):
        image = sitk.GetImageFromArray(cube)
        image.SetDirection(tuple(map(abs, direction)))
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
        layers.append(added(viewer, tmp_path / f"{name}.nii.gz"))
    np.testing.assert_allclose(layers[0].extent.world, layers[1].extent.world)
    with pytest.raises(NotReadyError, match="in another orientation"):
        require_over(*layers, "ZYX")


@pytest.mark.gui
@pytest.mark.parametrize("flipped", [True, False])
def test_the_slice_that_is_seen_becomes_the_case_whatever_else_is_open(viewer, qtbot, flipped):
    """napari's sliders count from the lowest end of all layers; a layer may run against them, or begin later."""
    image = np.zeros((8, 24, 24), np.float32)
    affine = np.diag([-1.0, 1.0, 1.0, 1.0]) if flipped else np.eye(4)
    place = {"affine": affine, "units": ["mm"] * 3}
    viewer.add_image(np.zeros((30, 24, 24), np.float32), name="longer", translate=(-20, 0, 0), units=["mm"] * 3)
    viewer.add_image(image + np.arange(8)[:, None, None], name="image", **place)
    labels = viewer.add_labels(np.zeros((8, 24, 24), np.uint8), name="painted", **place)
    labels.data[2, 5:9, 5:9] = 1
    dock = open_dock(viewer, "Training cases")
    dock.form.choose([viewer.layers["image"]], labels)
    viewer.dims.set_point(0, -2.0 if flipped else 2.0)
    dock.form.extent_box.value = SLICE
    assert cut_of(labels, SLICE, dock.form.choices().step)[0] == 2
