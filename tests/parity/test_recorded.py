"""Whole predictions and prepared images against what nnU-Net v2 recorded (needs NAPARI_NNUNET_TEST_DATA)."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from napari_nnunet.engine.image.prepare import prepare
from napari_nnunet.events import drain
from napari_nnunet.formats.images.files import read_labels, read_volume, write_labels
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.prediction import PredictSettings

pytestmark = pytest.mark.parity

MODELS = ["plain3d", "plain2d", "natural2d", "resenc3d", "aniso3d", "regions3d", "folds3d", "legacy", "cascade",
          "ensemble2d3d"]  # fmt: skip
PREPROCESSED = ["ct_oblique", "mr_separate_z", "masked_zscore", "rgb_png", "rgb_png_01", "grey_tif_2d",
                "tif_3d_sidecar", "mixed_nrrd", "ignore_label", "regions", "thick_last_axis", "reorient_nibabel",
                "listed_files", "lowres_and_own_configurations", "torch_resampling", "mha_2d"]  # fmt: skip


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("name", MODELS)
def test_predictions_agree_with_the_recorded_ones(real_data: Path, name: str, backend: str, tmp_path: Path):
    root = real_data / "parity" / "inference"
    entry = next(
        e for e in json.loads((root / "index.json").read_text(encoding="utf-8"))["models"] if e["name"] == name
    )
    base, ending = root / name, entry["file_ending"]
    for found in entry["models"]:
        model = load_model(base / found["folder"])
        for variant in found["variants"]:
            for case, agreement in zip(entry["cases"], variant["agreement_float16_float32"], strict=True):
                files = sorted((base / "images").glob(f"{case}_*{ending}"))
                volume = read_volume(files, reader=model.plans.reader)
                previous = None
                if "prev_stage_predictions" in variant:
                    before = base / variant["prev_stage_predictions"] / f"{case}{ending}"
                    previous, _ = read_labels(before, reader=model.plans.reader)
                settings = PredictSettings(
                    folds=tuple(variant["folds"]),
                    step=variant["step_size"],
                    mirroring=variant["mirroring"],
                    probabilities=variant["probabilities"],
                    backend=backend,
                    device="cpu",
                    precision="float32",
                )
                result = drain(predict(model, volume, settings, previous=previous))
                recorded = base / "expected" / variant["name"] / f"{case}{ending}"
                expected, _ = read_labels(recorded, reader=model.plans.reader)
                exact = np.load(base / "logits" / variant["name"] / f"{case}.npz")["seg_float32"]
                # We sum in float32: identical to the recorded float32 run, as close to nnU-Net's as that one is.
                assert (result.labels == exact.reshape(expected.shape)).mean() >= 0.999
                assert (result.labels == expected).mean() >= agreement - 1e-3
                if variant["probabilities"]:
                    wanted = np.load(recorded.with_name(f"{case}.npz"))["probabilities"]
                    given = result.probabilities.reshape(wanted.shape)
                    assert np.abs(given - wanted).mean() < 1e-3
                written = tmp_path / f"{variant['name']}-{case}{ending}"
                write_labels(result.labels, volume.geometry, written, writer=model.plans.reader)
                _assert_same_grid(written, recorded)


def _assert_same_grid(written: Path, recorded: Path) -> None:
    if written.name.endswith(".nii.gz"):
        a, b = sitk.ReadImage(str(written)), sitk.ReadImage(str(recorded))
        assert a.GetSize() == b.GetSize()
        np.testing.assert_allclose(a.GetSpacing(), b.GetSpacing(), rtol=1e-6)
        np.testing.assert_allclose(a.GetOrigin(), b.GetOrigin(), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(a.GetDirection(), b.GetDirection(), atol=1e-6)
        assert a.GetPixelID() == b.GetPixelID()


@pytest.mark.parametrize("name", MODELS)
def test_the_network_gets_what_nnunet_gave_it(real_data: Path, name: str):
    root = real_data / "parity" / "inference"
    entry = next(
        e for e in json.loads((root / "index.json").read_text(encoding="utf-8"))["models"] if e["name"] == name
    )
    compared = 0
    for found in entry["models"]:
        model = load_model(root / name / found["folder"])
        for variant in found["variants"]:
            for case in entry["cases"]:
                recorded = np.load(root / name / "logits" / variant["name"] / f"{case}.npz")
                if "network_input" not in recorded.files:
                    continue
                files = sorted((root / name / "images").glob(f"{case}_*{entry['file_ending']}"))
                volume = read_volume(files, reader=model.plans.reader)
                previous = None
                if "prev_stage_predictions" in variant:
                    before = root / name / variant["prev_stage_predictions"] / f"{case}{entry['file_ending']}"
                    previous, _ = read_labels(before, reader=model.plans.reader)
                data, _ = prepare(
                    volume,
                    model.plans,
                    model.configuration,
                    previous=previous,
                    foreground_labels=model.dataset.labels.foreground_labels,
                )
                channels = len(model.dataset.channel_names)
                np.testing.assert_allclose(data[:channels], recorded["network_input"][:channels], atol=2e-5)
                if previous is not None:
                    assert (data[channels:].numpy() != recorded["network_input"][channels:]).mean() < 1e-3
                compared += 1
    assert compared > 0


@pytest.mark.parametrize("name", PREPROCESSED)
def test_images_are_prepared_as_recorded(real_data: Path, name: str):
    base = real_data / "parity" / "preprocess" / name
    (raw,) = (base / "raw").iterdir()
    content = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    dataset = DatasetInfo.parse(content)
    plans = Plans.parse_json((base / "nnUNetPlans.json").read_text(encoding="utf-8"))
    compared = 0
    for folder in sorted((base / "expected").iterdir()):
        configuration = plans.configuration(folder.name)
        for recorded in sorted(folder.glob("*.npz")):
            case = recorded.stem
            if "dataset" in content:
                files = [raw / path for path in content["dataset"][case]["images"]]
            else:
                files = sorted((raw / "imagesTr").glob(f"{case}_????{dataset.file_ending}"))
            volume = read_volume(files, reader=plans.reader)
            data, record = prepare(volume, plans, configuration)
            facts = json.loads(recorded.with_suffix(".json").read_text(encoding="utf-8"))
            np.testing.assert_allclose(data, np.load(recorded)["data"], atol=2e-5, rtol=1e-6)
            assert list(volume.geometry.spacing_3d) == pytest.approx(facts["spacing"], rel=1e-6)
            properties = record.properties()
            for key in (
                "shape_before_cropping",
                "bbox_used_for_cropping",
                "shape_after_cropping_and_before_resampling",
            ):
                assert json.loads(json.dumps(properties[key])) == facts[key]
            compared += 1
    assert compared > 0


@pytest.mark.real
@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_models_that_nnunet_trained_give_its_labels(real_data: Path, configuration: str, backend: str):
    model = load_model(
        real_data / "models" / "Dataset004_Hippocampus" / f"nnUNetTrainer__nnUNetPlansSmall__{configuration}"
    )
    recorded = sorted((real_data / "models" / "predictions" / configuration).glob("*.nii.gz"))
    assert len(recorded) == 12
    for path in recorded[:: 1 if backend == "openvino" else 4]:
        case = path.name.removesuffix(".nii.gz")
        volume = read_volume([real_data / "data" / "Dataset004_Hippocampus" / "imagesTr" / f"{case}_0000.nii.gz"])
        # the default precision of this processor, as a user gets it
        result = drain(predict(model, volume, PredictSettings(backend=backend, device="cpu")))
        expected, _ = read_labels(path)
        assert (result.labels == expected).mean() >= 0.999, case


@pytest.mark.real
def test_probabilities_of_a_trained_model_agree_with_nnunet(real_data: Path):
    model = load_model(real_data / "models" / "Dataset004_Hippocampus" / "nnUNetTrainer__nnUNetPlansSmall__3d_fullres")
    recorded = sorted((real_data / "models" / "predictions" / "3d_fullres_probabilities").glob("*.npz"))[0]
    image = real_data / "data" / "Dataset004_Hippocampus" / "imagesTr" / f"{recorded.stem}_0000.nii.gz"
    result = drain(predict(model, read_volume([image]), PredictSettings(probabilities=True)))
    difference = np.abs(result.probabilities - np.load(recorded)["probabilities"])
    assert difference.mean() < 1e-3
    assert nibabel.load(image).shape[::-1] == result.labels.shape
