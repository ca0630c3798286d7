"""Is the arithmetic that is chosen by itself the fastest one? Whole networks in each, in turns.

    python benchmarks/choose.py [--turns 5] [--json FILE]

The choice follows from a short measurement of a network's beginning with one thread; here whole networks run on all
threads, with the batches of a prediction. Wall seconds of a run, the better of several in turns: trust the ratios.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from _networks import LARGEST_3D, built, plain
from napari_nnunet.engine.machine import available_threads
from napari_nnunet.engine.network.backends import compile_network, torch_threads
from napari_nnunet.engine.network.device import BackendChoice, backend_candidates
from napari_nnunet.jobs.arithmetic import prediction_choice
from napari_nnunet.schema.architecture import Architecture
from napari_nnunet.schema.requests.prediction import PredictSettings

HEADS = 3


@dataclass(frozen=True)
class Task:
    """A network and the shape of what it gets."""

    name: str
    architecture: Architecture
    shape: tuple[int, ...]


TASKS = (
    Task("2-D, 6 stages from 32, 4 x 256 x 256", plain(2, (32, 64, 128, 256, 512, 512)), (4, 1, 256, 256)),
    Task("3-D, 4 stages from 16, 8 x 40 x 56 x 40", plain(3, (16, 32, 64, 128)), (8, 1, 40, 56, 40)),
    Task("3-D, 6 stages from 32, 128 x 128 x 128", plain(3, LARGEST_3D), (1, 1, 128, 128, 128)),
)


def compare(task: Task, turns: int) -> dict[str, Any]:
    """Run a network in every arithmetic that might be the fastest; say which one is chosen."""
    threads = available_threads()
    batch = torch.randn(task.shape, generator=torch.Generator().manual_seed(1))
    chosen = prediction_choice(PredictSettings(device="cpu"), task.architecture)
    sides = {}
    for backend, precision in backend_candidates():
        choice = BackendChoice("cpu", backend, precision, "", threads)
        sides[f"{backend} {precision}"] = compile_network(built(task.architecture, HEADS), choice, task.shape)
    seconds = dict.fromkeys(sides, math.inf)
    with torch_threads(threads):
        for turn in range(turns + 1):  # the first is not counted
            for name, network in sides.items():
                began = time.perf_counter()
                network(batch)
                if turn:
                    seconds[name] = min(seconds[name], time.perf_counter() - began)
    auto = f"{chosen.backend} {chosen.precision}"
    return {"task": task.name, "seconds": seconds, "auto": auto, "ratio": seconds[auto] / min(seconds.values())}


def table(rows: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    names = list(rows[0]["seconds"])
    lines = [
        f"| seconds of a run | {' | '.join(names)} | taken | its time / the fastest |",
        "|---" * (len(names) + 3) + "|",
    ]
    for row in rows:
        figures = " | ".join(f"{row['seconds'][name]:.3f}" for name in names)
        lines.append(f"| {row['task']} | {figures} | {row['auto']} | {row['ratio']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [compare(task, options.turns) for task in TASKS]
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
