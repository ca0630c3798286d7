"""The Segment dock, driven in a real window."""

from __future__ import annotations

import json
import threading
import time

import dask.array as da
import numpy as np
import pytest
import SimpleITK as sitk
from docks import PATIENCE, Halting
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt

from helpers import smooth_image
from napari_nnunet.cli import main
from napari_nnunet.events import Painted, Progress
from napari_nnunet.widgets.frame.panel import RunState
from napari_nnunet.widgets.prediction import segment_dock

MM = ["mm"] * 3


def _ready(dock, qtbot):
    qtbot.waitUntil(lambda: "GB of memory" in dock.summary.text() and not dock._later.isActive())


def _refused(dock, qtbot, words):
    qtbot.waitUntil(lambda: words in dock.summary.text())
    assert not dock.panel.button.isEnabled()
    assert words in dock.panel.button.toolTip()


def _run(dock, qtbot):
    qtbot.mouseClick(dock.panel.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: dock.panel.state is RunState.IDLE)


def _image(viewer, shape=(12, 30, 28), **kwargs):
    return viewer.add_image(smooth_image(shape)[0], **{"units": MM[: len(shape)], "name": "image", **kwargs})


def _result(viewer, name="image – 3d_fullres"):
    return viewer.layers[name]


@pytest.fixture
def tiny(dock, model):
    dock.add_model(model.folder)
    return model


def test_without_an_image_run_is_disabled_and_says_why(dock, qtbot):
    _refused(dock, qtbot, "Open an image first")


def test_the_sample_is_segmented_in_two_clicks(viewer, dock, qtbot):
    viewer.open_sample("napari-nnunet", "nuclei_and_shells")
    _ready(dock, qtbot)
    assert "32 × 96 × 96 voxels of 1 × 0.5 × 0.5 µm" in dock.summary.text()
    _run(dock, qtbot)
    result, truth = _result(viewer, "nuclei and shells – 3d_fullres"), viewer.layers["truth"]
    for label in (1, 2):
        a, b = result.data == label, truth.data == label
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.95
    assert dock.result.table.table.item(0, 0).text() == "nucleus"
    assert "µm³" in dock.result.table.table.item(0, 1).text()
    volume = float(dock.result.table.csv().splitlines()[1].split(",")[4])
    assert volume == pytest.approx((result.data == 1).sum() * 1e-3 * 0.5e-3 * 0.5e-3)
    assert result.metadata["nnunet"]["partial"] is False
    assert list(result.features["name"]) == ["background", "nucleus", "shell"]


def test_a_result_lies_exactly_over_its_source(viewer, dock, tiny, qtbot):
    affine = np.eye(4)
    affine[:3, :3] = [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]
    source = _image(viewer, scale=(1.5, 0.9, 0.9), translate=(3, 4, 5), affine=affine,
                    shear=np.array([0.1, 0.0, 0.0]), axis_labels=["z", "y", "x"])  # fmt: skip
    _ready(dock, qtbot)
    _run(dock, qtbot)
    result = _result(viewer)
    for point in ((0, 0, 0), (3, 7, 11), (11, 29, 27)):
        np.testing.assert_allclose(result.data_to_world(point), source.data_to_world(point))
    assert result.units == source.units
    assert result.axis_labels == source.axis_labels
    assert result.data.dtype == np.uint8


def test_the_dock_gives_the_labels_of_the_command_line(viewer, dock, tiny, qtbot, tmp_path):
    array = smooth_image((12, 30, 28))[0]
    (tmp_path / "in").mkdir()
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.9, 0.9, 1.5))
    sitk.WriteImage(image, str(tmp_path / "in" / "a_0000.nii.gz"))
    assert main(["predict_from_modelfolder", "-m", str(tiny.folder), "-i", str(tmp_path / "in"), "-o",
                 str(tmp_path / "out")]) == 0  # fmt: skip
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "a.nii.gz")))
    viewer.open(str(tmp_path / "in" / "a_0000.nii.gz"), plugin="napari-nnunet")
    _ready(dock, qtbot)
    _run(dock, qtbot)
    assert (_result(viewer, "a_0000 – 3d_fullres").data == expected).mean() > 0.9999


def test_an_image_in_pixels_asks_for_the_voxel_size(viewer, dock, tiny, qtbot):
    viewer.add_image(smooth_image((12, 20, 20))[0], scale=(2, 1, 1), name="image")
    _refused(dock, qtbot, "has no voxel size")
    assert "the layer's scale is 2 x 1 x 1" in dock.summary.text()
    dock.form.image.spacing_edit.value = "abc"
    _refused(dock, qtbot, "type 3 positive numbers in mm")
    dock.form.image.spacing_edit.value = "2 × 1 × 1"
    _ready(dock, qtbot)
    _run(dock, qtbot)
    assert _result(viewer).data.any()


