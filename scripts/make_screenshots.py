"""Take the pictures of the docs in a real window.

python tests/with_screen.py python scripts/make_screenshots.py [segment] [train] [learn] [together] [loop] [objects]
    [nuclei] [em] [heart]

"nuclei", "em" and "heart" take real images from the folder that NAPARI_NNUNET_TEST_DATA names.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import imageio.v3 as iio
import loop_pictures
import numpy as np
from picture_window import OUT, pump, window
from qtpy.QtWidgets import QScrollArea

from napari_nnunet.engine.synthetic import SPACING_UM, make_volume
from napari_nnunet.schema.requests.choosing import FindBestRequest
from napari_nnunet.schema.requests.planning import PlanAndPreprocessRequest
from napari_nnunet.schema.requests.training import TrainRequest
from napari_nnunet.widgets.dataset.import_dialog import ImportDialog
from napari_nnunet.widgets.frame.panel import RunState
from napari_nnunet.widgets.frame.tabs import open_dock
from napari_nnunet.widgets.prediction.many_view import OPEN as OPEN_IMAGES
from napari_nnunet.widgets.prediction.many_view import THIS as THIS_IMAGE

HOURS = 0.1  # that the nuclei are trained
PLACE = {"scale": SPACING_UM, "units": ["um"] * 3, "axis_labels": ["z", "y", "x"]}


def training_data(folder):
    """Collect six cases from layers, check them, plan, change, preprocess."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[name] = str(folder / name)
    viewer, shot = window(960)
    _, cases = viewer.window.add_plugin_dock_widget("napari-nnunet", "Training cases")
    for i in range(6):
        image, labels = make_volume(i)
        viewer.layers.clear()
        viewer.add_image(image, name=f"embryo_{i}", colormap="gray", **PLACE)
        viewer.add_labels(np.asarray(labels) * 5, name="painted", **PLACE)
        pump(0.5)
        cases.form.case_edit.value = f"embryo_{i}"
        if i == 0:
            cases.form.name_edit.value = "Nuclei"
            cases.form.rows[0][1].value = "fluorescence"
        for row, name in ((1, "nucleus"), (2, "shell")):
            cases.form.table.item(row, 2).setText(name)
        pump(0.5)
        if i == 0:
            shot("cases-ready")
        cases.panel.button.click()
        pump(30, lambda: cases.panel.state is RunState.IDLE)
    pump(2)
    cases.problems.panel.button.click()
    pump(30, lambda: bool(cases.problems.title.text()))
    bar = cases.findChild(QScrollArea).verticalScrollBar()
    bar.setValue(bar.maximum())
    shot("cases-list")
    viewer.layers.clear()
    viewer.window.remove_dock_widget(cases.parent())
    image, labels = make_volume(0)
    viewer.add_image(image, name="embryo_0", colormap="gray", **PLACE)
    _, plan = viewer.window.add_plugin_dock_widget("napari-nnunet", "Plan")
    plan.panel.button.click()
    pump(60, lambda: plan.panel.state is RunState.IDLE)
    pump(120, lambda: not plan._costing.running)
    shot("plan-done")
    plan.views.setCurrentIndex(1)
    shot("plan-network")
    plan.views.setCurrentIndex(2)
    shot("plan-data")
    plan.views.setCurrentIndex(0)
    plan.changing.expand(animate=False)
    plan.change.patch_edit.value = "16 48 48"
    plan.preprocessing.panel.button.click()
    pump(60, lambda: plan.preprocessing.panel.state is RunState.IDLE)
    bar = plan.findChild(QScrollArea).verticalScrollBar()
    bar.setValue(bar.maximum())
    shot("plan-preprocessed")
    viewer.close()


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    wanted = sys.argv[1:] or ["segment", "train", "learn", "together", "loop", "objects", "nuclei", "em", "heart"]
    if "train" in wanted:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            training_data(Path(folder))
    if "learn" in wanted:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            learn(Path(folder))
    if "together" in wanted:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            together(Path(folder))
    if "loop" in wanted:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            loop(Path(folder))
    if "objects" in wanted:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            objects(Path(folder))
    if "nuclei" in wanted:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            nuclei(Path(folder))
    for name, walk in (("em", loop_pictures.em), ("heart", loop_pictures.heart)):
        if name in wanted:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                walk(Path(folder))
    if "segment" in wanted:
        segment()


