"""Models that lost no accuracy in 8-bit arithmetic are carried in it: a quarter of the size, the same labels."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from test_carry import SHAPES, carried, image_for, opened

from eight_bits import MEASURED, ranges_of, write_ranges
from helpers import Recipe, make_model
from napari_nnunet import predict
from napari_nnunet.engine.network import eight_bit, onnx_graph, openvino_backend
from napari_nnunet.engine.network.backends import compile_network
from napari_nnunet.engine.network.device import BackendChoice, has_openvino
from napari_nnunet.engine.network.unet import build
from napari_nnunet.errors import ModelError, SettingsError
from napari_nnunet.events import Note, drain
from napari_nnunet.jobs.sharing.carry import export_model
from napari_nnunet.schema.architecture import Architecture
from napari_nnunet.schema.requests.sharing import CarryRequest

PATCH = (4, 16, 16)
RESIDUAL = Architecture(
    name="ResidualEncoderUNet", ndim=3, features=(8, 16, 32), kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), blocks=(1, 3, 4), decoder_convs=(2, 1),
)  # fmt: skip
pytestmark = pytest.mark.skipif(not has_openvino(), reason="8-bit arithmetic is OpenVINO's")


@pytest.fixture(autouse=True)
def _float32_beside(monkeypatch):
    """What is not 8-bit is float32 wherever the tests run, as it is where a model is carried to."""
    monkeypatch.setattr(openvino_backend, "has_fast_bfloat16", lambda: False)


@pytest.mark.parametrize(
    ("case", "kind"), [("3d", "onnx"), ("2d on a volume", "openvino"), ("regions, masked", "onnx")]
)
def test_it_gives_the_labels_that_its_model_gives_in_8_bit(tmp_path, case, kind):
    recipe, shape, spacing = SHAPES[case]
    model = make_model(tmp_path, recipe)
    write_ranges(model, measured=MEASURED)
    image = image_for(shape)
    own = predict(model, image, spacing=spacing, device="cpu", precision="int8").labels
    there = opened(carried(tmp_path, model, format=kind, eight_bit=True))
    assert np.mean(there.segment(image, spacing) == own) > 0.97
    assert there.about["weights"] == "int8"


def test_layers_of_residual_networks_are_told_apart():
    network = build(RESIDUAL, 1, 3).eval()
    network.ranges = ranges_of(network, (1, 1, *PATCH))
    window = np.random.default_rng(0).standard_normal((1, 1, *PATCH)).astype(np.float32)
    choice = BackendChoice("cpu", "openvino", "int8", "", 1)
    own = compile_network(network, choice, window.shape)(torch.from_numpy(window)).numpy()
    graph = onnx_graph.build_onnx(network, PATCH, kept="int8").SerializeToString()
    assert np.sqrt(np.mean((onnx_graph.run_once(graph, "window", window) - own) ** 2)) < 0.02 * np.abs(own).max()


def test_a_bioimageio_package_has_the_test_output_of_its_own_graph(tmp_path):
    model = make_model(tmp_path, Recipe(folds=(0, 1)))
    write_ranges(model, measured=MEASURED)
    folder = carried(tmp_path, model, format="bioimageio", eight_bit=True)
    graph, image = (folder / "weights.onnx").read_bytes(), np.load(folder / "test_input.npy")
    wide = image - image.mean(axis=(2, 3, 4), keepdims=True)
    found = onnx_graph.run_once(graph, "image", wide / wide.std(axis=(2, 3, 4), keepdims=True))
    expected = np.load(folder / "test_output.npy")
    described = json.loads((folder / "rdf.yaml").read_text(encoding="utf-8"))
    (allowed,) = described["config"]["bioimageio"]["reproducibility_tolerance"]
    off = np.abs(found - expected) > allowed["absolute_tolerance"]
    assert off.mean() <= allowed["mismatched_elements_per_million"] / 1e6
    assert "in 8-bit arithmetic" in (folder / "README.md").read_text(encoding="utf-8")


def test_convolutions_have_weights_of_8_bits_and_read_steps_of_their_ranges(tmp_path):
    model = make_model(tmp_path, Recipe(patch=(16, 16), spacing=(1.0, 1.0), configuration="2d"))
    write_ranges(model, measured=MEASURED)
    path = carried(tmp_path, model, eight_bit=True) / "fold_0.onnx"
    graph = onnx.load(path).graph
    made_by = {node.output[0]: node for node in graph.node}
    convolutions = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")]
    assert {made_by[node.input[1]].op_type for node in convolutions} == {"DequantizeLinear"}
    read = {made_by[node.input[0]].op_type for node in convolutions}
    assert read == {"DequantizeLinear", "Concat"}  # whose parts have steps of their own
    weights = {w.name: w.data_type for w in graph.initializer}
    assert all(weights[made_by[node.input[1]].input[0]] == onnx.TensorProto.INT8 for node in convolutions)


@pytest.mark.parametrize(
    ("measured", "changes", "words"),
    [
        (None, {}, "was not quantised"),
        ({**MEASURED, "dice_eight_bit": 0.89}, {}, "loses 0.0100 of its Dice"),
        (MEASURED, {"weights": "0" * 64}, "other weights than those of fold 0"),
        (MEASURED, {"ranges": {"PRelu 999": (0.0, 1.0)}}, "belong to another network"),
    ],
)
def test_what_was_not_measured_or_costs_too_much_is_refused(tmp_path, measured, changes, words):
    model = make_model(tmp_path)
    write_ranges(model, measured=measured, **changes)
    with pytest.raises(ModelError, match=words):
        drain(export_model(CarryRequest(model=model.folder, target=tmp_path / "a.zip", eight_bit=True)))
    assert not list(tmp_path.glob("*.zip"))


def test_a_model_that_was_never_quantised_says_how_from_the_shell_and_in_the_dock(tmp_path):
    model = make_model(tmp_path)
    with pytest.raises(ModelError) as caught:
        drain(export_model(CarryRequest(model=model.folder, target=tmp_path / "a.zip", eight_bit=True)))
    assert f"napari-nnunet quantize -m {model.folder}" in str(caught.value)
    assert "Make 8-bit" in caught.value.in_window and "--int8" not in caught.value.in_window


def test_it_says_what_8_bit_arithmetic_costs(tmp_path):
    model = make_model(tmp_path)
    write_ranges(model, measured=MEASURED)
    events = []
    request = CarryRequest(model=model.folder, target=tmp_path / "a.zip", eight_bit=True)
    drain(export_model(request), events.append)
    assert any("8-bit: Dice 0.8990" in event.text for event in events if isinstance(event, Note))


def test_a_graph_with_steps_of_another_size_is_not_written(tmp_path, monkeypatch):
    model = make_model(tmp_path)
    write_ranges(model, measured=MEASURED)
    ranges = eight_bit.ranges_by_layer

    def wrong(*given):
        return {key: tuple((low / 16, high / 16) for low, high in bounds) for key, bounds in ranges(*given).items()}

    monkeypatch.setattr(eight_bit, "ranges_by_layer", wrong)
    with pytest.raises(ModelError, match="off by"):
        drain(export_model(CarryRequest(model=model.folder, target=tmp_path / "a.zip", eight_bit=True)))


def test_weights_are_kept_one_way(tmp_path):
    with pytest.raises(SettingsError, match="not both"):
        CarryRequest(model=tmp_path, target=tmp_path / "a.zip", half=True, eight_bit=True)
