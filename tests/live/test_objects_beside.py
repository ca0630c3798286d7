"""A dataset of numbered objects is one that nnunetv2 itself plans and trains; what it predicts is found as objects here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_nnunet.engine.synthetic import make_crowd
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.ensemble import ensemble_folders
from napari_nnunet.jobs.choosing.evaluate_objects import evaluate_objects
from napari_nnunet.jobs.objects.import_objects import import_objects
from napari_nnunet.jobs.prediction.predict_files import predict_folder
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.schema.requests.choosing import EnsembleRequest, EvaluateObjectsRequest
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest
from napari_nnunet.schema.requests.prediction import PredictFolderRequest

pytestmark = [pytest.mark.live, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("nnunetv2")

THEIRS = """
import json, os, sys
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
if __name__ == '__main__':
    dataset, epochs, images, out = sys.argv[1:]
    torch.set_num_threads(2)
    torch.manual_seed(0)
    extract_fingerprints([1], num_processes=1, check_dataset_integrity=True)
    os.environ['nnUNet_n_proc_DA'] = '1'
    plan_experiments([1], gpu_memory_target_in_gb=1)
    os.environ['nnUNet_n_proc_DA'] = '0'
    base = os.path.join(os.environ['nnUNet_preprocessed'], dataset)
    plans = json.load(open(f'{base}/nnUNetPlans.json'))
    plans['configurations']['2d'] |= {'batch_size': 4, 'patch_size': [64, 64]}
    json.dump(plans, open(f'{base}/nnUNetPlans.json', 'w'))
    preprocess([1], 'nnUNetPlans', configurations=('2d',), num_processes=(1,))
    trainer = nnUNetTrainer(plans | {'continue_training': False}, '2d', 0, json.load(open(f'{base}/dataset.json')),
                            torch.device('cpu'))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = int(epochs), 20, 2
    trainer.initialize()
    trainer.run_training()
    trainer.perform_actual_validation(False)
    peer = nnUNetPredictor(use_mirroring=False, device=torch.device('cpu'), allow_tqdm=False)
    peer.initialize_from_trained_model_folder(os.path.dirname(trainer.output_folder), (0,), 'checkpoint_final.pth')
    peer.predict_from_files(images, out, save_probabilities=True, num_processes_preprocessing=1,
                            num_processes_segmentation_export=1)
    print('RAN')
"""


def _crowds(folder: Path) -> None:
    """Write pictures of drawn nuclei, and masks of their numbers."""
    for seed in range(8):
        image, objects = make_crowd(seed, (96, 96))
        grey = np.clip(image, 0, 255).astype(np.uint8)
        write_labels(grey, Geometry(spacing=(1.0, 1.0)), folder / "images" / f"c{seed}.png")
        write_labels(objects, Geometry(spacing=(1.0, 1.0)), folder / "masks" / f"c{seed}.png")


def _nuclei(folder: Path) -> None:
    """Write corners of real pictures with several nuclei, and of their masks."""
    data = Path(os.environ.get("NAPARI_NNUNET_TEST_DATA", "nowhere")) / "data" / "nuclei"
    if not data.is_dir():
        pytest.skip("NAPARI_NNUNET_TEST_DATA has no nuclei")
    written = 0
    for path in sorted((data / "images").glob("grey_*.png")):
        image, objects = (read_labels(data / part / path.name)[0][:96, :96] for part in ("images", "labels"))
        if written < 10 and len(np.unique(objects)) > 6:
            for part, array in (("images", image.astype(np.uint8)), ("masks", objects)):
                write_labels(array, Geometry(spacing=(1.0, 1.0)), folder / part / path.name)
            written += 1


@pytest.mark.parametrize(("pictures", "epochs", "least"), [(_crowds, 8, 0.5), (_nuclei, 8, 0.3)])
def test_nnunet_trains_on_what_was_derived_and_what_it_predicts_are_objects_here(
    tmp_path: Path, pictures, epochs: int, least: float
) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    pictures(tmp_path)
    workspace = Workspace.at(tmp_path / "ws")
    request = ImportFoldersRequest(
        images=tmp_path / "images", masks=tmp_path / "masks", name="Crowd", objects="nucleus", workers=1
    )
    dataset = drain(import_objects(workspace, request))
    theirs = tmp_path / "theirs"
    _run_theirs(workspace, tmp_path / "theirs.py", dataset.name, str(epochs), str(dataset / "imagesTr"), str(theirs))
    model = load_model(workspace.results / dataset.name / "nnUNetTrainer__nnUNetPlans__2d")
    scheme = ObjectScheme.of(model.dataset)
    assert scheme is not None and scheme.kinds == {"nucleus": (1, 2)}

    # Its network, here.
    ours = tmp_path / "ours"
    settings = PredictFolderRequest(
        source=(dataset / "imagesTr",), target=ours, device="cpu", precision="float32", mirroring=False
    )
    drain(predict_folder(model, settings))
    # What it predicted itself: classes in its files, objects in its probabilities.
    values = [np.unique(read_labels(path)[0]).tolist() for path in sorted(theirs.glob("*.png"))]
    assert {value for own in values for value in own} == {0, 1, 2}
    decoded = tmp_path / "decoded"
    drain(ensemble_folders(EnsembleRequest(sources=(theirs,), target=decoded, workers=1)))

    for found in (ours, decoded):
        assert ObjectScheme.of(read_info(found)) == scheme
        evaluation = drain(
            evaluate_objects(EvaluateObjectsRequest(reference=dataset / "objectsTr", prediction=found, workers=1))
        )
        assert len(evaluation.all.predictions) > 0
        assert evaluation.all.precision() >= least, (found.name, evaluation.all.counts())
    alike = drain(evaluate_objects(EvaluateObjectsRequest(reference=ours, prediction=decoded, workers=1)))
    assert alike.all.precision(0.9) > 0.95  # its probabilities are float16


def _run_theirs(workspace: Workspace, script: Path, *arguments: str) -> None:
    script.write_text(THEIRS, encoding="utf-8")
    for place in (workspace.preprocessed, workspace.results):
        place.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **workspace.variables(), "nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"}
    done = subprocess.run(
        [sys.executable, str(script), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert "RAN" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
