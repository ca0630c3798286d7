"""What a training batch costs one process, side by side with nnunetv2: reading, cutting, augmenting, its targets.

    python benchmarks/batches.py --workspace DIR --dataset 4 [--configuration 3d_fullres] [--peer PYTHON] [--old OLD/src]
        [--batches 12] [--rounds 3] [--json FILE]

DIR is a workspace with a planned and preprocessed dataset. CPU seconds of one thread, in turns, the best round of each
side; the first batch, which opens the cases, is not counted. ``--old`` names the folder src of an earlier state to compare
with as well.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

BEGIN = """
import os, sys, time
import torch
torch.set_num_threads(1)
dataset, configuration, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
"""
OURS = """
from napari_nnunet.engine.machine import keep_memory
from napari_nnunet.engine.training.parallel import Group
from napari_nnunet.events import drain
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.training.begin import make_source
from napari_nnunet.jobs.training.loader import Place
from napari_nnunet.jobs.training.order import make_order
from napari_nnunet.schema.requests.training import TrainRequest
if 'keep' in sys.argv:
    keep_memory()
request = TrainRequest.model_validate({'dataset': dataset, 'configuration': configuration, 'fold': 0})
source = make_source(drain(make_order(Workspace.resolve(), request)), Group())
make = lambda i: source.make(Place('train', 0, i))
"""
PEER = """
import json
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
base = os.path.join(nnUNet_preprocessed, dataset)
plans, info = (json.load(open(f'{base}/{name}')) for name in ('nnUNetPlans.json', 'dataset.json'))
plans['continue_training'] = False
trainer = nnUNetTrainer(plans, configuration, 0, info, torch.device('cpu'))
trainer.initialize()
trainer.dataset_class = infer_dataset_class(trainer.preprocessed_dataset_folder)
batches, _ = trainer.get_dataloaders()
torch.set_num_threads(1)
make = lambda i: next(batches)
"""
END = """
make(0)
began = time.process_time()
for i in range(count):
    make(i + 1)
print('SECONDS', (time.process_time() - began) / count)
sys.stdout.flush()
os._exit(0)
"""


def main() -> None:
    """Run the sides in turns and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--dataset", default="4")
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--peer", default=sys.executable, help="a Python with nnunetv2")
    parser.add_argument("--old", type=Path, help="the folder src of an earlier state")
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from napari_nnunet.formats.workspace import Workspace

    workspace = Workspace.at(options.workspace.absolute())
    words = [workspace.dataset_name(options.dataset), options.configuration, str(options.batches)]
    folders = {"raw": workspace.raw, "preprocessed": workspace.preprocessed, "results": workspace.results}
    environment = {f"nnUNet_{name}": str(path) for name, path in folders.items()}
    environment |= {"OMP_NUM_THREADS": "1", "nnUNet_n_proc_DA": "0"}
    sides = {"nnunetv2": (options.peer, PEER, {}), "ours": (sys.executable, OURS, {})}
    if options.old is not None:
        sides["ours, before"] = (sys.executable, OURS, {"PYTHONPATH": str(options.old)})
    found: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(options.rounds):
        for side, (python, code, more) in sides.items():
            kept = ["keep"] if side == "ours" else []
            command = [python, "-c", BEGIN + code + END, *words, *kept]
            run = subprocess.run(
                command, env={**os.environ, **environment, **more}, capture_output=True, text=True, check=False
            )
            lines = [line for line in run.stdout.splitlines() if line.startswith("SECONDS")]
            if not lines:
                raise SystemExit(f"{side} failed:\n{run.stderr[-2000:]}")
            found[side].append(float(lines[0].split()[1]))
    best = {side: min(seconds) for side, seconds in found.items()}
    for side, seconds in best.items():
        print(f"{side:<14} {seconds:.3f} CPU s a batch, {best['ours'] / seconds:.2f} of it takes ours")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
