"""The loop of labelling on real images, walked in a real window by pressing the real buttons, with pictures of it.

NAPARI_NNUNET_TEST_DATA names the folder with the data: sections of nervous tissue under the electron microscope, of
which two are scribbled in, and volumes of hearts. NAPARI_NNUNET_SCREENS names a folder for pictures of every step
beside those that the docs have, NAPARI_NNUNET_LOOP_MINUTES how long the first training takes on a busy computer.
"""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from napari.layers import Image
from picture_window import pump, window
from PIL import Image as Pillow
from qtpy.QtCore import Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QInputDialog, QMessageBox, QScrollArea
from scipy.ndimage import distance_transform_edt
from skimage.morphology import skeletonize

from napari_nnunet.widgets.frame.panel import RunState
from napari_nnunet.widgets.frame.tabs import open_dock

MINUTES = float(os.environ.get("NAPARI_NNUNET_LOOP_MINUTES", "2"))  # that the first training takes
DETAIL = slice(128, 384)  # of a section, along both axes
DATA = "NAPARI_NNUNET_TEST_DATA"


@dataclass
class Walk:
    """A person at the window: what is pressed, typed and painted is counted."""

    viewer: object
    shot: object
    name: str
    private: bool = False  # whether the images may not be shown in the docs
    actions: list = field(default_factory=list)
    screens: str = os.environ.get("NAPARI_NNUNET_SCREENS", "")
    looks: int = 0

    def press(self, button):
        """Press a button with the mouse."""
        pump(60, lambda: button.isVisible() and button.isEnabled())
        self.actions.append(button.text())
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
        pump(0.3)

    def fill(self, widget, value):
        """Type or choose a value."""
        self.actions.append(f"set {value}")
        if hasattr(widget, "setText"):
            widget.setText(str(value))
        else:
            widget.value = value
        pump(0.3)

    def dock(self, title):
        """Open a dock from the menu, which is counted."""
        self.actions.append(f"nnU-Net > {title}")
        return open_dock(self.viewer, title)

    def answer(self, button=QMessageBox.StandardButton.Yes, text=None):
        """Answer the question that comes next, whenever it comes, by one of its buttons."""

        def look():
            dialog = QApplication.activeModalWidget()
            if not isinstance(dialog, QInputDialog | QMessageBox) or not dialog.isVisible():
                return
            timer.stop()
            said = dialog.labelText() if isinstance(dialog, QInputDialog) else dialog.text()
            self.actions.append(f"answer {said!r}")
            self.see("question", dialog)
            if isinstance(dialog, QInputDialog):
                dialog.accept()
            elif text is not None:
                next(b for b in dialog.buttons() if b.text().replace("&", "") == text).click()
            else:
                dialog.button(button).click()

        timer = QTimer(self.viewer.window._qt_window)
        timer.timeout.connect(look)
        timer.start(50)
        return timer

    def see(self, name, dialog=None):
        """Take a picture of a step for whoever walks the loop to look for faults."""
        if not self.screens:
            return
        self.looks += 1
        file = Path(self.screens) / f"{self.name}-{self.looks:02}-{name}.png"
        pump(1)
        if dialog is not None:
            dialog.grab().save(str(file))
        else:
            self.viewer.window.screenshot(str(file), canvas_only=False, flash=False)

    def keep(self, name):
        """Take a picture for the docs; without the image where its terms do not let it be passed on."""
        self.see(name)
        hidden = [layer for layer in self.viewer.layers if isinstance(layer, Image) and layer.visible and self.private]
        for layer in hidden:
            layer.visible = False
        file = self.shot(f"loop-{self.name}-{name}")
        Pillow.open(file).convert("RGB").quantize(256).save(file, optimize=True)
        for layer in hidden:
            layer.visible = True

    def end(self, dock, share=1.0):
        """Scroll a dock to its end, or to a share of it."""
        pump(0.5)
        bar = dock.findChild(QScrollArea).verticalScrollBar()
        bar.setValue(round(share * bar.maximum()))
        pump(0.3)

    def idle(self, dock, seconds=60):
        """Wait until a dock has done what it was asked for."""
        pump(seconds, lambda: dock.panel.state is RunState.IDLE)

    def paint(self, layer, strokes, *, width):
        """Paint strokes: (value, points) each; one action, for that is the work that the loop saves."""
        layer.mode, layer.brush_size = "paint", width
        for value, points in strokes:
            layer.selected_label = value
            with layer.block_history():  # as while the mouse is held down
                for point in points:
                    layer.paint(tuple(point), value)
            self.actions.append(f"stroke of {value}")
        pump(0.5)

    def zoom(self, centre, zoom):
        """Look at a detail."""
        self.viewer.scene.camera.center = tuple(centre)
        self.viewer.scene.camera.zoom = zoom
        pump(0.3)


