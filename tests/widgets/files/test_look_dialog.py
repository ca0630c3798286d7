"""The table of 'look' in the docks: the same lines, from every place where files are chosen."""

from __future__ import annotations

import numpy as np
import pytest
from docks import open_dock
from qtpy.QtWidgets import QApplication

from helpers import make_dataset, write_nifti
from napari_nnunet.jobs.dataset.look import look_at
from napari_nnunet.widgets.files.look_dialog import LookDialog
from napari_nnunet.widgets.frame.panel import RunState

pytestmark = pytest.mark.gui


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "masks"
    home.mkdir()
    write_nifti(home / "a.nii.gz", np.arange(120, dtype=np.uint8).reshape(4, 5, 6) // 60, (2.0, 0.5, 0.5))
    (home / "b.nii.gz").write_bytes(b"nothing of the kind")
    return home


def shown(table):
    return [[table.item(r, c).text() for c in range(table.columnCount())] for r in range(table.rowCount())]


def opened(qtbot):
    """Return the dialog that a button opened, when it has looked."""
    (dialog,) = [top for top in QApplication.topLevelWidgets() if isinstance(top, LookDialog) and top.isVisible()]
    qtbot.waitUntil(lambda: dialog.panel.state is RunState.IDLE and bool(dialog.found))
    return dialog


def test_a_line_says_what_the_shell_says_and_a_selected_one_why_it_looks_odd(folder, qtbot):
    dialog = LookDialog([folder])
    qtbot.addWidget(dialog)
    qtbot.waitUntil(lambda: len(dialog.found) == 2)
    first, second = shown(dialog.table)
    assert first == [*look_at(folder / "a.nii.gz").cells.values(), ""]
    assert (second[0], "b.nii.gz" in second[-1], second[1:-1]) == ("b.nii.gz", True, [""] * 6)
    assert dialog.text.text() == "2 files; 1 look odd: select one to read why."
    dialog.table.selectRow(1)
    assert dialog.text.text().startswith("b.nii.gz: ")
    dialog.copy.click()
    lines = QApplication.clipboard().text().splitlines()
    assert lines[0].split("\t")[:2] == ["file", "voxels"]
    assert lines[1].split("\t")[:2] == ["a.nii.gz", "4 x 5 x 6"]


def test_without_a_folder_it_says_so(qtbot):
    dialog = LookDialog([])
    qtbot.addWidget(dialog)
    assert dialog.panel.status.text() == "Choose a folder first."


def test_every_dock_that_reads_files_shows_it(viewer, folder, tmp_path, monkeypatch, qtbot):
    make_dataset(tmp_path, cases=1)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    cases = open_dock(viewer, "Training cases")
    cases.state.choose(dataset="Dataset005_Test")
    importing = cases.import_dialog()
    importing.masks.setText(str(folder))
    segment = open_dock(viewer, "Segment")
    segment.form.image.scope.box.value = "A folder"
    segment.form.image.scope.images.setText(str(folder))
    for look, files in (
        (cases.problems.look, ["c0_0000.nii.gz", "c0.nii.gz"]),
        (importing.look, ["a.nii.gz", "b.nii.gz"]),
        (segment.form.image.scope.look, ["a.nii.gz", "b.nii.gz"]),
    ):
        look.click()
        dialog = opened(qtbot)
        assert [row[0] for row in shown(dialog.table)] == files
        dialog.reject()
