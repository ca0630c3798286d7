"""Names that are longer than their place show what tells them apart."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
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
        (
            ["liver_contrast_001", "liver_contrast_002", "lung_contrast_001", "lung_contrast_002"],
            ["liver…001", "liver…002", "lung…001", "lung…002"],
        ),
        (
            ["control_group_a01", "control_group_a02", "patient_visit_a01", "patient_visit_a02"],
            ["control…01", "control…02", "patient…01", "patient…02"],
        ),
        (
            ["Liver_2021_CT_1", "Liver_2021_CT_2", "liver_2021_CT_1", "liver_2021_CT_2"],
            ["Liver…1", "Liver…2", "liver…1", "liver…2"],
        ),
        (["Liver_2021_CT_1", "liver_2021_CT_1"], ["Liver…1_CT_1", "liver…1_CT_1"]),
        (["2024_scan_of_head", "2025_scan_of_head"], ["…4…_of_head", "…5…_of_head"]),
        (
            ["the_control_a01", "the_control_a02", "the-control_a01", "the-control_a02"],
            ["…_…rol_a01", "…_…rol_a02", "…-…rol_a01", "…-…rol_a02"],
        ),
    ],
)
def test_of_cases_that_begin_alike_what_tells_them_apart_is_shown(names, shown):
    assert list(telling_parts(names, lambda text: len(text) < 13).values()) == shown


@given(
    st.lists(
        st.text("aB_.…01", min_size=1, max_size=9)
        | st.from_regex(r"(liver|lung|Liver)_[a-c]{2,9}_0[0-9]{1,3}", fullmatch=True),
        unique=True,
    ),
    st.integers(0, 20),
)
def test_different_names_are_never_shown_alike(names, room):
    shown = telling_parts(names, lambda text: len(text) <= room)
    assert list(shown) == names and len(set(shown.values())) == len(names)


def test_names_of_thousands_of_cases_are_measured_once_per_fill_and_width(show, monkeypatch):
    asked = []

    def counted(names, fits):
        asked.append(len(names))
        return telling_parts(names, fits)

    monkeypatch.setattr("napari_nnunet.widgets.training.views.telling_parts", counted)
    table = ScoreTable()

    def fill(word):
        scores = [CaseScore(f"{word}_{i:04d}_first_frame", Path(), Path(), {"1": {"Dice": 0.1}}) for i in range(50)]
        table.show_scores(scores, {"1": "a class with a name"})

    fill("patient")
    show(table, 180)
    table.setColumnWidth(0, 90)
    table.grab()
    asked.clear()
    table.grab()
    assert asked == []
    fill("volunteer")
    table.setColumnWidth(0, 90)
    first = table.grab().toImage()
    assert asked == [50] * len(asked) and 1 <= len(asked) <= 2
    table.setColumnWidth(0, 95)
    assert table.grab().toImage() != first and len(asked) <= 4


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
