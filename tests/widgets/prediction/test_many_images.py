"""All open images, or a folder, in one press: one table, nothing lost by a bad image or a cancel."""

from __future__ import annotations

import csv
import threading

import numpy as np
from docks import MM, PATIENCE, wait_until_idle
from napari.layers import Image

from helpers import Recipe, make_model, smooth_image, write_nifti
from napari_nnunet.events import CaseDone, CaseFailed
from napari_nnunet.widgets.prediction import segment_dock
from napari_nnunet.widgets.prediction.many import groups_of
from napari_nnunet.widgets.prediction.many_view import FOLDER, OPEN


def _ready(dock, qtbot, words="GB of memory"):
    qtbot.waitUntil(lambda: words in dock.summary.text() and not dock._later.isActive())


def _cancel_after(dock, qtbot, monkeypatch, name, count):
    """Cancel when some images are over; the job waits there, for it is faster than a busy window."""
    job, go = getattr(segment_dock, name), threading.Event()

    def waiting(*args):
        over = 0
        for event in job(*args):
            yield event
            over += isinstance(event, CaseDone | CaseFailed)
            if over == count:
                assert go.wait(PATIENCE)

    with monkeypatch.context() as patch:
        patch.setattr(segment_dock, name, waiting)
        dock.run()
    qtbot.waitUntil(lambda: len(dock.result.many.lines) == count)
    dock.panel.cancel()
    go.set()
    wait_until_idle(qtbot, dock)
    qtbot.waitUntil(lambda: dock.panel.button.text() == "Continue")


def _rows(dock):
    return list(csv.DictReader(dock.result.many.copy._copied_text().splitlines()))


def test_all_open_images_are_segmented_and_a_cancel_goes_on_with_the_others(viewer, dock, model, qtbot, monkeypatch):
    dock.add_model(model.folder)
    for i in range(3):
        viewer.add_image(smooth_image((16, 32, 30), seed=i)[0], units=MM, name=f"image {i}")
    viewer.add_image(np.zeros((8, 8, 8)), name="unknown")
    dock.form.mirroring_box.value = False
    dock.form.image.scope.box.value = OPEN
    _ready(dock, qtbot)
    assert "3 open images" in dock.summary.text()
    assert "'unknown' has no voxel size" in dock.summary.text()
    _cancel_after(dock, qtbot, monkeypatch, "predict_in_turn", 1)
    assert dock.panel.status.text() == "Cancelled. 1 image segmented; press Continue for the others."
    first = viewer.layers["image 0 – 3d_fullres"]
    first.data[0, :2, :2] = 2  # corrected: it is kept, and counted as it is
    before = first.data.copy()
    dock.run()
    wait_until_idle(qtbot, dock)
    assert dock.panel.status.text() == "2 images segmented, 1 kept."
    np.testing.assert_array_equal(first.data, before)
    results = [viewer.layers[f"image {i} – 3d_fullres"] for i in range(3)]
    assert len(viewer.layers) == 4 + 3
    assert all(layer.metadata["nnunet"]["partial"] is False for layer in results)
    rows = _rows(dock)
    assert [(row["image"], row["state"]) for row in rows] == [
        ("image 0", "kept"),
        ("image 1", "done"),
        ("image 2", "done"),
    ]
    for row, layer in zip(rows, results, strict=True):
        counts = np.bincount(layer.data.ravel(), minlength=3)
        assert [row["organ voxels"], row["lesion voxels"]] == [str(counts[1]), str(counts[2])]
    assert dock.result.many.recipe.texts()["command line"].count("predict_from_modelfolder") == 1


def test_a_folder_is_segmented_with_a_bad_image_in_it_and_never_mixed_with_others(
    dock, model, qtbot, tmp_path, monkeypatch
):
    (tmp_path / "in").mkdir()
    for i, name in enumerate("acd"):
        write_nifti(tmp_path / "in" / f"{name}_0000.nii.gz", smooth_image((16, 32, 30), seed=i)[0])
    (tmp_path / "in" / "b_0000.nii.gz").write_bytes(b"no image")
    dock.add_model(model.folder)
    dock.form.mirroring_box.value = False
    scope = dock.form.image.scope
    scope.box.value = FOLDER
    _ready(dock, qtbot, "Choose the folder with the images.")
    scope.images.setText(str(tmp_path / "in"))
    assert scope.results.text() == str(tmp_path / "in_segmented")
    _ready(dock, qtbot)
    assert "4 images" in dock.summary.text()
    _cancel_after(dock, qtbot, monkeypatch, "segment_folder", 2)
    dock.run()
    wait_until_idle(qtbot, dock)
    assert dock.panel.status.text().startswith("2 images segmented, 1 kept, 1 failed. The segmentations and table.csv")
    assert dock.result.many.note.text().startswith("b: ")
    assert "b failed" not in dock.panel.status.text()  # the table below says so and why
    assert (tmp_path / "in_segmented" / "table.csv").read_text(encoding="utf-8") == dock.result.many.copy._copied_text()
    assert f"-i {tmp_path / 'in'} -o {tmp_path / 'in_segmented'}" in dock.result.many.recipe.texts()["command line"]
    dock.form.step_box.value = 0.75
    _ready(dock, qtbot, "which these are not mixed with")
    assert not dock.panel.button.isEnabled()
    dock.panel.remedy.click()
    assert scope.results.text() == str(tmp_path / "in_segmented_2")
    scope.images.setText(str(tmp_path / "gone"))
    _ready(dock, qtbot, "gone is not there")


def test_an_image_that_fails_does_not_end_the_others(viewer, dock, model, qtbot, monkeypatch):
    from napari_nnunet.jobs.prediction import predict as predict_module

    dock.add_model(model.folder)
    for i in range(2):
        viewer.add_image(smooth_image((8, 16, 16), seed=i)[0], units=MM, name=f"image {i}")
    segment = predict_module.predict

    def failing(model, volume, *args, **keywords):
        if np.asarray(volume.array).mean() == np.asarray(smooth_image((8, 16, 16))[0]).mean():
            raise OSError("the disk is gone")
        return segment(model, volume, *args, **keywords)

    monkeypatch.setattr(predict_module, "predict", failing)
    dock.form.image.scope.box.value = OPEN
    _ready(dock, qtbot)
    dock.run()
    wait_until_idle(qtbot, dock)
    assert [(row["image"], row["state"]) for row in _rows(dock)] == [("image 0", "failed"), ("image 1", "done")]
    assert "the disk is gone" in _rows(dock)[0]["reason"]
    assert [layer.name for layer in viewer.layers] == ["image 0", "image 1", "image 1 – 3d_fullres"]


def test_layers_of_one_image_are_found_by_the_names_of_the_channels(tmp_path):
    model = make_model(tmp_path, Recipe(channels=("T1", "T2")))
    names = ("anna T1", "bert_0001", "anna T2", "bert_0000", "carl T2", "whole")
    layers = {name: Image(np.zeros((2, 4, 8, 8) if name == "whole" else (4, 8, 8)), name=name) for name in names}
    found = [tuple(layer and layer.name for layer in group) for group in groups_of(model, list(layers.values()))]
    assert found == [
        ("whole", None), ("anna T1", "anna T2"), ("bert_0000", "bert_0001"), ("carl T2", None)
    ]  # fmt: skip
