"""What is said before Run, the doctor, and the presets' measurement."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
import SimpleITK as sitk

from helpers import smooth_image
from napari_nnunet.engine.choosing.signs import SIGNS_BYTES
from napari_nnunet.engine.image.prepare import prepare
from napari_nnunet.errors import DatasetError, ResourceError
from napari_nnunet.events import Progress, drain
from napari_nnunet.formats import speed
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.jobs import doctor, network_speed
from napari_nnunet.jobs.arithmetic import prediction_choice
from napari_nnunet.jobs.prediction import presets
from napari_nnunet.jobs.prediction.estimate import estimate, estimate_presets
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.jobs.prediction.presets import measure_presets
from napari_nnunet.schema.requests.prediction import MeasurePresetsRequest, PredictSettings


@pytest.mark.parametrize("changes", [{}, {"mirroring": False}, {"step": 0.75, "folds": (1,)}])
def test_the_announced_number_of_network_runs_is_the_one_that_happens(new_model, volume, changes):
    model = new_model(folds=(0, 1))
    settings = PredictSettings(device="cpu").replace(**changes)
    expected = estimate(model, volume.shape, volume.geometry.spacing, settings)
    progress = [e for e in predict(model, volume, settings) if isinstance(e, Progress)]
    assert len(progress) == progress[-1].total
    assert expected.forwards >= progress[-1].total >= expected.forwards - 2  # the last batch may be shorter
    _, record = prepare(volume, model.plans, model.configuration)
    assert expected.network_shape == record.network_shape


@pytest.mark.usefixtures("known_arithmetic")
def test_time_is_a_guess_first_and_measured_after_a_run(model, volume):
    settings = PredictSettings(device="cpu", threads=1)
    first = drain(estimate_presets(model, volume.shape, volume.geometry.spacing, settings))
    assert first["own"].seconds > 0
    assert not first["own"].measured
    assert first["fast"].seconds < first["full"].seconds
    drain(predict(model, volume, settings))
    assert drain(estimate_presets(model, volume.shape, volume.geometry.spacing, settings))["own"].measured


def test_many_classes_do_not_hold_the_logits_of_the_whole_volume(new_model):
    labels = {"background": 0, **{f"organ{i}": i for i in range(1, 40)}}
    model = new_model(labels=labels)
    array = smooth_image((160, 48, 48))
    from napari_nnunet.schema.geometry import Geometry
    from napari_nnunet.volume import Volume

    volume = Volume(array, Geometry(spacing=(1, 1, 1)))
    settings = PredictSettings(device="cpu", mirroring=False)
    whole_logits = 40 * array.size * 4
    assert estimate(model, volume.shape, (1, 1, 1), settings).memory_bytes - 0.5e9 < 1.2 * whole_logits
    tracemalloc.start()  # counts numpy; torch is bounded by the accumulator's own test
    drain(predict(model, volume, settings))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < whole_logits / 3


def test_the_predicted_dice_takes_memory_by_the_image_even_where_the_network_sees_few_voxels(new_model):
    model = new_model(spacing=(8.0, 8.0, 8.0))
    settings, shape = PredictSettings(device="cpu", mirroring=False), (400, 400, 400)
    plain, judged = (
        estimate(model, shape, (1, 1, 1), settings.replace(quality=wanted)).memory_bytes for wanted in (False, True)
    )
    assert judged >= SIGNS_BYTES * np.prod(shape)
    assert judged > plain
    both = estimate(model, shape, (1, 1, 1), settings.replace(quality=True, probabilities=True)).memory_bytes
    held = 4 * model.dataset.labels.heads * np.prod(shape)  # however large, where they are asked for
    assert both >= held + SIGNS_BYTES * np.prod(shape)
    few = (40, 40, 40)  # whose probabilities are held in memory, as they are where they are asked for
    judged, kept = (
        estimate(model, few, (1, 1, 1), settings.replace(**{name: True})).memory_bytes
        for name in ("quality", "probabilities")
    )
    assert judged >= kept


@pytest.mark.usefixtures("narrow_networks")
def test_the_doctor_reports_and_advises(monkeypatch):
    report = doctor.examine()
    text = str(report)
    assert "3-D prediction" in text
    assert "2-D training" in text
    assert "torch float32 " in text  # with its milliseconds
    monkeypatch.setattr(doctor, "nvidia_driver", lambda: "NVIDIA A100, 550.1")
    monkeypatch.setattr(doctor.torch.version, "cuda", None)
    assert any("pip install --force-reinstall torch" in advice for advice in doctor.examine().advice)


def test_presets_are_measured_on_labelled_cases_and_noted_beside_the_model(model, tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    asked = MeasurePresetsRequest(model=model.folder, source=images, labels=labels)
    with pytest.raises(DatasetError, match="no files ending in .nii.gz"):
        drain(measure_presets(asked))
    sitk.WriteImage(sitk.GetImageFromArray(smooth_image((10, 20, 20))[0]), str(images / "a_0000.nii.gz"))
    with pytest.raises(DatasetError, match="has a label file"):
        drain(measure_presets(asked))
    truth = np.zeros((10, 20, 20), np.uint8)
    truth[:, 5:15] = 1
    sitk.WriteImage(sitk.GetImageFromArray(truth), str(labels / "a.nii.gz"))
    measured = drain(measure_presets(asked))
    assert set(measured) == {"fast", "balanced", "full"}
    assert json.loads((model.folder / "inference_presets.json").read_text(encoding="utf-8"))["cases"] == ["a"]
    assert load_model(model.folder).preset_dice == {name: entry["dice"] for name, entry in measured.items()}


def test_presets_are_compared_by_the_cases_that_none_of_them_lost(model, tmp_path, monkeypatch):
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    for name, first in (("a", 5), ("b", 0)):
        truth = np.zeros((10, 20, 20), np.uint8)
        truth[:, first : first + 10] = 1
        sitk.WriteImage(sitk.GetImageFromArray(smooth_image(truth.shape)[0]), str(images / f"{name}_0000.nii.gz"))
        sitk.WriteImage(sitk.GetImageFromArray(truth), str(labels / f"{name}.nii.gz"))
    asked = MeasurePresetsRequest(model=model.folder, source=images, labels=labels)
    for path in (images / "b_0000.nii.gz", labels / "b.nii.gz"):
        path.rename(tmp_path / path.name)
    alone = drain(measure_presets(asked))
    for name, folder in (("b_0000.nii.gz", images), ("b.nii.gz", labels)):
        (tmp_path / name).rename(folder / name)
    usual, runs = presets.predict, []

    def short_of_memory(*given):
        runs.append(given)
        if len(runs) == 4:  # the second case of the second preset
            raise ResourceError("It does not fit.")
        return (yield from usual(*given))

    monkeypatch.setattr(presets, "predict", short_of_memory)
    found = drain(measure_presets(asked))
    assert {name: entry["dice"] for name, entry in found.items()} == {n: e["dice"] for n, e in alone.items()}
    assert json.loads((model.folder / "inference_presets.json").read_text(encoding="utf-8"))["cases"] == ["a"]


@pytest.mark.usefixtures("known_arithmetic")
def test_a_network_is_tried_before_its_first_run_and_no_other_time(model, volume, monkeypatch):
    settings = PredictSettings(device="cpu", threads=1, mirroring=False)
    tried = []
    run = network_speed.Ensemble.logits
    monkeypatch.setattr(
        network_speed.Ensemble, "logits", lambda self, windows: tried.append(self) or run(self, windows)
    )

    def again():
        tried.clear()
        return drain(estimate_presets(model, volume.shape, volume.geometry.spacing, settings))["own"]

    first = again()
    own = [ensemble for ensemble in tried if ensemble.patch == tuple(model.configuration.patch_size)]
    assert own and own[0].networks[0].architecture == model.architecture and not first.measured
    assert again().seconds == first.seconds and not tried
    choice = first.choice
    per_window = speed.seconds_per_run(network_speed._tried_key(model, choice))
    assert network_speed.seconds_of_run(model, choice, 3) == (3 * per_window, False)
    drain(predict(model, volume, settings))
    assert again().measured and not tried


@pytest.mark.usefixtures("known_arithmetic")
def test_a_network_that_cannot_be_tried_is_estimated_all_the_same(model, volume, monkeypatch):
    compile_network = network_speed.Ensemble.compile

    def fail(self):
        if self.patch == tuple(model.configuration.patch_size):
            raise RuntimeError("no room for it")
        compile_network(self)

    monkeypatch.setattr(network_speed.Ensemble, "compile", fail)
    settings = PredictSettings(device="cpu", threads=1, mirroring=False)
    found = drain(estimate_presets(model, volume.shape, volume.geometry.spacing, settings))["own"]
    assert found.seconds and not found.measured
    assert speed.seconds_per_run(network_speed._tried_key(model, found.choice)) is None


@pytest.mark.usefixtures("known_arithmetic")
def test_a_network_that_takes_seconds_or_memory_is_not_tried(model, monkeypatch):
    choice = prediction_choice(PredictSettings(device="cpu", threads=1), model.architecture)
    network_speed.measure_speed(choice)
    network_speed.measure_network(model, choice, memory=1e18)
    monkeypatch.setattr(network_speed, "_LONGEST_TRIAL", 0.0)
    network_speed.measure_network(model, choice, memory=1.0)
    assert speed.seconds_per_run(network_speed._tried_key(model, choice)) is None
