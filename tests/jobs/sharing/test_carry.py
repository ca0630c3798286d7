"""A carried model gives the labels of its model with nothing but numpy, scipy and a runtime, or is not written."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from torch import nn

from choices import run_verb
from helpers import Recipe, make_model, smooth_image, write_nifti
from napari_nnunet import predict
from napari_nnunet.engine.network import onnx_graph
from napari_nnunet.errors import ModelError, ResourceError, SettingsError
from napari_nnunet.events import Note, drain
from napari_nnunet.jobs.sharing.carry import export_model
from napari_nnunet.schema.requests.sharing import CarryRequest

SHAPES = {
    "3d": (Recipe(folds=(0, 1)), (1, 14, 30, 22), (1.4, 0.9, 1.0)),
    "2d on a volume": (Recipe(patch=(16, 16), spacing=(1.0, 1.0), configuration="2d"), (1, 3, 30, 22), (3.0, 1.3, 0.9)),
    "transposed, thick slices": (Recipe(transpose=(2, 0, 1), spacing=(5.0, 1.0, 1.0)), (1, 24, 26, 6), (0.8, 0.9, 5.0)),
    "regions, masked": (
        Recipe(
            labels={"background": 0, "whole": [1, 2], "core": 2},
            regions_class_order=(1, 2),
            use_mask=True,
            norm="BatchNorm",
        ),
        (1, 12, 24, 20),
        (1.0, 1.0, 1.2),
    ),
    "CT": (Recipe(schemes=("CTNormalization",), mirror=False), (1, 9, 20, 20), (2.0, 1.0, 1.0)),
    "two channels": (
        Recipe(channels=("a", "b"), schemes=("ZScoreNormalization", "RescaleTo01Normalization")),
        (2, 8, 16, 16),
        (1.0, 1.0, 1.0),
    ),
}


def image_for(shape):
    image = smooth_image(shape[1:], channels=shape[0])
    image[..., :4] = 0  # an empty border, to be cropped
    return image


def carried(folder, model, **changes):
    """Export a model and unpack it; returns the folder."""
    target = folder / "model.zip"
    drain(export_model(CarryRequest(model=model.folder, target=target, replace_zip=True, **changes)))
    with zipfile.ZipFile(target) as archive:
        archive.extractall(folder / "there")
    return folder / "there"


def opened(folder):
    spec = importlib.util.spec_from_file_location("carried_segment", folder / "segment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Carried(folder)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
@pytest.mark.parametrize("case", SHAPES)
def test_it_gives_the_labels_of_its_model(tmp_path, case, kind):
    recipe, shape, spacing = SHAPES[case]
    model = make_model(tmp_path, recipe)
    image = image_for(shape)
    own = predict(model, image, spacing=spacing, device="cpu", precision="float32").labels
    there = opened(carried(tmp_path, model, format=kind))
    before = image.copy()
    np.testing.assert_array_equal(there.segment(image, spacing), own)
    np.testing.assert_array_equal(image, before)
    assert len(np.unique(own)) > 1


def test_it_runs_where_neither_torch_nor_this_program_is(tmp_path):
    model = make_model(tmp_path)
    folder = carried(tmp_path, model)
    image = image_for((1, 8, 16, 16))[0]
    np.save(tmp_path / "image.npy", image)
    forbidden = ("torch", "napari_nnunet", "SimpleITK", "skimage", "nibabel", "napari", "onnx")
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({forbidden!r}))\nsys.argv = ['segment.py', "
        f"{str(tmp_path / 'image.npy')!r}, '-o', {str(tmp_path / 'labels.npy')!r}, '--spacing', '1', '1', "
        f"'1']\nrunpy.run_path({str(folder / 'segment.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    own = predict(model, image, spacing=(1, 1, 1), device="cpu", precision="float32").labels
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), own)


def test_weights_of_half_the_size_are_nearly_as_good(tmp_path):
    model = make_model(tmp_path)
    whole = (carried(tmp_path / "a", model) / "fold_0.onnx").stat().st_size
    folder = carried(tmp_path / "b", model, half=True)
    image = image_for((1, 8, 16, 16))
    own = predict(model, image, spacing=(1, 1, 1), device="cpu", precision="float32").labels
    assert np.mean(opened(folder).segment(image, (1, 1, 1)) == own) > 0.99
    assert (folder / "fold_0.onnx").stat().st_size < whole


@pytest.mark.parametrize("recipe", [Recipe(), SHAPES["regions, masked"][0]], ids=["classes", "regions"])
@pytest.mark.parametrize("half", [False, True])
def test_how_many_labels_weights_of_half_the_size_change_is_said(tmp_path, recipe, half):
    events = []
    request = CarryRequest(model=make_model(tmp_path, recipe).folder, target=tmp_path / "a.zip", half=half)
    drain(export_model(request), events.append)
    said = [e.text for e in events if isinstance(e, Note) and e.level == "info" and "get another label" in e.text]
    assert len(said) == half
    assert all(float(re.search(r"([0-9.]+)% of the voxels", text)[1]) < 5 for text in said)


def test_it_says_what_is_done_around_the_network(tmp_path):
    model = make_model(tmp_path, Recipe(schemes=("CTNormalization",), folds=(0, 2)))
    about = json.loads((carried(tmp_path, model) / "description.json").read_text(encoding="utf-8"))
    assert about["networks"] == ["fold_0.onnx", "fold_2.onnx"]
    assert about["labels"] == {"background": 0, "organ": 1, "lesion": 2}
    assert about["channels"][0]["normalization"] == "CTNormalization"
    assert {"mean", "std", "percentile_00_5", "percentile_99_5"} < set(about["channels"][0])
    assert set(about["sha256"]) == {"fold_0", "fold_2"}


@pytest.mark.parametrize(
    ("image", "spacing", "words"),
    [
        (np.zeros((2, 4, 5, 6)), (1, 1, 1), "takes 1 channel \\(C"),
        (np.zeros((4, 5, 6)), (1, 1), "must be 3 positive numbers"),
        (np.zeros((4, 5, 6)), (1, 0, 1), "must be 3 positive numbers"),
        (np.zeros(7), None, "shape \\(7,\\)"),
        (np.zeros((0, 5, 6)), (1, 1, 1), "shape \\(1, 0, 5, 6\\)"),
    ],
)
def test_the_runner_refuses_what_is_no_such_image(tmp_path, image, spacing, words):
    there = opened(carried(tmp_path, make_model(tmp_path)))
    with pytest.raises(ValueError, match=words):
        there.segment(image, spacing)


def test_an_image_without_a_voxel_size_gets_that_of_the_network_in_its_own_axes_and_this_is_said(tmp_path):
    folder = carried(tmp_path, make_model(tmp_path, Recipe(transpose=(2, 0, 1), spacing=(5.0, 1.0, 2.0))))
    image = image_for((1, 12, 14, 6))[0]
    np.save(tmp_path / "image.npy", image)
    words = [sys.executable, folder / "segment.py", tmp_path / "image.npy", "-o", tmp_path / "labels.npy"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "no voxel size is known (--spacing); the model's is taken: [1.0, 2.0, 5.0] mm." in done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), opened(folder).segment(image, (1.0, 2.0, 5.0)))


def test_a_later_description_is_refused(tmp_path):
    folder = carried(tmp_path, make_model(tmp_path))
    about = json.loads((folder / "description.json").read_text(encoding="utf-8"))
    (folder / "description.json").write_text(json.dumps({**about, "format_version": 99}))
    with pytest.raises(ValueError, match="later version"):
        opened(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"networks": ["x" * 300]}, "'networks' is .*; it must be names of files beside it"),
        ({"networks": ["../fold_0.onnx"]}, "'networks' is .*; it must be names of files beside it"),
        ({"spacing": [1, 0, 1]}, "'spacing' is .*; it must be two or three sizes in mm"),
        ({"patch": [4, 4]}, "'patch' is .*; it must be a side for each spacing"),
        ({"patch": [16384] * 3}, "'patch'"),
        ({"transpose_forward": [0, 1, 1]}, "'transpose_forward'"),
        ({"mirror_axes": [3]}, "'mirror_axes'"),
        ({"dtype": "int64"}, "'dtype' is 'int64'; it must be 'uint8' or 'uint16'"),
        ({"heads": 300}, "'heads' is 300; it must be a number of classes that dtype can hold"),
        ({"regions_class_order": [1]}, "'regions_class_order'"),
        ({"channels": [{"normalization": "CTNormalization", "use_mask": False, "mean": float("nan")}]}, "'channels'"),
        ({"channels": [{"normalization": "Mine", "use_mask": False}]}, "'channels'"),
        ({"resample_image": {"order": 3}}, "'resample_image'"),
        ({"files": {"../fold_0.onnx": ""}}, "'files' is .*; it must be the SHA-256 of files beside it"),
        ({"step": 0}, "'step' is 0; it must be a number above 0, at most 1"),
        ({"heads": 2}, "gives logits .* where description.json says"),
        ({"networks": ["description.json"]}, "cannot be opened"),
        ({"patch": [4, 8, 9]}, "does not take windows as description.json says"),
    ],
)  # fmt: skip
def test_a_description_that_nobody_wrote_is_refused(tmp_path, change, words):
    folder = carried(tmp_path, make_model(tmp_path))
    about = json.loads((folder / "description.json").read_text(encoding="utf-8"))
    (folder / "description.json").write_text(json.dumps({**about, **change}))
    with pytest.raises(ValueError, match=words):
        opened(folder).segment(image_for((1, 8, 16, 16)), (1, 1, 1))


def test_the_program_tells_what_is_wrong_in_a_line_and_writes_nothing(tmp_path):
    folder = carried(tmp_path, make_model(tmp_path))
    np.save(tmp_path / "a.npy", image_for((1, 8, 16, 16))[0])
    (tmp_path / "empty.npy").write_bytes(b"")
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))

    def run(image, target="labels.npy"):
        words = [sys.executable, folder / "segment.py", tmp_path / image, "-o", tmp_path / target]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (1, "", False)
        assert not list(tmp_path.glob("*labels*"))
        return done.stderr

    assert "cannot be read" in run("empty.npy")
    assert "segment.py: " in run("a.npz")
    assert "holds values of type <U1" in run("words.npy")
    assert "are written as .npy, not" in run("a.npy", "labels.nii.gz")
    (folder / "description.json").write_text("[" * 100_000)
    assert "is not valid JSON" in run("a.npy")


def test_the_program_refuses_channels_that_lie_apart_and_says_what_is_no_number(tmp_path):
    folder = carried(tmp_path, make_model(tmp_path, Recipe(channels=("T1", "T2"))))
    first, second = image_for((2, 8, 16, 16))
    write_nifti(tmp_path / "a.nii.gz", first)
    write_nifti(tmp_path / "apart.nii.gz", second, spacing=(2.0, 1.0, 1.0))
    second[2, 3, 4] = np.nan
    write_nifti(tmp_path / "b.nii.gz", second)

    def run(other):
        words = [sys.executable, folder / "segment.py", tmp_path / "a.nii.gz", tmp_path / other]
        return subprocess.run([*words, "-o", tmp_path / "l.nii.gz"], capture_output=True, text=True, check=False)

    apart = run("apart.nii.gz")
    assert apart.returncode == 1 and "The channels lie at different places" in apart.stderr
    assert not (tmp_path / "l.nii.gz").exists()
    done = run("b.nii.gz")
    assert done.returncode == 0
    assert done.stderr == "segment.py: 1 values that are NaN or infinite were read as 0.\n"


def test_a_channel_of_its_own_axis_is_taken_and_channels_of_other_shapes_are_named(tmp_path):
    folder = carried(tmp_path, make_model(tmp_path))
    image = image_for((1, 8, 16, 16))
    np.save(tmp_path / "a.npy", image)
    np.save(tmp_path / "b.npy", image[0])
    np.save(tmp_path / "short.npy", image[0, :5])

    def run(*words):
        command = [sys.executable, folder / "segment.py", *words, "--spacing", "1", "1", "1"]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path)

    assert run("a.npy", "-o", "la.npy").returncode == run("b.npy", "-o", "lb.npy").returncode == 0
    np.testing.assert_array_equal(np.load(tmp_path / "la.npy"), np.load(tmp_path / "lb.npy"))
    assert "have different shapes: (5, 16, 16), (8, 16, 16)." in run("b.npy", "short.npy", "-o", "l.npy").stderr
    assert "b.npy is the image itself: give the labels another name." in run("b.npy", "-o", "./b.npy").stderr
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), image[0])
    assert "nowhere is not a folder" in run("b.npy", "-o", "nowhere/l.npy").stderr
    assert "gone.npy does not exist." in run("gone.npy", "-o", "l.npy").stderr


@pytest.mark.parametrize(("unit", "size"), [("meter", 1e-3), ("micron", 1e3)])
def test_a_header_in_metres_or_micrometres_gives_the_labels_of_one_in_millimetres(tmp_path, unit, size):
    nib = pytest.importorskip("nibabel")
    folder = carried(tmp_path, make_model(tmp_path))
    image, found = image_for((1, 8, 20, 16))[0].T, {}
    for name, mm in (("mm", 1.2), (unit, 1.2 * size)):
        made = nib.Nifti1Image(image, np.diag([mm, mm, mm, 1]))
        made.header.set_xyzt_units(name)
        nib.save(made, tmp_path / f"{name}.nii.gz")
        target = tmp_path / f"l_{name}.nii.gz"
        words = [sys.executable, folder / "segment.py", tmp_path / f"{name}.nii.gz", "-o", target]
        subprocess.run(words, check=True, capture_output=True)
        found[name] = nib.load(target)
        assert found[name].header.get_xyzt_units()[0] == name
    np.testing.assert_array_equal(found["mm"].dataobj, found[unit].dataobj)
    assert len(np.unique(found["mm"].dataobj)) > 1


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_weights_that_were_damaged_on_their_way_give_no_labels(tmp_path, kind):
    folder = carried(tmp_path, make_model(tmp_path), format=kind)
    path = next(p for p in folder.iterdir() if p.suffix in (".onnx", ".bin"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40  # a bit of a weight: every library opens it
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path.name} was changed or damaged since .* Unpack the model again"):
        opened(folder)
    path.unlink()
    with pytest.raises(ValueError, match=f"{path.name} does not exist. Unpack the model again"):
        opened(folder)
    (folder / "description.json").unlink()
    with pytest.raises(ValueError, match=r"description.json does not exist. Unpack the model again"):
        opened(folder)


def test_what_is_exported_is_a_zip_and_named_so(tmp_path):
    with pytest.raises(SettingsError, match=r"does not end in .zip. Write -o .*net.zip; the networks are within it"):
        CarryRequest(model=tmp_path, target=tmp_path / "net.onnx")


def test_weights_that_are_no_numbers_give_no_labels(tmp_path):
    folder = carried(tmp_path, make_model(tmp_path))
    there = opened(folder)
    network = there._networks[0]
    there._networks = [lambda tile: network(tile) * np.float32("nan")]
    with pytest.raises(ValueError, match="gives values that are not numbers"):
        there.segment(image_for((1, 8, 16, 16)), (1, 1, 1))


def test_the_second_stage_of_a_cascade_is_refused(tmp_path):
    model = make_model(tmp_path, Recipe(configuration="3d_cascade_fullres", previous_stage="3d_lowres"))
    with pytest.raises(ModelError, match="second stage of a cascade"):
        drain(export_model(CarryRequest(model=model.folder, target=tmp_path / "a.zip")))


def test_a_zip_that_is_there_is_kept(tmp_path):
    model = make_model(tmp_path)
    (tmp_path / "a.zip").write_bytes(b"mine")
    with pytest.raises(SettingsError, match="exists"):
        drain(export_model(CarryRequest(model=model.folder, target=tmp_path / "a.zip")))
    assert (tmp_path / "a.zip").read_bytes() == b"mine"


def test_a_graph_that_gives_other_logits_is_not_written(tmp_path, monkeypatch):
    model = make_model(tmp_path)
    wrong = [(nn.LeakyReLU, lambda graph, _, x: graph.add("Relu", [x])), *onnx_graph._EMITTERS]
    monkeypatch.setattr(onnx_graph, "_EMITTERS", tuple(wrong))
    with pytest.raises(ModelError, match="off by"):
        drain(export_model(CarryRequest(model=model.folder, target=tmp_path / "a.zip")))
    assert not list(tmp_path.glob("*.zip"))


def test_what_cannot_be_tried_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "onnxruntime", None)
    events = []
    drain(export_model(CarryRequest(model=make_model(tmp_path).folder, target=tmp_path / "a.zip")), events.append)
    assert any("was not tried" in event.text for event in events if isinstance(event, Note))


def test_without_the_library_it_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "napari_nnunet.engine.network.onnx_graph")
    with pytest.raises(ResourceError, match=r"napari-nnunet\[export\]"):
        drain(export_model(CarryRequest(model=make_model(tmp_path).folder, target=tmp_path / "a.zip")))


def test_the_shell_writes_it(tmp_path, capsys):
    model = make_model(tmp_path)
    assert run_verb("export_model", "-m", model.folder, "-o", tmp_path / "a.zip", "--format", "openvino") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "a.zip")
    assert zipfile.ZipFile(tmp_path / "a.zip").namelist() == [
        "fold_0.xml",
        "fold_0.bin",
        "description.json",
        "segment.py",
    ]
