"""Layers whose axes have no names beside volumes that are stored across the world's: told by what they lie over."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from helpers import smooth_image
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.grid import Grid, Same, relation
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.widgets.files import overlay
from napari_nnunet.widgets.files.overlay import ApartError, require_over
from napari_nnunet.widgets.files.place import geometry_to_save, placement
from napari_nnunet.widgets.files.writer import write_labels_layer

SHAPE = (6, 10, 14)
SAGITTAL = Geometry(
    spacing=(2.5, 0.8, 0.9), origin=(3.0, -40.0, 25.0), direction=(0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
)
#: As another plugin places an upright volume: in mm, without names of axes.
UPRIGHT = {"scale": (3, 1, 1), "translate": (10, -5, 7), "units": ["mm"] * 3}


@pytest.fixture
def model(monkeypatch):
    viewer = ViewerModel()
    monkeypatch.setattr("napari.current_viewer", lambda: viewer)
    warned = []
    monkeypatch.setattr(overlay, "show_warning", warned.append)
    return viewer, warned


def saved(layer, path):
    data, attributes, _ = layer.as_layer_data_tuple()
    write_labels_layer(str(path), data, attributes)
    return read_labels(path, reader="SimpleITKIO")[1]


def test_labels_over_a_volume_of_another_plugin_stay_where_that_lies(model, tmp_path):
    viewer, warned = model
    viewer.add_image(smooth_image(SHAPE)[0], name="sagittal", **placement(SAGITTAL))
    other = viewer.add_image(smooth_image((8, 20, 22))[0], name="upright", **UPRIGHT)
    viewer.layers.selection.active = other
    viewer._new_labels()
    found = saved(viewer.layers[-1], tmp_path / "a.nii.gz")
    assert np.allclose(np.reshape(found.direction, (3, 3)), np.eye(3)) and np.allclose(found.origin, (7, -5, 10))
    assert len(warned) == 1 and "does not say what its axes are" in warned[0]


def test_labels_over_nothing_take_the_order_that_all_volumes_have(model, tmp_path):
    viewer, warned = model
    source = viewer.add_image(smooth_image(SHAPE)[0], name="sagittal", **placement(SAGITTAL))
    part = viewer.add_labels(np.ones((6, 4, 5), int), scale=source.scale, affine=source.affine, units=["mm"] * 3)
    found = Grid((6, 4, 5), saved(part, tmp_path / "a.nii.gz"))
    assert isinstance(relation(Grid((6, 4, 5), SAGITTAL), found), Same) and not warned


def test_layers_of_which_one_has_no_names_are_not_laid_over_each_other_by_guess():
    across = Labels(np.ones(SHAPE, int), name="across", **placement(SAGITTAL))
    made = Labels(np.ones(SHAPE, int), name="made", scale=across.scale, affine=across.affine, units=across.units)
    require_over(across, made, "ZYX")  # as napari makes labels over an image
    with pytest.raises(ApartError, match="'other' does not say what its axes are, and 'across' is stored") as caught:
        require_over(across, Labels(np.ones((12, 10, 14), int), name="other", **UPRIGHT), "ZYX")
    assert not caught.value.mendable
    really = Grid(SHAPE, SAGITTAL).matrix  # the same voxels as they really lie, from somewhere else
    upright = np.asarray(really)[[2, 1, 0, 3]]
    order = np.argmax(np.abs(upright[:3, :3]), axis=1)  # the axis of the array along z, y, x
    turned = Labels(
        np.ones([SHAPE[axis] for axis in order], int),
        name="turned",
        affine=upright[:, [*order, 3]],
        units=["mm"] * 3,
    )
    with pytest.raises(ApartError, match="'turned' has the voxels of 'across' in another orientation") as caught:
        require_over(across, turned, "ZYX")
    assert caught.value.mendable


def test_a_sagittal_layer_whose_axes_got_other_names_keeps_its_place():
    layer = Labels(np.ones(SHAPE, int), **placement(SAGITTAL))
    layer.axis_labels = ("sagittal", "z", "y")
    assert geometry_to_save(SHAPE, layer.as_layer_data_tuple()[1], "ZYX") == SAGITTAL
    layer.translate = (5, 0, 0)
    assert geometry_to_save(SHAPE, layer.as_layer_data_tuple()[1], "ZYX") != SAGITTAL
