"""What a check doubts is read before hours are lost: in the dock, again beside the plan, in words of the window."""

from __future__ import annotations

import json

import numpy as np
import pytest
from docks import open_dock
from hand import Hand
from qtpy.QtWidgets import QApplication
from superqt import QCollapsible

from helpers import smooth_image, write_nifti
from napari_nnunet.widgets.files.look_dialog import LookDialog
from napari_nnunet.widgets.frame.panel import RunState

NAMES = [f"pat{number}_{side}" for number in range(1, 6) for side in ("left", "right")]
DOUBTS = {
    "pat2_left.nii.gz": "no foreground",
    "pat5_right": "are far from the usual",
    "pat3_left, pat3_right": "nearly the same",
    "pat1_left": "only this case has the class 'tumour'",
    "splits_final.json": "pat1_left, pat1_right look like images of one patient",
}


def write_doubtful(raw):
    """Write both sides of five patients: one is empty, one scaled, one a copy, and one class is in one case only."""
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    for i, name in enumerate(NAMES):
        image = smooth_image((12, 20, 24), seed=4 if name == "pat3_right" else i)[0]
        if name == "pat3_right":
            image = image + np.random.default_rng(0).normal(0, 0.3, image.shape)
        label = (image > 110).astype(np.uint8) * (name != "pat2_left")
        if name == "pat1_left":
            label[image > 130] = 2
        if name == "pat5_right":
            image = (image - image.min()) / (image.max() - image.min())
        write_nifti(raw / "imagesTr" / f"{name}_0000.nii.gz", image.astype(np.float32))
        write_nifti(raw / "labelsTr" / f"{name}.nii.gz", label)
    info = {
        "channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1, "tumour": 2}, "numTraining": len(NAMES),
        "file_ending": ".nii.gz",
    }  # fmt: skip
    (raw / "dataset.json").write_text(json.dumps(info))


@pytest.fixture
def hand(viewer, cases, home, qtbot):
    """In a window that shows such a dataset."""
    write_doubtful(home / "nnUNet_raw" / "Dataset009_Pairs")
    cases.state.choose(dataset="Dataset009_Pairs")
    cases.state.written.emit()
    qtbot.waitUntil(lambda: cases.groups.table.rowCount() == len(NAMES))
    return Hand(viewer, qtbot)


@pytest.mark.gui
def test_the_check_says_its_doubts_and_the_plan_repeats_them(viewer, cases, hand, qtbot):
    hand.press(cases.problems.panel.button)
    qtbot.waitUntil(lambda: cases.problems.report.isVisible())
    tree = cases.problems.tree
    rows = [tree.topLevelItem(i) for i in range(tree.topLevelItemCount())]
    said = {row.text(0): row.text(1) for row in rows}
    for where, words in DOUBTS.items():
        assert words in said[where], said
    assert "--" not in " ".join(said.values()), "a window has no flags"
    hand.look(cases, "doubts")

    hand.press(cases.next)
    qtbot.waitUntil(lambda: any(name.startswith("Plan") for name in viewer.window.dock_widgets))
    plan = open_dock(viewer, "Plan")
    qtbot.waitUntil(lambda: "Planned" in plan.panel.status.text())
    hand.look(plan, "doubts-plan")
    qtbot.waitUntil(lambda: plan.panel.state is RunState.IDLE)
    told = plan.panel.status.text()
    for where in ("pat2_left.nii.gz", "pat5_right", "pat3_left, pat3_right"):
        assert f"{where}: " in told and DOUBTS[where] in told
    assert "fill in 'Groups' in the Training cases dock" in told and "--" not in told


@pytest.mark.gui
def test_groups_that_are_filled_in_end_the_doubt_about_patients(viewer, cases, hand, qtbot):
    for part in cases.findChildren(QCollapsible):
        part.expand(animate=False)
    qtbot.wait(300)
    hand.press(cases.groups.find)
    assert cases.groups.groups() == {name: name.partition("_")[0] for name in NAMES}
    hand.look(cases, "groups")
    hand.press(cases.problems.panel.button)
    qtbot.waitUntil(lambda: cases.problems.report.isVisible())
    tree = cases.problems.tree
    assert not [row for row in range(tree.topLevelItemCount()) if "one patient" in tree.topLevelItem(row).text(1)]


@pytest.mark.gui
def test_what_will_be_read_of_the_dataset_is_shown(viewer, cases, hand, qtbot):
    hand.press(cases.problems.look)

    def shown():
        return [w for w in QApplication.topLevelWidgets() if isinstance(w, LookDialog) and w.isVisible() and w.found]

    qtbot.waitUntil(lambda: bool(shown()))
    (dialog,) = shown()
    assert dialog.table.rowCount() == 2 * len(NAMES)
    assert dialog.text.text() == "20 files; 1 look odd: select one to read why."
    row = next(row for row in range(20) if dialog.table.item(row, 0).text() == "pat2_left.nii.gz")
    dialog.table.setCurrentCell(row, 0)
    assert dialog.text.text() == "pat2_left.nii.gz: all its voxels are equal."
    hand.look(dialog, "look")
    dialog.reject()
