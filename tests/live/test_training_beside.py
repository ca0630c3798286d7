"""Trainings handed to nnunetv2 and taken from it, each continuing the other's checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from helpers import TRAINED, make_trainable
from napari_nnunet.events import EpochDone, drain
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.formats.model.checkpoint import read_raw
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.jobs.training.train import train
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.schema.requests.training import TrainRequest, TrainSettings

pytestmark = [pytest.mark.live, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("nnunetv2")

SHORT = TrainSettings(epochs=2, iterations=6, validation_iterations=2, workers=0, device="cpu")
MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"
THEIRS = """
import json, sys
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
if __name__ == '__main__':
    base, epochs, checkpoint = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(2)
    plans, dataset = (json.load(open(f'{base}/{name}')) for name in ('nnUNetPlans.json', 'dataset.json'))
    plans['continue_training'] = bool(checkpoint)
    trainer = nnUNetTrainer(plans, '3d_fullres', 0, dataset, torch.device('cpu'))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = epochs, 6, 2
    trainer.initialize()
    if checkpoint:
        trainer.load_checkpoint(checkpoint)
    first = trainer.current_epoch
    trainer.run_training()
    trainer.perform_actual_validation(False)
    print('RAN', json.dumps([first, trainer.current_epoch, len(trainer.optimizer.state_dict()['state'])]))
"""


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace.at(make_trainable(tmp_path))
    (workspace.preprocessed / TRAINED / "dataset_fingerprint.json").write_text("{}")  # nnU-Net copies it
    return workspace


def run_theirs(workspace, epochs, checkpoint=""):
    workspace.results.mkdir(parents=True, exist_ok=True)
    script = workspace.raw.parent / "theirs.py"
    script.write_text(THEIRS)
    places = {"nnUNet_raw": workspace.raw, "nnUNet_preprocessed": workspace.preprocessed}
    environment = {
        **os.environ, **{name: str(path) for name, path in places.items()}, "nnUNet_results": str(workspace.results),
        "nnUNet_n_proc_DA": "0", "nnUNet_compile": "f",
    }  # fmt: skip
    command = [sys.executable, str(script), str(workspace.preprocessed / TRAINED), str(epochs), str(checkpoint)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RAN ")), None)
    assert line is not None, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(line[4:])


def test_nnunet_goes_on_with_our_training_and_predicts_what_we_predict(workspace):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    ours = drain(
        train(
            workspace,
            TrainRequest.like(SHORT, dataset=TRAINED, configuration="3d_fullres", fold=0),
        )
    )
    folder = ours.folder.path.parent
    volume = read_volume([workspace.raw / TRAINED / "imagesTr" / "c1_0000.nii.gz"])
    peer = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    peer.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
    expected = peer.predict_single_npy_array(
        volume.array, {"spacing": list(volume.geometry.spacing)}, None, None, False
    )
    result = drain(predict(load_model(folder), volume, PredictSettings(device="cpu"))).labels
    assert (result == np.asarray(expected)).mean() > 0.995
    before = read_raw(ours.folder.final)
    assert run_theirs(workspace, 3, ours.folder.final) == [2, 3, len(before["optimizer_state"]["state"])]
    after = read_raw(ours.folder.final)
    assert after["current_epoch"] == 3
    assert len(after["logging"]["train_losses"]) == 3
    assert after["logging"]["train_losses"][:2] == pytest.approx(before["logging"]["train_losses"])


def test_we_go_on_with_nnunets_training(workspace):
    assert run_theirs(workspace, 2)[:2] == [0, 2]
    folder = workspace.results / TRAINED / MODEL / "fold_0"
    theirs = read_raw(folder / "checkpoint_final.pth")
    predicted = {path.name: read_labels(path)[0] for path in (folder / "validation").glob("*.nii.gz")}
    events = []
    job = train(
        workspace,
        TrainRequest.like(SHORT.replace(epochs=3), dataset=TRAINED, configuration="3d_fullres", fold=0, resume=True),
    )
    drain(job, events.append)
    epochs = [event for event in events if isinstance(event, EpochDone)]
    assert [event.epoch for event in epochs] == [2]
    after = read_raw(folder / "checkpoint_final.pth")
    assert after["logging"]["train_losses"][:2] == pytest.approx([float(v) for v in theirs["logging"]["train_losses"]])
    assert epochs[0].train_loss < float(theirs["logging"]["train_losses"][0])
    assert after["optimizer_state"]["state"].keys() == theirs["optimizer_state"]["state"].keys()
    assert {path.name for path in (folder / "validation").glob("*.nii.gz")} == set(predicted)


def test_nnunets_final_validation_is_ours(workspace):
    """Without another epoch, resuming only validates: the segmentations must be those nnU-Net wrote."""
    run_theirs(workspace, 2)
    folder = workspace.results / TRAINED / MODEL / "fold_0"
    theirs = {path.name: read_labels(path)[0] for path in (folder / "validation").glob("*.nii.gz")}
    summary = json.loads((folder / "validation" / "summary.json").read_text(encoding="utf-8"))
    drain(
        train(
            workspace,
            TrainRequest.like(
                SHORT.replace(epochs=2), dataset=TRAINED, configuration="3d_fullres", fold=0, resume=True
            ),
        )
    )
    for name, labels in theirs.items():
        assert (read_labels(folder / "validation" / name)[0] == labels).mean() > 0.995
    mine = json.loads((folder / "validation" / "summary.json").read_text(encoding="utf-8"))
    assert mine.keys() == summary.keys()
    assert mine["foreground_mean"].keys() == summary["foreground_mean"].keys()
    for label, values in summary["mean"].items():
        assert mine["mean"][label]["n_ref"] == values["n_ref"]
        assert mine["mean"][label]["Dice"] == pytest.approx(values["Dice"], abs=0.02)
