"""Single steps against figures that nnU-Net v2 2.8.1 gave (tests/data/numerics)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from helpers import FIGURES
from napari_nnunet.engine.image.normalize import normalize
from napari_nnunet.engine.image.prepare import crop_to_nonzero
from napari_nnunet.engine.image.resample import resample_image, resample_labels, separate_axis
from napari_nnunet.engine.network import unet as network
from napari_nnunet.engine.network.openvino_backend import OpenVinoNetwork
from napari_nnunet.engine.network.torch_backend import TorchNetwork
from napari_nnunet.engine.prediction.decode import decode_probabilities
from napari_nnunet.engine.prediction.tiles import TileGrid, importance, starts
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.plans import IntensityStatistics, Plans, Resampling


def _cases(name: str, key: str = "cases") -> list:
    return json.loads((FIGURES / f"{name}.json").read_text(encoding="utf-8"))[key]


def _arrays(name: str):
    return np.load(FIGURES / f"{name}.npz")


@pytest.mark.parametrize("case", _cases("resampling"), ids=lambda c: f"{c['id']}-{c['kind']}")
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_resampling_gives_the_recorded_values(case, kind):
    arrays = _arrays("resampling")
    given, expected = arrays[f"{case['id']}_in"], arrays[f"{case['id']}_out"]
    rule = Resampling(function=case["function"], **case["kwargs"])
    where = (case["new_shape"], case["current_spacing"], case["new_spacing"], rule)
    if case["kind"] == "seg":
        result = resample_labels(given[0], *where)[None]
        # exact ties may fall the other way where sums are added in another order
        assert (result != expected).mean() < 2e-3
        return
    image = given.astype(np.float32)
    result = np.asarray(resample_image(torch.from_numpy(image) if kind == "torch" else image, *where))
    step = np.spacing(np.abs(expected).max()) if expected.dtype == np.float16 else 0.0
    np.testing.assert_allclose(result, expected.astype(np.float32), atol=1e-5 + 1.01 * float(step), rtol=0)


@pytest.mark.parametrize("case", _cases("resampling"), ids=lambda c: str(c["id"]))
def test_the_axis_that_is_kept_apart_is_the_recorded_one(case):
    kwargs = case["kwargs"]
    threshold = kwargs.get("separate_z_anisotropy_threshold", 3)
    axis = separate_axis(case["current_spacing"], case["new_spacing"], kwargs["force_separate_z"], threshold)
    assert axis == case["axis"]


@pytest.mark.parametrize("case", _cases("normalization"), ids=lambda c: f"{c['id']}-{c['scheme']}")
def test_normalization_gives_the_recorded_values(case):
    arrays = _arrays("normalization")
    image = arrays[f"{case['id']}_in"].astype(np.float32).copy()
    mask = (arrays[f"{case['id']}_seg"] >= 0).reshape(image.shape) if case["use_mask_for_norm"] else None
    statistics = IntensityStatistics(**case["intensity_properties"])
    result = normalize(image, case["scheme"], mask=mask, statistics=statistics)
    np.testing.assert_allclose(result, arrays[f"{case['id']}_out"], atol=1e-5)


@pytest.mark.parametrize("case", _cases("crop"), ids=lambda c: str(c["id"]))
def test_cropping_to_nonzero_is_identical(case):
    arrays = _arrays("crop")
    labels = arrays[f"{case['id']}_seg"] if case["has_seg"] else None
    data, marked, box = crop_to_nonzero(arrays[f"{case['id']}_data"], labels)
    np.testing.assert_array_equal(data, arrays[f"{case['id']}_out_data"])
    np.testing.assert_array_equal(marked, arrays[f"{case['id']}_out_seg"])
    assert [list(pair) for pair in box] == case["bbox"]


@pytest.mark.parametrize("case", _cases("gaussian"), ids=lambda c: str(c["patch_size"]))
def test_importance_maps_are_identical_in_float16(case):
    result = importance(tuple(case["patch_size"]))
    np.testing.assert_array_equal(result, _arrays("gaussian")[f"{case['id']}_float16"])


@pytest.mark.parametrize("case", _cases("tiles", "tiles"), ids=lambda c: str(c["image"]))
def test_tiles_begin_where_recorded(case):
    found = [starts(n, p, case["step_size"]) for n, p in zip(case["image"], case["tile"], strict=True)]
    assert found == case["starts"]


@pytest.mark.parametrize("case", _cases("tiles", "padding"), ids=lambda c: str(c["shape"]))
def test_small_images_are_padded_as_recorded(case):
    patch = (1,) * (3 - len(case["patch"])) + tuple(case["patch"])
    grid = TileGrid(tuple(case["shape"]), patch, 0.5)
    assert list(grid.padded_shape) == case["padded"]
    inner = [[before, before + n] for (before, _), n in zip(grid.padding, case["shape"], strict=True)]
    assert inner == case["revert"]


@pytest.mark.parametrize("case", _cases("labels"), ids=lambda c: str(c["id"]))
def test_labels_and_regions_are_understood_and_decoded_as_recorded(case):
    scheme = LabelScheme(
        labels={name: tuple(v) if isinstance(v, list) else v for name, v in case["labels"].items()},
        regions_class_order=case["regions_class_order"],
    )
    assert scheme.has_regions == case["has_regions"]
    assert scheme.ignore_label == case["ignore_label"]
    assert list(scheme.all_labels) == case["all_labels"]
    assert list(scheme.foreground_labels) == case["foreground_labels"]
    assert scheme.heads == case["num_heads"]
    arrays = _arrays("labels")
    name = f"{case['id']}_probabilities"
    if name in arrays.files:
        probabilities = torch.from_numpy(arrays[name].astype(np.float32))
        segmentation = next(n for n in arrays.files if n.startswith(f"{case['id']}_seg"))
        np.testing.assert_array_equal(decode_probabilities(probabilities, scheme).numpy(), arrays[segmentation])


def _network(case) -> tuple[network.UNet, torch.Tensor, list[np.ndarray]]:
    arrays = _arrays("networks")
    content = {"configurations": {"x": {"patch_size": case["patch_size"], "spacing": [1.0] * len(case["patch_size"]),
                                        "normalization_schemes": ["NoNormalization"], "architecture": case["architecture"]}}}  # fmt: skip
    architecture = Plans.parse(content).configuration("x").architecture
    unet = network.build(architecture, case["input_channels"], case["num_classes"])
    prefix = case["name"] + "/"
    state = {
        key.removeprefix(prefix): torch.from_numpy(arrays[key])
        for key in arrays.files
        if key.startswith(prefix) and not key.removeprefix(prefix).startswith(("input", "output"))
    }
    network.load_state(unet, state)
    outputs = [arrays[f"{prefix}output{i}"] for i in range(len(case["outputs"]))]
    return unet.eval(), torch.from_numpy(arrays[f"{prefix}input"]), outputs


@pytest.mark.parametrize("case", _cases("networks", "small"), ids=lambda c: c["name"])
def test_networks_give_the_recorded_outputs(case):
    unet, image, expected = _network(case)
    unet.deep_supervision = True
    with torch.no_grad():
        outputs = unet(image)
    for output, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("case", _cases("networks", "small"), ids=lambda c: c["name"])
@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_compiled_networks_give_the_recorded_outputs(case, backend):
    unet, image, expected = _network(case)
    if backend == "torch":
        output = TorchNetwork(unet, device="cpu", precision="float32")(image)
    else:
        output = OpenVinoNetwork(unet, image.shape, precision="float32", threads=0)(image)
    np.testing.assert_allclose(output, expected[0], atol=2e-5 * np.abs(expected[0]).max())


@pytest.mark.parametrize("case", _cases("networks", "small"), ids=lambda c: c["name"])
def test_state_dicts_have_all_keys_of_nnunet_in_its_order(case):
    unet, _, _ = _network(case)
    assert list(network.nnunet_state(unet)) == case["state_dict_keys"]
    assert [name for name, _ in unet.named_parameters()] == case["parameter_names"]


@pytest.mark.parametrize("case", _cases("networks", "default_sizes"), ids=lambda c: str(c["patch_size"]))
def test_networks_of_default_width_have_the_recorded_size(case):
    ndim = len(case["patch_size"])
    content = {"configurations": {"x": {"patch_size": case["patch_size"], "spacing": [1.0] * ndim,
                                        "normalization_schemes": ["NoNormalization"], "architecture": case["architecture"]}}}  # fmt: skip
    architecture = Plans.parse(content).configuration("x").architecture
    with torch.device("meta"):
        unet = network.build(architecture, case["input_channels"], case["num_classes"])
    assert sum(p.numel() for p in unet.parameters()) == case["parameters"]
    assert len(network.nnunet_state(unet)) == case["state_dict_entries"]
