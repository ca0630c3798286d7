"""A model of numbered objects segments a lazy layer into a result on disk: classes while it fills, objects at the end."""

from __future__ import annotations

import json

import dask.array as da
import numpy as np
import pytest
from docks import MM, press, wait_until_said
from napari.layers import Labels
from napari.utils.colormaps import CyclicLabelColormap, DirectLabelColormap

from helpers import Recipe, make_model, smooth_image
from napari_nnunet import load_model, predict
from napari_nnunet.engine.large import blocks
from napari_nnunet.formats.large import pyramid
from napari_nnunet.widgets.large.order import ON_DISK

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
pytest.importorskip("yaozarrs", reason="yaozarrs is not installed: it comes with napari-nnunet[large]")
pytestmark = pytest.mark.usefixtures("known_arithmetic")


def test_objects_of_a_lazy_layer_are_written_to_disk_and_shown(viewer, dock, qtbot, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "_MOST_VOXELS", 3000)
    monkeypatch.setattr("napari_nnunet.jobs.large.expected.chunk_shape", lambda shape: (8, 16, 16))
    monkeypatch.setattr(pyramid, "_COARSEST", 10)
    folder = make_model(tmp_path, Recipe(labels={"background": 0, "cell core": 1, "cell border": 2})).folder
    path, scheme = folder / "dataset.json", {"kinds": {"cell": [1, 2]}, "width": 1.5, "unit": 1.0}
    path.write_text(json.dumps({**json.loads(path.read_text()), "napari_nnunet_objects": scheme}))
    image, target = smooth_image((24, 40, 36))[0], tmp_path / "labels.zarr"
    dock.add_model(folder)
    dock.form.preset_box.value = "fast"
    viewer.add_image(da.from_array(image, chunks=9), units=MM, scale=(1, 1, 1), name="image")
    dock.form.image.output_box.value = ON_DISK
    dock.form.image.target.edit.setText(str(target))
    wait_until_said(qtbot, dock, "GB of memory")
    assert "Objects are found when all blocks are there: until then classes are shown" in dock.summary.text()
    press(qtbot, dock)
    (layer,) = [layer for layer in viewer.layers if isinstance(layer, Labels)]
    whole = predict(load_model(folder), image, spacing=(1, 1, 1), mirroring=False, step=0.75, folds=(0,))
    np.testing.assert_array_equal(np.asarray(layer.data[0]), whole.labels)
    assert isinstance(layer.colormap, CyclicLabelColormap) and not isinstance(layer.colormap, DirectLabelColormap)
    assert not layer.editable and layer.multiscale
    count = len(whole.kinds)
    assert f"Found {count} x cell." in dock.panel.status.text()
    assert dock.result.many.lines[0].found[0].objects == count
    viewer.layers.clear()
    viewer.open(str(target), plugin="napari-nnunet")
    (again,) = viewer.layers
    assert isinstance(again.colormap, CyclicLabelColormap) and int(np.max(again.data[0])) == count
