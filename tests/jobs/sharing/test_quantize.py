"""8-bit arithmetic: ranges beside the model, what they change, and files that do not fit."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from eight_bits import write_ranges
from helpers import smooth_image
from napari_nnunet.engine.network.backends import compile_network
from napari_nnunet.engine.network.device import choose, has_openvino
from napari_nnunet.errors import DatasetError, ModelError, SettingsError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.model.eight_bit import EightBit, EightBitMeasured
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.arithmetic import processor
from napari_nnunet.jobs.prediction.estimate import usable_presets
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.jobs.prediction.predictor import build_predictor, forget
from napari_nnunet.jobs.sharing.quantize import quantize
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.schema.requests.sharing import QuantizeRequest

pytestmark = pytest.mark.skipif(not has_openvino(), reason="8-bit arithmetic is OpenVINO's")
EIGHT = PredictSettings(device="cpu", precision="int8", mirroring=False)


def test_finding_ranges_tells_nobody_about_it():
    """NNCF reports its use to a server of its makers; here in a process of its own, for it never does within pytest."""
    pytest.importorskip("nncf")
    code = (
        "from unittest.mock import MagicMock\n"
        "from napari_nnunet.engine.network import eight_bit\n"
        "try:\n    eight_bit.find_ranges(None, [])\n"
        "except Exception:\n    pass\n"
        "from nncf.telemetry.wrapper import telemetry\n"
        "assert isinstance(telemetry, MagicMock)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _logits(model, settings, window):
    network = build_predictor(model, settings, choose(settings)).ensemble.networks[0]
    return compile_network(network, choose(settings), window.shape)(window).clone()


def test_a_network_in_8_bit_answers_nearly_as_in_float32(model):
    write_ranges(model)
    window = torch.randn(
        1, model.channels_in, *model.configuration.patch_size, generator=torch.Generator().manual_seed(0)
    )
    exact = _logits(model, EIGHT.replace(precision="float32", backend="openvino"), window)
    short = _logits(model, EIGHT, window)
    off = float((short - exact).norm() / exact.norm())
    assert 1e-4 < off < 0.25  # the ranges are rough


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"weights": "0" * 64}, "other weights"),
        ({"weights": "x"}, "weights"),
        ({"ranges": {"PRelu 1": [1.0, 1.0]}}, "empty"),
        ({"ranges": {"PRelu 1": [0.0, float("inf")]}}, "finite"),
    ],
)
def test_ranges_of_other_weights_and_damaged_ones_are_done_without_and_said(model, volume, changes, why):
    write_ranges(model, **changes)
    forget()
    notes = []
    result = drain(predict(model, volume, EIGHT), lambda event: notes.append(event))
    assert result.recipe["precision"] != "int8"
    assert any("not in 8-bit" in note.text and why in note.text for note in notes if isinstance(note, Note))


def test_a_file_that_is_no_json_is_done_without(model, volume):
    model.eight_bit_path.write_bytes(b"\x00\x01 no")
    forget()
    assert drain(predict(model, volume, EIGHT)).recipe["precision"] != "int8"


def test_a_model_that_was_not_quantised_says_how(model, volume, tmp_path):
    with pytest.raises(ModelError, match="was not quantised"):
        drain(predict(model, volume, EIGHT))
    blank = tmp_path / "my model"
    shutil.copytree(model.folder, blank)
    with pytest.raises(ModelError) as found:
        drain(predict(load_model(blank), volume, EIGHT))
    command = re.search(r"Run '(napari-nnunet .*)', or choose", str(found.value))[1]
    assert shlex.split(command) == ["napari-nnunet", "quantize", "-m", str(blank)]


@pytest.mark.parametrize("changes", [{"device": "mps"}, {"backend": "torch"}])
def test_8_bit_elsewhere_is_refused(changes):
    with pytest.raises(SettingsError, match="CPU with OpenVINO only"):
        choose(EIGHT.replace(**changes))


def test_the_preset_is_there_where_it_was_measured_here_to_be_worth_it(model):
    write_ranges(model)
    known = EightBit.read(model.eight_bit_path)
    measured = EightBitMeasured(
        computer=processor(), arithmetic="openvino bfloat16", cases=4, dice=0.9, seconds=1.3, dice_eight_bit=0.899,
        seconds_eight_bit=1.0,
    )  # fmt: skip
    for changes, offered in (
        ({}, True),
        ({"seconds_eight_bit": 1.01}, False),
        ({"dice_eight_bit": 0.897}, False),
        ({"computer": "another"}, False),
    ):
        content = known.model_copy(update={"measured": measured.model_copy(update=changes)})
        model.eight_bit_path.write_text(content.model_dump_json())
        assert ("fast_8bit" in usable_presets(model)) == offered


def _placed(model, tmp_path, *, cases=3):
    """Return a workspace in which the model was trained on all cases but one, and its folder there."""
    workspace = Workspace.at(tmp_path / "workspace")
    home = workspace.results / "Dataset001_Small" / model.folder.name
    shutil.copytree(model.folder, home)
    raw = workspace.raw / "Dataset001_Small"
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    validation = home / "fold_0" / "validation"
    validation.mkdir(exist_ok=True)
    ending = model.dataset.file_ending
    for i in range(cases):
        for channel in range(model.channels_in):
            image = sitk.GetImageFromArray(smooth_image((12, 20, 20), seed=i)[0])
            sitk.WriteImage(image, str(raw / "imagesTr" / f"case{i}_{channel:04d}{ending}"))
        truth = np.zeros((12, 20, 20), np.uint8)
        truth[:, 5:15] = 1
        sitk.WriteImage(sitk.GetImageFromArray(truth), str(raw / "labelsTr" / f"case{i}{ending}"))
    shutil.copy(raw / "labelsTr" / f"case0{ending}", validation)
    return workspace, home


def test_without_its_dataset_a_model_cannot_be_quantised(model, tmp_path):
    workspace, home = _placed(model, tmp_path)
    shutil.rmtree(workspace.raw)
    with pytest.raises(DatasetError, match="does not exist"):
        drain(quantize(workspace, QuantizeRequest(model=home)))


def test_quantising_writes_ranges_and_figures(model, tmp_path):
    pytest.importorskip("nncf", exc_type=ImportError)
    workspace, home = _placed(model, tmp_path)
    result = drain(quantize(workspace, QuantizeRequest(model=home)))
    assert EightBit.read(home / "eight_bit.json") == result
    assert result.measured is not None and result.measured.cases == 1
    assert len(result.folds["0"].ranges) > 4