def learn(folder):
    """Train on the demo's dataset, watch it, look at the worst case."""
    from napari_nnunet.events import drain
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.demo import CONFIGURATION, DATASET, make_demo_dataset
    from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
    from napari_nnunet.schema.requests.planning import PlanSettings

    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[name] = str(folder / name)
    workspace = Workspace.at(folder)
    make_demo_dataset(workspace)
    small = PlanSettings(planner="SmallPlanner", gpu_memory_gb=0.06)
    drain(
        plan_and_preprocess(
            workspace,
            PlanAndPreprocessRequest.like(small, dataset=DATASET, configurations=[CONFIGURATION]),
        )
    )
    viewer, shot = window(1000)
    _, train = viewer.window.add_plugin_dock_widget("napari-nnunet", "Train")
    scroll = train.findChild(QScrollArea)
    train.form.hours_box.value = 0.05
    shot("train-ready")
    train.panel.button.click()
    pump(300, lambda: train.chosen is not None and len(train.chosen.epochs) >= 9)
    train.show_film()
    scroll.verticalScrollBar().setValue(330)
    pump(8)
    shot("train-running")
    pump(900, lambda: train.chosen is not None and train.chosen.status == "finished")
    pump(3)
    train.open_case(0)
    pump(5)
    scroll.verticalScrollBar().setValue(scroll.verticalScrollBar().maximum())
    shot("train-scores")
    viewer.close()


def two_models(folder):
    """Train two models as the demo trains its own, find the best, calibrate."""
    from napari_nnunet.events import drain
    from napari_nnunet.formats.model.folder import load_model
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.choosing.best import find_best
    from napari_nnunet.jobs.choosing.calibrate import calibrate_models
    from napari_nnunet.jobs.demo import DATASET, make_demo_dataset
    from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
    from napari_nnunet.jobs.training.train import train
    from napari_nnunet.schema.requests.planning import PlanSettings
    from napari_nnunet.schema.requests.training import TrainSettings

    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[name] = str(folder / name)
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
    workspace = Workspace.at(folder)
    make_demo_dataset(workspace)
    small = PlanSettings(planner="SmallPlanner", gpu_memory_gb=0.06)
    names = ("2d", "3d_fullres")
    planned = drain(
        plan_and_preprocess(
            workspace,
            PlanAndPreprocessRequest.like(small, dataset=DATASET, configurations=names),
        )
    )
    settings = TrainSettings(epochs=20, iterations=25, validation_iterations=5, probabilities=True)
    for name in names:
        drain(
            train(
                workspace,
                TrainRequest.like(settings, dataset=DATASET, configuration=name, fold=0, plans=planned.plans.stem),
            )
        )
    drain(
        find_best(
            workspace,
            FindBestRequest(dataset=DATASET, configurations=names, plans=(planned.plans.stem,), folds=(0,)),
        )
    )
    folders = [workspace.results / DATASET / f"nnUNetTrainer__{planned.plans.stem}__{name}" for name in names]
    drain(calibrate_models(workspace, [load_model(path) for path in folders], (0,)))


