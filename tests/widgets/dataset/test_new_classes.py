"""A class that the cases there are do not know: absent, or never looked for, is asked in the Training cases dock."""

from __future__ import annotations

import pytest
from casework import layers, press, settled, show
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QMessageBox

from helpers import dataset_json, make_dataset
from napari_nnunet.formats.dataset.raw_dataset import open_dataset

PARTLY = {"c0": ["a"], "c1": ["a"]}
EARLIER = {f"c{i}": ("a",) for i in range(3)}


def answering(button):
    """Press a button of the question as soon as it is there; returns the list that gets the question."""
    asked = []

    def answer():
        box = QApplication.activeModalWidget()
        if not isinstance(box, QMessageBox):
            QTimer.singleShot(50, answer)
            return
        asked.append(box.text())
        next(one for one in box.buttons() if one.text().replace("&", "") == button).click()

    QTimer.singleShot(50, answer)
    return asked


def press_and_answer(cases, qtbot, raw, button, known):
    """Save the case, answer the question, and hold the dataset against what is known then (None: as before).

    Returns the question.
    """
    before = (raw / "dataset.json").read_bytes()
    asked = answering(button)
    if known is None:
        cases.panel.button.click()
        assert (raw / "dataset.json").read_bytes() == before
    else:
        press(cases, qtbot)
        assert dict(open_dataset(raw).info.annotated) == known
    return asked[0]


@pytest.mark.parametrize(
    ("button", "known"), [("Nobody looked for it", EARLIER), ("There is none", {}), ("Cancel", None)]
)
def test_a_new_class_is_absent_or_unknown_in_the_cases_there_are(viewer, cases, home, qtbot, button, known):
    raw = make_dataset(home, cases=3)
    show(cases, raw)
    layers(viewer)
    settled(cases, qtbot)
    cases.form.table.item(1, 2).setText("a")
    cases.form.table.item(2, 2).setText("cyst")
    settled(cases, qtbot)
    asked = press_and_answer(cases, qtbot, raw, button, known)
    if known is not None:
        assert open_dataset(raw).info.labels.labels == {"background": 0, "a": 1, "cyst": 2}
    assert "'cyst' is a new class, and nothing is labelled 'cyst' in the 3 other cases." in asked


@pytest.mark.parametrize(
    ("button", "known"),
    [("Nobody looked for it", {"c0": ("a",), "c1": ("a",)}), ("There is none", {"c1": ("a",)}), ("Cancel", None)],
)
def test_another_image_does_not_inherit_what_was_looked_for_unasked(viewer, cases, home, qtbot, button, known):
    raw = make_dataset(home, cases=2)
    dataset_json(raw, labels={"background": 0, "a": 1, "b": 2}, napari_nnunet_annotated=PARTLY)
    show(cases, raw)
    layers(viewer)
    settled(cases, qtbot)
    cases.form.case_edit.value = "c0"
    for row, name in ((1, "a"), (2, "background")):
        cases.form.table.item(row, 2).setText(name)
    settled(cases, qtbot)
    cases.confirmed = lambda question: True
    asked = press_and_answer(cases, qtbot, raw, button, known)
    assert asked.startswith("Nobody looked for 'b' in the case 'c0' that is replaced")
