"""Real sets of numbered objects go from two folders to a training in the window, grey and coloured pictures together."""

from __future__ import annotations

import shutil

import imageio.v3 as iio
import numpy as np
import pytest
from casework import plan_and_train
from qtpy.QtCore import Qt

from napari_nnunet.formats.dataset.case_trash import OBJECTS
from napari_nnunet.formats.dataset.raw_dataset import open_dataset, read_info
from napari_nnunet.formats.images.files import read_volume

PARTICLES = ("00655d9628", "3a9246e0ee", "73e0a09cd2", "a492171fa8", "d822219f76")
GREY = ("grey_00071198d059", "grey_1f6b7cead153", "grey_d7ec80037359")
COLOURED = ("colour_0121d6759c5a", "colour_4193474b2f1c")


def shown(viewer, cases, real_data, home, qtbot, name, pictures):
    """Copy pictures of a set and show them in the dialog."""
    source = real_data / "data" / name
    for part in ("images", "labels"):
        (home / name / part).mkdir(parents=True)
        for picture in pictures:
            shutil.copy(source / part / f"{picture}.png", home / name / part)
    dialog = cases.import_dialog()
    dialog.open()
    dialog.images.setText(str(home / name / "images"))
    dialog.masks.setText(str(home / name / "labels"))
    qtbot.waitUntil(lambda: dialog.plan is not None and not dialog._drawing.running)
    assert "number their objects" in dialog.meaning.text()
    assert dialog.objects.each.isVisible() and dialog.objects.each.isChecked()
    return dialog


def imported(cases, dialog, qtbot):
    """Press 'Import' and return the dataset, whose objects are those of the masks."""
    assert dialog.panel.button.isEnabled(), dialog.about.text()
    masks = [case.pair.mask for case in dialog.plan.cases]
    with qtbot.waitSignal(dialog.imported):
        qtbot.mouseClick(dialog.panel.button, Qt.MouseButton.LeftButton)
    raw = cases.form.head.raw
    assert list(read_info(raw).labels.labels) == ["background", "object core", "object border"]
    for mask in masks:
        assert np.array_equal(iio.imread(raw / OBJECTS / mask.name), iio.imread(mask))
    return open_dataset(raw)


@pytest.mark.gui
@pytest.mark.real
@pytest.mark.slow
def test_the_particles_become_a_training(viewer, cases, real_data, home, qtbot):
    dialog = shown(viewer, cases, real_data, home, qtbot, "particles", PARTICLES)
    assert not dialog.colours.isVisible()
    assert dialog.name.text() == "particles"
    assert len(imported(cases, dialog, qtbot).cases) == 5
    plan_and_train(viewer, cases, qtbot, count=5)


@pytest.mark.gui
@pytest.mark.real
@pytest.mark.slow
def test_grey_and_coloured_nuclei_become_a_training_when_it_is_said_what_is_done_with_colours(
    viewer, cases, real_data, home, qtbot
):
    dialog = shown(viewer, cases, real_data, home, qtbot, "nuclei", (*GREY, *COLOURED))
    assert "<b>5 pairs</b>. Of 5 pictures, 3 are grey and 2 are in colour" in dialog.about.text()
    assert "Choose in 'Colours'" in dialog.about.text() and "--" not in dialog.about.text()
    assert not dialog.panel.button.isEnabled()
    offered = [dialog.colours.box.itemData(i) for i in range(dialog.colours.box.count())]
    assert dialog.colours.isVisible() and offered == ["as_stored", "grey", "rgb", "leave_out"]

    dialog.colours.box.setCurrentIndex(3)
    assert "<b>3 pairs</b>, 1 channel, 4 files left out" in dialog.about.text()
    assert set(dialog.pairs.left_out()) == set(COLOURED)
    dialog.colours.box.setCurrentIndex(2)
    assert "<b>5 pairs</b>, 3 channels" in dialog.about.text() and dialog.pairs.left_out() == ()
    dialog.colours.box.setCurrentIndex(1)
    assert "<b>5 pairs</b>, 1 channel." in dialog.about.text()

    dataset = imported(cases, dialog, qtbot)
    for case in dataset.cases:
        source = iio.imread(real_data / "data" / "nuclei" / "images" / f"{case.name}.png")
        grey = source if source.ndim == 2 else np.rint(source @ [0.299, 0.587, 0.114])
        assert np.array_equal(read_volume(case.images).array[0], grey)
    plan_and_train(viewer, cases, qtbot, count=5)
