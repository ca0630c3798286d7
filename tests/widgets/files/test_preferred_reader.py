"""What only this plugin opens rightly, napari opens with it without a question, once somebody said so."""

from __future__ import annotations

import json
from pathlib import Path

import imageio.v3 as iio
import napari_builtins
import numpy as np
import pytest
from docks import open_dock
from napari.errors import MultipleReaderError
from napari.layers import Image, Labels
from napari.settings import get_settings
from npe2 import PluginManifest

from helpers import Recipe, make_dataset, make_model, write_nifti
from napari_nnunet.formats.model.known_models import known_models
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.widgets.files.preferred import FOLDERS, PATTERNS, undecided
from napari_nnunet.widgets.frame.layers import class_names_of


def test_nobody_is_asked_where_no_other_plugin_claims_the_files(viewer):
    assert undecided() == []
    assert not open_dock(viewer, "Segment").offer.isVisible()


def test_napari_asks_until_the_offer_is_taken(viewer, npe2pm, tmp_path, qtbot):
    write_nifti(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.float32))
    builtins = PluginManifest.from_file(Path(napari_builtins.__file__).parent / "builtins.yaml")
    with npe2pm.tmp_plugin(manifest=builtins):
        assert set(undecided()) <= {*PATTERNS, *FOLDERS} and "*.nii.gz" in undecided()
        with pytest.raises(MultipleReaderError):
            viewer.open(str(tmp_path / "a.nii.gz"), plugin=None)
        get_settings().plugins.extension2reader = {"*.tif": "somebody"}
        dock = open_dock(viewer, "Segment")
        qtbot.waitUntil(lambda: dock.offer.isVisible())
        dock.offer.yes.click()
        assert not dock.offer.isVisible() and undecided() == []
        assert get_settings().plugins.extension2reader["*.tif"] == "somebody"
        (layer,) = viewer.open(str(tmp_path / "a.nii.gz"), plugin=None)
        assert "nnunet_geometry" in layer.metadata


def test_folders_of_datasets_and_models_are_opened_without_a_question_too(viewer, home, npe2pm, qtbot):
    raw, model = make_dataset(home, cases=2), make_model(home / "elsewhere", Recipe()).folder
    model = model.rename(home / model.name)  # as it is without its dataset
    builtins = PluginManifest.from_file(Path(napari_builtins.__file__).parent / "builtins.yaml")
    with npe2pm.tmp_plugin(manifest=builtins):
        dock = open_dock(viewer, "Segment")
        qtbot.waitUntil(lambda: dock.offer.isVisible())
        assert ".nnunet.png, folders of datasets, folders of models. Open" in dock.offer.text.text()
        for folder in (raw, model):
            with pytest.raises(MultipleReaderError):
                viewer.open(str(folder), plugin=None)
        dock.offer.yes.click()
        assert undecided() == []
        viewer.open(str(raw), plugin=None)
        assert open_dock(viewer, "Training cases").form.head.raw == raw
        viewer.open(str(model), plugin=None)
        assert known_models(Workspace.at(home))[0] == model
        viewer.open(str(raw / "imagesTr"), plugin=None)  # opens as its dataset does: test_folders_of_cases
        (home / "pictures").mkdir()
        with pytest.raises(MultipleReaderError):
            viewer.open(str(home / "pictures"), plugin=None)


def test_a_damaged_zip_reaches_the_models_dock(viewer, tmp_path):
    (tmp_path / "models.zip").write_bytes(b"PK\x03\x04 and then nothing")
    assert viewer.open(str(tmp_path / "models.zip"), plugin="napari-nnunet") == []
    assert "not a complete zip" in open_dock(viewer, "Models").panel.status.text()


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_a_result_that_napari_opens_by_itself_is_shown_as_labels_while_a_dock_is_open(
    viewer, npe2pm, tmp_path, qtbot, ending
):
    """Results of a folder of pictures opened as nearly black images."""
    values = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    for name in ("well", "other"):
        (tmp_path / name).mkdir()
        iio.imwrite(tmp_path / name / f"{name}{ending}", values)
    about = {"channel_names": {"0": "a"}, "labels": {"background": 0, "nucleus": 1, "rim": 2}, "file_ending": ending}
    (tmp_path / "well" / "dataset.json").write_text(json.dumps({**about, "numTraining": 1}))
    with npe2pm.tmp_plugin(manifest=PluginManifest.from_file(Path(napari_builtins.__file__).parent / "builtins.yaml")):
        open_dock(viewer, "Segment")
        viewer.open([str(tmp_path / name / f"{name}{ending}") for name in ("well", "other")], plugin=None)
        qtbot.waitUntil(lambda: isinstance(viewer.layers[0], Labels))
        qtbot.wait(100)
    labels, picture = viewer.layers
    assert labels.name == "well" and class_names_of(labels.features) == {1: "nucleus", 2: "rim"}
    assert isinstance(picture, Image)
    np.testing.assert_array_equal(labels.data, values)
