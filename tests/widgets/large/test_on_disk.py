"""A layer is segmented block by block into a result on disk, which fills while one looks at it."""

from __future__ import annotations

import errno
import shutil
from contextlib import nullcontext
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
from docks import MM, Halting, press, wait_until_idle, wait_until_said
from napari.layers import Labels, Layer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QWidget

from helpers import Recipe, make_model, smooth_image
from napari_nnunet import predict_image
from napari_nnunet.engine.large import blocks
from napari_nnunet.events import Painted
from napari_nnunet.formats.large import pyramid
from napari_nnunet.formats.large.opening import image_of, open_image
from napari_nnunet.jobs.large.predict_image import predict_image as predict_image_job
from napari_nnunet.schema.requests.large import PredictImageSettings
from napari_nnunet.widgets.frame.ready import NotReadyError
from napari_nnunet.widgets.large import order as order_module
from napari_nnunet.widgets.large.order import ON_DISK
from napari_nnunet.widgets.large.target_row import TargetRow

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
pytest.importorskip("yaozarrs", reason="yaozarrs is not installed: it comes with napari-nnunet[large]")
pytestmark = pytest.mark.usefixtures("known_arithmetic", "cut")
SHAPE = (24, 40, 36)


@pytest.fixture
def cut(monkeypatch):
    """Cut small volumes as large ones are: several chunks, blocks and levels."""
    monkeypatch.setattr(blocks, "_MOST_VOXELS", 3000)
    monkeypatch.setattr("napari_nnunet.jobs.large.expected.chunk_shape", lambda shape: (8, 16, 16))
    monkeypatch.setattr(pyramid, "_COARSEST", 10)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "labels.zarr"


@pytest.fixture
def ready(viewer, dock, model, qtbot, target):
    """The dock with a lazy layer, which is to be segmented into a zarr."""
    dock.add_model(model.folder)
    dock.form.preset_box.value = "fast"
    viewer.add_image(da.from_array(smooth_image(SHAPE)[0], chunks=9), units=MM, scale=(1.2, 1, 1), name="image")
    dock.form.image.output_box.value = ON_DISK
    dock.form.image.target.edit.setText(str(target))
    wait_until_said(qtbot, dock, "GB of memory")
    return dock


@pytest.fixture
def held(monkeypatch):
    """The job, which can be halted in one of its steps."""
    halting = Halting(order_module.predict_layer)
    monkeypatch.setattr(order_module, "predict_layer", halting)
    return halting


def labels_in(viewer):
    return [layer for layer in viewer.layers if isinstance(layer, Labels)]


def undisturbed(tmp_path, model):
    how = {"mirroring": False, "step": 0.75, "folds": (0,), "spacing": (1.2, 1.0, 1.0)}
    predict_image(model, smooth_image(SHAPE)[0], tmp_path / "whole.zarr", **how)
    return chunks_of(tmp_path / "whole.zarr")


def chunks_of(path):
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.glob("[0-9]*/**/*")) if f.is_file()}


def test_the_result_on_disk_is_that_of_the_shell_and_its_layer_lies_over_the_image(
    viewer, ready, model, qtbot, tmp_path, target
):
    assert "24 × 40 × 36 voxels of 1.2 × 1 × 1 mm, block by block" in ready.summary.text()
    press(qtbot, ready)
    assert "The labels are in" in ready.panel.status.text()
    assert chunks_of(target) == undisturbed(tmp_path, model)
    (layer,) = labels_in(viewer)
    assert layer.multiscale and len(layer.data) == 3 and layer.name == "image – 3d_fullres"
    assert np.array_equal(layer.data[0][:], zarr.open(str(target / "0"), mode="r")[:])
    source = viewer.layers["image"]
    for point in ((0, 0, 0), (23, 39, 35)):
        np.testing.assert_allclose(layer.data_to_world(point), source.data_to_world(point))
    assert "image" in ready.result.many.lines[0].image and ready.result.many.lines[0].found[0].voxels > 0
    wait_until_said(qtbot, ready, "already exists")
    assert not ready.panel.button.isEnabled()


def test_a_result_that_needs_no_coarser_levels_is_shown_too(viewer, ready, qtbot, target, monkeypatch):
    monkeypatch.setattr(pyramid, "_COARSEST", 512)  # as it is
    press(qtbot, ready)
    (layer,) = labels_in(viewer)
    assert "The labels are in" in ready.panel.status.text() and not layer.multiscale
    assert layer.data.shape == SHAPE and np.asarray(layer.data).any()


