"""Training steps side by side with nnunetv2, in one run on this machine.

    python benchmarks/train.py --workspace DIR --dataset 4 [--peer PYTHON] [--steps 6] [--rounds 2] [--busy 2] [--json FILE]

DIR is a workspace with a planned and preprocessed dataset (nnU-Net's own plans). Each side trains in a process of its
own with its default loading processes; what is measured is a step with its batch, after two that are not counted, the
time from the start of the process to the end of the first step, and the peak of the whole process tree (proportional
set sizes). Sides take turns, so that a noisy machine disturbs both alike; ``--busy`` lets that many loops compute meanwhile. The
median is compared; where many steps are measured, their mean also holds what a step waits for its batch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from _measure import busy, measure

OURS = (Path(__file__).parent / "_our_steps.py").read_text(encoding="utf-8")
PEER = """
import sys, time
begun = float(sys.argv[1])
import json, os
import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
if __name__ == '__main__':
    base = os.path.join(nnUNet_preprocessed, sys.argv[2])
    device = torch.device('cuda' if sys.argv[5] == 'cuda' else 'cpu')
    if device.type == 'cpu':
        import multiprocessing
        torch.set_num_threads(multiprocessing.cpu_count())
    plans, dataset = (json.load(open(f'{base}/{name}')) for name in ('nnUNetPlans.json', 'dataset.json'))
    plans['continue_training'] = False
    trainer = nnUNetTrainer(plans, sys.argv[3], 0, dataset, device)
    trainer.disable_checkpointing = True
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    for i in range(int(sys.argv[4]) + 2):
        start = time.time()
        trainer.train_step(next(trainer.dataloader_train))
        print('FIRST' if i == 0 else 'STEP' if i > 1 else 'SKIP', time.time() - (begun if i == 0 else start))
    sys.stdout.flush()
    os._exit(0)
"""


def run(python: str, code: str, arguments: list[str], environment: dict[str, str]) -> tuple[list[float], float, float]:
    """Return the seconds of the steps, the seconds to the end of the first one, and the peak memory in bytes."""
    import time

    with tempfile.TemporaryDirectory() as place:
        script, log = Path(place) / "side.py", Path(place) / "log.txt"
        script.write_text(code)
        found = measure([python, str(script), str(time.time()), *arguments], log, environment=environment)
        said = log.read_text().splitlines()
        lines = [line.split() for line in said if line[:4] in ("STEP", "FIRS")]
    for line in said:
        if line.startswith(("COMPUTES", "AUGMENTS")):
            print("   ", line, flush=True)
    steps = [float(line[1]) for line in lines if line[0] == "STEP"]
    first = next(float(line[1]) for line in lines if line[0] == "FIRST")
    return steps, first, found.tree


def main() -> None:
    """Run both sides and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--dataset", default="4")
    parser.add_argument("--configurations", nargs="+", default=["3d_fullres", "2d"])
    parser.add_argument("--peer", default=sys.executable, help="a Python with nnunetv2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--busy", type=int, default=0, help="loops that compute beside both sides")
    parser.add_argument("--precision", default="auto", help="of our side")
    parser.add_argument("--default-allocator", action="store_true", help="give memory back at once, on our side")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from napari_nnunet.formats.workspace import Workspace

    workspace = Workspace.at(options.workspace.absolute())
    name = workspace.dataset_name(options.dataset)
    rows = []
    with tempfile.TemporaryDirectory() as results, busy(options.busy):
        environment = {
            "nnUNet_raw": str(workspace.raw), "nnUNet_preprocessed": str(workspace.preprocessed),
            "nnUNet_results": results, "PATH": os.environ["PATH"],
        }  # fmt: skip
        for configuration in options.configurations:
            keep = "give-back" if options.default_allocator else "keep"
            arguments = [name, configuration, str(options.steps), options.device, options.precision, keep]
            sides: dict[str, list[tuple[list[float], float, float]]] = {"peer": [], "ours": []}
            for _ in range(options.rounds):
                sides["peer"].append(run(options.peer, PEER, arguments, environment))
                sides["ours"].append(run(sys.executable, OURS, arguments, environment))
            row: dict[str, object] = {"configuration": configuration}
            for side, found in sides.items():
                row[side] = {
                    "step": statistics.median(step for steps, _, _ in found for step in steps),
                    "mean": statistics.fmean(step for steps, _, _ in found for step in steps),
                    "first": min(first for _, first, _ in found),
                    "memory": max(memory for _, _, memory in found),
                }
            peer, ours = row["peer"], row["ours"]
            print(
                f"{configuration:<12} step {peer['step']:.3f} / {ours['step']:.3f} s = {peer['step'] / ours['step']:.2f}"
                f" times faster (mean {peer['mean']:.3f} / {ours['mean']:.3f} s); first step after {peer['first']:.1f} / {ours['first']:.1f} s; memory "
                f"{peer['memory'] / 1e9:.2f} / {ours['memory'] / 1e9:.2f} GB",
                flush=True,
            )
            rows.append(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
