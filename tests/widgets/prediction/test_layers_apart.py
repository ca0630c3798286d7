"""Channels and compared layers lie over each other, voxels have the model's size: or the dock says so and mends it."""

from __future__ import annotations

import numpy as np
import pytest
from docks import MM, open_dock, press, wait_until_idle
from napari.layers import Image, Labels

from helpers import smooth_image
from napari_nnunet.engine.image.overlay import laid_over
from napari_nnunet.grid import Grid
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.widgets.files.overlay import ApartError, require_over
from napari_nnunet.widgets.frame.ready import NotReadyError

SHAPE = (4, 10, 8)
MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])


def _layer(name, **place):
    return Image(np.zeros(SHAPE, np.float32), name=name, **{"scale": (2.0, 1.0, 1.0), "units": MM, **place})


@pytest.mark.parametrize(
    ("place", "words", "mendable"),
    [
        ({"translate": (0, 20, 0)}, "'a' and 'b' show different places: places 20 mm apart", False),
        ({"translate": (0, 2, 0)}, "'a' and 'b' do not lie over each other: places 2 mm apart", True),
        ({"scale": (2.0, 1.1, 1.0)}, "do not lie over each other: voxels of 2 x 1 x 1 mm and 2 x 1.1 x 1 mm", True),
        ({"rotate": (10, 0, 0)}, "do not lie over each other: another direction of the axes", True),
        ({"shear": (0.0, 0.0, 0.2)}, "do not lie over each other", True),
        ({"units": ["um"] * 3}, "voxels of 2 x 1 x 1 mm and 0.002 x 0.001 x 0.001 mm", None),
        (
            {"affine": MIRROR, "translate": (0, -9, 0)},
            "'b' has the voxels of 'a' in another orientation: mirrored along y",
            True,
        ),
    ],
)
def test_layers_that_lie_elsewhere_are_told_apart(place, words, mendable):
    with pytest.raises(ApartError) as found:
        require_over(_layer("a"), _layer("b", **place), "ZYX")
    assert words in str(found.value)
    assert mendable is None or found.value.mendable == mendable


def test_layers_in_the_same_place_pass_whatever_says_so():
    turned = {"rotate": (20, 30, 40), "scale": (2.0, 1.0, 1.0), "translate": (3, 4, 5)}
    first = _layer("a", **turned)
    affine = np.asarray(first._transforms["data2physical"].affine_matrix)
    require_over(first, _layer("b", scale=(1, 1, 1), affine=affine), "ZYX")
    require_over(first, _layer("b", **turned | {"scale": (2000.0, 1000.0, 1000.0), "units": ["um"] * 3}
                               | {"translate": (3000, 4000, 5000)}), "ZYX")  # fmt: skip
    require_over(_layer("a", units=["pixel"] * 3), _layer("b", units=["pixel"] * 3), "ZYX")


def test_a_layer_in_pixels_is_not_guessed_to_lie_over_one_in_mm():
    with pytest.raises(NotReadyError, match="'b' is in pixels and 'a' has a voxel size"):
        require_over(_layer("a"), _layer("b", units=["pixel"] * 3), "ZYX")


@pytest.mark.parametrize("labels", [True, False])
def test_what_is_laid_over_shows_the_same_place(labels):
    def grid(shape, spacing, origin):
        return Grid(shape, Geometry(spacing=spacing, origin=origin, direction=tuple(np.eye(3).ravel())))

    fine, coarse = (
        grid((8, 12, 10), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
        grid((4, 6, 5), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0)),
    )
    values = np.arange(8 * 12 * 10).reshape(fine.shape).astype(np.int16)
    there = laid_over(values, fine, coarse, labels=labels)
    np.testing.assert_array_equal(there, values[::2, ::2, ::2])
    assert there.dtype == values.dtype
    moved = grid((8, 12, 10), (1.0, 1.0, 1.0), (0.0, 3.0, 0.0))
    expected = np.zeros_like(values)
    expected[:, :-3] = values[:, 3:]
    np.testing.assert_array_equal(laid_over(values, fine, moved, labels=labels), expected)


def test_a_mirrored_channel_is_turned_by_the_button_and_segmented(viewer, dock, new_model, qtbot):
    both = smooth_image((12, 24, 24), channels=2)
    dock.add_model(new_model(name="Dataset002_Two", channels=("T1", "T2")).folder)
    first = viewer.add_image(both[0], name="T1", units=MM)
    viewer.add_image(both[1][:, ::-1], name="T2", units=MM, affine=MIRROR, translate=(0, -23, 0))
    boxes = dock.form.image.channel_boxes
    boxes[0].value, boxes[1].value = first, viewer.layers["T2"]
    qtbot.waitUntil(lambda: "mirrored along y" in dock.summary.text())
    assert not dock.panel.button.isEnabled()
    assert dock.panel.remedy.text() == "Lay 'T2' over 'T1'"
    dock.panel.remedy.click()
    wait_until_idle(qtbot, dock)
    assert boxes[1].value.name == "T2 over T1"
    np.testing.assert_array_equal(boxes[1].value.data, both[1])
    qtbot.waitUntil(lambda: dock.panel.button.isEnabled())
    assert not dock.panel.remedy.isVisible()
    boxes[1].value = first
    qtbot.waitUntil(lambda: "'T1' is chosen for two channels" in dock.summary.text())


