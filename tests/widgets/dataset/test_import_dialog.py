"""An import shows pairs, pictures, values and what is left out before anything is written."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from casework import listed, show
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QFileDialog, QPushButton

from helpers import make_dataset, smooth_image
from napari_nnunet.formats.dataset.objects import object_scheme, read_objects
from napari_nnunet.formats.dataset.raw_dataset import read_info, survey
from napari_nnunet.formats.images.files import read_labels


@pytest.fixture
def folders(home):
    """Three pictures with masks of 0 and 255, and a picture without a mask."""
    images, masks = home / "Zellkörper 1", home / "ground_truth"
    for folder in (images, masks):
        folder.mkdir()
    for i in range(3):
        picture = np.clip(smooth_image((1, 30, 30), seed=i)[0, 0], 0, 255).astype(np.uint8)
        iio.imwrite(images / f"img_{i}.png", picture)
        iio.imwrite(masks / f"mask_{i}.png", (picture > 120).astype(np.uint8) * 255)
    iio.imwrite(images / "img_9.png", picture)
    return images, masks


def objects(masks):
    """Masks that number small squares."""
    rng = np.random.default_rng(0)
    for i in range(3):
        mask = np.zeros((30, 30), np.uint8)
        for value, place in enumerate(rng.permutation(25)[: 18 + 2 * i], start=1):
            row, column = divmod(int(place), 5)
            height, width = rng.integers(2, 6, size=2)
            mask[6 * row : 6 * row + height, 6 * column : 6 * column + width] = value
        iio.imwrite(masks / f"mask_{i}.png", mask)


def opened(cases, qtbot, images, masks):
    dialog = cases.import_dialog()
    dialog.open()
    dialog.images.setText(str(images))
    dialog.masks.setText(str(masks))
    if dialog._trouble is None:
        qtbot.waitUntil(lambda: dialog.plan is not None)
    return dialog


def press(dialog, qtbot):
    assert dialog.panel.button.isEnabled(), dialog.about.text()
    with qtbot.waitSignal(dialog.imported):
        qtbot.mouseClick(dialog.panel.button, Qt.MouseButton.LeftButton)


def rows(table):
    return [row for row in table.texts()[1:] if row[0]]


def test_pairs_values_and_what_is_left_out_are_shown_before_anything_is_written(viewer, cases, home, folders, qtbot):
    dialog = opened(cases, qtbot, *folders)
    assert "<b>3 pairs</b>, 1 channel, 1 file left out." in dialog.about.text()
    assert rows(dialog.pairs)[0][:4] == ["img_0", "img_0.png", "mask_0.png", "30 × 30"]
    assert ["", "img_9.png", "", "", "no mask has its name"] in dialog.pairs.texts()
    assert [(row[0], row[4]) for row in rows(dialog.values)] == [("0", "background"), ("255", "class_1")]
    assert dialog.name.text() == "Zellkoerper_1"
    qtbot.waitUntil(lambda: not dialog.pairs.item(2, 0).icon().isNull())
    assert not (home / "nnUNet_raw").exists() or not list((home / "nnUNet_raw").glob("Dataset*"))
    dialog.values.item(1, 4).setText("nano particle")
    dialog.channels.setText("phase contrast")
    press(dialog, qtbot)
    assert cases.form.head.raw == home / "nnUNet_raw" / "Dataset001_Zellkoerper_1"
    assert "Channels: phase contrast.<br>Classes: nano particle." in cases.form.about.text()
    listed(cases, qtbot, 3)


def test_numbered_objects_stay_objects(viewer, cases, home, folders, qtbot):
    objects(folders[1])
    dialog = opened(cases, qtbot, *folders)
    assert "number their objects" in dialog.meaning.text()
    assert dialog.objects.each.isVisible() and dialog.objects.each.isChecked() and not dialog.values.isVisible()
    qtbot.keyClicks(dialog.objects.name, "carbon grain")
    press(dialog, qtbot)
    raw = cases.form.head.raw
    assert object_scheme(raw).kinds == {"carbon grain": (1, 2)}
    assert np.unique(read_objects(raw / "objectsTr" / "img_2.png")[0]).tolist() == list(range(23))
    assert set(np.unique(read_labels(raw / "labelsTr" / "img_2.png")[0])) == {0, 1, 2}
    listed(cases, qtbot, 3)


def test_objects_in_colours_are_offered_as_objects(viewer, cases, home, folders, qtbot):
    colours = np.random.default_rng(0).integers(40, 255, (60, 3)).astype(np.uint8)
    colours[0] = 0
    objects(folders[1])
    for path in folders[1].iterdir():
        iio.imwrite(path, colours[iio.imread(path)])
    dialog = opened(cases, qtbot, *folders)
    assert "draw their objects in colours: up to" in dialog.meaning.text()
    assert dialog.objects.each.isChecked() and dialog.objects.each.text() == "Each colour is an object of its own, a"
    press(dialog, qtbot)
    found = read_objects(cases.form.head.raw / "objectsTr" / "img_2.png")[0]
    assert np.unique(found).tolist() == list(range(23))
    listed(cases, qtbot, 3)


def test_numbers_that_look_like_classes_can_be_told_to_be_objects(viewer, cases, home, folders, qtbot):
    for i in range(3):
        mask = np.zeros((30, 30), np.uint8)
        mask[:10, :10], mask[20:, :10], mask[20:, 20:] = 1, 2, 3
        iio.imwrite(folders[1] / f"mask_{i}.png", mask)
    dialog = opened(cases, qtbot, *folders)
    assert dialog.objects.classes.isChecked() and dialog.values.isVisible()
    qtbot.mouseClick(dialog.objects.each, Qt.MouseButton.LeftButton, pos=QPoint(8, dialog.objects.each.height() // 2))
    assert not dialog.values.isVisible()
    assert dialog.meaning.text() == "Every value besides 0 of a mask is an object of its own: object."
    press(dialog, qtbot)
    assert np.unique(read_objects(cases.form.head.raw / "objectsTr" / "img_0.png")[0]).tolist() == [0, 1, 2, 3]
    listed(cases, qtbot, 3)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("negative", "1 mask has values below 0 (img_0: -1)"),
        ("fractions", "have values that are not whole numbers"),
        ("NaN", "100 voxels that are NaN or infinite"),
        ("another size", "30 x 30 voxels and 27 x 30"),
    ],
)
def test_masks_that_cannot_number_objects_are_not_imported(viewer, cases, home, folders, qtbot, how, words):
    objects(folders[1])
    for i in range(3):
        path = folders[1] / f"mask_{i}.png"
        mask = iio.imread(path).astype(np.float32)
        path.unlink()
        if i == 0:
            spoil = {
                "negative": lambda m: np.where(m == 1, -1, m).astype(np.int16),
                "fractions": lambda m: m * np.float32(0.3),
                "NaN": lambda m: (
                    np.pad(m[10:, 10:], ((10, 0), (10, 0)))
                    + np.where(np.maximum(*np.ogrid[:30, :30]) < 10, np.nan, 0).astype(np.float32)
                ),
                "another size": lambda m: m[:-3].astype(np.int16),
            }
            mask = spoil[how](mask)
        tifffile.imwrite(path.with_suffix(".tif"), mask)
    dialog = opened(cases, qtbot, *folders)
    said = dialog.about.text() + dialog.meaning.text() + str(dialog.pairs.texts())
    assert words in said
    if how != "fractions":
        assert not dialog.panel.button.isEnabled()
    else:  # what can be chosen is a value from which on there is a class
        assert not dialog.objects.isVisible() and dialog.objects.kind is None
    dialog.reject()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("empty", "1 case has no object: img_0."),
        ("one voxel", "1 of 61 objects is one voxel large (img_0)"),
        ("two pieces", "lies in several pieces (img_0)"),
        ("classes", "If the masks hold classes instead of numbered objects"),
    ],
)
def test_what_is_odd_about_objects_is_said_when_they_are_imported(viewer, cases, home, folders, qtbot, how, words):
    objects(folders[1])
    for i in range(3):
        path = folders[1] / f"mask_{i}.png"
        mask = iio.imread(path)
        if i == 0 or how == "classes":
            if how == "one voxel":
                mask[29, 29] = 99
            spoil = {
                "empty": np.zeros_like,
                "one voxel": np.asarray,
                "two pieces": lambda m: np.where(m == 1, 2, m),
                "classes": lambda m: np.where(m % 2, m > 0, 2 * (m > 0)),
            }
            mask = spoil[how](mask).astype(np.uint8)
        iio.imwrite(path, mask)
    dialog = opened(cases, qtbot, *folders)
    qtbot.mouseClick(dialog.objects.each, Qt.MouseButton.LeftButton, pos=QPoint(8, dialog.objects.each.height() // 2))
    with qtbot.waitSignal(dialog.imported) as signal:
        qtbot.mouseClick(dialog.panel.button, Qt.MouseButton.LeftButton)
    assert any(words in str(note) for note in signal.args[1]), signal.args[1]


def test_numbered_objects_become_one_class_on_request(viewer, cases, home, folders, qtbot):
    objects(folders[1])
    dialog = opened(cases, qtbot, *folders)
    button = dialog.objects.classes
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton, pos=QPoint(8, button.height() // 2))
    assert rows(dialog.values)[1][4] == "object" and dialog.values.isVisible()
    press(dialog, qtbot)
    raw = cases.form.head.raw
    assert read_info(raw).labels.labels == {"background": 0, "object": 1}
    assert np.unique(read_labels(raw / "labelsTr" / "img_2.png")[0]).tolist() == [0, 1]
    listed(cases, qtbot, 3)


def test_several_values_may_have_one_class(viewer, cases, home, folders, qtbot):
    for i in range(3):
        mask = np.zeros((30, 30), np.uint8)
        mask[:10, :10], mask[20:, :10], mask[20:, 20:] = 1, 2, 3
        iio.imwrite(folders[1] / f"mask_{i}.png", mask)
    dialog = opened(cases, qtbot, *folders)
    for row, name in ((1, "cell"), (2, "cell"), (3, "edge of the cell")):
        dialog.values.item(row, 4).setText(name)
    press(dialog, qtbot)
    assert read_info(cases.form.head.raw).labels.labels == {"background": 0, "cell": 1, "edge of the cell": 2}
    listed(cases, qtbot, 3)


def test_a_case_is_left_out_by_its_tick_and_a_damaged_one_must_be(viewer, cases, home, folders, qtbot):
    (folders[1] / "mask_1.png").write_bytes(b"damaged")
    dialog = opened(cases, qtbot, *folders)
    assert "img_1 cannot be imported" in dialog.about.text() and not dialog.panel.button.isEnabled()
    assert dialog.pairs.item(0, 0).text() == "img_1"
    for name in ("img_1", "img_2"):
        row = next(r for r in range(4) if dialog.pairs.item(r, 0).text() == name)
        dialog.pairs.item(row, 0).setCheckState(Qt.CheckState.Unchecked)
    assert "<b>1 pair</b>" in dialog.about.text()
    press(dialog, qtbot)
    assert [case.name for case in survey(cases.form.head.raw)[0].cases] == ["img_0"]
    listed(cases, qtbot, 1)


def test_masks_of_other_sizes_are_named_and_left_out_by_their_ticks(viewer, cases, home, folders, qtbot):
    iio.imwrite(folders[0] / "img_2.png", np.zeros((40, 20), np.uint8))
    mask = iio.imread(folders[1] / "mask_2.png")
    iio.imwrite(folders[1] / "mask_1.png", mask[:20])
    iio.imwrite(folders[1] / "mask_2.png", np.zeros((40, 20), np.uint8))  # sizes may differ from case to case
    dialog = opened(cases, qtbot, *folders)
    assert "img_1 cannot be imported" in dialog.about.text() and not dialog.panel.button.isEnabled()
    assert "do not lie on the same grid: 30 x 30 voxels and 20 x 30" in dialog.about.text()
    dialog.pairs.item(0, 0).setCheckState(Qt.CheckState.Unchecked)
    press(dialog, qtbot)
    assert [case.name for case in survey(cases.form.head.raw)[0].cases] == ["img_0", "img_2"]
    listed(cases, qtbot, 2)


def test_cases_are_added_to_a_dataset(viewer, cases, home, qtbot):
    raw = make_dataset(home, cases=2)
    other = make_dataset(home / "other", cases=3)
    for folder in ("imagesTr", "labelsTr"):
        for path in sorted((other / folder).iterdir()):
            path.rename(path.with_name("new_" + path.name.replace("_0000", "")))
    show(cases, raw)
    listed(cases, qtbot, 2)
    dialog = opened(cases, qtbot, other / "imagesTr", other / "labelsTr")
    assert dialog.target.currentData() == raw.name and not dialog.name.isVisible()
    press(dialog, qtbot)
    listed(cases, qtbot, 5)
    assert read_info(raw).raw["numTraining"] == 5


def test_the_same_folder_twice_and_a_missing_one_are_refused(viewer, cases, home, folders, qtbot):
    dialog = opened(cases, qtbot, folders[0], folders[0])
    assert "Images and masks are the same folder. Choose two folders." in dialog.about.text()
    dialog.masks.setText(str(home / "nowhere"))
    assert "does not exist" in dialog.about.text()
    assert not dialog.panel.button.isEnabled()
    dialog.reject()


def test_folders_that_are_swapped_are_noticed(viewer, cases, home, folders, qtbot):
    dialog = opened(cases, qtbot, folders[1], folders[0])
    assert not dialog.panel.button.isEnabled()
    qtbot.waitUntil(dialog.swap.isVisible)
    assert "look swapped" in dialog.about.text()
    qtbot.mouseClick(dialog.swap, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: dialog.panel.button.isEnabled())
    assert not dialog.swap.isVisible() and "<b>3 pairs</b>" in dialog.about.text()
    dialog.reject()


def test_a_name_is_mended_while_it_is_typed(viewer, cases, folders, qtbot):
    dialog = opened(cases, qtbot, *folders)
    dialog.name.setText("Größere Zellen/2")
    dialog.name.textEdited.emit(dialog.name.text())  # the keyboard of the test has no umlauts
    assert dialog.name.text() == "Groessere_Zellen_2"
    dialog.reject()


def test_names_with_their_pictures_and_what_is_typed_have_room(viewer, cases, home, folders, qtbot):
    dialog = opened(cases, qtbot, *folders)
    qtbot.wait(100)
    assert dialog.pairs.columnWidth(0) >= 100
    assert dialog.values.columnWidth(4) >= 200
    for table in (dialog.pairs, dialog.values):
        assert table.horizontalScrollBar().maximum() == 0
    dialog.reject()


def test_the_keys_of_the_import_dialog(viewer, cases, home, folders, qtbot, monkeypatch):
    """Enter after a name once pressed Browse; Ctrl+Enter did nothing."""
    asked = []
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: asked.append(1) or "")
    dialog = opened(cases, qtbot, *folders)
    qtbot.keyClick(dialog.name, Qt.Key.Key_Return)
    assert not asked and dialog.isVisible()
    with qtbot.waitSignal(dialog.imported):
        qtbot.keyClick(dialog.name, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    dialog = cases.import_dialog()
    dialog.open()
    qtbot.keyClick(dialog.name, Qt.Key.Key_Escape)
    assert not dialog.isVisible()
    listed(cases, qtbot, 3)


def test_a_voxel_size_and_subfolders_are_asked_for_in_the_import(viewer, cases, home, folders, qtbot):
    for folder in folders:
        (folder / "more").mkdir()
        for path in sorted(folder.glob("*_2.png")):
            path.rename(folder / "more" / path.name)
    dialog = opened(cases, qtbot, *folders)
    dialog.spacing.setText("0.5 wide")
    assert "two or three positive numbers" in dialog.about.text()
    dialog.spacing.setText("0.5 x 0.25")
    dialog.subfolders.setChecked(True)
    qtbot.waitUntil(lambda: dialog.plan is not None)
    assert [row[0] for row in rows(dialog.pairs)] == ["img_0", "img_1", "more_img_2"]
    assert {case.spacing for case in dialog.plan.cases} == {(0.5, 0.25)}


def test_a_name_that_is_taken_is_said_before_anything_is_pressed(viewer, cases, home, folders, qtbot):
    make_dataset(home, cases=1, name="Dataset001_Zellkoerper_1")
    dialog = opened(cases, qtbot, *folders)
    assert dialog.name.text() == "Zellkoerper_1" and dialog.panel.button.isEnabled()
    assert dialog.notes.text().startswith(
        "Dataset001_Zellkoerper_1 already exists; this will be Dataset002_Zellkoerper_1. To add to "
        "Dataset001_Zellkoerper_1, choose it under 'Add to'."
    )
    for taken, said in (
        ("Dataset001_Zellkoerper_1", "Dataset001_Zellkoerper_1 already exists. Add to it, or choose another name."),
        ("Dataset1_Others", "The number 1 is taken by "),
    ):
        dialog.name.setText(taken)
        dialog._name_typed(taken)
        assert said in dialog.about.text() and not dialog.panel.button.isEnabled()
    dialog.name.setText("Cells")
    dialog._name_typed("Cells")
    assert dialog.panel.button.isEnabled() and "already exists" not in dialog.notes.text()
    dialog.reject()


def choose(dialog, monkeypatch, folder):
    """Choose a folder of images by its button."""
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    next(b for b in dialog.findChildren(QPushButton) if b.accessibleName() == "Browse for the folder of images").click()


def test_masks_beside_the_images_are_proposed_and_go_with_them_but_not_those_that_were_chosen(
    viewer, cases, home, folders, monkeypatch
):
    other = home / "other" / "images"
    for folder in (other, other.parent / "masks", home / "alone" / "images"):
        folder.mkdir(parents=True)
    dialog = cases.import_dialog()
    choose(dialog, monkeypatch, folders[0])
    assert dialog.masks.text() == str(folders[1])
    choose(dialog, monkeypatch, other)
    assert dialog.masks.text() == str(other.parent / "masks")
    choose(dialog, monkeypatch, home / "alone" / "images")
    assert dialog.masks.text() == ""  # those of other images are not kept
    dialog.masks.setText(str(folders[1]))
    choose(dialog, monkeypatch, other)
    assert dialog.masks.text() == str(folders[1])
    dialog.reject()


def test_cases_for_a_dataset_that_is_there_are_only_imported(viewer, cases, home, folders, qtbot):
    make_dataset(home, cases=2)
    dialog = opened(cases, qtbot, *folders)
    assert dialog.go_on.isVisible() and dialog.go_on.isEnabled()
    dialog.target.setCurrentIndex(1)
    assert not dialog.go_on.isVisible()
    dialog.reject()


def test_what_an_import_says_only_at_its_end_is_read_before_anything_is_planned(viewer, cases, home, folders, qtbot):
    raw = make_dataset(home, cases=2)
    for notes, went_on in (([], True), (["known"], True), (["known", "new"], False)):
        pressed = []
        cases.go_on = lambda pressed=pressed: pressed.append(True)
        dialog = cases.import_dialog()
        dialog.onward = True
        dialog.notes.setText("This is known.")
        dialog.imported.emit(raw, notes)
        assert bool(pressed) is went_on
        assert all(note in cases.panel.status.text() for note in notes)
        dialog.reject()
