"""Predicting: the same labels whatever the way, and a usable state whenever it ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import smooth_image
from napari_nnunet import predict as predict_now
from napari_nnunet.engine.network.device import BackendChoice
from napari_nnunet.engine.prediction import infer
from napari_nnunet.engine.prediction.tiles import TileGrid
from napari_nnunet.errors import ImageError, ModelError, ResourceError, SettingsError
from napari_nnunet.events import Note, Painted, Progress, Stage, drain, from_json, to_json
from napari_nnunet.formats.model.checkpoint import CHECKSUM
from napari_nnunet.jobs.prediction import predict as module
from napari_nnunet.jobs.prediction import predictor
from napari_nnunet.jobs.prediction.predict import predict, predict_series
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.volume import Volume

CPU = PredictSettings(device="cpu", precision="float32")


def _events(job):
    events = []
    while True:
        try:
            events.append(next(job))
        except StopIteration as done:
            return events, done.value


def test_a_prediction_has_the_grid_of_its_image_and_every_class(model, volume):
    result = drain(predict(model, volume, CPU))
    assert result.labels.shape == volume.shape
    assert result.labels.dtype == np.uint8
    assert set(np.unique(result.labels)) == {0, 1, 2}
    assert sum(result.counts) == result.labels.size
    assert result.recipe["sha256"]["fold_0"]


@pytest.mark.parametrize("focus", [(0, 0, 0), (13, None, None), (7, 30, 3), (None, None, None)])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_where_it_begins_does_not_change_the_result(new_model, volume, focus, transpose):
    model = new_model(transpose=transpose)
    expected = drain(predict(model, volume, CPU)).labels
    result = drain(predict(model, volume, CPU, focus=focus, preview=True)).labels
    assert (result == expected).mean() > 0.9995


def test_torch_and_openvino_agree(model, volume):
    labels = [drain(predict(model, volume, CPU.replace(backend=b))).labels for b in ("torch", "openvino")]
    assert (labels[0] == labels[1]).mean() > 0.9995


def test_probabilities_sum_to_one_and_explain_the_labels(model, volume):
    result = drain(predict(model, volume, CPU.replace(probabilities=True)))
    assert result.probabilities.shape == (3, *volume.shape)
    np.testing.assert_allclose(result.probabilities.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(result.probabilities.argmax(axis=0), result.labels)


def test_a_two_dimensional_model_segments_pictures_and_volumes_slice_by_slice(new_model):
    model = new_model(patch=(16, 16), spacing=(1.0, 1.0), configuration="2d")
    array = smooth_image((3, 30, 20))
    volume = drain(predict(model, Volume(array, Geometry(spacing=(5, 1, 1))), CPU))
    assert volume.labels.shape == (3, 30, 20)
    picture = drain(predict(model, Volume(array[:, 0], Geometry(spacing=(1, 1))), CPU.replace(probabilities=True)))
    assert picture.labels.shape == (30, 20)
    assert picture.probabilities.shape == (3, 30, 20)


def test_regions_are_painted_in_their_order(new_model, volume):
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": [3]}
    model = new_model(labels=labels, regions_class_order=(1, 3, 2))
    result = drain(predict(model, volume, CPU.replace(probabilities=True)))
    painted = np.zeros(volume.shape, int)
    for probability, value in zip(result.probabilities, (1, 3, 2), strict=True):
        painted[probability > 0.5] = value
    np.testing.assert_array_equal(result.labels, painted)


def test_folds_are_averaged_as_logits(new_model, volume):
    model = new_model(folds=(0, 1))
    parts = [drain(predict(model, volume, CPU.replace(folds=(f,), probabilities=True))) for f in (0, 1)]
    both = drain(predict(model, volume, CPU.replace(probabilities=True)))
    mean = sum(np.log(part.probabilities + 1e-20) for part in parts)
    np.testing.assert_allclose((mean).argmax(axis=0)[both.probabilities.max(axis=0) > 0.6],
                               both.labels[both.probabilities.max(axis=0) > 0.6])  # fmt: skip


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("folds", [(0,), (0, 1)])
def test_summing_features_instead_of_many_logits_changes_nothing(new_model, volume, monkeypatch, folds, probabilities):
    labels = {"background": 0, **{f"organ{i}": i for i in range(1, 12)}}
    model = new_model(labels=labels, folds=folds)
    settings = CPU.replace(probabilities=probabilities)
    made = []
    real = infer.Ensemble.head
    monkeypatch.setattr(infer.Ensemble, "head", lambda self: made.append(self) or real(self))
    one = drain(predict(model, volume, settings, preview=True))
    assert made[-1].as_features
    assert made[-1].channels == 4 * len(folds) < made[-1].heads
    predictor.forget()
    made[-1].as_features = False
    original = infer.Ensemble.__init__

    def as_logits(self, *arguments):
        original(self, *arguments)
        self.as_features = False

    monkeypatch.setattr(infer.Ensemble, "__init__", as_logits)
    other = drain(predict(model, volume, settings))
    assert not made[-1].as_features
    assert (one.labels == other.labels).mean() > 0.9995
    if probabilities:
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)


def test_mirroring_is_left_out_where_the_checkpoint_allows_none(new_model, volume):
    model = new_model(mirror=False)
    result = drain(predict(model, volume, CPU))
    assert result.recipe["mirror_axes"] == []


@pytest.mark.parametrize("shape", [(1, 5, 5), (3, 40, 7), (9, 16, 16)])
def test_images_smaller_than_the_patch_are_padded(model, shape):
    result = drain(predict(model, Volume(smooth_image(shape), Geometry(spacing=(1, 1, 1))), CPU))
    assert result.labels.shape == shape


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_empty_and_constant_images_are_segmented_without_an_error(model, value):
    volume = Volume(np.full((1, 10, 20, 20), value, np.float32), Geometry(spacing=(1, 1, 1)))
    events, result = _events(predict(model, volume, CPU))
    assert result.labels.shape == (10, 20, 20)
    warned = any(isinstance(e, Note) and "contains only zeros" in e.text for e in events)
    assert warned == (value == 0.0)


def test_an_image_without_voxels_is_refused():
    with pytest.raises(ImageError, match="The image is empty"):
        Volume(np.zeros((1, 0, 4, 4)), Geometry(spacing=(1, 1, 1)))


def test_events_say_what_happens_and_survive_json(model, volume):
    events, _ = _events(predict(model, volume, CPU, preview=True))
    names = [e.name for e in events if isinstance(e, Stage)]
    assert names == ["Loading the model", "Preparing the image", "Segmenting"]
    progress = [e for e in events if isinstance(e, Progress)]
    assert progress[-1].done == progress[-1].total
    assert all(from_json(to_json(event)) == event for event in events)
    painted = np.zeros(volume.shape, int)
    for event in events:
        if isinstance(event, Painted) and event.final:
            painted[tuple(slice(a, b) for a, b in event.box)] += 1
    assert (painted == 1).all()


@pytest.mark.parametrize("after", [1, 4, 9, 15])
def test_cancelling_at_any_event_keeps_what_is_finished(model, volume, after):
    expected = drain(predict(model, volume, CPU)).labels
    canvas = np.zeros(volume.shape, np.uint8)
    job = predict(model, volume, CPU, canvas=canvas)
    finished = np.zeros(volume.shape, bool)
    for _ in range(after):
        event = next(job)
        if isinstance(event, Painted):
            finished[tuple(slice(a, b) for a, b in event.box)] = True
    job.close()
    assert (canvas[finished] == expected[finished]).mean() > 0.999 if finished.any() else True
    # planes may be written an instant before they are announced; there is nothing else
    assert ((canvas == 0) | (canvas == expected))[~finished].all()
    assert drain(predict(model, volume, CPU)).labels.shape == volume.shape  # nothing is left locked


def test_a_region_changes_nothing_outside_it(model, volume):
    canvas = np.full(volume.shape, 9, np.uint8)
    drain(predict(model, volume, CPU, canvas=canvas, roi=((2, 9), (5, 30), (10, 20)), preview=True))
    inside = np.zeros(volume.shape, bool)
    inside[2:9, 5:30, 10:20] = True
    assert (canvas[~inside] == 9).all()
    assert (canvas[inside] != 9).all()


def test_a_region_of_zeros_is_background(model):
    array = np.zeros((1, 12, 20, 20), np.float32)
    array[:, :, :8] = smooth_image((12, 8, 20))
    canvas = np.ones((12, 20, 20), np.uint8)
    drain(predict(model, Volume(array, Geometry(spacing=(1, 1, 1))), CPU, canvas=canvas,
                  roi=((0, 12), (19, 20), (0, 20))))  # fmt: skip
    assert (canvas[:, 19] == 0).all()
    assert (canvas[:, :19] == 1).all()


def test_probabilities_of_a_region_stay_inside_it(model, volume):
    roi = ((2, 9), (5, 30), (10, 20))
    result = drain(predict(model, volume, CPU.replace(probabilities=True), roi=roi))
    inside = np.zeros(volume.shape, bool)
    inside[2:9, 5:30, 10:20] = True
    assert (result.probabilities[0][~inside] == 1).all()
    assert (result.probabilities[0][inside] < 1).any()
    np.testing.assert_array_equal(result.probabilities.argmax(axis=0), result.labels)


def test_a_cascade_runs_its_first_stage_from_the_model_beside(new_model, volume):
    new_model(configuration="3d_lowres", spacing=(2.0, 2.0, 2.0))
    second = new_model(configuration="3d_cascade_fullres", previous_stage="3d_lowres", seed=5)
    events, result = _events(predict(second, volume, CPU))
    assert any(isinstance(e, Note) and "First stage of the cascade" in e.text for e in events)
    lowres = module.load_model(second.previous_stage_folder())
    given = drain(predict(lowres, volume, CPU)).labels
    np.testing.assert_array_equal(drain(predict(second, volume, CPU, previous=given)).labels, result.labels)
    with pytest.raises(ImageError, match="contains the label 7, which dataset.json does not define"):
        drain(predict(second, volume, CPU, previous=np.where(given > 0, 7, 0)))
    with pytest.raises(ImageError, match="previous stage's segmentation has shape"):
        drain(predict(second, volume, CPU, previous=given[:3]))


def test_a_cascade_without_its_first_stage_says_where_it_was_looked_for(new_model, volume):
    second = new_model(configuration="3d_cascade_fullres", previous_stage="3d_lowres")
    with pytest.raises(ModelError, match="needs the segmentation of its previous stage '3d_lowres'.*3d_lowres"):
        drain(predict(second, volume, CPU))


def test_a_series_fills_one_canvas_per_time_point(model, volume):
    canvases = [np.zeros(volume.shape, np.uint8) for _ in range(2)]
    frames = [(volume, canvas, None) for canvas in canvases]
    results = drain(predict_series(model, frames, CPU))
    assert len(results) == 2
    np.testing.assert_array_equal(canvases[0], canvases[1])


@pytest.mark.parametrize("factor", [1, 100])
def test_intensities_of_another_modality_are_said_once_for_a_series(model, volume, factor):
    """Only folders said it: an open image of another modality was segmented without a word."""
    odd = replace(volume, array=volume.array * factor)
    frames = [(odd, np.zeros(volume.shape, np.uint8), None) for _ in range(2)]
    events, _ = _events(predict_series(model, frames, CPU))
    said = [event.text for event in events if isinstance(event, Note) and event.level == "warning"]
    assert len(said) == (factor > 1) and all("is it another modality?" in text for text in said)


def test_too_little_memory_is_said_before_anything_is_computed(model, volume):
    with pytest.raises(ResourceError, match=r"needs about 0.\d GB of main memory, but only 0.1 GB are allowed"):
        drain(predict(model, volume, CPU.replace(memory_gb=0.1)))


def test_a_full_gpu_falls_back_step_by_step_and_says_so(model, volume, monkeypatch):
    gpu = BackendChoice("cuda:0", "torch", "float32", "a pretended GPU", 1)
    monkeypatch.setattr(predictor, "prediction_choice", lambda *_: gpu)
    asked = []

    def out_of_memory(network, choice, shape, **options):
        if choice.kind == "cuda":
            asked.append(shape[0])
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(network, choice, shape, **options)

    real, free = infer.compile_network, [40e9, 1e6]  # others have taken the rest when it is looked at again
    monkeypatch.setattr(infer, "compile_network", out_of_memory)
    monkeypatch.setattr(infer, "free_memory", lambda _: free.pop(0))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    on_cpu = torch.device("cpu")
    monkeypatch.setattr(module.torch, "device", lambda _: on_cpu)  # sums "on the GPU" live here too
    events, result = _events(predict(model, volume))
    notes = [e.text for e in events if isinstance(e, Note) and e.level == "warning"]
    assert len(asked) == 2
    assert asked[0] > asked[1]  # windows at once
    assert ["keeping the sums in main memory" in notes[0], "continuing on the CPU" in notes[1]] == [True, True]
    assert result.recipe["device"] == "cpu"
    assert not predictor._cache  # its networks are no longer what was chosen


def test_main_memory_that_does_not_suffice_is_told_with_what_was_needed(model, volume, monkeypatch):
    def huge(*_, **__):
        torch.empty(1 << 58, dtype=torch.uint8)

    monkeypatch.setattr(infer, "compile_network", huge)
    with pytest.raises(ResourceError, match=r"Not enough main memory: another .* GB were needed. Segment a region"):
        drain(predict(model, volume, CPU))


def test_values_beyond_a_short_float_are_computed_again_in_float32(model, volume, monkeypatch):
    real = infer.compile_network

    def overflowing(network, choice, shape, **options):
        run = real(network, choice, shape, **options)
        return run if choice.precision == "float32" else lambda batch: run(batch) * float("inf")

    monkeypatch.setattr(infer, "compile_network", overflowing)
    events, result = _events(predict(model, volume, CPU.replace(precision="bfloat16", backend="torch")))
    assert any(isinstance(e, Note) and "repeating in float32" in e.text for e in events)
    assert result.recipe["precision"] == "float32"
    monkeypatch.undo()
    np.testing.assert_array_equal(result.labels, drain(predict(model, volume, CPU.replace(backend="torch"))).labels)


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("classes", [2, 40])
def test_weights_too_large_for_float32_are_an_error_and_never_background(new_model, volume, backend, classes):
    """They are finite, and what becomes of them within the network is not; many classes are decided elsewhere."""
    found = new_model(labels={"background": 0, **{f"class {n}": n for n in range(1, classes + 1)}})
    path = found.checkpoint_path(0, "checkpoint_final.pth")
    content = torch.load(path, weights_only=True)
    del content[CHECKSUM]
    for name, weight in content["network_weights"].items():
        if "seg_layers" in name:
            weight.fill_(3e38)
    torch.save(content, path)
    with pytest.raises(ModelError, match=r"values that are not numbers \(NaN or infinite\), in float32 too"):
        drain(predict(found, volume, CPU.replace(backend=backend, precision="float32")))


def test_a_device_is_waited_for_once_per_finished_slab_not_for_every_window(model, volume):
    class Reads(TorchDispatchMode):
        """Counts what would wait for a GPU: values that Python reads."""

        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += function is torch.ops.aten._local_scalar_dense.default
            return function(*args, **(kwargs or {}))

    settings = CPU.replace(precision="bfloat16", backend="torch", mirroring=False, step=0.25)
    with Reads() as reads:
        for event in predict(model, volume, settings):
            if isinstance(event, Stage) and event.name == "Segmenting":
                reads.count = 0
    grid = TileGrid(volume.shape, model.configuration.patch_3d, settings.step)
    assert 0 < reads.count <= 3 * len(grid.axis_starts()[0]) < grid.count / 2


def test_networks_are_kept_for_the_next_image_unless_the_checkpoint_changed(model, volume, monkeypatch):
    built = []
    real = predictor.build_predictor
    monkeypatch.setattr(predictor, "build_predictor", lambda *a: built.append(1) or real(*a))
    drain(predict(model, volume, CPU))
    drain(predict(model, volume, CPU))
    assert len(built) == 1
    path = model.checkpoint_path(0, "checkpoint_final.pth")
    content = torch.load(path, weights_only=True)
    content["current_epoch"] = 5
    torch.save(content, path)
    drain(predict(model, volume, CPU))
    assert len(built) == 2


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"device": "cuda"}, ResourceError, "sees no CUDA GPU"),
        ({"device": "mps"}, ResourceError, "needs a Mac"),
        ({"device": "tpu"}, SettingsError, "Unknown device 'tpu'. Known: auto, cpu"),
        ({"device": "cuda", "backend": "openvino"}, SettingsError, "OpenVINO runs on the CPU"),
        ({"folds": (4,)}, ModelError, "Fold 4 has no checkpoint_final.pth"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(model, volume, settings, error, sentence):
    if settings["device" if "device" in settings else "folds"] == "cuda" and torch.cuda.is_available():
        pytest.skip("this computer has a GPU")
    with pytest.raises(error, match=sentence):
        drain(predict(model, volume, PredictSettings(**settings)))


def test_the_python_door_takes_arrays_and_asks_for_their_spacing(model, volume):
    result = predict_now(model, volume.array[0], spacing=volume.geometry.spacing, mirroring=False, device="cpu")
    assert result.labels.shape == volume.shape
    heard = []
    predict_now(model.folder, volume, mirroring=False, on_event=heard.append)
    assert any(isinstance(event, Progress) for event in heard)
    with pytest.raises(ImageError, match="An array has no voxel size"):
        predict_now(model, volume.array[0])
    with pytest.raises(ImageError, match=r"has shape \(2, 14, 40, 36\)"):
        predict_now(model, np.concatenate([volume.array] * 2), spacing=(1, 1, 1))