def ways_along(mask, count, length, rng):
    """Return as many ways along the middle lines of a mask, each of so many pixels: what a hand draws of it."""
    line = skeletonize(mask)
    left, ways = line.copy(), []
    starts = np.argwhere(line)
    rng.shuffle(starts)
    for start in starts:
        if len(ways) == count:
            break
        way, at = [], tuple(start)
        while at is not None and len(way) < length and left[at]:
            way.append(at)
            left[at] = False
            y, x = at
            near = [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            near = [p for p in near if all(0 <= n < s for n, s in zip(p, mask.shape, strict=True)) and left[p]]
            at = near[0] if near else None
        if len(way) == length:
            ways.append(way[::2])
            ys, xs = np.array(way).T
            left[max(0, ys.min() - 20) : ys.max() + 20, max(0, xs.min() - 20) : xs.max() + 20] = False
    return ways


def own_workspace(folder):
    """Let everything be written into a folder that is removed afterwards."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[name] = str(folder / "workspace" / name)
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")


# --- sections under the electron microscope ---


def sections(folder, count):
    """Cut a detail out of some sections, named as a microscope names them; returns them and their true labels."""
    data = Path(os.environ[DATA]) / "data" / "Dataset012_ISBI2012EM"
    images, truth = [], []
    (folder / "sections").mkdir()
    for n, path in enumerate(sorted((data / "imagesTr").glob("*.png"))[:count]):
        images.append(folder / "sections" / f"section_{n:02}.png")
        iio.imwrite(images[-1], iio.imread(path)[DETAIL, DETAIL])
        truth.append(iio.imread(data / "labelsTr" / path.name.replace("_0000", ""))[DETAIL, DETAIL] > 0)
    return images, truth


def strokes_of_section(truth, rng):
    """Return the strokes of somebody who draws a few membranes, and lines in cells."""
    cells = distance_transform_edt(~truth) > 6
    membranes = [(1, way) for way in ways_along(truth, 8, 40, rng)]
    return membranes + [(2, way) for way in ways_along(cells, 8, 40, rng)]


def em(folder):
    """Scribble in two sections, train two minutes, take corrections, improve."""
    own_workspace(folder)
    images, truth = sections(folder, 8)
    rng = np.random.default_rng(0)
    subject = Subject(
        name="em",
        dataset="Membranes",
        channel="EM",
        classes=((1, "membrane"), (2, "background")),
        images=images,
        truth=truth,
        strokes=[strokes_of_section(each, rng) for each in truth[:2]],
        reader="napari",
        unit="cases",
    )
    loop(subject)


# --- hearts ---


def hearts(folder, count):
    """Copy a volume of each of some patients; returns them, their true labels, and what people scribbled in them."""
    import SimpleITK as sitk

    data = Path(os.environ[DATA]) / "data" / "heart"
    images, truth, scribbles = [], [], []
    (folder / "hearts").mkdir()
    for path in sorted((data / "images").glob("*_frame01.nii.gz"))[:count]:
        images.append(folder / "hearts" / f"{path.name.partition('_')[0]}.nii.gz")
        shutil.copy(path, images[-1])
        for part, arrays in (("labels", truth), ("scribbles", scribbles)):
            arrays.append(sitk.GetArrayFromImage(sitk.ReadImage(str(data / part / path.name))))
    return images, truth, scribbles


def heart(folder):
    """Scribble in the hearts of two patients, train two minutes, take corrections of slices, improve."""
    own_workspace(folder)
    images, truth, scribbles = hearts(folder, 6)
    nobody = 4  # in the files; 0 is what was scribbled in the background
    strokes = []
    for each in scribbles[:2]:
        parts = [(value, np.argwhere(each == value)) for value in (1, 2, 3)]
        strokes.append([*parts, (nobody, np.argwhere(each == 0))])
    subject = Subject(
        name="heart",
        dataset="Heart",
        channel="MR",
        classes=((1, "right ventricle"), (2, "myocardium"), (3, "left ventricle"), (nobody, "background")),
        images=images,
        truth=truth,
        strokes=strokes,
        reader="napari-nnunet",
        unit="slices",
        private=True,  # what may be done with them leaves out to pass them on
    )
    loop(subject)


# --- the loop ---


@dataclass(frozen=True)
class Subject:
    """What is labelled: images, what is true of them, and what is scribbled in the first two."""

    name: str
    dataset: str
    channel: str
    classes: tuple
    images: list
    truth: list
    strokes: list
    reader: str
    unit: str
    private: bool = False


def loop(subject):
    """Walk the loop and say what was pressed."""
    viewer, shot = window(800)
    walk = Walk(viewer, shot, subject.name, private=subject.private)
    cases = walk.dock("Training cases")
    for n in range(2):
        scribble(walk, subject, n)
        if n == 0:
            walk.see("painted")
            walk.fill(cases.form.name_edit, subject.dataset)
            walk.fill(cases.form.rows[0][1], subject.channel)
            walk.see("named")
            walk.press(cases.form.sparse_box.native)
            for row, (_, name) in enumerate(subject.classes, start=1):
                walk.fill(cases.form.table.item(row, 2), name)
        pump(2)
        walk.end(cases, 0.6)
        walk.keep("scribbles") if n == 0 else walk.see("scribbles-again")
        walk.press(cases.panel.button)
        walk.idle(cases)
        walk.see("added")
    train = start(walk, cases)
    rounds(walk, train, subject)
    print(f"{subject.name}: {len(walk.actions)} actions", *walk.actions, sep="\n  ", flush=True)
    viewer.close()


def scribble(walk, subject, n):
    """Open an image, add a Labels layer, paint."""
    viewer, path = walk.viewer, subject.images[n]
    walk.actions.append(f"open {path.name}")
    viewer.open(str(path), plugin=subject.reader)
    walk.actions.append("new labels layer")
    viewer._new_labels()
    labels = viewer.layers[-1]
    if labels.ndim == 3:
        viewer.dims.set_current_step(0, labels.data.shape[0] // 2)
        for value, points in subject.strokes[n]:  # painted by people, slice by slice
            with labels.block_history():
                labels.data_setitem(tuple(points.T), value)
            walk.actions.append(f"strokes of {value}")
        pump(1)
    else:
        walk.paint(labels, subject.strokes[n], width=3)


def start(walk, cases):
    """Check, plan and train for two minutes; returns the Train dock."""
    viewer = walk.viewer
    walk.press(cases.next)
    pump(60, lambda: any(name.startswith("Plan") for name in viewer.window.dock_widgets))
    plan = open_dock(viewer, "Plan")
    pump(120, lambda: plan.train.isVisible() and not plan._costing.running)
    walk.see("planned")
    walk.press(plan.train)
    train = open_dock(viewer, "Train")
    pump(60, lambda: "will be preprocessed first" in train.summary.text())
    walk.see("to-train")
    walk.fill(train.form.hours_box, MINUTES / 60)
    walk.fill(train.form.rows.widgets["scribbles"], True)
    walk.see("to-train-scribbles")
    timer = walk.answer()
    walk.press(train.panel.button)
    pump(120, lambda: train.chosen is not None and train.chosen.status in ("running", "finished"))
    pump(60 * MINUTES, lambda: len(train.chosen.epochs) > 3 or train.chosen.status == "finished")
    walk.end(train, 0.5)
    walk.see("training")
    pump(120 * MINUTES, lambda: train.chosen.status not in ("running", "waiting"))
    timer.stop()
    pump(3)
    walk.keep("trained")
    walk.end(train)
    walk.see("trained-end")
    return train


def rounds(walk, train, subject):
    """Ask what to label next, correct and take it, improve the model, ask again."""
    walk.press(train.details.buttons["next"])
    following = open_dock(walk.viewer, "Next")
    walk.see("next-nothing")
    walk.fill(following.source_box, subject.images[0].parent)
    if subject.unit != "cases":
        walk.fill(following.rows.widgets["unit"], subject.unit)
        walk.fill(following.rows.widgets["budget"], "3")
    pump(60, following.panel.button.isEnabled)
    pump(60, lambda: "to look at" in following.summary.text())
    walk.see("next-ready")
    walk.press(following.panel.button)
    pump(120, lambda: following._open is not None)
    walk.idle(following)
    walk.keep("proposal")
    for _ in range(3):
        correct(walk, following, subject)
        walk.see("corrected")
        before = following._open
        walk.press(following.take_button)
        taken(following, before)
        walk.idle(following)
        walk.see("taken")
    pump(60, lambda: following.over)
    pump(3)
    walk.keep("over")
    walk.press(following.take_button)
    pump(3)
    walk.see("improve")
    timer = walk.answer()
    first = train.chosen.folder.path
    walk.press(train.details.buttons["improve"])
    walk.idle(train)
    pump(120, lambda: train.chosen.folder.path != first)
    pump(5)
    walk.see("improving")
    pump(120 * MINUTES, lambda: train.chosen.status not in ("running", "waiting"))
    timer.stop()
    pump(60, train.details.compared.isVisible)
    pump(2)
    walk.end(train, 0.8)
    walk.keep("improved")
    walk.press(train.details.buttons["next"])
    walk.see("next-again")
    walk.press(following.panel.button)
    pump(120, lambda: following._open is not None)
    walk.idle(following)
    pump(2)
    walk.keep("next")


def taken(following, before):
    """Wait until a place is saved and the next one is open, if there is one."""
    pump(60, lambda: following._open is not before and following._coming is None)


def correct(walk, following, subject):
    """Draw what the model missed as somebody would: here, the true labels within the place."""
    place, layer = following._open.place, following._labels()
    box = tuple(slice(lo, hi) for lo, hi in place.box)
    number = next(n for n, image in enumerate(subject.images) if image.name.startswith(f"{place.case}."))
    right = np.asarray(subject.truth[number])[box].astype(layer.data.dtype)
    wrong = right != layer.data[box]
    where = tuple(index + span.start for index, span in zip(np.nonzero(wrong), box, strict=True))
    with layer.block_history():
        layer.data_setitem(where, right[wrong])
    walk.actions.append(f"correct {place.case}")
    pump(0.5)
