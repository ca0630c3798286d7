"""A layer is segmented by workers of a cluster, which read its files: only where these hold what is open."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from docks import MM, press, wait_until_said
from napari.layers import Labels
from napari.layers._source import layer_source

from formats_large import ome_zarr
from helpers import smooth_image
from napari_nnunet import predict_image
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.widgets.large.order import ON_DISK
from napari_nnunet.widgets.prediction.many import folder_order
from napari_nnunet.widgets.prediction.many_view import FOLDER, THIS

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
pytest.importorskip("yaozarrs", reason="yaozarrs is not installed: it comes with napari-nnunet[large]")
pytest.importorskip("distributed", reason="distributed is not installed: it comes with napari-nnunet[cluster]")
SHAPE = (24, 40, 36)
HOW = {"mirroring": False, "step": 0.75, "folds": (0,)}


@pytest.fixture
def file(tmp_path):
    """A pyramid whose second level is half as large."""
    image = smooth_image(SHAPE)[0]
    scales = [(1.2, 1.0, 1.0), (2.4, 2.0, 2.0)]
    return ome_zarr(tmp_path / "image.zarr", [image, image[::2, ::2, ::2]], scales=scales)


@pytest.fixture
def ready(viewer, dock, model, qtbot, file, tmp_path):
    """The dock with a layer that knows its file, to be segmented into a zarr."""
    dock.add_model(model.folder)
    dock.form.preset_box.value = "fast"
    with layer_source(path=str(file)):
        viewer.add_image(da.from_zarr(str(file / "0")), units=MM, scale=(1.2, 1, 1), name="image")
    dock.form.image.output_box.value = ON_DISK
    dock.form.image.target.edit.setText(str(tmp_path / "labels.zarr"))
    wait_until_said(qtbot, dock, "GB of memory")
    return dock


def chunks_of(path):
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.glob("[0-9]*/**/*")) if f.is_file()}


def test_workers_compute_the_result_of_this_process(viewer, ready, model, qtbot, file, tmp_path):
    ready.form.image.cluster.edit.setText("local:2")
    wait_until_said(qtbot, ready, "workers of local:2 share it")
    press(qtbot, ready)
    assert "The labels are in" in ready.panel.status.text()
    predict_image(model, smooth_image(SHAPE)[0], tmp_path / "here.zarr", spacing=(1.2, 1, 1), **HOW)
    assert chunks_of(tmp_path / "labels.zarr") == chunks_of(tmp_path / "here.zarr")
    (layer,) = [layer for layer in viewer.layers if isinstance(layer, Labels)]
    assert np.asarray(layer.data).any()
    np.testing.assert_allclose(layer.data_to_world((3, 4, 5)), viewer.layers["image"].data_to_world((3, 4, 5)))


def test_a_layer_that_is_not_what_its_file_holds_is_not_sent(viewer, ready, qtbot, tmp_path):
    changed = viewer.layers["image"].data.compute()
    changed[20, 30, 30] += 1
    viewer.layers["image"].data = changed
    ready.form.image.cluster.edit.setText("local:1")
    wait_until_said(qtbot, ready, "workers of local:1 share it")
    press(qtbot, ready)
    said = ready.panel.status.text().replace("\u200b", "")
    assert "image.zarr/0, which is not what is open as image: voxels differ within z 0 to 23" in said
    assert "Leave 'Cluster' empty" in said and not list(tmp_path.glob("labels*"))
    viewer.layers["image"].data = changed[:20]
    wait_until_said(qtbot, ready, "workers of local:1 share it")
    press(qtbot, ready)
    said = ready.panel.status.text()
    assert "are 1 x 1 x 24 x 40 x 36 there and 1 x 1 x 20 x 40 x 36 here" in said


def test_what_names_no_cluster_or_no_file_is_said_before_anything_runs(viewer, ready, qtbot):
    cluster = ready.form.image.cluster
    cluster.edit.setText("host:8786")
    wait_until_said(qtbot, ready, "The cluster 'host:8786' is not understood. Give the address of a dask scheduler")
    assert not ready.panel.button.isEnabled()
    cluster.edit.setText("local:1")
    wait_until_said(qtbot, ready, "workers of local:1 share it")
    viewer.layers.clear()
    viewer.add_image(smooth_image(SHAPE)[0], units=MM, scale=(1.2, 1, 1), name="made")
    wait_until_said(qtbot, ready, "of which file 'made' was read is not known. Save it, as zarr")
    cluster.edit.setText("")
    wait_until_said(qtbot, ready, "GB of memory")


def test_a_scheduler_that_does_not_answer_is_said_and_nothing_is_begun(ready, qtbot, tmp_path):
    ready.form.image.cluster.edit.setText("tcp://127.0.0.1:9")
    wait_until_said(qtbot, ready, "workers of tcp://127.0.0.1:9 share it")
    press(qtbot, ready)
    assert "No dask scheduler answers at tcp://127.0.0.1:9" in ready.panel.status.text()
    assert not (tmp_path / "labels.zarr.unfinished").exists()


def test_the_row_is_there_where_a_cluster_can_compute(ready):
    form = ready.form.image
    assert form.cluster.line.isVisibleTo(form)
    form.output_box.value = "Labels"
    assert not form.cluster.line.isVisibleTo(form)
    form.scope.box.value = FOLDER
    assert form.cluster.line.isVisibleTo(form)
    form.scope.box.value = THIS


def test_a_folder_is_handed_to_the_cluster(model, tmp_path):
    (tmp_path / "images").mkdir()
    order = folder_order(model, PredictSettings(), str(tmp_path / "images"), str(tmp_path / "out"), None, "local:2")
    assert order.folder.cluster == "local:2"
