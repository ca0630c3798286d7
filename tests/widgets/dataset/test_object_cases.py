"""The Training cases dock keeps numbered objects as they are, and draws what nnU-Net learns of them."""

from __future__ import annotations

import numpy as np
from casework import MM, listed, press, refused, settled
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QInputDialog

from helpers import smooth_image
from napari_nnunet.formats.dataset.objects import DrawnObjects, look_at_drawn, object_scheme, read_objects
from napari_nnunet.formats.images.files import read_labels


def grains(viewer):
    """An image and a layer with eight numbered objects, two by two side by side."""
    image = smooth_image((6, 40, 40))[0]
    objects = np.zeros((6, 40, 40), int)
    for number in range(8):
        y, x = 10 * (number // 2), 8 + 8 * (number % 2)
        objects[1:5, y + 1 : y + 9, x : x + 8] = number + 1
    place = {"scale": (1, 1, 1), "units": MM}
    return viewer.add_image(image, name="sand", **place), viewer.add_labels(objects, name="grains", **place)


def test_numbered_objects_begin_a_dataset_and_are_corrected(viewer, cases, home, qtbot, monkeypatch):
    _, painted = grains(viewer)
    cases.form.name_edit.value = "Sand"
    settled(cases, qtbot)
    assert cases.form.as_objects.isVisible()
    monkeypatch.setattr(QInputDialog, "getText", lambda *_: ("grain", True))
    qtbot.mouseClick(cases.form.as_objects, Qt.MouseButton.LeftButton)
    assert "Numbered objects: 8 x grain." in settled(cases, qtbot)
    assert not cases.form.table.isVisible()
    press(cases, qtbot)
    raw = home / "nnUNet_raw" / "Dataset001_Sand"
    assert object_scheme(raw).kinds == {"grain": (1, 2)}
    np.testing.assert_array_equal(read_objects(raw / "objectsTr" / "sand.nii.gz")[0], painted.data)
    assert set(np.unique(read_labels(raw / "labelsTr" / "sand.nii.gz")[0])) == {0, 1, 2}
    viewer.layers.clear()
    listed(cases, qtbot, 1)
    cases.cases.list.itemDoubleClicked.emit(cases.cases.list.item(0))
    qtbot.waitUntil(lambda: len(viewer.layers) == 2)
    opened = viewer.layers["sand objects"]
    assert opened.data.max() == 8
    opened.data = np.where(opened.data == 2, 1, opened.data)  # two that were one
    qtbot.waitUntil(lambda: "7 x grain" in cases.summary.text())
    assert cases.panel.button.text() == "Save changes to this case"
    press(cases, qtbot)
    assert len(np.unique(read_objects(raw / "objectsTr" / "sand.nii.gz")[0])) == 8
    assert look_at_drawn(raw) == DrawnObjects()
    assert {path.parent.name for path in (raw / "trash").rglob("sand.nii.gz")} == {"objectsTr", "labelsTr"}


def test_classes_are_not_taken_for_objects(viewer, cases, home, qtbot):
    _, painted = grains(viewer)
    painted.metadata["nnunet_kind"] = "grain"
    painted.features = {"index": [0, 1, 2], "name": ["background", "grain core", "grain border"]}
    cases.form.name_edit.value = "Sand"
    refused(cases, qtbot, "'grains' holds classes, and this dataset needs objects")
    painted.features = {"index": [0]}
    painted.data = np.zeros_like(painted.data)
    refused(cases, qtbot, "The labels hold no object yet")


def test_the_sample_of_touching_nuclei_can_begin_a_dataset(viewer, cases, home, qtbot, monkeypatch):
    image, numbers = viewer.open_sample("napari-nnunet", "touching_nuclei")
    cases.use([image], numbers)
    cases.form.name_edit.value = "Nuclei"
    settled(cases, qtbot)
    monkeypatch.setattr(QInputDialog, "getText", lambda *_: ("nucleus", True))
    qtbot.mouseClick(cases.form.as_objects, Qt.MouseButton.LeftButton)
    count = len(np.unique(numbers.data)) - 1
    assert f"Numbered objects: {count} x nucleus." in settled(cases, qtbot)
    assert count > 50
