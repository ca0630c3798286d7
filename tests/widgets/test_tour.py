"""The first start offers a tour of two minutes; it points at real parts, is walked by keys, and is offered once."""

from __future__ import annotations

import pytest
from docks import open_dock, press
from layout import check_layout, in_sight
from qtpy.QtCore import Qt

from napari_nnunet.widgets import tour as tours


@pytest.fixture
def new(viewer, home):
    """The Segment dock as somebody sees it who never used it, in a small window."""
    tours._path().unlink()
    viewer.window.resize(1280, 800)
    return open_dock(viewer, "Segment")


def test_it_leads_from_nothing_to_a_segmented_sample(viewer, new, qtbot):
    tour = new.tour
    assert tour.isVisible()
    qtbot.keyClick(tour.next, Qt.Key.Key_Return)
    seen = []
    while tour.at is not None:
        stop = tour._stops[tour.at]
        seen.append(stop.title)
        assert stop.title in tour.text.text()
        assert tour._frame.parentWidget() is stop.part
        check_layout(viewer, new, qtbot, f"tour-{tour.at + 1}")
        if stop.act is not None:
            qtbot.mouseClick(tour.act, Qt.MouseButton.LeftButton)
        if stop.title == "Segment":
            qtbot.waitUntil(lambda: new.panel.button.isEnabled())
            press(qtbot, new)
            assert in_sight(new.panel)
        if stop.title == "The result":
            assert stop.part.isVisible()
        qtbot.keyClick(tour.next, Qt.Key.Key_Return)
    assert seen == ["An image", "A model", "What will happen", "Segment", "The result", "A model of your own"]
    assert {"nuclei and shells", "truth"} < {layer.name for layer in viewer.layers}
    assert any("Training cases" in name for name in viewer.window.dock_widgets)
    assert not tour.isVisible()


@pytest.mark.parametrize("end", ["the button", "Esc", "Esc on the way"])
def test_it_is_not_offered_again_to_whoever_did_not_want_it_and_help_has_it(viewer, new, qtbot, end):
    match end:
        case "the button":
            qtbot.mouseClick(new.tour.skip, Qt.MouseButton.LeftButton)
        case "Esc":
            qtbot.keyClick(new.tour.next, Qt.Key.Key_Escape)
        case _:
            qtbot.keyClick(new.tour.next, Qt.Key.Key_Return)
            qtbot.keyClick(new.tour.next, Qt.Key.Key_Escape)
    assert not new.tour.isVisible()
    assert tours.was_offered()
    qtbot.mouseClick(new.form.head.help, Qt.MouseButton.LeftButton)
    qtbot.mouseClick(new.form.head.help.pages.tour, Qt.MouseButton.LeftButton)
    assert new.tour.isVisible()
    assert new.tour.at == 0


def test_back_leads_back_and_is_off_at_the_beginning(new, qtbot):
    new.tour.begin()
    assert not new.tour.back.isEnabled()
    new.tour.go_on()
    qtbot.mouseClick(new.tour.back, Qt.MouseButton.LeftButton)
    assert new.tour.at == 0


def test_a_second_dock_of_somebody_who_knows_it_does_not_offer_it(viewer, home):
    assert not open_dock(viewer, "Segment").tour.isVisible()


def test_where_nothing_can_be_remembered_the_tour_still_ends(new, tmp_path, monkeypatch):
    (tmp_path / "no folder").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no folder"))
    new.tour.end()
    assert not new.tour.isVisible()
    assert not tours.was_offered()