def test_layers_that_were_there_before_the_dock_are_followed_too(viewer, qtbot, model):
    layer = viewer.add_image(smooth_image((12, 20, 20))[0], name="image")
    _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", "Segment")
    dock.add_model(model.folder)
    _refused(dock, qtbot, "has no voxel size")
    layer.units = MM
    _ready(dock, qtbot)
    layer.name = "renamed"
    qtbot.waitUntil(lambda: "'renamed'" in dock.summary.text())
    _ready(dock, qtbot)


def test_colour_images_and_missing_channels_are_explained(viewer, dock, tiny, new_model, qtbot):
    viewer.add_image(np.zeros((20, 20, 3), np.uint8), rgb=True, name="picture")
    _refused(dock, qtbot, "colour (RGB) image, but the model has 1 channel (MR)")
    dock.add_model(new_model(name="Dataset002_Two", channels=("T1", "T2")).folder)
    _image(viewer, name="volume")
    dock.form.image.channel_boxes[0].value = viewer.layers["volume"]
    _refused(dock, qtbot, "no axis of 'volume' (12, 30, 28) has 2 entries")


def test_three_dimensional_models_refuse_pictures(viewer, dock, tiny, qtbot):
    _image(viewer, shape=(20, 20))
    _refused(dock, qtbot, "The model is three-dimensional")


def test_channels_are_matched_by_name_and_may_be_layers_or_an_axis(viewer, dock, new_model, qtbot):
    both = smooth_image((12, 24, 24), channels=2)
    for name, array in (("patient T2", both[1]), ("patient T1", both[0])):
        viewer.add_image(array, name=name, units=MM)
    dock.add_model(new_model(name="Dataset002_Two", channels=("T1", "T2")).folder)
    assert [box.value.name for box in dock.form.image.channel_boxes] == ["patient T1", "patient T2"]
    _ready(dock, qtbot)
    _run(dock, qtbot)
    from_layers = _result(viewer, "patient T1 – 3d_fullres").data.copy()
    stacked = viewer.add_image(np.moveaxis(both, 0, 1), name="stack", units=["mm"] * 4, scale=(1, 1, 1, 1))
    dock.form.image.channel_boxes[0].value = stacked
    dock.form.image.channel_boxes[1].value = "(in the first layer)"
    _ready(dock, qtbot)
    assert dock.form.image.axes_box.value == "ZCYX"
    _run(dock, qtbot)
    result = _result(viewer, "stack – 3d_fullres")
    np.testing.assert_array_equal(result.data, from_layers)
    assert result.ndim == 3


def test_rgb_pictures_fit_three_channel_models(viewer, dock, new_model, qtbot):
    model = new_model(patch=(16, 16), spacing=(1.0, 1.0), configuration="2d", channels=("R", "G", "B"),
                      reader="NaturalImage2DIO", file_ending=".png")  # fmt: skip
    picture = (np.moveaxis(smooth_image((40, 30), channels=3), 0, -1).clip(0, 255)).astype(np.uint8)
    viewer.add_image(picture, rgb=True, name="image")
    dock.add_model(model.folder)
    _ready(dock, qtbot)
    assert "pixels count as 1" in dock.summary.text()
    assert "The network sees 40 × 30 voxels" in dock.summary.text()  # and not 1 × 40 × 30
    _run(dock, qtbot)
    assert _result(viewer, "image – 2d").data.shape == (40, 30)
    assert dock.result.table.table.item(0, 1).text() == "–"


@pytest.mark.parametrize("kind", ["dask", "multiscale", "time"])
def test_lazy_multiscale_and_time_series_layers_work(viewer, dock, tiny, qtbot, kind):
    array = smooth_image((12, 30, 28))[0]
    if kind == "dask":
        viewer.add_image(da.from_array(array, chunks=(4, 30, 28)), units=MM, name="image", contrast_limits=(0, 200))
    elif kind == "multiscale":
        viewer.add_image([array, array[::2, ::2, ::2]], units=MM, name="image", multiscale=True)
    else:
        viewer.add_image(np.stack([array, array * 0 + 5, array]), units=["s", *MM], name="image",
                         axis_labels=["t", "z", "y", "x"])  # fmt: skip
    _ready(dock, qtbot)
    _run(dock, qtbot)
    result = _result(viewer)
    assert result.data.shape == ((3, 12, 30, 28) if kind == "time" else (12, 30, 28))
    if kind == "time":
        assert dock.form.image.rows.isRowVisible(dock.form.image.time_box.native)
        np.testing.assert_array_equal(result.data[0], result.data[2])
        assert not np.array_equal(result.data[0], result.data[1])
        assert dock.result.table.table.rowCount() == 6
        dock.form.image.time_box.value = "Current time point"
        viewer.dims.set_point(0, 2)
        _ready(dock, qtbot)
        _run(dock, qtbot)
        second = _result(viewer, "image – 3d_fullres [1]").data
        assert second[2].any()
        assert not second[0].any()


