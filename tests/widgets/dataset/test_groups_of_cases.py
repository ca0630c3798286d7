"""Groups are a column of the Training cases: typed or filled in by a pattern, and kept in the dataset at once."""

from __future__ import annotations

import pytest

from napari_nnunet.formats.dataset.groups import read_groups, stored_groups
from napari_nnunet.widgets.dataset.case_list import GroupTable

NAMES = ["anna_left", "anna_right", "bob_left", "bob_right", "carl"]


@pytest.fixture
def table(qtbot):
    widget = GroupTable()
    qtbot.addWidget(widget)
    return widget


def _kept(folder):
    return (
        (folder / "groups.csv").read_text(encoding="utf-8").splitlines() if (folder / "groups.csv").exists() else None
    )


def test_what_is_typed_is_kept_and_shown_again(table, tmp_path):
    table.show_cases(tmp_path, NAMES)
    assert "every case stands alone" in table.about.text()
    table.table.item(0, 1).setText(" slide 1 ")
    table.table.item(2, 1).setText("slide, 2")
    assert _kept(tmp_path) == ["case,group", "anna_left,slide 1", 'bob_left,"slide, 2"']
    assert "2 cases in 2 groups, 3 alone" in table.about.text()
    again = GroupTable()
    again.show_cases(tmp_path, NAMES)
    assert again.groups() == {"anna_left": "slide 1", "bob_left": "slide, 2"}
    assert read_groups(NAMES, stored_groups(tmp_path)).alone == ("anna_right", "bob_right", "carl")
    for row in (0, 2):
        table.table.item(row, 1).setText("")
    assert _kept(tmp_path) is None


def test_a_pattern_that_the_names_show_is_proposed_and_fills_the_column(table, tmp_path):
    table.show_cases(tmp_path, NAMES)
    assert table.pattern.text()
    table.find.click()
    assert table.groups() == {"anna_left": "anna", "anna_right": "anna", "bob_left": "bob", "bob_right": "bob"}
    assert len(_kept(tmp_path)) == 5
    (tmp_path / "sites.csv").write_text("case,hospital\nanna_left,A\nbob_left,A\nbob_right,B\ncarl,B\n")
    table.pattern.setText(str(tmp_path / "sites.csv"))
    table.find.click()
    assert "taken from the column 'hospital'." in table.about.text()
    table.pattern.setText("(")
    table.find.click()
    assert "is not a valid regular expression" in table.about.text()
    assert len(table.groups()) == 4


def test_a_table_that_cannot_be_read_is_named_and_stays_as_it_is(table, tmp_path):
    (tmp_path / "groups.csv").write_text("case,group\nanna_left\n")
    table.show_cases(tmp_path, NAMES)
    assert "has no group" in table.about.text()
    assert _kept(tmp_path) == ["case,group", "anna_left"]
    table.table.item(2, 1).setText("bob")
    assert "The groups could not be saved." in table.about.text() and "has no group" in table.about.text()
    table.pattern.setText("^([a-z]+)")
    table.find.click()
    assert _kept(tmp_path) == ["case,group", "anna_left"]
    (tmp_path / "groups_before.csv").write_text("older")
    assert not table.aside.isHidden()
    table.aside.click()
    assert "every case stands alone" in table.about.text() and "is groups_before_2.csv now." in table.about.text()
    assert (tmp_path / "groups_before_2.csv").read_text() == "case,group\nanna_left\n"
    assert _kept(tmp_path) is None and table.aside.isHidden()
    table.table.item(2, 1).setText("bob")
    assert _kept(tmp_path) == ["case,group", "bob_left,bob"]
    table.show_cases(None, [])
    assert table.groups() == {}


def test_only_what_is_typed_changes_in_a_table_that_others_write_too(table, tmp_path):
    """Each letter wrote the whole table as one window knew it: groups of others, of removed cases, columns went."""
    table.show_cases(tmp_path, NAMES)
    table.table.item(0, 1).setText("anna")
    path = tmp_path / "groups.csv"
    path.write_text("case;group;age\nanna_left;anna;30\nbob_left;bob;40\nremoved_case;zoe;50\n")
    table.table.item(4, 1).setText("carl")
    table.table.item(0, 1).setText("")
    lines = ["case;group;age", "anna_left;anna_left;30", "bob_left;bob;40", "removed_case;zoe;50", "carl;carl;"]
    assert _kept(tmp_path) == lines
    table.show_cases(tmp_path, NAMES)
    assert table.groups() == {"anna_left": "anna_left", "bob_left": "bob", "carl": "carl"}


def test_groups_of_another_dataset_are_not_shown_while_its_cases_are_looked_for(table, tmp_path):
    table.show_cases(tmp_path, NAMES)
    table.show_dataset(tmp_path)
    assert table.table.rowCount() == len(NAMES)
    table.show_dataset(tmp_path / "other")
    assert table.table.item(0, 0) is None or table.table.item(0, 0).text() == ""
    assert not (tmp_path / "groups.csv").exists()
