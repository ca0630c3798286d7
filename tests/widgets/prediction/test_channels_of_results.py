"""What a result of several channels hands over to the training cases."""

from __future__ import annotations

from docks import open_dock
from qtpy.QtCore import Qt

from helpers import smooth_image
from napari_nnunet.widgets.frame.panel import RunState

MM = ["mm"] * 3


def test_a_result_of_several_channels_becomes_a_case_of_all_of_them(viewer, dock, new_model, home, qtbot):
    """Only the first was chosen: the second could be that of another patient, of the same size."""
    for patient in "AB":
        for i, sequence in enumerate(("T1", "T2")):
            image = smooth_image((8, 18, 16), seed=i + 10 * ord(patient))[0]
            viewer.add_image(image, units=MM, name=f"{patient} {sequence}")
    cases = open_dock(viewer, "Training cases")
    dock.add_model(new_model(channels=("T1", "T2")).folder)
    for box, name in zip(dock.form.image.channel_boxes, ("B T1", "B T2"), strict=True):
        box.value = viewer.layers[name]
    qtbot.waitUntil(lambda: "GB of memory" in dock.summary.text() and not dock._later.isActive())
    qtbot.mouseClick(dock.panel.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: dock.panel.state is RunState.IDLE)
    qtbot.mouseClick(dock.result.collect, Qt.MouseButton.LeftButton)
    assert [layer.name for layer in cases.form.images] == ["B T1", "B T2"]
    cases.form.name_edit.value = "Brains"
    qtbot.waitUntil(lambda: "Channels: 'B T1', 'B T2'" in cases.summary.text())
    assert [edit.value for _, edit in cases.form.rows] == ["T1", "T2"]
    cases.use([viewer.layers["A T1"]], cases.form.labels)
    assert cases.form.images == (viewer.layers["A T1"], None)
