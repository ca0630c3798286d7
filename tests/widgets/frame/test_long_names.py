"""Names that are longer than their place show what tells them apart."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from magicgui.widgets import ComboBox
from napari._qt.qt_resources import get_stylesheet
from qtpy.QtGui import QIcon, QPixmap
from qtpy.QtWidgets import QWidget

from napari_nnunet.formats.masks.facts import ValueRow
from napari_nnunet.formats.masks.kinds import Recognised
from napari_nnunet.formats.results.summary import CaseScore
from napari_nnunet.widgets.dataset.import_tables import PairTable, ValueTable
from napari_nnunet.widgets.frame.forms import let_shrink
from napari_nnunet.widgets.frame.parts import NameBox, Table
from napari_nnunet.widgets.frame.words import telling_parts
from napari_nnunet.widgets.training.views import ScoreTable


@pytest.fixture
def show(qtbot):
    """Show a part as wide as it is in a dock or dialog."""
    kept = []

    def wide(part, width):
        around = QWidget()
        kept.append(around)
        qtbot.addWidget(around)
        around.setStyleSheet(get_stylesheet("dark"))
        part.setParent(around)
        part.resize(width, 200)
        around.resize(width, 200)
        around.show()
        qtbot.wait(50)
        return part

    return wide


def test_a_dataset_is_named_from_its_number_to_its_end(show):
    box = NameBox()
    box.addItems(["Dataset001_Short", "Dataset001_hippocampus_of_many_hospitals"])
    show(box, 170)
    assert box.shown() == "Dataset001_Short"
    box.setCurrentIndex(1)
    assert box.shown().startswith("Datas") and "…" in box.shown() and box.shown().endswith("itals")
    box.grab()


def test_boxes_of_layers_show_what_tells_their_names_apart(show):
    boxes = []
    for end in ("1", "2", "2"):
        boxes.append(ComboBox(choices=[f"a brain with a rather long name of its layer {end}"]))
        let_shrink(boxes[-1].native)
        let_shrink(boxes[-1].native)  # as docks do that hold a form that did
        show(boxes[-1].native, 170)
    first, second, again = (box.native.grab().toImage() for box in boxes)
    assert first != second and second == again


def test_tables_leave_out_the_middle_of_a_name(show):
    table = Table("Images", ("Image", "State"))
    table.fill([[f"patient_0031_frame_01_with_contrast {end}", "done"] for end in "01"])
    show(table, 180)
    one, other = (table.grab(table.visualItemRect(table.item(row, 0))).toImage() for row in range(2))
    assert one != other


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["patient001_frame01", "patient002_frame01"], ["…001_frame01", "…002_frame01"]),
        (["a long name of one", "short"], ["a long name of one", "short"]),
        (["one case with a name"], ["one case with a name"]),
        (["hippocampus_001", "hippocampus_010"], ["…001", "…010"]),
        (["c1", "c10"], ["c1", "c10"]),
        (["patient001_frame01", "unseen", "patient012_frame01"], ["…001_frame01", "unseen", "…012_frame01"]),
        (["patient011_with_contrast", "patient021_with_contrast"], ["…011…", "…021…"]),
        (["patient001_before_surgery", "patient001_after_surgery"], ["…before…", "…after…"]),
        (["nucleus_of_a_cell", "nucleus_of_a_cell_1"], ["nucleus_of_a_cell", "…_1"]),
        (["a long name of one", "a long name of two"], ["…one", "…two"]),
        (["2024_patient_001", "2024_patient_002"], ["…001", "…002"]),
        ([], []),
    ],
)
def test_of_cases_that_begin_alike_what_tells_them_apart_is_shown(names, shown):
    assert list(telling_parts(names, lambda text: len(text) < 13).values()) == shown


def test_cases_with_many_scores_are_told_apart(show):
    names = [f"patient00{i}_frame01" for i in (3, 5)]
    table = ScoreTable()
    scores = [CaseScore(name, Path(), Path(), {str(label): {"Dice": 0.1} for label in range(4)}) for name in names]
    table.show_scores(scores, {str(label): f"class_{label}" for label in range(4)})
    show(table, 316)
    cells = [table.visualItemRect(table.item(row, 0)) for row in range(2)]
    one, other = (table.grab(cell).toImage() for cell in cells)
    assert one != other
    assert table.texts()[1][0] == names[0] and table.item(0, 0).toolTip() == names[0]


def test_the_names_of_an_import_have_room_and_numbers_take_none(show):
    pairs = show(PairTable(), 820)
    images = tuple(SimpleNamespace(name=f"patient00{i}_frame01.nii.gz") for i in (1, 2))
    cases = [
        SimpleNamespace(
            name=f"patient00{i}_frame01", pair=SimpleNamespace(images=images[i - 1 : i], mask_words="mask.nii.gz"),
            shape=(10, 256, 216), spacing=(10.0, 1.5, 1.5), turned=False,
        )
        for i in (1, 2)
    ]  # fmt: skip
    pairs.show_cases(cases, (), {})
    picture = QPixmap(40, 40)
    picture.fill()
    for row in range(2):
        pairs.item(row, 0).setIcon(QIcon(picture))
    assert pairs.columnWidth(0) >= pairs.sizeHintForColumn(0)
    values = show(ValueTable(), 820)
    rows = tuple(ValueRow(str(i), 4000, 0.5, 6, f"class_{i}") for i in range(3))
    values.show_recognised(Recognised("classes", rows, True, "", {}), asked=False)
    values.resize(800, 200)
    assert values.columnWidth(0) < 100 < values.columnWidth(4)