def loop(folder):
    """Ask what to label next, and look at labels that are wrong."""
    import SimpleITK as sitk

    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.demo import DATASET

    two_models(folder)
    workspace = Workspace.at(folder)
    images = folder / "unlabelled"
    images.mkdir()
    for seed in range(40, 44):
        image = sitk.GetImageFromArray(np.asarray(make_volume(seed)[0]))
        image.SetSpacing(tuple(reversed([um / 1000 for um in SPACING_UM])))
        sitk.WriteImage(image, str(images / f"new_{seed}_0000.nii.gz"))
    viewer, shot = window(960)
    _, following = viewer.window.add_plugin_dock_widget("napari-nnunet", "Next")
    following.source_box.value = images
    following.rows.widgets["unit"].value = "slices"
    pump(2, following.panel.button.isEnabled)
    following.panel.button.click()
    pump(120, lambda: following._open is not None)
    scroll = following.findChild(QScrollArea).verticalScrollBar()
    scroll.setValue(scroll.maximum())
    shot("next-place")
    viewer.layers.clear()
    label = sorted((workspace.results / DATASET).glob("*3d_fullres/fold_0/validation/*.nii.gz"))[0]
    raw = workspace.raw / DATASET / "labelsTr" / label.name
    drawn = sitk.ReadImage(str(raw))
    spoilt = sitk.GetArrayFromImage(drawn)
    spoilt[:, : spoilt.shape[1] // 2] = 0
    changed = sitk.GetImageFromArray(spoilt)
    changed.CopyInformation(drawn)
    sitk.WriteImage(changed, str(raw))
    _, train = viewer.window.add_plugin_dock_widget("napari-nnunet", "Train")
    pump(5, lambda: train.chosen is not None)
    train.checking.expand(animate=False)
    train.suspects.panel.button.click()
    pump(60, lambda: bool(train.suspects.suspects))
    if train.suspects.suspects:
        train.open_suspect(train.suspects.suspects[0])
    pump(3)
    bar = train.findChild(QScrollArea).verticalScrollBar()
    bar.setValue(bar.maximum())
    shot("train-suspects")
    viewer.close()


def together(folder):
    """Segment together, compare, share."""
    two_models(folder)
    viewer, shot = window(1000)
    viewer.add_image(make_volume(99)[0], name="embryo", colormap="gray", **PLACE)
    _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", "Ensemble")
    pump(60, lambda: "members run" in dock.summary.text())
    shot("ensemble-ready")
    dock.panel.button.click()
    pump(120, lambda: not dock.busy)
    viewer.layers["embryo – ensemble"].contour = 1
    bar = dock.findChild(QScrollArea).verticalScrollBar()
    pump(1)
    bar.setValue(bar.maximum())
    shot("ensemble-done")
    viewer.window.remove_dock_widget(dock.parent())
    viewer.layers.remove("embryo – ensemble: entropy")
    viewer.layers.remove("embryo – ensemble: disagreement")
    viewer.layers["embryo – ensemble"].contour = 0
    viewer.add_labels(np.asarray(make_volume(99)[1]), name="truth", **PLACE)
    _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", "Compare")
    dock.form.first_box.value = viewer.layers["truth"]
    dock.form.second_box.value = viewer.layers["embryo – ensemble"]
    dock.panel.button.click()
    pump(30, lambda: dock.panel.state is RunState.IDLE)
    for name in ("truth", "embryo – ensemble"):
        viewer.layers[name].visible = False
    shot("compare-layers")
    viewer.window.remove_dock_widget(dock.parent())
    viewer.layers.clear()
    viewer.window.add_plugin_dock_widget("napari-nnunet", "Models")
    shot("models")
    viewer.close()


def objects(folder):
    """Find touching nuclei in a picture that the model has not seen."""
    from napari_nnunet.events import drain
    from napari_nnunet.jobs.demo_objects import demo_objects
    from napari_nnunet.schema.requests.sharing import DemoRequest

    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[name] = str(folder / "workspace" / name)
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
    drain(demo_objects(DemoRequest(target=folder)))
    viewer, shot = window(1000)
    viewer.open(str(sorted((folder / "imagesTs").iterdir())[0]), plugin="napari-nnunet")
    _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", "Segment")
    dock.offer.hide()
    pump(60, lambda: "GB of memory" in dock.summary.text())
    dock.panel.button.click()
    pump(120, lambda: not dock.busy)
    pump(2)
    shot("objects-done")
    viewer.close()


def segment():
    viewer, shot = window(820)

    _, widget = viewer.window.add_plugin_dock_widget("napari-nnunet", "Segment")
    widget.offer.hide()  # napari's own question about readers is not what the pictures are about
    pump(1)
    shot("segment-start")
    viewer.open_sample("napari-nnunet", "nuclei_and_shells")
    pump(20, lambda: "GB of memory" in widget.summary.text())
    shot("segment-ready")
    # a larger volume, so that there is something to see while it runs
    image, _ = make_volume(7, shape=(48, 256, 256))
    viewer.layers.clear()
    viewer.add_image(image, name="embryo", colormap="gray", **PLACE)
    viewer.reset_view()
    pump(20, lambda: "GB of memory" in widget.summary.text() and "embryo" in widget.summary.text())
    widget.panel.button.click()
    pump(60, lambda: widget.panel.fraction > 0.45)
    shot("segment-running")
    pump(300, lambda: not widget.busy)
    shot("segment-done")
    viewer.layers.selection.active = viewer.layers[0]
    widget.panel.button.click()
    pump(60, lambda: widget.panel.fraction > 0.3)
    widget.panel.button.click()
    pump(20, lambda: not widget.busy)
    shot("segment-cancelled")
    viewer.layers.clear()
    viewer.add_image(np.asarray(make_volume(3)[0][:20]), name="stack without units", colormap="gray")
    pump(3)
    shot("segment-not-ready")
    viewer.close()


def twenty_pictures(folder):
    """Copy twenty pictures of nuclei with their numbered masks, and return four more."""
    data = Path(os.environ["NAPARI_NNUNET_TEST_DATA"]) / "data" / "nuclei"
    small = [p for p in sorted((data / "images").glob("grey_*.png")) if iio.imread(p).shape == (256, 256)][::3]
    for part, where in (("images", "images"), ("labels", "masks")):
        (folder / where).mkdir()
        for path in small[:20]:
            shutil.copy(data / part / path.name, folder / where / path.name)
    return small[20:24]


def nuclei(folder):
    """From twenty pictures of nuclei to a counted table."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[name] = str(folder / name)
    new = twenty_pictures(folder)
    viewer, shot = window(1000)
    cases = open_dock(viewer, "Training cases")
    cases.form.from_folders.click()
    dialog = cases.findChild(ImportDialog)
    dialog.images.setText(str(folder / "images"))
    dialog.masks.setText(str(folder / "masks"))
    pump(60, lambda: dialog.plan is not None and not dialog._drawing.running)
    dialog.objects.name.setText("nucleus")
    dialog.name.setText("Nuclei")
    dialog.resize(900, 760)
    pump(2)
    dialog.grab().save(str(OUT / "objects-import.png"))
    dialog.panel.button.click()
    pump(60, lambda: cases.form.head.dataset is not None and cases.cases.list.count() == 20)
    pump(3)
    cases.next.click()
    pump(30, lambda: any(name.startswith("Plan") for name in viewer.window.dock_widgets))
    plan = open_dock(viewer, "Plan")
    pump(120, lambda: plan.train.isVisible() and not plan._costing.running)
    plan.train.click()
    train = open_dock(viewer, "Train")
    pump(30, lambda: "will be preprocessed first" in train.summary.text())
    train.form.hours_box.value = HOURS
    pump(1)
    train.panel.button.click()
    pump(3600 * HOURS + 600, lambda: train.chosen is not None and train.chosen.status == "finished")
    pump(60, train.details.scores.isVisible)
    train.open_case(0)
    pump(5)
    bar = train.findChild(QScrollArea).verticalScrollBar()
    bar.setValue(bar.maximum())
    shot("objects-train")
    train.details.buttons["segment"].click()
    counted(viewer, shot, new)


def counted(viewer, shot, new):
    """Count nuclei in new pictures with the model that the Segment dock has."""
    segment_dock = open_dock(viewer, "Segment")
    viewer.layers.clear()
    for path in new:
        viewer.add_image(iio.imread(path), name=path.stem[:12], units=["mm"] * 2)
    segment_dock.form.image.scope.box.value = OPEN_IMAGES
    pump(60, lambda: "4 open images" in segment_dock.summary.text() and segment_dock.panel.button.isEnabled())
    segment_dock.panel.button.click()
    pump(300, lambda: len(segment_dock.result.many.lines) == len(new) and not segment_dock.busy)
    bar = segment_dock.findChild(QScrollArea).verticalScrollBar()
    pump(1)
    bar.setValue(bar.maximum())
    shot("objects-counted")
    viewer.layers.clear()
    viewer.add_image(iio.imread(new[0]), name="nuclei", units=["mm"] * 2)
    segment_dock.form.image.scope.box.value = THIS_IMAGE
    pump(60, lambda: "GB of memory" in segment_dock.summary.text() and segment_dock.panel.button.isEnabled())
    segment_dock.panel.button.click()
    pump(300, lambda: not segment_dock.busy and segment_dock.result.objects.copy.isEnabled())
    viewer.window.add_plugin_dock_widget("napari", "Features table widget", tabify=False)
    bar.setValue(bar.maximum())
    shot("objects-table")
    viewer.close()


if __name__ == "__main__":
    main()
