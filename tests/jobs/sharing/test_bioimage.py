"""A bioimage.io package gives its model's own probabilities, validates and runs where this program is not."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest

from choices import run_verb
from helpers import Recipe, make_model
from napari_nnunet.engine.network import onnx_graph
from napari_nnunet.errors import ModelError, SettingsError
from napari_nnunet.events import Note, drain
from napari_nnunet.jobs.sharing.carry import export_model
from napari_nnunet.schema.requests.sharing import CarryRequest

MODELS = {
    "folds": Recipe(folds=(0, 1)),
    "slices": Recipe(patch=(16, 24), spacing=(1.0, 0.5), configuration="2d", mirror=False),
    "turned": Recipe(transpose=(2, 0, 1), patch=(16, 8, 24), spacing=(5.0, 1.0, 0.5)),
    "regions": Recipe(
        labels={"background": 0, "whole": [1, 2], "core": 2}, regions_class_order=(1, 2), norm="BatchNorm"
    ),
    "CT": Recipe(channels=("CT", "CT2"), schemes=("CTNormalization", "NoNormalization")),
    "many classes": Recipe(labels={"background": 0, **{f"c{i}": i for i in range(1, 12)}}, folds=(0, 1)),
    "0 to 1": Recipe(channels=("a", "b"), schemes=("RescaleTo01Normalization",) * 2),
}


def packed(tmp_path, recipe, **changes):
    """Export a model; returns it, and the files of the package."""
    model = make_model(tmp_path, recipe)
    request = CarryRequest(model=model.folder, target=tmp_path / "model.zip", format="bioimageio", **changes)
    drain(export_model(request))
    with zipfile.ZipFile(request.target) as archive:
        return model, {name: archive.read(name) for name in archive.namelist()}


def arrays(files):
    return [np.load(io.BytesIO(files[f"test_{name}.npy"])) for name in ("input", "output")]


@pytest.mark.parametrize("name", MODELS)
def test_its_graph_gives_the_probabilities_of_the_networks(name, tmp_path):
    model, files = packed(tmp_path, MODELS[name], mirrored=name in ("folds", "turned"))
    image, expected = arrays(files)
    assert set(files) == {
        "rdf.yaml", "weights.onnx", "test_input.npy", "test_output.npy", "description.json", "README.md"
    }  # fmt: skip
    described = json.loads(files["rdf.yaml"])
    axes = tuple(range(2, image.ndim))
    match described["inputs"][0]["preprocessing"]:
        case [{"id": "zero_mean_unit_variance"}]:
            image = (image - image.mean(axes, keepdims=True)) / (image.std(axes, keepdims=True) + 1e-6)
        case [{"id": "scale_range"}]:
            low, high = image.min(axes, keepdims=True), image.max(axes, keepdims=True)
            image = (image - low) / (high - low + 1e-6)
    found = onnx_graph.run_once(files["weights.onnx"], "image", image.astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found.shape[1] == model.dataset.labels.heads
    if not model.dataset.labels.has_regions:
        np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert [axis["id"] for axis in described["inputs"][0]["axes"][2:]] == {
        "slices": ["y", "x"], "turned": ["x", "z", "y"]
    }.get(name, ["z", "y", "x"])  # fmt: skip


def test_mirroring_does_not_store_weights_again(tmp_path):
    _, plain = packed(tmp_path / "a", Recipe())
    _, mirrored = packed(tmp_path / "b", Recipe(), mirrored=True)
    assert len(mirrored["weights.onnx"]) < 1.5 * len(plain["weights.onnx"]) + 40_000


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Recipe(use_mask=True), "normalises within the part of an image that is not 0"),
        (
            Recipe(channels=("a", "b"), schemes=("ZScoreNormalization", "CTNormalization")),
            "normalises its channels in different ways",
        ),
    ],
)
def test_what_the_format_cannot_say_is_refused(tmp_path, recipe, said):
    with pytest.raises(ModelError, match=f"{said}.* a bioimage.io package cannot say. Export it as onnx"):
        packed(tmp_path, recipe)
    assert not (tmp_path / "model.zip").exists()


def test_mirroring_inside_is_for_packages_only(tmp_path):
    with pytest.raises(SettingsError, match="segment.py mirrors by itself"):
        CarryRequest(model=tmp_path, target=tmp_path / "a.zip", mirrored=True)


def test_it_is_said_that_a_package_names_no_authors_and_no_licence_yet(tmp_path):
    request = CarryRequest(model=make_model(tmp_path).folder, target=tmp_path / "model.zip", format="bioimageio")
    said = [event.text for event in export_model(request) if isinstance(event, Note)]
    assert any("names no authors and no licence. Before you publish" in text and "CC-BY-4.0" in text for text in said)


def test_a_graph_that_is_off_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "run_once", lambda graph, name, image: np.zeros((1, 3, *image.shape[2:])))
    with pytest.raises(ModelError, match="probabilities are off by"):
        packed(tmp_path, Recipe())
    assert not (tmp_path / "model.zip").exists()


def test_without_onnxruntime_it_is_said_that_nothing_was_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "onnxruntime", None)
    model = make_model(tmp_path)
    request = CarryRequest(model=model.folder, target=tmp_path / "model.zip", format="bioimageio")
    assert any(isinstance(event, Note) and "was not tried" in event.text for event in export_model(request))


#: A Python with bioimageio.core and onnxruntime; it need not be the one that runs the tests.
OTHER = os.environ.get("NAPARI_NNUNET_BIOIMAGEIO_PYTHON") or (find_spec("bioimageio") and sys.executable)


@pytest.mark.skipif(
    not OTHER, reason="bioimageio.core, which runs packages, is not there (NAPARI_NNUNET_BIOIMAGEIO_PYTHON)"
)
@pytest.mark.parametrize("name", ["CT", "folds"])
def test_bioimageio_validates_the_package_and_gets_the_test_output(tmp_path, name):
    model = make_model(tmp_path, MODELS[name])
    target = tmp_path / "model.zip"
    more = ["--float16"] if name == "CT" else ["--mirrored"]
    words = ["export_model", "-m", model.folder, "-o", target, "--format", "bioimageio", *more]
    assert run_verb(*words) == 0
    program = (
        "import sys; from bioimageio.core import test_model\n"
        "summary = test_model(sys.argv[1]); print(summary.display()); sys.exit(summary.status != 'passed')"
    )
    done = subprocess.run([OTHER, "-c", program, str(target)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