def test_a_voxel_size_a_thousand_times_off_is_asked_about(viewer, dock, model, qtbot):
    dock.add_model(model.folder)
    layer = viewer.add_image(smooth_image((12, 20, 20))[0], name="image", units=["um"] * 3)
    qtbot.waitUntil(lambda: "Is the unit right" in dock.summary.text())
    assert not dock.panel.button.isEnabled()
    assert "0.001 x 0.001 x 0.001 mm; the model was trained on 1 x 1 x 1 mm" in dock.summary.text()
    layer.units = MM
    qtbot.waitUntil(lambda: "GB of memory" in dock.summary.text())
    layer.scale = (30, 30, 30)
    qtbot.waitUntil(lambda: "Is the unit right" in dock.summary.text())
    dock.panel.remedy.click()
    qtbot.waitUntil(lambda: "GB of memory" in dock.summary.text())
    assert dock.request().settings.any_spacing
    layer.scale = (1000, 1000, 1000)  # another size is another question
    qtbot.waitUntil(lambda: "Is the unit right" in dock.summary.text())


@pytest.mark.parametrize("scope", ["This image", "All open images"])
def test_intensities_of_another_modality_are_said_with_the_result(viewer, dock, model, qtbot, scope):
    dock.add_model(model.folder)
    viewer.add_image(100 * smooth_image((12, 20, 20))[0], name="image", units=MM)
    dock.form.image.scope.box.value = scope
    qtbot.waitUntil(lambda: "memory" in dock.summary.text() and not dock._later.isActive())
    press(qtbot, dock)
    assert "is it another modality?" in dock.panel.status.text()


def test_a_typed_voxel_size_belongs_to_its_layer(viewer, dock, model, qtbot):
    dock.add_model(model.folder)
    image, edit = smooth_image((12, 20, 20))[0], dock.form.image.spacing_edit
    unknown = viewer.add_image(image, name="unknown")
    edit.value = "2 1 1"
    qtbot.waitUntil(lambda: "2 × 1 × 1 mm" in dock.summary.text())
    known = viewer.add_image(image, name="known", units=MM, scale=(1.5, 1, 1))
    dock.form.image.channel_boxes[0].value = known
    qtbot.waitUntil(lambda: "1.5 × 1 × 1 mm" in dock.summary.text())
    assert edit.value == ""
    dock.form.image.channel_boxes[0].value = unknown
    assert edit.value == "2 1 1"


def test_a_picture_in_micrometres_is_seen_as_the_model_learned_it(viewer, dock, new_model, qtbot):
    recipe = {"patch": (16, 16), "spacing": (1.0, 1.0), "configuration": "2d", "file_ending": ".png"}
    dock.add_model(new_model(name="Dataset003_Png", reader="NaturalImage2DIO", **recipe).folder)
    viewer.add_image(smooth_image((20, 24))[0], name="picture", units=["um"] * 2, scale=(0.5, 0.5))
    qtbot.waitUntil(lambda: "trained without voxel sizes" in dock.summary.text())
    request = dock.request()
    assert request.grid.spacing == (1.0, 1.0)
    assert request.voxel_mm == pytest.approx((5e-4, 5e-4))


def test_compared_layers_that_lie_apart_are_refused_and_laid_over_each_other(viewer, qtbot):
    compare = open_dock(viewer, "Compare")
    one = np.zeros(SHAPE, np.uint8)
    one[1:3, 3:7, 2:6] = 1
    first = viewer.add_labels(one, name="A", units=MM)
    second = viewer.add_labels(one[:, ::-1], name="B", units=MM, affine=MIRROR, translate=(0, -9, 0))
    compare.form.first_box.value, compare.form.second_box.value = first, second
    qtbot.waitUntil(lambda: "mirrored along y" in compare.summary.text())
    assert not compare.panel.button.isEnabled()
    compare.panel.remedy.click()
    wait_until_idle(qtbot, compare)
    assert isinstance(compare.form.second_box.value, Labels)
    qtbot.waitUntil(lambda: compare.panel.button.isEnabled())
    press(qtbot, compare)
    assert compare.title.text() == "Both are identical."
    second.translate = (0, 60, 0)
    compare.form.second_box.value = second
    qtbot.waitUntil(lambda: "show different places" in compare.summary.text())
    assert not compare.panel.remedy.isVisible()


def test_what_a_comparison_found_is_never_compared_itself(viewer, qtbot):
    compare = open_dock(viewer, "Compare")
    one, two = np.zeros((2, *SHAPE), np.uint8)
    two[0, 1, 1] = 1
    first, second = (viewer.add_labels(array, name=name) for array, name in ((one, "A"), (two, "B")))
    compare.form.first_box.value, compare.form.second_box.value = first, second
    qtbot.waitUntil(lambda: compare.panel.button.isEnabled())
    press(qtbot, compare)
    viewer.layers.remove(second)
    assert compare.form.second_box.value is None
    first.data = np.zeros((5, 5), np.uint8)
    compare.run()
    assert "Open two Labels layers" in compare.summary.text()
