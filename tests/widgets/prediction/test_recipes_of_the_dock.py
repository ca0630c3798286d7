"""What the Segment dock copies, pasted into a fresh shell, gives its layer voxel by voxel, in many states of the form."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import SimpleITK as sitk
from docks import press
from napari.layers import Labels
from pasted import by_command, by_python

from helpers import smooth_image
from napari_nnunet.formats.images.files import read_labels

FRESH = bool(os.environ.get("NAPARI_NNUNET_FRESH"))  # in processes of their own, as people do it
SHAPE, SPACING = (12, 30, 28), (1.3, 0.9, 0.9)
STRAIGHT = np.eye(3)
FLIPPED = np.diag([-1.0, -1.0, 1.0])
COLOURS = {
    "channels": ("R", "G", "B"), "patch": (32, 32), "spacing": (1.0, 1.0), "configuration": "2d",
    "reader": "NaturalImage2DIO", "file_ending": ".png",
}  # fmt: skip


class Form:
    """The dock with a model and the files of a case, as somebody opened them."""

    def __init__(self, viewer, dock, qtbot, work):
        self.viewer, self.dock, self.qtbot, self.work = viewer, dock, qtbot, work
        self.image, self.files = dock.form.image, []
        for name in ("opened", "in"):
            (work / name).mkdir()

    def open(self, *arrays, direction=STRAIGHT):
        """Write the channels of a case and open them with our reader."""
        layers = []
        for c, array in enumerate(arrays):
            self.files.append(self.work / "opened" / f"scan {c}.nii.gz")
            image = sitk.GetImageFromArray(array)
            image.SetSpacing(SPACING[::-1])
            image.SetDirection(direction.ravel())
            sitk.WriteImage(image, str(self.files[-1]))
            layers += self.viewer.open(self.files[-1], plugin="napari-nnunet")
        return layers

    def press(self):
        self.qtbot.waitUntil(lambda: "GB of memory" in self.dock.summary.text() and not self.dock._later.isActive())
        press(self.qtbot, self.dock)
        result = self.viewer.layers.selection.active
        assert isinstance(result, Labels) and result.metadata["nnunet"]["partial"] is False, (
            self.dock.panel.status.text()
        )
        return result

    def pasted(self):
        """Return the labels of the command and those of Python."""
        texts, inputs = self.dock.result.after.texts(), []
        for c, file in enumerate(self.files):  # as the remark in the recipe says
            inputs.append(self.work / "in" / f"CASE_{c:04d}{''.join(file.suffixes)}")
            shutil.copy(file, inputs[-1])
        command = texts["command line"].replace("INPUT_FOLDER", str(self.work / "in"))
        command = command.replace("OUTPUT_FOLDER", str(self.work / "out"))
        out = by_command(command, self.work, fresh=FRESH)
        (found,) = [path for path in Path(out).iterdir() if path.name in ("CASE.nii.gz", "CASE.png")]
        python = by_python(texts["Python"], inputs, self.work, fresh=FRESH)
        return np.squeeze(read_labels(found)[0]), np.squeeze(python)


@pytest.fixture
def form(viewer, dock, qtbot, tmp_path):
    return Form(viewer, dock, qtbot, tmp_path)


def a_drawn_region(form, new_model):
    form.dock.add_model(new_model().folder)
    form.open(smooth_image(SHAPE)[0])
    corners = np.array([[6, 4, 5], [6, 4, 19], [6, 20, 19], [6, 20, 5]]) * SPACING
    form.image.region_box.value = form.viewer.add_shapes([corners], shape_type="rectangle", units=["mm"] * 3)


def a_typed_voxel_size(form, new_model):
    form.dock.add_model(new_model().folder)
    form.open(smooth_image(SHAPE)[0])
    form.image.spacing_edit.value = "2 × 1,1 × 0.95"


def a_time_point(form, new_model):
    form.dock.add_model(new_model().folder)
    (layer,) = form.open(smooth_image(SHAPE, seed=1)[0])
    series = np.stack([smooth_image(SHAPE)[0], layer.data])
    form.viewer.add_image(series, scale=(1, *SPACING), units=["s", "mm", "mm", "mm"], name="series")
    form.viewer.layers.remove(layer)
    form.image.axes_box.value = "TZYX"
    form.image.time_box.value = "Current time point"
    form.viewer.dims.set_point(0, 1)


def channels_in_another_order(form, new_model):
    form.dock.add_model(new_model(channels=("T1", "T2")).folder)
    for layer, box in zip(form.open(*smooth_image(SHAPE, channels=2)), form.image.channel_boxes, strict=True):
        box.value = layer
    first, second = form.image.layers()
    form.image.channel_boxes[0].value, form.image.channel_boxes[1].value = second, first
    form.files.reverse()


def with_postprocessing(form, new_model):
    form.dock.add_model(new_model().folder)
    form.open(smooth_image(SHAPE)[0])


def the_fast_quality(form, new_model):
    form.dock.add_model(new_model(folds=(0, 1, 2)).folder)
    form.open(smooth_image(SHAPE)[0])
    form.dock.form.preset_box.value = "fast"


def a_step_and_arithmetic_of_ones_own(form, new_model):
    form.dock.add_model(new_model(folds=(0, 1)).folder)
    form.open(smooth_image(SHAPE)[0])
    form.dock.form.mirroring_box.value = False
    form.dock.form.step_box.value = 0.7
    form.dock.form.precision_box.value = "float32"


def two_of_three_folds(form, new_model):
    form.dock.add_model(new_model(folds=(0, 1, 2)).folder)
    form.open(smooth_image(SHAPE)[0])
    form.dock.form.folds_box.value = ["0", "2"]
    form.image.output_box.value = "Labels and probabilities"


def a_picture(form, new_model):
    form.dock.add_model(new_model(**COLOURS).folder)
    picture = np.moveaxis(smooth_image((50, 60), channels=3), 0, -1).clip(0, 255).astype(np.uint8)
    form.files = [form.work / "opened" / "picture.png"]
    iio.imwrite(form.files[0], picture)
    form.viewer.add_image(picture, rgb=True, name="picture")


def a_volume_by_slices(form, new_model):
    form.dock.add_model(new_model(patch=(16, 16), spacing=(1.0, 1.0), configuration="2d", folds=(0, 1)).folder)
    form.open(smooth_image(SHAPE)[0])


def regions_of_a_flipped_volume(form, new_model):
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    form.dock.add_model(new_model(labels=labels, regions_class_order=(1, 2)).folder)
    form.open(smooth_image(SHAPE)[0], direction=FLIPPED)


STATES = (
    a_drawn_region, a_typed_voxel_size, a_time_point, channels_in_another_order, with_postprocessing, the_fast_quality,
    a_step_and_arithmetic_of_ones_own, two_of_three_folds, a_picture, a_volume_by_slices, regions_of_a_flipped_volume,
)  # fmt: skip


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_what_is_pasted_gives_the_layer(form, new_model, state):
    state(form, new_model)
    layer = form.press()
    if state is with_postprocessing:
        before = layer.data.copy()
        for box, _, _ in form.dock.result.after._targets[1:]:
            box.click()
            form.qtbot.waitUntil(lambda: not form.dock.result.after.busy)
        assert (layer.data != before).any()
    labels = layer.data[1] if state is a_time_point else layer.data
    assert len(np.unique(labels)) > 1
    command, python = form.pasted()
    np.testing.assert_array_equal(command, labels)
    np.testing.assert_array_equal(python, labels)


def test_of_a_corrected_layer_the_recipe_gives_what_was_before_and_says_so(form, new_model):
    form.dock.add_model(new_model().folder)
    form.open(smooth_image(SHAPE)[0])
    layer = form.press()
    before = layer.data.copy()
    layer.paint((6, 10, 10), 2)
    layer.paint((6, 20, 20), 1)
    assert (layer.data != before).any()
    form.qtbot.waitUntil(lambda: "corrected by hand" in form.dock.result.after.texts()["command line"])
    assert "corrected by hand" in form.dock.result.after.texts()["Python"]
    command, python = form.pasted()
    np.testing.assert_array_equal(command, before)
    np.testing.assert_array_equal(python, before)