def test_a_drawn_rectangle_or_the_visible_field_limits_the_run(viewer, dock, tiny, qtbot):
    _image(viewer)
    viewer.dims.set_point(0, 6)
    shapes = viewer.add_shapes([[[6, 4, 5], [6, 4, 15], [6, 20, 15], [6, 20, 5]]], shape_type="rectangle", name="box")
    dock.form.image.region_box.value = shapes
    _ready(dock, qtbot)
    assert "a region of" in dock.summary.text() and "× 17 × 11 voxels" in dock.summary.text()
    _run(dock, qtbot)
    result = _result(viewer).data
    assert result[:, 4:21, 5:16].any()
    outside = result.copy()
    outside[:, 4:21, 5:16] = 0
    assert not outside.any()
    dock.form.image.region_box.value = "Visible field"
    viewer.scene.camera.zoom = 60
    _ready(dock, qtbot)
    _run(dock, qtbot)
    assert 0 < (_result(viewer, "image – 3d_fullres [1]").data > 0).mean() < 0.9


def test_probabilities_become_layers_over_the_image(viewer, dock, tiny, qtbot):
    _image(viewer, scale=(2, 1, 1))
    dock.form.image.output_box.value = "Labels and probabilities"
    _ready(dock, qtbot)
    _run(dock, qtbot)
    names = [layer.name for layer in viewer.layers]
    assert "image – 3d_fullres: p(organ)" in names
    assert "image – 3d_fullres: p(lesion)" in names
    layer = viewer.layers["image – 3d_fullres: p(organ)"]
    assert (layer.data.min() >= 0) and (layer.data.max() <= 1)
    np.testing.assert_array_equal(layer.scale, (2, 1, 1))


@pytest.fixture
def job(monkeypatch):
    """What segments, which a test may halt."""
    halting = Halting(segment_dock.predict_series)
    monkeypatch.setattr(segment_dock, "predict_series", halting)
    return halting


def test_cancel_keeps_the_finished_part_and_says_so(viewer, dock, tiny, qtbot, job):
    _image(viewer, shape=(60, 60, 60))
    _ready(dock, qtbot)
    steps = job.halt_past(0.1, dock, qtbot, lambda: qtbot.mouseClick(dock.panel.button, Qt.MouseButton.LeftButton))
    assert dock.panel.button.text() == "Cancel"
    qtbot.mouseClick(dock.panel.button, Qt.MouseButton.LeftButton)
    assert dock.panel.button.text() == "Cancelling…"
    job.go.set()
    qtbot.waitUntil(lambda: dock.panel.state is RunState.IDLE)
    assert job.steps == steps + 1  # the one it was in
    partial = [layer for layer in viewer.layers if "(partial" in layer.name]
    assert len(partial) == 1
    assert partial[0].metadata["nnunet"]["partial"] is True
    assert partial[0].data.any()
    assert "Cancelled at" in dock.panel.status.text()
    _ready(dock, qtbot)
    assert dock.panel.button.isEnabled()


def test_deleting_the_result_cancels_the_run(viewer, dock, tiny, qtbot, job):
    _image(viewer, shape=(60, 60, 60))
    _ready(dock, qtbot)
    steps = job.halt_past(0, dock, qtbot, lambda: qtbot.mouseClick(dock.panel.button, Qt.MouseButton.LeftButton))
    viewer.layers.remove(_result(viewer))
    job.go.set()
    qtbot.waitUntil(lambda: dock.panel.state is RunState.IDLE)
    assert job.steps == steps + 1
    assert [layer.name for layer in viewer.layers] == ["image"]


def test_tiles_are_painted_while_it_runs(viewer, dock, tiny, qtbot, job):
    _image(viewer, shape=(60, 60, 60))
    viewer.dims.set_point(0, 50)
    _ready(dock, qtbot)
    job.halt_after(lambda event: isinstance(event, Painted), qtbot, dock.run)
    data = dock.result.running.canvas
    painted = np.flatnonzero(data.any(axis=(1, 2)))
    assert 46 <= np.median(painted) <= 60  # the slice on the screen first
    dock.panel.cancel()
    job.go.set()


