"""Networks that were carried elsewhere and forged: they read no other file, and what they are not is a sentence."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import side_files

onnx = pytest.importorskip("onnx", reason="onnx is not installed: it comes with napari-nnunet[export]")


@pytest.fixture
def carried(tmp_path):
    """A copy of the folder of a carried model, its program, and its network."""
    folder, program = side_files.carried()
    copy = tmp_path / "there" / "model"
    shutil.copytree(folder, copy)
    about = json.loads((copy / "description.json").read_text(encoding="utf-8"))
    (copy / "description.json").write_text(json.dumps({**about, "files": {}}))  # whoever forges it leaves no checksum
    return copy, program, next(copy.glob("*.onnx"))


def segment(folder, program):
    return program.Carried(folder, threads=1).segment(side_files._IMAGE[:4, :8, :8], mirroring=False)


@pytest.mark.parametrize("place", ["../secret.bin", "{outside}/secret.bin", "link.bin", "./a/../../secret.bin"])
def test_weights_of_a_network_come_from_no_other_folder(tmp_path, carried, place):
    folder, program, path = carried
    (folder / "a").mkdir()
    network = onnx.load(path)
    weight = max(network.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    for secret in (folder.parent / "secret.bin", tmp_path / "secret.bin"):
        secret.write_bytes(weight.raw_data)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", place.format(outside=tmp_path)), ("offset", "0")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    path.write_bytes(network.SerializeToString())
    with pytest.raises(ValueError, match="The networks in .* cannot be opened"):
        segment(folder, program)


def damaged(path, how):
    whole = path.read_bytes()
    return {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "zeros": bytes(5_000),
        "text": b"<html>",
        "pickle": b"\x80\x04.",
    }[how]


@pytest.mark.parametrize("how", ["empty", "half", "zeros", "text", "pickle"])
def test_what_is_no_network_is_a_sentence(carried, how):
    folder, program, path = carried
    path.write_bytes(damaged(path, how))
    with pytest.raises(ValueError, match=r"The networks in .* cannot be opened|A network"):
        segment(folder, program)


def test_a_network_that_gives_something_else_is_a_sentence(carried):
    folder, program, path = carried
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    for shape, node in (((1, 1), "ReduceMax"), ((1, 1, 4, 8, 8), "Identity"), ((1, 1, 4, 8, 8), "Log")):
        given = helper.make_tensor_value_info("x", kind, [1, 1, 4, 8, 8])
        made = helper.make_tensor_value_info("y", kind, None if node == "ReduceMax" else list(shape))
        graph = helper.make_graph([helper.make_node(node, ["x"], ["y"])], "g", [given], [made])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ValueError, match="A network (gives|does not take)"):
            segment(folder, program)
    assert np.isfinite(side_files._IMAGE).all()
