"""The table of trainings says what each is called, in lines that fit into a dock of usual width."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from napari.qt import get_stylesheet
from qtpy.QtCore import Qt

from napari_nnunet.widgets.training.views import TrainingTable

WIDTH = 294  # of the table in a dock beside a window of 1280 x 800


def training(dataset, model, fold):
    path = Path("results") / dataset / model / f"fold_{fold}"
    last = SimpleNamespace(epoch=99, epochs=1000, dice=(0.9671,))
    folder = SimpleNamespace(path=path, fold=fold)
    return SimpleNamespace(folder=folder, last=last, status="running", title=f"{dataset} {model} fold {fold}")


@pytest.fixture(params=["dark", "light"])
def table(qtbot, request):
    table = TrainingTable()
    qtbot.addWidget(table)
    table.setStyleSheet(get_stylesheet(request.param))
    table.setFixedWidth(WIDTH)
    table.show_trainings(
        [
            training("Dataset001_Demo", "nnUNetTrainer__nnUNetSmallPlans__3d_fullres", 0),
            training("Dataset004_Hippocampus", "nnUNetTrainer__nnUNetPlans__3d_fullres", "all"),
            training("Dataset004_" + "VeryLongNameOfADataset" * 3, "nnUNetTrainer__nnUNetPlans__2d", 4),
        ]
    )
    table.show()
    qtbot.waitExposed(table)
    table.fit()
    return table


def test_no_line_of_a_usual_name_is_cut_and_long_ones_keep_their_end(table):
    cells = [table.item(row, 0) for row in range(3)]
    lines = [cell.text().split("\n") for cell in cells]
    assert lines[0] == ["Demo fold 0", "3d_fullres", "nnUNetSmallPlans"]
    assert lines[1] == ["Hippocampus fold all", "3d_fullres"]
    assert lines[2][0].endswith("fold 4")
    room = table.columnWidth(0) - 6  # the margins of a cell
    wide = [max(map(table.fontMetrics().horizontalAdvance, own)) for own in lines]
    assert wide[0] <= room and wide[1] <= room < wide[2]
    assert table.textElideMode() is Qt.TextElideMode.ElideMiddle and not table.wordWrap()
    assert table.horizontalScrollBar().maximum() == 0
    height = table.fontMetrics().lineSpacing()
    assert [table.rowHeight(row) // height for row in range(3)] == [3, 2, 2]
    assert cells[2].toolTip().startswith("Dataset004_VeryLongName") and "fold_4" in cells[2].toolTip()


def test_trainings_of_two_datasets_with_one_name_say_their_numbers(table):
    model = "nnUNetTrainer__nnUNetPlans__2d"
    table.show_trainings([training(f"Dataset{n}_Heart", model, 0) for n in ("004", "005")])
    assert [table.item(row, 0).text() for row in range(2)] == ["004_Heart fold 0\n2d", "005_Heart fold 0\n2d"]
