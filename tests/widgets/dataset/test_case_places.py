"""A case is what is seen: labels and channels that lie elsewhere than the image are refused, and laid over it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from casework import MM, press, refused, settled
from napari.layers import Image

from helpers import smooth_image
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import drain
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.grid import Grid, Same, relation
from napari_nnunet.jobs.dataset.cases import add_case
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.widgets.dataset.case_request import SLICE
from napari_nnunet.widgets.files import overlay
from napari_nnunet.widgets.files.place import placement
from napari_nnunet.widgets.files.writer import write_case

SHAPE = (6, 10, 12)
RAS = Geometry(spacing=(2.0, 0.5, 0.5), origin=(3.0, -4.0, 5.0), direction=(-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))
SAGITTAL = (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def image(viewer, name, geometry=RAS, **kwargs):
    return viewer.add_image(smooth_image(SHAPE)[0], name=name, **{**placement(geometry), **kwargs})


def spot():
    painted = np.zeros(SHAPE, int)
    painted[2, 3, 4] = 1
    return painted


def chosen(cases, images, labels):
    """Choose layers for a new dataset of one class."""
    cases.form.name_edit.value = "Spots"
    cases.form.choose(images, labels)
    for (_, edit), layer in zip(cases.form.rows, images, strict=True):
        edit.value = layer.name


def ready(cases, qtbot):
    """Name the class and wait until the case can be saved."""
    settled(cases, qtbot)
    cases.form.table.item(1, 2).setText("spot")
    qtbot.waitUntil(lambda: "Will add" in cases.summary.text())


def test_labels_that_napari_makes_over_two_flipped_images_are_laid_over_them(viewer, cases, home, qtbot):
    first, second = image(viewer, "T1"), image(viewer, "T2")
    viewer.layers.selection = {first, second}
    viewer._new_labels()
    labels = viewer.layers[-1]
    assert labels.data.shape == SHAPE and np.allclose(labels.affine.affine_matrix, np.eye(4))
    seen = labels.world_to_data(first.data_to_world((1, 2, 3)))
    labels.data[tuple(np.round(seen).astype(int))] = 1
    labels.refresh()
    chosen(cases, [first], labels)
    refused(cases, qtbot, f"'{labels.name}' has the voxels of 'T1' in another orientation: mirrored along")
    assert cases.panel.remedy.text() == f"Lay '{labels.name}' over 'T1'"
    cases.panel.remedy.click()
    qtbot.waitUntil(lambda: cases.form.labels is not labels)
    laid = cases.form.labels
    assert np.argwhere(laid.data).tolist() == [[1, 2, 3]]
    ready(cases, qtbot)
    press(cases, qtbot)
    dataset = home / "nnUNet_raw" / "Dataset001_Spots"
    saved, geometry = read_labels(dataset / "labelsTr" / "T1.nii.gz")[:2]
    assert np.argwhere(saved).tolist() == [[1, 2, 3]]
    stored = read_volume([dataset / "imagesTr" / "T1_0000.nii.gz"]).geometry
    assert isinstance(relation(Grid(SHAPE, RAS), Grid(SHAPE, stored)), Same)
    assert isinstance(relation(Grid(SHAPE, RAS), Grid(SHAPE, geometry)), Same)


def test_places_count_where_nobody_says_units(viewer, cases, qtbot):
    first = image(viewer, "T1")
    plain = viewer.add_labels(spot(), name="plain", scale=first.scale)
    chosen(cases, [first], plain)
    refused(cases, qtbot, "'plain'")
    plain.affine = first.affine
    ready(cases, qtbot)


def test_channels_lie_over_each_other(viewer, cases, qtbot):
    first = image(viewer, "T1")
    upright = RAS.model_copy(update={"direction": tuple(map(float, np.eye(3).ravel()))})
    other = image(viewer, "T2", upright)
    labels = viewer.add_labels(spot(), name="labels", **placement(RAS))
    cases.form.more.click()
    chosen(cases, [first, other], labels)
    refused(cases, qtbot, "'T1' and 'T2' show different places")
    other.affine, other.translate = first.affine, first.translate
    ready(cases, qtbot)


def test_the_writer_refuses_layers_that_lie_apart(viewer, cases, home, qtbot):
    first = image(viewer, "T1")
    labels = viewer.add_labels(spot(), name="labels", scale=RAS.spacing, units=MM)
    over = viewer.add_labels(spot(), name="over", **placement(RAS))
    chosen(cases, [first], over)
    ready(cases, qtbot)
    press(cases, qtbot)
    target = str(home / "nnUNet_raw" / "Dataset001_Spots" / "b.nnunet")
    with pytest.raises(DatasetError, match="'labels'"):
        write_case(target, [first.as_layer_data_tuple(), labels.as_layer_data_tuple()])
    written = write_case(target, [first.as_layer_data_tuple(), over.as_layer_data_tuple()])
    assert len(written) == 2


def test_an_image_that_was_derived_without_names_of_axes_is_saved_where_its_source_lies(viewer, cases, home, qtbot):
    geometry = RAS.model_copy(update={"direction": SAGITTAL})
    source = image(viewer, "T1", geometry)
    derived = viewer.add_layer(
        Image(np.asarray(source.data) + 1, name="smooth", scale=source.scale, affine=source.affine, units=source.units)
    )
    labels = viewer.add_labels(spot(), name="labels", scale=source.scale, affine=source.affine, units=MM)
    chosen(cases, [derived], labels)
    ready(cases, qtbot)
    assert isinstance(relation(Grid(SHAPE, geometry), Grid(SHAPE, cases.request().geometry)), Same)
    press(cases, qtbot)
    stored = read_volume([home / "nnUNet_raw" / "Dataset001_Spots" / "imagesTr" / "smooth_0000.nii.gz"]).geometry
    assert isinstance(relation(Grid(SHAPE, geometry), Grid(SHAPE, stored)), Same)
    target = str(home / "nnUNet_raw" / "Dataset001_Spots" / "b.nnunet")
    write_case(target, [derived.as_layer_data_tuple(), labels.as_layer_data_tuple()])
    again = read_labels(home / "nnUNet_raw" / "Dataset001_Spots" / "labelsTr" / "b.nii.gz")[1]
    assert isinstance(relation(Grid(SHAPE, geometry), Grid(SHAPE, again)), Same)


def test_the_table_follows_the_slice_that_is_seen(viewer, cases, home, qtbot):
    upright = Geometry(spacing=(2.0, 0.5, 0.5))
    first = image(viewer, "T1", upright)
    painted = np.zeros(SHAPE, int)
    painted[1, :3], painted[3, :3], painted[3, 4:6] = 7, 1, 7
    labels = viewer.add_labels(painted, name="labels", **placement(upright))
    chosen(cases, [first], labels)
    viewer.dims.set_point(0, 2.0)
    cases.form.extent_box.value = SLICE
    qtbot.waitUntil(lambda: "7 → 1 class_7" in settled(cases, qtbot))
    old = cases.request()
    viewer.dims.set_point(0, 6.0)
    qtbot.waitUntil(lambda: "Labels: 1 class_1, 7 → 2 class_7" in settled(cases, qtbot))
    press(cases, qtbot)
    dataset = home / "nnUNet_raw" / "Dataset001_Spots"
    saved = read_labels(dataset / "labelsTr" / "T1.nii.gz")[0]
    assert np.unique(saved, return_counts=True)[1].tolist() == [60, 36, 24]
    with pytest.raises(DatasetError, match="The labels of T1 now hold 1, to which no class was given"):
        drain(add_case(replace(old, labels=painted[3])))


def test_multiscale_labels_become_a_case(viewer, cases, home, qtbot):
    fine, painted = smooth_image(SHAPE)[0], spot()
    place = placement(RAS)
    first = viewer.add_image([fine, fine[:, ::2, ::2]], multiscale=True, name="T1", **place)
    labels = viewer.add_labels([painted, painted[:, ::2, ::2]], multiscale=True, name="labels", **place)
    chosen(cases, [first], labels)
    ready(cases, qtbot)
    press(cases, qtbot)
    saved = read_labels(home / "nnUNet_raw" / "Dataset001_Spots" / "labelsTr" / "T1.nii.gz")[0]
    np.testing.assert_array_equal(saved, painted)


def test_an_axis_in_pixels_is_asked_about(viewer, cases, qtbot):
    place = {"scale": (1, 0.3, 0.3), "units": ("pixel", "um", "um")}
    first = viewer.add_image(smooth_image(SHAPE)[0], name="T1", **place)
    chosen(cases, [first], viewer.add_labels(spot(), name="labels", **place))
    refused(cases, qtbot, "'T1' has no voxel size: it is in pixels along z")
    cases.form.spacing_edit.value = "0.001 0.0003 0.0003"
    ready(cases, qtbot)


def test_names_that_were_typed_come_back_with_their_slice(viewer, cases, qtbot):
    upright = Geometry(spacing=(2.0, 0.5, 0.5))
    first = image(viewer, "T1", upright)
    painted = np.zeros(SHAPE, int)
    painted[1, :3], painted[3, :3] = 7, 1
    labels = viewer.add_labels(painted, name="labels", **placement(upright))
    chosen(cases, [first], labels)
    viewer.dims.set_point(0, 2.0)
    cases.form.extent_box.value = SLICE
    qtbot.waitUntil(lambda: "7 → 1 class_7" in settled(cases, qtbot))
    cases.form.table.item(1, 2).setText("tumour")
    for place, said in ((6.0, "Labels: 1 class_1"), (2.0, "7 → 1 tumour")):
        viewer.dims.set_point(0, place)
        qtbot.waitUntil(lambda said=said: said in settled(cases, qtbot))
    cases.form.extent_box.value = "Whole volume"
    qtbot.waitUntil(lambda: "Labels: 1 class_1, 7 → 2 tumour" in settled(cases, qtbot))


def test_what_a_doubtful_volume_is_taken_for_is_asked_once(viewer, cases, home, qtbot, monkeypatch):
    warned, asked = [], []
    monkeypatch.setattr(overlay, "show_warning", warned.append)
    monkeypatch.setattr(cases, "confirmed", lambda question: asked.append(question))
    image(viewer, "sagittal", RAS.model_copy(update={"direction": SAGITTAL}))
    crop = viewer.add_image(smooth_image((4, 8, 8))[0], name="crop", scale=(2, 0.5, 0.5), units=MM)
    painted = np.zeros((4, 8, 8), int)
    painted[1, 2, 3] = 1
    labels = viewer.add_labels(painted, name="labels", scale=(2, 0.5, 0.5), units=MM)
    chosen(cases, [crop], labels)
    ready(cases, qtbot)
    press(cases, qtbot)
    assert not warned and len(asked) == 1 and "'crop' does not say what its axes are" in asked[0]
    assert not (home / "nnUNet_raw" / "Dataset001_Spots").exists()


def test_a_voxel_size_that_was_typed_stays_with_its_image(viewer, cases, home, qtbot):
    """It overruled what the next image knows, whose place was lost, too."""
    first = viewer.add_image(smooth_image(SHAPE)[0], name="pixels")
    labels = viewer.add_labels(spot(), name="labels")
    chosen(cases, [first], labels)
    cases.form.spacing_edit.value = "3 1 1"
    ready(cases, qtbot)
    press(cases, qtbot)
    lies = Geometry(spacing=(2.0, 0.5, 0.5), origin=(5.0, 6.0, 7.0))
    second = image(viewer, "known", lies)
    chosen(cases, [second], viewer.add_labels(spot(), name="other labels", **placement(lies)))
    assert cases.form.spacing_edit.value == ""
    ready(cases, qtbot)
    press(cases, qtbot)
    saved = read_labels(home / "nnUNet_raw" / "Dataset001_Spots" / "labelsTr" / "known.nii.gz")[1]
    assert (saved.spacing, saved.origin) == (lies.spacing, lies.origin)
    chosen(cases, [first], labels)
    assert cases.form.spacing_edit.value == "3 1 1"
