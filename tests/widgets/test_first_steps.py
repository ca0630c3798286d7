"""What made people hesitate when they first walked through the docks."""

from __future__ import annotations

import json

import numpy as np
from docks import MM, open_dock, press
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QScrollArea, QTabBar

from helpers import Recipe, make_dataset, make_trainable, smooth_image
from napari_nnunet.widgets.dataset.import_dialog import ImportDialog
from napari_nnunet.widgets.frame.tabs import open_dock as to_the_front


def test_what_is_pressed_next_is_seen_without_scrolling(viewer, home, qtbot):
    viewer.window.resize(1280, 800)
    raw = make_dataset(home, cases=3)
    cases = open_dock(viewer, "Training cases")
    cases.state.choose(dataset=raw.name)
    qtbot.waitUntil(cases.next.isVisible)
    assert cases.next.window().rect().contains(cases.next.mapTo(cases.next.window(), cases.next.rect().center()))
    assert not cases.findChild(QScrollArea).isAncestorOf(cases.next)
    plan = open_dock(viewer, "Plan")
    assert not plan.findChild(QScrollArea).isAncestorOf(plan.train)
    qtbot.waitUntil(lambda: not cases.cases._drawing.running)


def test_the_folds_of_a_dataset_are_seen_without_scrolling(viewer, home, qtbot):
    make_trainable(home, Recipe(spacing=(1.0, 1.0, 1.0)))
    train = open_dock(viewer, "Train")
    qtbot.waitUntil(train.form.fold_boxes.isVisible)
    qtbot.wait(200)
    assert not train.form.fold_boxes.verticalScrollBar().isVisible()
    train.watch.stop()


def test_a_box_with_nothing_to_choose_says_so_and_one_with_choices_offers_only_these(viewer, home, qtbot):
    train = open_dock(viewer, "Train")
    box = train.form.configuration_box
    assert (box.current_choice, box.value) == ("(nothing yet)", None)
    make_trainable(home, Recipe(spacing=(1.0, 1.0, 1.0)))
    train.form.head.look_again()
    assert [box.native.itemText(i) for i in range(box.native.count())] == ["3d_fullres"]
    for title in ("Segment", "Plan", "Ensemble", "Compare"):
        dock = open_dock(viewer, title)
        assert all("---" not in choice.itemText(i) for choice in boxes(dock) for i in range(choice.count()))
    train.watch.stop()


def boxes(dock):
    from qtpy.QtWidgets import QComboBox

    return dock.findChildren(QComboBox)


def test_tabs_of_many_docks_keep_their_names(viewer, home, qtbot):
    for title in ("Training cases", "Plan", "Segment", "Ensemble", "Compare", "Models"):
        to_the_front(viewer, title)
    window = viewer.window._qt_window

    def bars():
        return [bar for bar in window.findChildren(QTabBar) if bar.count() == 6]

    qtbot.waitUntil(lambda: bool(bars()))
    qtbot.waitUntil(lambda: bars()[0].elideMode() == Qt.TextElideMode.ElideNone)


def test_slices_of_a_volume_have_a_size_and_pictures_have_pixels(viewer, home, qtbot):
    base = make_trainable(home, Recipe(configuration="2d", patch=(16, 16), spacing=(1.0, 1.0)))
    plan = open_dock(viewer, "Plan")
    assert "1 × 1 mm" in column(plan)
    path = next((home / "nnUNet_preprocessed").rglob("nnUNetPlans.json"))
    path.write_text(
        json.dumps(
            {**json.loads(path.read_text(encoding="utf-8")), "original_median_spacing_after_transp": [999, 1, 1]}
        )
    )
    plan.head.look_again()
    qtbot.waitUntil(lambda: "pixels" in column(plan))
    assert base is not None
    qtbot.waitUntil(lambda: not plan._costing.running)


def column(plan):
    return [plan.views.table.item(row, 0).text() for row in range(plan.views.table.rowCount())]


def test_a_dataset_from_a_folder_called_images_is_named_after_the_folder_around_it(viewer, home, qtbot):
    cases = open_dock(viewer, "Training cases")
    cases.form.from_folders.click()
    dialog = cases.findChild(ImportDialog)
    for folder in (home / "embryos" / "images", home / "embryos" / "masks"):
        folder.mkdir(parents=True)
    dialog.images.setText(str(home / "embryos" / "images"))
    assert dialog.name.text() == "embryos"
    dialog.images.setText(str(home / "embryos"))
    assert dialog.name.text() == "embryos"
    dialog.reject()


def test_a_result_without_anything_found_says_so(known_arithmetic, viewer, dock, model, qtbot, monkeypatch):
    from napari_nnunet.widgets.prediction import segment_dock

    run = segment_dock.predict_series

    def finds_nothing(model, targets, *args, **keywords):
        predictions = yield from run(model, targets, *args, **keywords)
        for _, labels, _ in targets:
            labels[...] = 0
        return predictions

    dock.add_model(model.folder)
    viewer.add_image(smooth_image((12, 20, 20))[0], name="empty", units=MM)
    monkeypatch.setattr(segment_dock, "predict_series", finds_nothing)
    qtbot.waitUntil(lambda: "GB of memory" in dock.summary.text())
    press(qtbot, dock)
    assert dock.panel.status.text().endswith("Nothing was found in this image.")
    assert not np.asarray(viewer.layers[-1].data).any()


def test_a_result_of_a_dataset_of_scribbles_is_a_whole_case(viewer, home, qtbot):
    raw = make_dataset(home, cases=3, shape=(6, 20, 24))
    content = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    ignore = max(content["labels"].values()) + 1
    (raw / "dataset.json").write_text(json.dumps({**content, "labels": {**content["labels"], "ignore": ignore}}))
    cases = open_dock(viewer, "Training cases")
    cases.state.choose(dataset=raw.name)
    place = {"scale": (1, 1, 1), "units": MM}
    viewer.add_image(smooth_image((6, 20, 24))[0], name="unseen", **place)
    found = np.zeros((6, 20, 24), int)
    found[1:3, 4:9, 4:9] = 1
    viewer.add_labels(found, name="unseen – 2d", metadata={"nnunet": {"partial": False}}, **place)
    qtbot.waitUntil(lambda: "<b>Will add</b> 'unseen'" in cases.summary.text())
    assert not cases.form.sparse_box.value
    viewer.add_labels(found, name="scribbles", **place)  # somebody's own painting is as sparse as the dataset
    qtbot.waitUntil(lambda: bool(cases.form.sparse_box.value))
    qtbot.waitUntil(lambda: not cases.cases._drawing.running)
