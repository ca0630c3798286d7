"""A calibration is used for the models that it was measured with, and for no others."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from helpers import Recipe, make_model
from napari_nnunet.events import drain
from napari_nnunet.formats.model.checkpoint import light_checkpoint, read_raw, weights_of
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.model.folder import load_model, weights_in
from napari_nnunet.formats.model.torch_file import CHECKSUM
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.calibrate import calibration_path, is_outdated, known_temperature
from napari_nnunet.jobs.sharing.export import export_models
from napari_nnunet.jobs.sharing.install import install_zip
from napari_nnunet.schema.requests.sharing import ExportSettings, InstallRequest


@pytest.fixture
def models(tmp_path):
    """Two calibrated models of one dataset, calibrated as an ensemble too."""
    results = tmp_path / "nnUNet_results"
    flat = Recipe(configuration="2d", patch=(16, 16), spacing=(1.0, 1.0), folds=(0, 1))
    found = [make_model(results, recipe).folder for recipe in (Recipe(folds=(0, 1)), flat)]
    for members in ([found[0]], [found[1]], found):
        path = calibration_path(members, (0,))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"temperature": 2.5, "folds": ["0"]}))
    return found


def test_a_fold_that_is_put_aside_takes_the_calibrations_it_had_a_part_in_along(models):
    volume, flat = models
    FoldFolder(volume / "fold_1").put_aside()  # it had none
    assert known_temperature(models) == known_temperature([volume]) == 2.5
    FoldFolder(volume / "fold_0").put_aside()
    assert known_temperature(models) is None
    assert known_temperature([volume]) is None
    assert known_temperature([flat]) == 2.5


def test_a_model_of_another_dataset_has_not_the_calibration_of_one_of_its_name(models, tmp_path):
    recipe = Recipe(configuration="2d", patch=(16, 16), spacing=(1.0, 1.0), name="Dataset002_Other")
    other = make_model(tmp_path / "nnUNet_results", recipe).folder
    assert other.name == models[1].name
    assert known_temperature([models[0], other]) is None
    assert known_temperature(models) == 2.5


def test_a_calibration_is_not_used_for_weights_that_were_trained_on_since(models, tmp_path):
    volume, flat = models
    noted = {
        calibration_path([volume], (0,)): weights_in(volume, ["fold_0"]),
        calibration_path(models, (0,)): weights_in(volume.parent, [f"{model.name}/fold_0" for model in models]),
    }
    for path, weights in noted.items():
        path.write_text(json.dumps({"temperature": 2.5, "folds": ["0"], "weights": weights}))
    assert known_temperature(models) == known_temperature([volume]) == 2.5
    shutil.copyfile(volume / "fold_1/checkpoint_final.pth", volume / "fold_0/checkpoint_final.pth")  # more epochs
    assert known_temperature(models) is None and known_temperature([volume]) is None
    assert is_outdated(models) and is_outdated([volume])
    assert known_temperature([flat]) == 2.5 and not is_outdated([flat])  # of a version that noted no weights


def test_what_was_measured_with_a_model_of_nnunet_comes_along_with_its_light_checkpoints(models, tmp_path):
    volume = models[0]
    for fold in (0, 1):
        path = volume / f"fold_{fold}/checkpoint_final.pth"
        content = read_raw(path)
        del content[CHECKSUM]  # nnU-Net notes none
        torch.save(content, tmp_path / "x.pth")
        (tmp_path / "x.pth").replace(path)
    for noted, kept in ((weights_in(volume, ["fold_0", "fold_1"]), True), ({"fold_0": "of older weights"}, False)):
        about = {"temperature": 2.5, "presets": {"full": {"dice": 0.9}}, "weights": noted}
        for name in ("calibration.json", "inference_presets.json"):
            (volume / name).write_text(json.dumps(about))
        settings = ExportSettings(light=True, replace_zip=True)
        drain(export_models([load_model(volume)], tmp_path / "m.zip", settings))
        request = InstallRequest(source=tmp_path / "m.zip", replace_models=True)
        (folder,) = drain(install_zip(Workspace.at(tmp_path / "yours"), request)).folders
        assert known_temperature([folder]) == (2.5 if kept else None)
        assert load_model(folder).preset_dice == ({"full": 0.9} if kept else {})
        assert json.loads((volume / "calibration.json").read_text()) == about


def test_weights_are_told_by_what_they_are_not_by_their_file(models, tmp_path):
    path = models[0] / "fold_0/checkpoint_final.pth"
    own = weights_of(path)
    assert own and weights_of(light_checkpoint(path, tmp_path)) == own  # as they are exported
    assert weights_of(models[0] / "fold_1/checkpoint_final.pth") != own
    assert weights_of(tmp_path / "none.pth") == ""


def test_the_dice_of_presets_is_not_shown_for_other_weights(models):
    volume = models[0]
    presets, weights = {"full": {"dice": 0.9}}, weights_in(volume, ["fold_0", "fold_1"])
    for noted, shown in (
        (None, True),
        (weights, True),
        ({**weights, "fold_1": "others"}, False),
        ({"../x": ""}, False),
    ):
        content = {"presets": presets, "weights": noted} if noted is not None else {"presets": presets}
        (volume / "inference_presets.json").write_text(json.dumps(content))
        model = load_model(volume)
        assert model.preset_dice == ({"full": 0.9} if shown else {})
        assert model.presets_outdated is not shown