def test_a_moved_layer_gets_its_result_where_it_lies_also_when_it_is_opened_later(viewer, ready, qtbot, target):
    layer = viewer.layers["image"]
    layer.translate, layer.affine = (30, -20, 10), np.diag([2.0, 2, 2, 1])
    wait_until_said(qtbot, ready, "2.4 × 2 × 2 mm")
    assert "OME-Zarr cannot say" not in ready.summary.text()
    ready.form.image.accept((2.4, 2.0, 2.0))
    wait_until_said(qtbot, ready, "GB of memory")
    press(qtbot, ready)
    assert open_image([target]).lies.origin == (60, -40, 20)


def test_a_turned_layer_is_told_before_and_after(viewer, ready, qtbot, target):
    viewer.layers["image"].rotate = (0, 0, 30)
    wait_until_said(qtbot, ready, "image is rotated, which OME-Zarr cannot say")
    press(qtbot, ready)
    assert "image is rotated, which OME-Zarr cannot say" in ready.panel.status.text()
    assert ".nii.gz" not in ready.panel.status.text()


def test_what_is_seen_is_finished_first_and_shown_in_every_level(viewer, ready, held, qtbot, target):
    viewer.dims.set_point(0, 23 * 1.2)
    seen = held.halt_after(lambda event: isinstance(event, Painted), qtbot, lambda: click(ready, qtbot))
    assert seen
    qtbot.waitUntil(lambda: bool(labels_in(viewer)))
    (layer,) = labels_in(viewer)
    finest = layer.data[0][:]
    assert finest[16:].any() and not finest[:16].any()
    for level in layer.data[1:]:
        steps = tuple(round(a / b) for a, b in zip(finest.shape, level.shape, strict=True))
        assert np.array_equal(level[:], finest[tuple(slice(None, None, step) for step in steps)])
    assert not layer.editable
    held.go.set()
    wait_until_idle(qtbot, ready)


def click(dock, qtbot):
    qtbot.mouseClick(dock.panel.button, Qt.MouseButton.LeftButton)


def cancelled(dock, held, qtbot):
    """Cancel after the first block."""
    held.halt_after(lambda event: isinstance(event, Painted), qtbot, lambda: click(dock, qtbot))
    dock.panel.cancel()
    held.go.set()
    wait_until_idle(qtbot, dock)


def test_cancel_keeps_what_is_finished_and_another_session_goes_on(viewer, ready, held, model, qtbot, tmp_path, target):
    cancelled(ready, held, qtbot)
    assert f"kept in {target}.unfinished" in ready.panel.status.text()
    (layer,) = labels_in(viewer)
    assert "partial" in layer.name and layer.data[0][:].any()
    qtbot.waitUntil(lambda: ready.panel.button.text() == "Continue")
    viewer.layers.clear()  # napari was closed, and the image is opened again
    viewer.add_image(da.from_array(smooth_image(SHAPE)[0], chunks=9), units=MM, scale=(1.2, 1, 1), name="image")
    wait_until_said(qtbot, ready, "Will continue")
    assert ready.panel.button.text() == "Continue"
    press(qtbot, ready)
    assert "were finished before" in ready.panel.status.text() or "was finished before" in ready.panel.status.text()
    assert chunks_of(target) == undisturbed(tmp_path, model)
    assert len(labels_in(viewer)) == 1


def test_a_duplicate_and_a_layer_with_other_data_are_not_taken_for_the_one_that_fills(
    viewer, ready, held, qtbot, target
):
    cancelled(ready, held, qtbot)
    (own,) = labels_in(viewer)
    data, state, kind = own.as_layer_data_tuple()
    copy = viewer.add_layer(Layer.create([np.asarray(level) for level in data], {**state, "name": "copy"}, kind))
    viewer.layers.move(viewer.layers.index(copy), 0)  # it is found first
    before, theirs = [np.array(level) for level in copy.data], [np.ones(level.shape, np.uint8) for level in copy.data]
    qtbot.waitUntil(lambda: ready.panel.button.text() == "Continue")
    press(qtbot, ready)
    assert own.name == "image – 3d_fullres" and len(labels_in(viewer)) == 2
    assert all(map(np.array_equal, copy.data, before)) and copy.name == "copy"
    own.data = theirs
    shutil.rmtree(target)
    wait_until_said(qtbot, ready, "GB of memory")
    press(qtbot, ready)
    assert own.data[0] is theirs[0] and len(labels_in(viewer)) == 3


