"""What only this plugin opens rightly, napari opens with it without a question, once somebody said so."""

from __future__ import annotations

from pathlib import Path

import napari_builtins
import numpy as np
import pytest
from docks import open_dock
from napari.errors import MultipleReaderError
from napari.settings import get_settings
from npe2 import PluginManifest

from helpers import write_nifti
from napari_nnunet.widgets.files.preferred import PATTERNS, undecided


def test_nobody_is_asked_where_no_other_plugin_claims_the_files(viewer):
    assert undecided() == []
    assert not open_dock(viewer, "Segment").offer.isVisible()


def test_napari_asks_until_the_offer_is_taken(viewer, npe2pm, tmp_path, qtbot):
    write_nifti(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.float32))
    builtins = PluginManifest.from_file(Path(napari_builtins.__file__).parent / "builtins.yaml")
    with npe2pm.tmp_plugin(manifest=builtins):
        assert set(undecided()) <= set(PATTERNS) and "*.nii.gz" in undecided()
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


def test_a_damaged_zip_reaches_the_models_dock(viewer, tmp_path):
    (tmp_path / "models.zip").write_bytes(b"PK\x03\x04 and then nothing")
    assert viewer.open(str(tmp_path / "models.zip"), plugin="napari-nnunet") == []
    assert "not a complete zip" in open_dock(viewer, "Models").panel.status.text()