def test_a_failure_is_said_once_and_the_form_stays(viewer, dock, tiny, qtbot):
    _image(viewer)
    _ready(dock, qtbot)
    path = tiny.checkpoint_path(0, "checkpoint_final.pth")
    path.write_bytes(path.read_bytes()[:3000])
    notification_manager.records.clear()
    _run(dock, qtbot)
    assert "is not a complete checkpoint" in dock.panel.status.text()
    assert [layer.name for layer in viewer.layers] == ["image"]
    assert len(notification_manager.records) == 1
    assert dock.panel.details.isVisible()
    dock.panel.details.click()
    from qtpy.QtWidgets import QApplication

    assert "Traceback" in QApplication.clipboard().text()


def test_a_wrong_folder_is_explained_in_the_dock(dock, tiny, qtbot):
    dock.add_model(tiny.folder.parent)
    assert "it contains:" in dock.form.about.text()
    _refused(dock, qtbot, "Choose a model")
    assert dock.form.model_box.native.currentIndex() == -1  # the box does not show what is not chosen
    box = dock.form.model_box.native
    box.setCurrentIndex(box.findText("Dataset001_Tiny / 3d_fullres"))  # the model that was chosen before, again
    assert dock.form.model is not None and dock.form.model.folder == tiny.folder
    _refused(dock, qtbot, "Open an image first")


def test_models_are_remembered(viewer, dock, tiny, qtbot):
    from napari_nnunet.widgets.prediction.form import SegmentForm

    other = SegmentForm(viewer)
    qtbot.addWidget(other)
    assert other.model.folder == tiny.folder


def test_measured_dice_stands_beside_the_presets(viewer, dock, tiny, qtbot):
    entries = {
        name: {"dice": dice, "seconds_per_case": 1}
        for name, dice in (("fast", 0.8), ("balanced", 0.85), ("full", 0.86))
    }
    (tiny.folder / "inference_presets.json").write_text(json.dumps({"presets": entries}))
    dock.add_model(tiny.folder)
    _image(viewer)
    _ready(dock, qtbot)
    assert any("Dice 0.850" in text for text in (str(c) for c in dock.form.preset_box._widget._mgui_get_choices()))


def test_closing_napari_while_it_runs_does_not_hang(make_napari_viewer, npe2pm, model, qtbot, monkeypatch):
    from napari.qt.threading import WorkerBase

    closed = threading.Event()

    def endless(*_, **__):
        try:
            while True:
                yield Progress(done=1, total=2)
                time.sleep(0.01)
        finally:
            closed.set()

    monkeypatch.setattr(segment_dock, "predict_series", endless)
    with npe2pm.tmp_plugin(package="napari_nnunet"):
        viewer = make_napari_viewer(show=True)
        _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", "Segment")
        dock.add_model(model.folder)
        _image(viewer, shape=(60, 60, 60))
        _ready(dock, qtbot)
        dock.run()
        qtbot.waitUntil(lambda: dock.panel.fraction > 0)
        viewer.close()
        WorkerBase.await_workers(msecs=5000)
        assert closed.wait(PATIENCE)


def test_the_folder_of_a_model_that_cannot_be_read_opens_with_a_button(dock, new_model):
    damaged, good = new_model(name="Dataset002_Damaged").folder, new_model(name="Dataset003_Good").folder
    (damaged / "plans.json").write_text("{")
    dock.add_model(damaged)
    assert "plans.json" in dock.form.about.text()
    assert not dock.form.place.isHidden() and dock.form.place.toolTip() == str(damaged)
    dock.add_model(good)
    assert dock.form.place.isHidden()


@pytest.mark.real
def test_a_hippocampus_is_segmented_as_on_the_command_line(viewer, dock, real_data, qtbot, tmp_path):
    case = "hippocampus_026"
    source = real_data / "data" / "Dataset004_Hippocampus" / "imagesTr" / f"{case}_0000.nii.gz"
    model = real_data / "models" / "Dataset004_Hippocampus" / "nnUNetTrainer__nnUNetPlansSmall__3d_fullres"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / source.name).write_bytes(source.read_bytes())
    words = ["predict_from_modelfolder", "-m", model, "-i", tmp_path / "in", "-o", tmp_path / "out"]
    assert main([str(word) for word in words]) == 0
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / f"{case}.nii.gz")))
    recorded = sitk.GetArrayFromImage(
        sitk.ReadImage(str(real_data / "models" / "predictions" / "3d_fullres" / f"{case}.nii.gz"))
    )
    dock.add_model(model)
    viewer.open(str(source), plugin="napari-nnunet")
    _ready(dock, qtbot)
    assert "Validation Dice 0.839" in dock.form.about.text()
    _run(dock, qtbot)
    result = _result(viewer, f"{case}_0000 – 3d_fullres").data
    assert (result == expected).mean() > 0.9999
    assert (result == recorded).mean() > 0.999