def test_what_was_begun_in_the_dock_is_continued_by_a_shell_and_the_other_way_round(
    viewer, ready, held, model, qtbot, tmp_path, target
):
    cancelled(ready, held, qtbot)
    expected = undisturbed(tmp_path, model)
    image = image_of(da.from_array(smooth_image(SHAPE)[0], chunks=9), (1.2, 1.0, 1.0), name="image")
    asked = PredictImageSettings(mirroring=False, step=0.75, folds=(0,), carry_on=True)
    job = predict_image_job(model, image, target, asked)
    next(event for event in job if isinstance(event, Painted))
    job.close()
    assert not (target.with_name("labels.zarr.unfinished") / "1").exists()
    press(qtbot, ready)
    assert chunks_of(target) == expected


def test_an_edited_layer_is_not_continued_and_the_sentence_says_so(viewer, ready, held, qtbot, target):
    cancelled(ready, held, qtbot)
    viewer.layers["image"].data = viewer.layers["image"].data[:, ::-1]
    qtbot.waitUntil(lambda: ready.panel.button.isEnabled())
    press(qtbot, ready)
    assert "is not what it was when" in ready.panel.status.text()
    assert target.with_name("labels.zarr.unfinished").exists()


def test_what_was_begun_with_other_settings_is_told_before_run_is_pressed(viewer, ready, held, qtbot, target):
    cancelled(ready, held, qtbot)
    wait_until_said(qtbot, ready, "GB of memory")
    ready.form.step_box.value = 0.5
    wait_until_said(qtbot, ready, "was begun with other settings (step 0.75, now 0.5)")
    assert not ready.panel.button.isEnabled() and ready.panel.remedy.text() == "Choose another name"
    ready.form.preset_box.value = "fast"
    wait_until_said(qtbot, ready, "GB of memory")
    assert ready.panel.button.isEnabled() and ready.panel.button.text() == "Continue"
    ready.form.step_box.value = 0.5
    wait_until_said(qtbot, ready, "was begun with other settings")
    ready.panel.remedy.click()
    wait_until_said(qtbot, ready, "GB of memory")
    assert ready.panel.button.text() == "Segment" and ready.form.image.target.text.endswith("labels_2.zarr")


@pytest.mark.parametrize(
    ("name", "said"),
    [("", "Choose where the result goes"), ("{}/a.nii.gz", "is written as OME-Zarr"), ("{}/no/a.zarr", "is not there"),
     ("a.zarr", "is not there")],
)  # fmt: skip
def test_a_place_that_cannot_be_is_said_before_anything_runs(ready, qtbot, tmp_path, name, said):
    ready.form.image.target.edit.setText(name.format(tmp_path))
    qtbot.waitUntil(lambda: said in ready.summary.text())
    assert not ready.panel.button.isEnabled()


def test_the_whole_path_of_a_result_is_told_where_the_row_is_too_narrow_for_it(qtbot):
    form = QWidget()
    qtbot.addWidget(form)
    row = TargetRow(QFormLayout(form))
    row.edit.setText("/data/subject-0042/labels.zarr")
    assert row.edit.toolTip().startswith("/data/subject-0042/labels.zarr")


def test_a_region_and_many_images_are_refused_with_what_to_do(ready, qtbot):
    ready.form.image.region_box.value = "Visible field"
    wait_until_said(qtbot, ready, "Choose 'Whole image' as region")
    ready.form.image.scope.box.value = "All open images"
    wait_until_said(qtbot, ready, "one image is segmented at a time")


def test_what_does_not_fit_into_memory_offers_to_write_to_disk(viewer, dock, model, qtbot, target, monkeypatch):
    monkeypatch.setattr(dock.form.image.target, "browse", lambda: dock.form.image.target.edit.setText(str(target)))
    dock.add_model(model.folder)
    huge = da.zeros((2000, 4000, 4000), chunks=(8, 500, 500), dtype=np.uint16)
    viewer.add_image(huge, units=MM, name="huge", contrast_limits=(0, 9))
    wait_until_said(qtbot, dock, "Let the labels be written to disk")
    assert not dock.panel.button.isEnabled()
    dock.panel.remedy.click()
    wait_until_said(qtbot, dock, "GB of memory")
    assert "block by block" in dock.summary.text() and dock.panel.button.isEnabled()


@pytest.mark.parametrize(("region", "frames", "free", "fits"), [
    (None, 5, 910e6, True), (None, 5, 890e6, False),  # 5 times 100 MB of labels, and 4 bytes of each voxel of a frame
    (None, 1, 450e6, False), (None, 1, 510e6, True), (((0, 10), (0, 1000), (0, 1000)), 1, 60e6, True),
    (((0, 10), (0, 1000), (0, 1000)), 1, 40e6, False),
])  # fmt: skip
def test_only_labels_that_are_written_count(monkeypatch, region, frames, free, fits):
    monkeypatch.setattr(order_module, "available_memory", lambda: int(free))
    volume = SimpleNamespace(shape=(100, 1000, 1000), channels=1)
    labels = SimpleNamespace(dtype=np.uint8)
    known = SimpleNamespace(
        model=SimpleNamespace(dataset=SimpleNamespace(labels=labels)), region=region, source=SimpleNamespace(name="image"),
        frames=[SimpleNamespace(volume=volume)] * frames,
    )  # fmt: skip
    with nullcontext() if fits else pytest.raises(NotReadyError, match="Let the labels be written to disk"):
        order_module.require_memory(known, (5, 100, 1000, 1000), lambda: None)


