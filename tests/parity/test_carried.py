"""Models that nnU-Net itself wrote, carried as ONNX, give the labels that they give here."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import numpy as np
import pytest

from napari_nnunet import load_model, predict, read_volume
from napari_nnunet.events import drain
from napari_nnunet.jobs.sharing.carry import export_model
from napari_nnunet.schema.requests.sharing import CarryRequest

pytestmark = pytest.mark.parity
MODELS = ["plain3d", "plain2d", "natural2d", "resenc3d", "aniso3d", "regions3d", "folds3d", "legacy"]


def labels_of_both(folder, model, files):
    target = folder / "model.zip"
    drain(export_model(CarryRequest(model=model.folder, target=target)))
    zipfile.ZipFile(target).extractall(folder / "there")
    spec = importlib.util.spec_from_file_location("carried_segment", folder / "there" / "segment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    volume = read_volume(files, reader=model.plans.reader)
    own = predict(model, volume, device="cpu", precision="float32").labels
    return own, module.Carried(folder / "there").segment(np.asarray(volume.array), volume.geometry.spacing)


@pytest.mark.parametrize("name", MODELS)
def test_recorded_models_give_the_same_labels_elsewhere(real_data: Path, tmp_path, name):
    root = real_data / "parity" / "inference" / name
    model = load_model(next((root / "nnUNet_results").glob("*/*__*__*")))
    first = min(path.name.rsplit("_0", 1)[0] for path in (root / "images").iterdir())
    own, carried = labels_of_both(tmp_path, model, sorted((root / "images").glob(f"{first}_*")))
    assert np.mean(own == carried) >= 0.9999


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_trained_models_give_the_same_labels_elsewhere(real_data: Path, tmp_path, configuration):
    dataset = "Dataset004_Hippocampus"
    model = load_model(real_data / "models" / dataset / f"nnUNetTrainer__nnUNetPlansSmall__{configuration}")
    first = real_data / "data" / dataset / "imagesTr" / "hippocampus_026_0000.nii.gz"
    own, carried = labels_of_both(tmp_path, model, [first])
    assert set(np.unique(own)) == {0, 1, 2}
    assert np.mean(own == carried) >= 0.9999
