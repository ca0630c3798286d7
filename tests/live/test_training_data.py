"""Plans and preprocessed data exchanged with nnunetv2 itself, both ways."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.preprocessed.cases import case_names, open_case
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.planning.plan import extract_fingerprint, plan_experiment
from napari_nnunet.jobs.planning.preprocess import preprocess
from napari_nnunet.schema.requests.planning import FingerprintRequest, PlanRequest, PreprocessRequest

pytestmark = pytest.mark.live
pytest.importorskip("nnunetv2")

SETS = {"Dataset004_Hippocampus": ("2d", "3d_fullres"), "Dataset012_ISBI2012EM": ("2d",)}
PLAN = """
import sys
from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry
if __name__ == '__main__':
    sys.argv = ['plan', '-d', sys.argv[1], '-npfp', '2', '-np', '2', '-c', *sys.argv[2:]]
    plan_and_preprocess_entry()
"""
TRAIN = """
import json, sys
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
if __name__ == '__main__':
    base, configuration = sys.argv[1:3]
    torch.set_num_threads(2)
    plans, dataset = (json.load(open(f'{base}/{name}')) for name in ('nnUNetPlans.json', 'dataset.json'))
    plans['continue_training'] = False  # as nnUNetv2_train puts it
    trainer = nnUNetTrainer(plans, configuration, 0, dataset, torch.device('cpu'))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 2, 1
    trainer.disable_checkpointing = True
    trainer.on_train_start()
    losses = [float(trainer.train_step(next(trainer.dataloader_train))['loss']) for _ in range(2)]
    trainer.validation_step(next(trainer.dataloader_val))
    print('LOSSES', json.dumps(losses))
"""


def _raw(real_data: Path, name: str, place: Path, cases: int) -> Workspace:
    """Lay out the first cases of a dataset as a workspace."""
    source, target = real_data / "data" / name, place / "nnUNet_raw" / name
    dataset = open_dataset(source)
    for case in dataset.cases[:cases]:
        for path in (*case.images, case.label):
            (target / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / path.parent.name)
    content = {**dataset.info.raw, "numTraining": cases}
    (target / "dataset.json").write_text(json.dumps(content))
    return Workspace.at(place)


def _run(code: str, workspace: Workspace, *arguments: str, loaders: int) -> str:
    script = workspace.raw.parent / "run.py"
    script.write_text(code)
    for folder in (workspace.preprocessed, workspace.results):
        folder.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "nnUNet_raw": str(workspace.raw),
        "nnUNet_preprocessed": str(workspace.preprocessed),
        "nnUNet_results": str(workspace.results),
        "nnUNet_n_proc_DA": str(loaders),
        "nnUNet_compile": "f",
    }
    done = subprocess.run(
        [sys.executable, str(script), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module", params=list(SETS))
def both(request, real_data, tmp_path_factory):
    """The same raw data planned and preprocessed by us and by nnunetv2."""
    name, configurations = request.param, SETS[request.param]
    place = tmp_path_factory.mktemp("live")
    ours, theirs = (_raw(real_data, name, place / who, 12) for who in ("ours", "theirs"))
    drain(extract_fingerprint(ours, FingerprintRequest(dataset=name, sampled=True)))
    drain(plan_experiment(ours, PlanRequest(dataset=name)))
    assert not drain(preprocess(ours, PreprocessRequest(dataset=name, configurations=configurations))).failed
    _run(PLAN, theirs, str(int(name[7:10])), *configurations, loaders=2)
    return name, configurations, ours, theirs


def test_plans_and_arrays_are_those_of_nnunetv2(both):
    name, configurations, ours, theirs = both
    mine, peer = (
        json.loads((w.preprocessed / name / "nnUNetPlans.json").read_text(encoding="utf-8")) for w in (ours, theirs)
    )
    intensities = "foreground_intensity_properties_per_channel"
    for channel, recorded in peer.pop(intensities).items():
        assert mine[intensities][channel] == pytest.approx(recorded, rel=1e-5)
    del mine[intensities]
    assert mine == peer
    for configuration in configurations:
        folders = [w.preprocessed / name / f"nnUNetPlans_{configuration}" for w in (ours, theirs)]
        assert case_names(folders[0]) == case_names(folders[1])
        for case in case_names(folders[0]):
            a, b = (open_case(folder, case) for folder in folders)
            np.testing.assert_allclose(a.data[:], b.data[:], atol=1e-4)
            assert (a.labels[:] == b.labels[:]).mean() > 0.9999  # ties may break the other way
            mine, peer = a.read_properties(), b.read_properties()
            assert set(mine["class_locations"]) == set(peer["class_locations"])
            if (a.labels[:] == b.labels[:]).all():
                for key, rows in peer["class_locations"].items():
                    assert np.array_equal(rows, mine["class_locations"][key])


def test_nnunetv2_trains_on_our_data(both):
    name, configurations, ours, _ = both
    out = _run(TRAIN, ours, str(ours.preprocessed / name), configurations[-1], loaders=0)
    losses = json.loads(out.split("LOSSES", 1)[1])
    assert len(losses) == 2
    assert all(np.isfinite(losses))
