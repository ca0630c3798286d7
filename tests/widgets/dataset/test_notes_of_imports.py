"""What an import assumes is said before it, and in the dock when its window is closed."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from casework import listed
from qtpy.QtCore import Qt

from helpers import smooth_image
from napari_nnunet.formats.images.files import read_labels

WHITE = "The value 255 covers 98% of the masks and becomes the foreground."
UNSIZED = "No voxel size in the files of 3 of 3 cases (stack_0, stack_1, stack_2); 1 mm is assumed."


@pytest.fixture
def dialog(viewer, cases, home, qtbot):
    """Stacks without a voxel size, drawn in black on white."""
    images, masks = home / "stacks", home / "drawn"
    for folder in (images, masks):
        folder.mkdir()
    for i in range(3):
        tifffile.imwrite(images / f"stack_{i}.tif", smooth_image((10, 20, 20), seed=i)[0].astype(np.uint16))
        mask = np.full((10, 20, 20), 255, np.uint8)
        mask[3:8, 6:10, 6:10] = 0
        tifffile.imwrite(masks / f"stack_{i}.tif", mask)
    dialog = cases.import_dialog()
    dialog.open()
    dialog.images.setText(str(images))
    dialog.masks.setText(str(masks))
    qtbot.waitUntil(lambda: dialog.plan is not None)
    return dialog


def press(dialog, qtbot):
    with qtbot.waitSignal(dialog.imported):
        qtbot.mouseClick(dialog.panel.button, Qt.MouseButton.LeftButton)


def test_what_is_assumed_is_said_before_and_stays_in_the_dock(cases, dialog, qtbot):
    assert WHITE in dialog.notes.text() and UNSIZED in dialog.notes.text() and dialog.notes.isVisible()
    press(dialog, qtbot)
    listed(cases, qtbot, 3)
    assert not dialog.isVisible()
    assert cases.panel.status.text().startswith("Added Dataset001_stacks. Note: ")
    assert WHITE in cases.panel.status.text() and UNSIZED in cases.panel.status.text()


def test_who_follows_the_advice_has_no_note_and_the_other_class(cases, dialog, home, qtbot):
    assert "import with 0 as object and 255 as background" in dialog.notes.text()
    dialog.values.item(0, 4).setText("object")
    dialog.values.item(1, 4).setText("background")
    assert WHITE not in dialog.notes.text() and UNSIZED in dialog.notes.text()
    dialog.spacing.setText("2 1 1")
    qtbot.waitUntil(lambda: dialog.plan is not None)
    dialog.values.item(0, 4).setText("object")
    dialog.values.item(1, 4).setText("background")
    assert not dialog.notes.isVisible()
    press(dialog, qtbot)
    listed(cases, qtbot, 3)
    assert cases.panel.status.text() == "Added Dataset001_stacks."
    labels = read_labels(next((cases.form.head.raw / "labelsTr").glob("stack_0.*")))[0]
    assert labels.sum() == 5 * 4 * 4
