"""A new user who has the site alone: from an installed plugin and two folders to a model of one's own, and its use.

Everything is really pressed: the menu's entry, the buttons, the system's dialog that chooses a folder. On the site the
way begins with two actions more, which install and start napari.
"""

from __future__ import annotations

import numpy as np
import pytest
from hand import Hand
from napari.layers import Labels
from qtpy.QtCore import QThreadPool, QTimer
from qtpy.QtWidgets import QApplication, QDialogButtonBox, QFileDialog, QLineEdit, QPushButton

from helpers import write_nifti
from napari_nnunet.engine.synthetic import make_volume
from napari_nnunet.widgets.dataset.import_dialog import ImportDialog
from napari_nnunet.widgets.frame.tabs import open_dock

SHAPE, SPACING = (16, 48, 48), (2.0, 0.5, 0.5)
INSTALLED = 2  # pip install, napari


@pytest.fixture
def study(tmp_path, home):
    """A folder with a folder of images and one of masks, and an image that has no mask, in it."""
    folder = home / "my embryos"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for i in range(5):
        image, labels = make_volume(i, shape=SHAPE)
        write_nifti(folder / "images" / f"embryo_{i}.nii.gz", image.astype(np.float32), SPACING)
        write_nifti(folder / "masks" / f"embryo_{i}.nii.gz", np.asarray(labels).astype(np.uint8), SPACING)
    write_nifti(folder / "unseen.nii.gz", make_volume(99, shape=SHAPE)[0].astype(np.float32), SPACING)
    return folder


def choose_folder(hand, folder):
    """Type a folder into the dialog that comes next, and press its button."""

    def look():
        dialog = QApplication.activeModalWidget()
        if not isinstance(dialog, QFileDialog) or not dialog.isVisible():
            return
        timer.stop()
        hand.actions.append(f"choose {folder.name}")
        dialog.findChild(QLineEdit, "fileNameEdit").setText(str(folder))
        dialog.findChild(QDialogButtonBox).button(QDialogButtonBox.StandardButton.Open).click()

    timer = QTimer(hand.viewer.window._qt_window)
    timer.timeout.connect(look)
    timer.start(50)


def from_menu(hand, title):
    """Press an entry of Plugins > nnU-Net; returns the dock that it opens."""
    menus = [hand.viewer.window.plugins_menu]
    while menus:
        menu = menus.pop()
        menu.aboutToShow.emit()
        for action in menu.actions():
            if action.menu() is not None:
                menus.append(action.menu())
            elif action.text().replace("&", "").startswith(title):
                hand.actions.append(f"Plugins > nnU-Net > {title}")
                action.trigger()
                return open_dock(hand.viewer, title)
    raise AssertionError(f"Plugins has no {title}.")


def browse(dialog, what):
    return next(b for b in dialog.findChildren(QPushButton) if b.accessibleName() == f"Browse for the folder of {what}")


@pytest.mark.slow
def test_a_new_user_has_a_model_and_what_it_segments_within_ten_actions(viewer, study, qtbot):
    viewer.window.resize(1280, 800)
    hand = Hand(viewer, qtbot)
    cases = from_menu(hand, "Training cases")
    hand.press(cases.form.from_folders)
    dialog = cases.findChild(ImportDialog)
    choose_folder(hand, study / "images")
    hand.press(browse(dialog, "images"))
    assert dialog.masks.text() == str(study / "masks")
    assert dialog.name.text() == "my_embryos"
    qtbot.waitUntil(dialog.go_on.isEnabled)
    hand.look(dialog, "import")
    hand.press(dialog.go_on)
    qtbot.waitUntil(lambda: any(name.startswith("Plan") for name in viewer.window.dock_widgets))
    plan = open_dock(viewer, "Plan")
    qtbot.waitUntil(plan.train.isVisible)
    assert "5 cases" in plan.about.text()
    hand.press(plan.train)
    train = open_dock(viewer, "Train")
    hand.fill(train.form.hours_box, 0.01)
    hand.press(train.panel.button)
    qtbot.waitUntil(lambda: train.chosen is not None and train.chosen.status == "finished")
    assert train.chosen.folder.final.is_file()
    assert len(hand.actions) + INSTALLED <= 10, hand.actions

    hand.actions.append("open an image")
    viewer.open(study / "unseen.nii.gz", plugin="napari-nnunet")
    hand.press(train.details.buttons["segment"])
    qtbot.waitUntil(lambda: any(isinstance(layer, Labels) for layer in viewer.layers))
    result = next(layer for layer in viewer.layers if isinstance(layer, Labels))
    qtbot.waitUntil(lambda: result.metadata["nnunet"].get("partial") is False)
    assert result.data.shape == SHAPE
    assert len(hand.actions) <= 10, hand.actions
    train.watch.stop()
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0)
