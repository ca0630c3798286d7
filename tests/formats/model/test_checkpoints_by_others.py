"""What other trainers and programs keep in checkpoints, how they name weights, and what is given in their place."""

from __future__ import annotations

import collections
import gzip
import json
import random
import struct
import zipfile

import numpy as np
import pytest
import torch

from napari_nnunet.api.prediction import predict
from napari_nnunet.engine.network.unet import own_state
from napari_nnunet.errors import ModelError
from napari_nnunet.formats.model.checkpoint import light_checkpoint, read_checkpoint
from napari_nnunet.formats.model.torch_file import read_torch


def checkpoint(model):
    return model.folder / "fold_0" / "checkpoint_final.pth"


KEPT = {
    "objects": np.array([1, "a", None], dtype=object),
    "records": np.zeros(3, dtype=[("a", "f4"), ("b", "i4")]),
    "dates": np.array(["2020-01-01"], dtype="M8[D]"),
    "date": np.datetime64("2020-01-01"),
    "generator": np.random.default_rng(0),
    "random state": np.random.RandomState(0),
    "states": (np.random.get_state(), random.getstate(), torch.get_rng_state()),
    "type": np.float32,
    "dots": ...,
    "objects beside a sparse tensor": [np.array([None]), torch.eye(2).to_sparse()],
}


@pytest.mark.parametrize("name", KEPT)
def test_what_nobody_needs_is_not_made_again(model, tmp_path, name):
    path = checkpoint(model)
    content = torch.load(path, weights_only=False)
    torch.save({**content, "mine": KEPT[name], "logging": {**content["logging"], "mine": KEPT[name]}}, path)
    assert read_checkpoint(path).weights.keys() == content["network_weights"].keys()
    light = torch.load(light_checkpoint(path, tmp_path), weights_only=False)
    assert "napari_nnunet" not in str(light["logging"].get("mine"))


class _Runs:
    def __reduce__(self):
        return print, ("it ran",)


def test_what_would_run_is_refused_within_arrays_too(model, capsys):
    path = checkpoint(model)
    content = torch.load(path, weights_only=False)
    torch.save({**content, "mine": np.array([_Runs()], dtype=object)}, path)
    with pytest.raises(ModelError, match="Nothing was executed"):
        read_checkpoint(path)
    assert "it ran" not in capsys.readouterr().out


def test_axes_of_mirrors_may_be_an_array(model):
    path = checkpoint(model)
    torch.save({**torch.load(path, weights_only=False), "inference_allowed_mirroring_axes": np.array([0, 1])}, path)
    assert read_checkpoint(path).mirror_axes == (0, 1)


def test_axes_of_mirrors_that_were_not_read_are_refused(model):
    """Mirroring was switched off without a word."""
    path = checkpoint(model)
    axes = np.array([0, 1], dtype=object)
    torch.save({**torch.load(path, weights_only=False), "inference_allowed_mirroring_axes": axes}, path)
    with pytest.raises(ModelError, match="allows mirroring along 'an array of objects'; axes are 0, 1 and 2"):
        read_checkpoint(path)


def test_a_light_checkpoint_never_needs_this_program(model, tmp_path):
    path = checkpoint(model)
    content = torch.load(path, weights_only=False)
    odd = [np.dtype("f4"), np.dtype, np.ndarray, collections.Counter, {np.dtype("f4"): 1}, (np.dtype("f4"), 1)]
    content["logging"] = {**content["logging"], "mine": odd, "type": np.dtype("O")}
    torch.save({**content, "_best_ema": np.dtype("f4")}, path)
    light = light_checkpoint(path, tmp_path)
    with zipfile.ZipFile(light) as archive:
        (table,) = (archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    assert b"napari_nnunet." not in table and b"napari_nnunet\n" not in table
    assert torch.load(light, weights_only=False)["logging"]["mine"][-1] == (1,)


def test_wrappers_of_parts_of_a_network_and_counts_of_operations_are_not_part_of_names():
    one, two = torch.ones(1), torch.zeros(1)
    state = {
        "module.encoder._orig_mod.stem.weight": one,
        "encoder.stem.bias": two,
        "encoder.stem.total_ops": one,
        "total_params": one,
    }
    assert own_state(state) == {"encoder.stem.weight": one, "encoder.stem.bias": two}
    assert own_state({"module.a.weight": one, "a.weight": two}).keys() == {"a.weight", "a.weight (twice)"}


def test_weights_that_were_rounded_to_whole_numbers_are_refused(model):
    path = checkpoint(model)
    content = torch.load(path, weights_only=False)
    content.pop("napari_nnunet_checksum", None)
    torch.save({**content, "network_weights": {n: v.int() for n, v in content["network_weights"].items()}}, path)
    with pytest.raises(ModelError, match="in whole numbers: encoder"):
        predict(model, np.zeros((8, 16, 16), np.float32), spacing=(1, 1, 1), device="cpu")


def test_weights_alone_are_refused_with_what_is_missing(model):
    path = checkpoint(model)
    weights = torch.load(path, weights_only=False)["network_weights"]
    for content, said in (
        (dict(weights), "It holds weights alone, and does not say what they belong to: save it where it was trained"),
        ({"model_state_dict": dict(weights), "epoch": 3}, "It has epoch, model_state_dict: save it where"),
        (
            {"state_dict": dict(weights), "plans": {}},
            "It is one of nnU-Net v1; 'napari-nnunet import_old_nnunet_model'",
        ),
    ):
        torch.save(content, path)
        with pytest.raises(ModelError, match=said):
            read_checkpoint(path)


def _safetensors(path):
    head = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(4))


def _zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("checkpoint_final.pth", b"x")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("write", "said"),
    [
        (_safetensors, "is a file of safetensors, not a checkpoint"),
        (_zipped, "is a zip with checkpoint_final.pth, not a checkpoint. Unpack it."),
        (
            lambda path: path.write_bytes(gzip.compress(b"x")),
            r"is packed with gzip \(\.gz, \.tar\.gz\), not a checkpoint",
        ),
        (lambda path: path.write_bytes("text".encode("utf-16")), "is a text in UTF-16, not a checkpoint"),
        (
            lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path)),
            r"is a program \(TorchScript\)",
        ),
        (lambda path: torch.save({"a": torch.eye(2).to_sparse()}, path, pickle_protocol=5), "with a pickle protocol"),
    ],
    ids=["safetensors", "zip", "gzip", "utf16", "torchscript", "protocol"],
)
def test_other_files_are_named_as_what_they_are(tmp_path, write, said):
    write(tmp_path / "x.pth")
    with pytest.raises(ModelError, match=said):
        read_torch(tmp_path / "x.pth")
