"""What is wrong with an image, its files or workers is said in the Segment dock, and nothing is lost."""

from __future__ import annotations

import os

import dask
import dask.array as da
import numpy as np
import pytest
from docks import MM, Halting, press, wait_until_idle, wait_until_said
from napari.layers._source import layer_source
from qtpy.QtCore import Qt

from formats_large import ome_zarr
from helpers import smooth_image
from napari_nnunet.engine.large import blocks
from napari_nnunet.events import Painted
from napari_nnunet.processes.cluster import team
from napari_nnunet.processes.cluster.worker import versions
from napari_nnunet.widgets.large import order as order_module
from napari_nnunet.widgets.large.order import ON_DISK

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
pytest.importorskip("yaozarrs", reason="yaozarrs is not installed: it comes with napari-nnunet[large]")
pytestmark = pytest.mark.usefixtures("known_arithmetic")
SHAPE = (24, 40, 36)
LOCAL = "workers of local:1 share it"


@pytest.fixture
def file(tmp_path):
    return ome_zarr(tmp_path / "image.zarr", [smooth_image(SHAPE)[0]], scales=[(1.2, 1.0, 1.0)])


@pytest.fixture
def form(dock, model, tmp_path):
    """The form of a dock that writes to disk."""
    dock.add_model(model.folder)
    dock.form.preset_box.value = "fast"
    dock.form.image.output_box.value = ON_DISK
    dock.form.image.target.edit.setText(str(tmp_path / "labels.zarr"))
    return dock.form.image


@pytest.fixture
def ready(viewer, dock, form, qtbot, file):
    with layer_source(path=str(file)):
        viewer.add_image(da.from_zarr(str(file / "0")), units=MM, scale=(1.2, 1, 1), name="image")
    wait_until_said(qtbot, dock, "GB of memory")
    return dock


def chunk_files(file):
    return [path for path in sorted((file / "0" / "c").rglob("*")) if path.is_file()]


def said_after(dock, qtbot, cluster=""):
    """Press the button, and return what is said in the end."""
    dock.form.image.cluster.edit.setText(cluster)
    wait_until_said(qtbot, dock, LOCAL if cluster else "GB of memory")
    press(qtbot, dock)
    return dock.panel.status.text().replace("\u200b", "")


def nothing_is_left(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith((".", "labels"))) == []


def test_workers_of_another_version_are_named_and_nothing_is_begun(ready, qtbot, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="distributed is not installed: it comes with napari-nnunet[cluster]")
    monkeypatch.setattr(team, "versions", lambda: (("napari-nnunet", "9.9"), *versions()[1:]))
    said = said_after(ready, qtbot, "local:1")
    assert "has napari-nnunet 0." in said and "9.9" in said and "Nothing was computed" in said
    assert "Install the same versions of napari-nnunet, torch and Python on all machines" in said
    assert nothing_is_left(tmp_path)
    monkeypatch.undo()


def test_a_path_that_workers_do_not_see_is_named_and_nothing_is_begun(ready, qtbot, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="distributed is not installed: it comes with napari-nnunet[cluster]")
    seen = team.Expected
    unseen = tmp_path / "elsewhere.zarr"
    monkeypatch.setattr(team, "Expected", lambda found, reads, *more: seen(found, (*reads, unseen), *more))
    said = said_after(ready, qtbot, "local:1")
    assert f"does not see {unseen}" in said and "under the same path, on a shared disk. Nothing was computed" in said
    assert nothing_is_left(tmp_path)


@pytest.mark.parametrize("cluster", ["", "local:1"])
def test_a_chunk_of_a_file_that_cannot_be_read_is_named(ready, qtbot, tmp_path, file, cluster):
    damaged = chunk_files(file)[5]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    said = said_after(ready, qtbot, cluster)
    assert "The voxels z 0 to " in said and "of image cannot be read: " in said
    assert "restore that part of it" in said
    damaged.write_bytes(whole)
    assert "The labels are in" in said_after(ready, qtbot)
    assert (tmp_path / "labels.zarr").is_dir()


