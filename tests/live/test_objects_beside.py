"""A dataset of numbered objects is one that nnunetv2 itself plans and trains; what it learns is found as objects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_nnunet.engine.synthetic import make_crowd
from napari_nnunet.events import drain
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.objects.import_objects import import_objects
from napari_nnunet.jobs.prediction.predict_files import predict_folder
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest
from napari_nnunet.schema.requests.prediction import PredictFolderRequest

pytestmark = [pytest.mark.live, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("nnunetv2")

THEIRS = """
import json, os, sys
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
if __name__ == '__main__':
    torch.set_num_threads(2)
    extract_fingerprints([1], num_processes=1, check_dataset_integrity=True)
    os.environ['nnUNet_n_proc_DA'] = '1'
    plan_experiments([1], gpu_memory_target_in_gb=1)
    os.environ['nnUNet_n_proc_DA'] = '0'
    base = os.path.join(os.environ['nnUNet_preprocessed'], sys.argv[1])
    plans = json.load(open(f'{base}/nnUNetPlans.json'))
    plans['configurations']['2d'] |= {'batch_size': 2, 'patch_size': [64, 64]}
    json.dump(plans, open(f'{base}/nnUNetPlans.json', 'w'))
    preprocess([1], 'nnUNetPlans', configurations=('2d',), num_processes=(1,))
    trainer = nnUNetTrainer(plans | {'continue_training': False}, '2d', 0, json.load(open(f'{base}/dataset.json')),
                            torch.device('cpu'))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 2, 15, 2
    trainer.initialize()
    trainer.run_training()
    trainer.perform_actual_validation(False)
    print('RAN')
"""


def test_nnunet_trains_on_what_was_derived_and_its_model_finds_objects_here(tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for seed in range(6):
        image, objects = make_crowd(seed, (96, 96))
        grey = np.clip(image, 0, 255).astype(np.uint8)
        write_labels(grey, Geometry(spacing=(1.0, 1.0)), tmp_path / "images" / f"c{seed}.png")
        write_labels(objects, Geometry(spacing=(1.0, 1.0)), tmp_path / "masks" / f"c{seed}.png")
    workspace = Workspace.at(tmp_path / "ws")
    request = ImportFoldersRequest(
        images=tmp_path / "images", masks=tmp_path / "masks", name="Crowd", objects="nucleus", workers=1
    )
    dataset = drain(import_objects(workspace, request))
    script = tmp_path / "theirs.py"
    script.write_text(THEIRS)
    for place in (workspace.preprocessed, workspace.results):
        place.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **workspace.variables(), "nnUNet_n_proc_DA": "0", "nnUNet_compile": "f"}
    done = subprocess.run(
        [sys.executable, str(script), dataset.name], env=environment, capture_output=True, text=True, check=False
    )
    assert "RAN" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    model = load_model(workspace.results / dataset.name / "nnUNetTrainer__nnUNetPlans__2d")
    scheme = ObjectScheme.of(model.dataset)
    assert scheme is not None and scheme.kinds == {"nucleus": (1, 2)}
    out = tmp_path / "out"
    drain(predict_folder(model, PredictFolderRequest(source=(dataset / "imagesTr",), target=out, device="cpu")))
    found, _ = read_labels(out / "c0.png")
    assert json.loads((out / "dataset.json").read_text(encoding="utf-8"))["napari_nnunet_objects"]["kinds"] == {
        "nucleus": [1, 2]
    }
    theirs, _ = read_labels(model.folder / "fold_0" / "validation" / f"{_validated(model.folder)}.png")
    assert set(np.unique(theirs)) <= {0, 1, 2}
    assert set(np.unique(found)) == set(range(found.max() + 1))


def _validated(folder: Path) -> str:
    return sorted((folder / "fold_0" / "validation").glob("*.png"))[0].stem
