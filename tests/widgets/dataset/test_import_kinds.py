"""Masks as people have them go from two folders to a training in the window; what they mean is shown, and asked."""

from __future__ import annotations

import imageio.v3 as iio
import nibabel
import numpy as np
import pytest
from casework import plan_and_train
from qtpy.QtCore import Qt

from helpers import smooth_image
from napari_nnunet.formats.dataset.raw_dataset import read_info, survey
from napari_nnunet.formats.images.files import read_labels

COUNT = 5


def truth(image):
    """Return two classes of an image ([Z,] Y, X)."""
    return (np.digitize(image, [110, 135])).astype(np.uint8)


@pytest.fixture
def folders(home):
    for name in ("pictures", "masks"):
        (home / name).mkdir()
    return home / "pictures", home / "masks"


def picture(i):
    return np.clip(smooth_image((1, 48, 52), seed=i)[0, 0], 0, 255).astype(np.uint8)


def coloured(images, masks):
    """Drawings: black, red, green."""
    colours = np.array([[0, 0, 0], [220, 30, 30], [30, 200, 40]], np.uint8)
    for i in range(COUNT):
        iio.imwrite(images / f"c{i}.png", picture(i))
        iio.imwrite(masks / f"c{i}.png", colours[truth(picture(i))])


def grey_as_colours(images, masks):
    """0 and 255 in three equal channels."""
    for i in range(COUNT):
        iio.imwrite(images / f"c{i}.png", picture(i))
        iio.imwrite(masks / f"c{i}.png", np.repeat(np.uint8(255) * (truth(picture(i)) > 0)[..., None], 3, axis=2))


def two_values(images, masks):
    """0 and 255."""
    for i in range(COUNT):
        iio.imwrite(images / f"c{i}.png", picture(i))
        iio.imwrite(masks / f"c{i}.png", np.uint8(255) * (truth(picture(i)) > 0))


def mirrored(images, masks):
    """Volumes whose masks run the other way along x, and say so."""
    for i in range(COUNT):
        image = smooth_image((12, 20, 24), seed=i)[0]
        place = np.diag([0.9, 0.9, 2.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(image.transpose(), place), images / f"c{i}.nii.gz")
        turned = place.copy()
        turned[0, 0], turned[0, 3] = -0.9, 0.9 * 23
        nibabel.save(nibabel.Nifti1Image(truth(image)[:, :, ::-1].transpose(), turned), masks / f"c{i}.nii.gz")


def answered(dialog):
    """Name the classes of the colours that are asked about."""
    for row in range(dialog.values.rowCount()):
        first = dialog.values.item(row, 0).text()
        if first not in ("0", "#000000") and "black" not in first:
            dialog.values.item(row, 4).setText(f"part_{row}")


@pytest.mark.gui
@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "said", "ending", "classes"),
    [
        (coloured, "colour", ".png", 3),
        (grey_as_colours, "", ".png", 2),
        (two_values, "", ".png", 2),
        (mirrored, "", ".nii.gz", 3),
    ],
    ids=["colours", "grey as colours", "two values", "mirrored"],
)
def test_two_folders_become_a_training(viewer, cases, folders, qtbot, write, said, ending, classes):
    images, masks = folders
    write(images, masks)
    dialog = cases.import_dialog()
    dialog.open()
    dialog.images.setText(str(images))
    dialog.masks.setText(str(masks))
    qtbot.waitUntil(lambda: dialog.plan is not None)
    assert f"<b>{COUNT} pairs</b>" in dialog.about.text()
    assert said in dialog.meaning.text().casefold()
    assert dialog.values.isVisible() and dialog.values.rowCount() == classes
    assert (write is mirrored) == any("reoriented" in " ".join(row) for row in dialog.pairs.texts())
    answered(dialog)
    dialog.name.setText("Parts")
    assert dialog.panel.button.isEnabled(), dialog.about.text()
    with qtbot.waitSignal(dialog.imported):
        qtbot.mouseClick(dialog.panel.button, Qt.MouseButton.LeftButton)
    raw = cases.form.head.raw
    assert len(read_info(raw).labels.labels) == classes
    for case in survey(raw)[0].cases:
        i = int(case.name[1:])
        wanted = truth(smooth_image((12, 20, 24), seed=i)[0] if write is mirrored else picture(i))
        found = np.squeeze(read_labels(raw / "labelsTr" / f"{case.name}{ending}")[0])
        together = np.stack([found.ravel(), np.minimum(wanted, classes - 1).ravel()])
        assert np.unique(together, axis=1).shape[1] == classes  # each of the classes is one of the file's
    plan_and_train(viewer, cases, qtbot, count=COUNT)