@pytest.mark.parametrize("cluster", ["", "local:1"])
def test_a_chunk_of_a_file_that_is_not_there_is_said(ready, qtbot, file, cluster):
    chunk_files(file)[5].unlink()
    said = said_after(ready, qtbot, cluster)
    assert "1 of the 75 chunks of image.zarr are not stored and count as 0" in said
    assert "The labels are in" in said


def test_a_file_that_changes_while_its_layer_is_read_ends_the_job(ready, qtbot, tmp_path, file, monkeypatch):
    monkeypatch.setattr(blocks, "_MOST_VOXELS", 3000)
    held = Halting(order_module.predict_layer)
    monkeypatch.setattr(order_module, "predict_layer", held)
    held.halt_after(
        lambda event: isinstance(event, Painted),
        qtbot,
        lambda: qtbot.mouseClick(ready.panel.button, Qt.MouseButton.LeftButton),
    )
    changed = chunk_files(file)[5]
    os.utime(changed, (1, 1))
    held.go.set()
    wait_until_idle(qtbot, ready)
    said = ready.panel.status.text().replace("\u200b", "")
    assert "image was changed while it was read, so that its parts do not belong together" in said
    assert f"Delete {tmp_path}/labels.zarr.unfinished, and begin again" in said
    assert (tmp_path / "labels.zarr.unfinished").is_dir() and not (tmp_path / "labels.zarr").exists()


def test_an_array_of_no_file_that_changes_while_it_is_read_is_noticed(viewer, dock, form, qtbot, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "_MOST_VOXELS", 3000)
    held = Halting(order_module.predict_layer)
    monkeypatch.setattr(order_module, "predict_layer", held)
    voxels = smooth_image(SHAPE)[0]
    lazy = da.from_delayed(dask.delayed(lambda: voxels.copy())(), SHAPE, voxels.dtype)
    viewer.add_image(lazy, units=MM, scale=(1.2, 1, 1), name="image")
    wait_until_said(qtbot, dock, "GB of memory")
    held.halt_after(
        lambda event: isinstance(event, Painted),
        qtbot,
        lambda: qtbot.mouseClick(dock.panel.button, Qt.MouseButton.LeftButton),
    )
    voxels[20:] = 0
    held.go.set()
    wait_until_idle(qtbot, dock)
    said = "image was changed while it was read, so that its parts do not belong together"
    assert said in dock.panel.status.text().replace("\u200b", "")
    voxels[:] = smooth_image(SHAPE)[0]  # whoever brings them back has blocks of both all the same
    press(qtbot, dock)
    assert "image was changed while" in dock.panel.status.text() and "is now. Delete " in dock.panel.status.text()
    assert not (tmp_path / "labels.zarr").exists()


def test_levels_of_a_file_that_contradict_each_other_are_not_sent_to_workers(viewer, dock, form, qtbot, tmp_path):
    voxels = smooth_image(SHAPE)[0]
    scales = [(1.2, 1.0, 1.0), (2.4, 2.0, 8.0)]
    file = ome_zarr(tmp_path / "bent.zarr", [voxels, voxels[::2, ::2, ::2]], scales=scales)
    with layer_source(path=str(file)):
        viewer.add_image([da.from_zarr(str(file / n)) for n in "01"], units=MM, scale=(1.2, 1, 1), name="image")
    said = said_after(dock, qtbot, "local:1")
    assert "The levels of bent.zarr contradict each other: along x" in said and "Leave 'Cluster' empty" in said
    assert not list(tmp_path.glob("labels*"))


def test_axes_without_units_are_asked_about(viewer, dock, form, qtbot):
    viewer.add_image(da.from_array(smooth_image(SHAPE)[0], chunks=9), name="plain")
    wait_until_said(qtbot, dock, "'plain' has no voxel size. Type it in mm, as z y x")
    assert not dock.panel.button.isEnabled()


def test_five_axes_are_asked_about(viewer, dock, form, qtbot):
    five = np.stack([np.stack([smooth_image(SHAPE)[0]] * 2)] * 3)
    viewer.add_image(da.from_array(five, chunks=9), units=["pixel", "pixel", *MM], name="five")
    wait_until_said(qtbot, dock, "'five' has 5 axes (3, 2, 24, 40, 36)")
    assert "the model takes 1 channel, and no axis has one entry. Right-click the layer" in dock.summary.text()
    assert not dock.panel.button.isEnabled()
