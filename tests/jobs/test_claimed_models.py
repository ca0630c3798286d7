"""What is written into a model's folder is written by one at a time, and not while the folder is moved."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers import Recipe, just_before, make_model, smooth_image, write_nifti
from napari_nnunet.errors import SettingsError
from napari_nnunet.events import CaseFailed, drain
from napari_nnunet.formats.claim import claimed, moving
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.manage import rename_dataset
from napari_nnunet.jobs.prediction import presets, quality
from napari_nnunet.jobs.prediction.presets import measure_presets
from napari_nnunet.jobs.sharing import install
from napari_nnunet.jobs.sharing.export import export_models
from napari_nnunet.jobs.sharing.quantize import quantize
from napari_nnunet.schema.requests.prediction import MeasurePresetsRequest, PredictSettings
from napari_nnunet.schema.requests.sharing import ExportSettings, InstallRequest, QuantizeRequest
from test_grid import turned_copy

NAME = "Dataset001_Tiny"


@pytest.fixture
def zipped(tmp_path):
    path = tmp_path / "m.zip"
    drain(export_models([make_model(tmp_path / "mine", Recipe())], path, ExportSettings()))
    return path


def test_a_dataset_is_not_renamed_while_a_model_of_it_is_installed(tmp_path, zipped, monkeypatch):
    yours, refused = Workspace.at(tmp_path / "yours"), []
    make_model(yours.results, Recipe(configuration="2d", patch=(16, 16)))

    def rename():
        with pytest.raises(SettingsError, match=f"Models of {NAME} are already being installed") as error:
            drain(rename_dataset(yours, NAME, "Other"))
        refused.append(error)

    just_before(monkeypatch, install, "_check", rename)
    drain(install.install_zip(yours, InstallRequest(source=zipped)))
    assert refused
    assert [folder.name for folder in yours.results.glob("Dataset*")] == [NAME]
    assert len(list((yours.results / NAME).glob("*__*__*"))) == 2


def test_a_model_is_not_installed_while_its_dataset_is_renamed(tmp_path, zipped):
    yours = Workspace.at(tmp_path / "yours")
    yours.results.mkdir(parents=True)
    with (
        moving(yours.results / NAME, f"{NAME} is already being renamed"),
        pytest.raises(SettingsError, match="is already being renamed"),
    ):
        drain(install.install_zip(yours, InstallRequest(source=zipped)))
    assert list(yours.results.glob("Dataset*")) == []


@pytest.mark.parametrize("what", ["presets", "8 bits"])
def test_two_do_not_measure_a_model_at_once(tmp_path, what):
    model = make_model(tmp_path, Recipe())
    file = "inference_presets.json" if what == "presets" else model.eight_bit_path.name
    if what == "presets":
        job = measure_presets(MeasurePresetsRequest(model=model.folder, source=tmp_path, labels=tmp_path))
    else:
        job = quantize(Workspace.at(tmp_path), QuantizeRequest(model=model.folder))
    with claimed(model.folder, "Somebody measures it", part=file), pytest.raises(SettingsError, match="Somebody"):
        drain(job)


def test_what_another_job_learnt_of_the_quality_meanwhile_stays(tmp_path, monkeypatch):
    model = make_model(tmp_path, Recipe())
    path = model.folder / quality.QUALITY_FILE

    def learnt(*_):
        path.write_text(json.dumps({"mirrored": {"by": "another"}}))
        return quality.QualityModel(scored=(), looks=()), {"weights": {}, "labels": {}}
        yield

    monkeypatch.setattr(quality, "_calibrated", learnt)
    drain(quality.quality_of(model, PredictSettings(device="cpu", mirroring=False), None))
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["mirrored"] == {"by": "another"}
    assert "model" in content["plain"]


def test_presets_are_compared_with_labels_on_the_voxels_of_their_images(tmp_path, monkeypatch):
    model = make_model(tmp_path, Recipe())
    (tmp_path / "i").mkdir()
    (tmp_path / "l").mkdir()
    truth = np.zeros((10, 20, 20), np.uint8)
    truth[:3, 5:9, :7] = 1
    for name in "abc":
        write_nifti(tmp_path / "i" / f"{name}_0000.nii.gz", smooth_image(truth.shape)[0])
        write_nifti(tmp_path / "l" / f"{name}.nii.gz", truth)
    labels, geometry = read_labels(tmp_path / "l" / "b.nii.gz")
    turned = turned_copy(labels, geometry, (0, 1, 2), (True, False, True))
    write_labels(*turned, tmp_path / "l" / "b.nii.gz")
    (tmp_path / "l" / "c.nii.gz").write_bytes(b"no image")
    compared, events = [], []
    monkeypatch.setattr(presets, "foreground_dice", lambda case, truth, *_: compared.append((case, truth)) or 0.5)
    request = MeasurePresetsRequest(model=model.folder, source=tmp_path / "i", labels=tmp_path / "l", device="cpu")
    drain(measure_presets(request), events.append)
    assert {case for case, _ in compared} == {"a", "b"}
    assert all(np.array_equal(found, truth) for _, found in compared)
    assert [event.case for event in events if isinstance(event, CaseFailed)] == ["c"]
    assert json.loads((model.folder / "inference_presets.json").read_text(encoding="utf-8"))["cases"] == ["a", "b"]
