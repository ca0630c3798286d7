"""Folders that are swapped, the same twice, of mixed sizes, with a file missing or gone: a sentence where they are chosen.

Two folders of images and masks are asked for in the import (test_import_dialog); this is about the other docks.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from docks import wait_until_idle

from helpers import smooth_image, write_nifti
from napari_nnunet.widgets.prediction.many_view import FOLDER


@pytest.fixture
def folders(tmp_path):
    """Two readers' masks of two cases, and the images."""
    for i, name in enumerate("ab"):
        image = smooth_image((8, 20, 18), seed=i)[0]
        for folder, array in (("one", image > 120), ("two", image > 110)):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_nifti(tmp_path / folder / f"{name}.nii.gz", array.astype(np.uint8))
        (tmp_path / "images").mkdir(exist_ok=True)
        write_nifti(tmp_path / "images" / f"{name}.nii.gz", image.astype(np.float32))
    return tmp_path


@pytest.fixture
def compare(viewer, qtbot):
    _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", "Compare")
    dock.form.tabs.setCurrentIndex(1)
    yield dock
    wait_until_idle(qtbot, dock)


def cut(folders):
    write_nifti(folders / "two" / "b.nii.gz", np.zeros((8, 20, 9), np.uint8))


def lose(folders):
    (folders / "two" / "b.nii.gz").unlink()


def damage(folders):
    (folders / "two" / "b.nii.gz").write_bytes(b"no image")


REFUSED = {
    "the same twice": (("one", "one"), None, "Choose two different folders."),
    "one that is gone": (("one", "three"), None, "three does not exist"),
}
FAILED = {
    "images in the place of masks": (("images", "two"), None, "whole numbers"),
    "a case that only one of them has": (("one", "two"), lose, "b"),
    "other sizes in one of them": (("one", "two"), cut, "b"),
    "a damaged file in one of them": (("one", "two"), damage, "b.nii.gz"),
    "one that goes between choosing and pressing": (
        ("one", "two"), lambda folders: shutil.rmtree(folders / "two"), "two",
    ),
}  # fmt: skip


def choose(compare, folders, names):
    for field, name in zip(("first", "second"), names, strict=True):
        compare.form.folders.widgets[field].value = folders / name


@pytest.mark.parametrize("what", REFUSED)
def test_folders_that_cannot_be_compared_are_refused_before(compare, folders, qtbot, what):
    names, _, words = REFUSED[what]
    choose(compare, folders, names)
    qtbot.waitUntil(lambda: words in compare.summary.text())
    assert not compare.panel.button.isEnabled()


@pytest.mark.parametrize("what", FAILED)
def test_folders_that_turn_out_not_to_fit_are_said_and_the_dock_goes_on(compare, folders, qtbot, what):
    names, spoil, words = FAILED[what]
    choose(compare, folders, names)
    qtbot.waitUntil(lambda: "Will compare" in compare.summary.text())
    if spoil is not None:
        spoil(folders)
    compare.run()
    wait_until_idle(qtbot, compare)
    text = compare.panel.status.text() + compare.summary.text()
    assert words in text and "Something went wrong" not in text, text
    choose(compare, folders, ("one", "one"))
    qtbot.waitUntil(lambda: "Choose two different folders." in compare.summary.text())


def test_segmenting_a_folder_into_itself_is_refused(dock, model, folders, qtbot):
    dock.add_model(model.folder)
    scope = dock.form.image.scope
    scope.box.value = FOLDER
    scope.images.setText(str(folders / "images"))
    scope.results.setText(str(folders / "images"))
    qtbot.waitUntil(lambda: "Input and output are the same folder" in dock.summary.text())
    assert not dock.panel.button.isEnabled()
    scope.results.setText(str(folders / "gone" / "results"))
    qtbot.waitUntil(lambda: f"{folders / 'gone'} is not there" in dock.summary.text())