def test_a_time_series_and_several_layers_are_written_as_one_image(viewer, dock, qtbot, tmp_path, target):
    two = make_model(tmp_path, Recipe(channels=("CT", "MR"), schemes=("CTNormalization", "ZScoreNormalization")))
    dock.add_model(two.folder)
    dock.form.preset_box.value = "fast"
    series = [np.stack([smooth_image((10, 20, 18), seed=3 * t + c)[0] for t in range(2)]) for c in range(2)]
    for name, array in zip(("CT", "MR"), series, strict=True):
        viewer.add_image(da.from_array(array, chunks=9), units=["s", *MM], name=name, axis_labels=["t", "z", "y", "x"])
    boxes = dock.form.image.channel_boxes
    boxes[0].value, boxes[1].value = viewer.layers["CT"], viewer.layers["MR"]
    dock.form.image.output_box.value = ON_DISK
    dock.form.image.target.edit.setText(str(target))
    wait_until_said(qtbot, dock, "2 time points of 10 × 20 × 18 voxels")
    wait_until_said(qtbot, dock, "GB of memory")
    press(qtbot, dock)
    (layer,) = labels_in(viewer)
    assert layer.data[0].shape == (2, 10, 20, 18)
    found = predict_image(
        two, np.stack(series), tmp_path / "w.zarr", spacing=(1, 1, 1), axes="CTZYX", mirroring=False, step=0.75,
        folds=(0,),
    )  # fmt: skip
    assert np.array_equal(layer.data[0][:], zarr.open(str(found.path / "0"), mode="r")[:])


class Holed:
    """An array of which some planes cannot be read, until they are restored."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.ndim, self.restored = array, array.shape, array.dtype, 3, False

    def __getitem__(self, key):
        if not self.restored and key[0].stop > 20:
            raise OSError("checksum of chunk 2.0.0 is wrong")
        return self.array[key]


def test_a_chunk_that_cannot_be_read_is_named_and_once_restored_the_rest_is_done(
    viewer, ready, model, qtbot, tmp_path, target
):
    holed = Holed(smooth_image(SHAPE)[0])
    viewer.layers["image"].data = da.from_array(holed, chunks=(4, 40, 36), name=False, meta=np.zeros((0, 0, 0), "f4"))
    wait_until_said(qtbot, ready, "GB of memory")
    press(qtbot, ready)
    said = ready.panel.status.text()
    assert "of image cannot be read: checksum of chunk 2.0.0 is wrong" in said and "restore that part of it" in said
    holed.restored = True
    qtbot.waitUntil(lambda: ready.panel.button.isEnabled())
    press(qtbot, ready)
    assert "The labels are in" in ready.panel.status.text()
    assert chunks_of(target) == undisturbed(tmp_path, model)


def test_a_disk_that_is_full_at_a_chunk_loses_nothing(viewer, ready, model, qtbot, tmp_path, target, monkeypatch):
    from zarr.storage import LocalStore

    put, count = LocalStore.set, []

    async def full(self, key, value, *more, **named):
        if "labels" in str(self.root) and "/c/" in f"/{key}":
            count.append(key)
            if len(count) > 6:
                raise OSError(errno.ENOSPC, "No space left on device")
        return await put(self, key, value, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "set", full)
        press(qtbot, ready)
    said = ready.panel.status.text()
    assert "No space left while writing" in said and "--continue" not in said
    wait_until_said(qtbot, ready, "Will continue")
    press(qtbot, ready)
    assert chunks_of(target) == undisturbed(tmp_path, model)


def test_what_another_model_began_is_told_before_run_is_pressed(viewer, ready, held, qtbot, tmp_path, target):
    cancelled(ready, held, qtbot)
    wait_until_said(qtbot, ready, "Will continue")
    other = make_model(tmp_path / "other", Recipe(name="Dataset002_Other"), seed=5)
    ready.add_model(other.folder)
    ready.form.preset_box.value = "fast"
    wait_until_said(qtbot, ready, "was begun with another model")
    assert not ready.panel.button.isEnabled() and ready.panel.remedy.text() == "Choose another name"
