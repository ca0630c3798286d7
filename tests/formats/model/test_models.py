"""Checkpoints and model folders."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch

from napari_nnunet.engine.network import unet as network
from napari_nnunet.errors import DatasetError, ModelError
from napari_nnunet.events import drain
from napari_nnunet.formats.model.checkpoint import (
    read_checkpoint,
    read_raw,
)
from napari_nnunet.formats.model.folder import find_models, load_model
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.schema.requests.prediction import PredictSettings


class _Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_checkpoint_that_would_execute_something_is_refused_and_nothing_runs(tmp_path, zipped):
    proof = tmp_path / "it-ran"
    content = {"network_weights": {}, "logging": _Evil(proof)}
    torch.save(content, tmp_path / "c.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match="was refused.*Nothing was executed"):
        read_checkpoint(tmp_path / "c.pth")
    assert not proof.exists()
    pickle.loads(pickle.dumps(_Evil(proof)))  # the payload does work where pickles are trusted
    assert proof.exists()


@pytest.mark.parametrize("old", ["numpy 2", "numpy 1"])
def test_numpy_scalars_of_both_generations_are_read(tmp_path, old):
    content = {
        "network_weights": {"w": torch.ones(2)},
        "_best_ema": np.float32(0.5),
        "logging": {"train_losses": [np.float64(1.5), np.float32(2.5)]},
        "inference_allowed_mirroring_axes": (0, 1),
        "trainer_name": "nnUNetTrainer_250epochs",
        "init_args": {"configuration": "2d", "device": torch.device("cpu")},
    }
    path = tmp_path / "c.pth"
    torch.save(content, path)
    if old == "numpy 1":
        _rename_globals(path, b"numpy._core.multiarray", b"numpy.core.multiarray")
    checkpoint = read_checkpoint(path)
    assert checkpoint.mirror_axes == (0, 1)
    assert checkpoint.trainer == "nnUNetTrainer_250epochs"
    assert checkpoint.configuration == "2d"


def _rename_globals(path, new, old):
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w") as target:
        for name, data in members.items():
            target.writestr(name, data.replace(new, old) if name.endswith("data.pkl") else data)
    assert old in members[next(n for n in members if n.endswith("data.pkl"))].replace(new, old)


@pytest.mark.parametrize("keep", [0, 10, 2000, -200])
def test_a_truncated_checkpoint_is_named(model, keep):
    path = model.checkpoint_path(0, "checkpoint_final.pth")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="checkpoint_final.pth (is not a complete checkpoint|was refused|is empty)"):
        read_checkpoint(path)


def test_an_empty_checkpoint_is_called_empty(tmp_path):
    (tmp_path / "checkpoint_final.pth").write_bytes(b"")
    with pytest.raises(ModelError) as refused:
        read_checkpoint(tmp_path / "checkpoint_final.pth")
    assert refused.value.in_window.endswith(
        "checkpoint_final.pth is empty, not a checkpoint. Copy it again, or train the fold again."
    )


def test_some_other_file_is_not_taken_for_a_checkpoint(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "c.pth")
    with pytest.raises(ModelError, match="no entry 'network_weights'"):
        read_checkpoint(tmp_path / "c.pth")


def test_weights_that_do_not_fit_the_plans_are_explained(model, volume):
    text = (
        (model.folder / "plans.json")
        .read_text(encoding="utf-8")
        .replace('"features_per_stage": [4, 6, 8]', '"features_per_stage": [4, 6, 10]')
    )
    (model.folder / "plans.json").write_text(text)
    with pytest.raises(ModelError, match=r"trained otherwise .*features.* was \(4, 6, 8\) and is \(4, 6, 10\)"):
        drain(predict(load_model(model.folder), volume))


def test_weights_are_strict_in_both_directions(model):
    unet = network.build(model.architecture, 1, 3)
    state = network.nnunet_state(unet)
    with pytest.raises(ModelError, match="missing: decoder.seg_layers.1.bias"):
        network.load_state(unet, {k: v for k, v in state.items() if k != "decoder.seg_layers.1.bias"})
    with pytest.raises(ModelError, match="unexpected: surplus"):
        network.load_state(unet, {**state, "surplus": torch.ones(1)})


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.module."])
def test_prefixes_of_wrappers_are_dropped(model, prefix):
    unet = network.build(model.architecture, 1, 3)
    network.load_state(unet, {f"{prefix}{k}": v for k, v in network.nnunet_state(unet).items()})


def test_batch_norm_models_are_built_when_the_trainer_says_so(new_model, volume):
    model = new_model(norm="BatchNorm")
    keys = model.read_fold(0, "checkpoint_final.pth").weights
    assert "encoder.stages.0.0.convs.0.all_modules.1.running_mean" in keys
    one = drain(predict(model, volume, PredictSettings(backend="torch")))
    two = drain(predict(model, volume, PredictSettings(backend="openvino")))
    assert (one.labels == two.labels).mean() > 0.999


def test_a_folder_one_level_too_high_or_low_names_the_right_one(model):
    with pytest.raises(ModelError, match=f"it contains:\n  {model.folder}"):
        load_model(model.folder.parent)
    with pytest.raises(ModelError, match=f"lies inside a model. The model folder is {model.folder}"):
        load_model(model.folder / "fold_0")
    with pytest.raises(ModelError, match="does not exist"):
        load_model(model.folder / "none")
    (model.folder / "dataset.json").unlink()
    with pytest.raises(ModelError, match="lacks dataset.json"):
        load_model(model.folder)


def test_a_renamed_folder_learns_its_configuration_from_a_checkpoint(model, tmp_path):
    shutil.copytree(model.folder, tmp_path / "my model")
    assert load_model(tmp_path / "my model").configuration.name == "3d_fullres"


def test_folds_are_found_and_missing_ones_listed(new_model):
    model = new_model(folds=(0, 3))
    assert model.folds() == (0, 3)
    assert new_model(name="Dataset002_All", folds=("all",)).folds() == ("all",)
    with pytest.raises(ModelError, match=r"Fold 1 has no checkpoint_final.pth. .*fold_0/checkpoint_final.pth"):
        model.resolve_folds((1,), "checkpoint_final.pth")
    with pytest.raises(ModelError, match="Choose that one .-chk checkpoint_final.pth"):
        model.resolve_folds(None, "checkpoint_best.pth")


def test_models_of_a_workspace_are_found_by_number_or_name(new_model, tmp_path):
    model = new_model()
    workspace = Workspace(tmp_path / "raw", tmp_path / "pre", model.folder.parent.parent)
    for name in ("1", "001", "Dataset001_Tiny"):
        found = workspace.model_folder(name, trainer="nnUNetTrainer", plans="nnUNetPlans", configuration="3d_fullres")
        assert found == model.folder
    with pytest.raises(ModelError, match="Trained models of Dataset001_Tiny: nnUNetTrainer__nnUNetPlans__3d_fullres"):
        workspace.model_folder("1", trainer="nnUNetTrainer", plans="nnUNetPlans", configuration="2d")
    (workspace.results / "Dataset003_New").mkdir()
    with pytest.raises(ModelError, match="Dataset003_New has no trained model yet. Train one first: ") as raised:
        workspace.model_folder("3", trainer="nnUNetTrainer", plans="nnUNetPlans", configuration="2d")
    assert raised.value.in_window.endswith("Train one first, in the Train dock.")
    with pytest.raises(DatasetError, match="No dataset with the number 7"):
        workspace.dataset_name("7")
    (workspace.results / "Dataset001_Other").mkdir()
    with pytest.raises(DatasetError, match="ambiguous: Dataset001_Other, Dataset001_Tiny"):
        workspace.dataset_name("1")
    (workspace.results / "Dataset1000_Big").mkdir()
    (workspace.results / "Dataset100_Small").mkdir()
    assert workspace.dataset_name("100") == "Dataset100_Small"
    assert find_models(workspace.results) == [model.folder]


class _Asks:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_numbers_and_arrays_in_a_log_are_read(model):
    path = model.folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    content["logging"] = {"mean_fg_dice": [np.float16(0.5), np.float64(0.25)], "curve": np.arange(3.0)}
    torch.save(content, path)
    found = read_raw(path)["logging"]
    assert found["mean_fg_dice"] == [0.5, 0.25]
    assert found["curve"].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    "forged",
    [
        _Asks(np._core.multiarray.scalar, np.dtype("O"), b"\x01\x02\x03\x04\x05\x06\x07\x08"),
        _Asks(np.ndarray, (10**6,), "O"),
        _Asks(np.ndarray, (4,), "u1", b"abcd"),
        _Asks(np._core.multiarray.scalar, np.dtype([("a", "O")]), b"\x01" * 8),
        _Asks(np._core.multiarray.scalar, np.dtype("f8"), b"\x01"),
    ],
)
def test_forged_numbers_are_refused_before_numpy_sees_them(model, forged):
    path = model.folder / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(path, weights_only=False), "logging": forged}, path)
    with pytest.raises(ModelError, match=r"refused|not a complete checkpoint"):
        read_raw(path)
