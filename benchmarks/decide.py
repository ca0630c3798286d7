"""Deciding the labels of a volume from its logits: class by class, as it is done, and beside the network.

    python benchmarks/decide.py [--classes 2 20 60 118] [--size 200 256 256] [--coarse 32 12] [--spacing Z Y X] [--json FILE]

The logits are smooth fields, random every 32 voxels (objects as large as organs) or every 12 (many small ones, which
leave more open than trained networks do), or every 6 (nearly everything is open), on a grid of 240 x 230 x 230 voxels (for the default size), pushed in slabs of 32 planes;
with more than 32 classes 32 features and a last layer, as in prediction. CPU seconds of one thread, so that other work on
the computer disturbs little; both ways in turns, the better of three; the labels of both are compared. The last column
is the share of the time that the network takes: nnU-Net's for windows of 128^3, which overlap by half, in the arithmetic
that is chosen here, without mirroring (with it the share is an eighth).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from _networks import LARGEST_3D, built, plain
from napari_nnunet.engine.image.prepare import PrepareRecord
from napari_nnunet.engine.network.backends import compile_network
from napari_nnunet.engine.prediction.decode import Assembler
from napari_nnunet.engine.prediction.tiles import TileGrid
from napari_nnunet.jobs.arithmetic import prediction_choice
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.plans import Resampling
from napari_nnunet.schema.requests.prediction import PredictSettings

SLAB, FEATURES = 32, LARGEST_3D[0]
WINDOW = (128, 128, 128)
HEAD = (
    "| classes | random every | class by class | as it is done | times faster | same labels | the network | share of it |\n"
    + "|---" * 8
    + "|"
)


class ByClasses(Assembler):
    """The way that works for any device and for probabilities."""

    def _write(self, outputs, planes, first):
        self._write_class_by_class(outputs, planes, first)


def slabs(shape: tuple[int, ...], channels: int, coarse: int):
    """Yield smooth fields of some size in slabs, the same each time."""
    generator = torch.Generator().manual_seed(0)
    knots = torch.randn((1, channels, *(max(2, n // coarse + 1) for n in shape)), generator=generator)
    for start in range(0, shape[0], SLAB):
        stop = min(start + SLAB, shape[0])
        depth = max(2, (stop - start) // coarse + 1)
        lowest = min(start // coarse, knots.shape[2] - depth)
        part = knots[:, :, lowest : lowest + depth]
        yield start, stop, 5 * functional.interpolate(part, size=(stop - start, *shape[1:]), mode="trilinear")[0]


def measure(kind: type[Assembler], record: PrepareRecord, classes: int, coarse: int) -> tuple[float, np.ndarray]:
    """Return the seconds of deciding, without those of making the logits, and the labels."""
    scheme = LabelScheme(labels={"background": 0, **{f"c{i}": i for i in range(1, classes)}})
    rule = Resampling(function="resample_data_or_seg_to_shape", order=1)
    head = None
    if classes > FEATURES:
        generator = torch.Generator().manual_seed(1)
        head = torch.randn((classes, FEATURES), generator=generator), torch.zeros(classes)
    labels = np.zeros(record.shape, scheme.dtype)
    assembler = kind(record, scheme, rule, labels, None, head)
    seconds = 0.0
    for start, stop, logits in slabs(record.network_shape, min(classes, FEATURES), coarse):
        began = time.process_time()
        assembler.push(start, stop, logits)
        seconds += time.process_time() - began
    return seconds, labels


def network_seconds(classes: int, shape: tuple[int, ...]) -> float:
    """Return the CPU seconds that the network takes for a prepared volume."""
    architecture = plain(3, LARGEST_3D)
    choice = replace(prediction_choice(PredictSettings(device="cpu"), architecture), threads=1)
    network = compile_network(built(architecture, classes), choice, (1, 1, *WINDOW), head=classes <= FEATURES)
    window = torch.randn(1, 1, *WINDOW)
    network(window)
    began = time.process_time()
    network(window)
    return (time.process_time() - began) * len(list(TileGrid(shape, WINDOW, 0.5).tiles()))


def line(row: dict[str, Any]) -> str:
    """Return a line of the table."""
    before, now, network = (row[name] for name in ("before", "now", "network"))
    return (
        f"| {row['classes']} | {row['coarse']} voxels | {before:.2f} s | {now:.2f} s | {before / now:.1f} | {row['same']:.7f} "
        f"| {network:.1f} s | {now / network:.2f} |"
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown."""
    return "\n".join([HEAD, *map(line, rows)])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="*", default=[2, 20, 60, 118])
    parser.add_argument("--size", type=int, nargs=3, default=[200, 256, 256])
    parser.add_argument("--spacing", type=float, nargs=3, default=[1.2, 0.9, 0.9], help="mm; of the network's grid 1")
    parser.add_argument("--coarse", type=int, nargs="*", default=[32, 12, 6])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = tuple(options.size)
    spacing = tuple(options.spacing)
    network = tuple(round(n * f) for n, f in zip(size, spacing, strict=True))
    record = PrepareRecord((0, 1, 2), size, tuple((0, n) for n in size), spacing, network, (1.0, 1.0, 1.0))
    rows = []
    networks = {classes: network_seconds(classes, network) for classes in options.classes}
    print(HEAD)
    for classes, coarse in product(options.classes, options.coarse):
        found: dict[type[Assembler], list[tuple[float, np.ndarray]]] = {ByClasses: [], Assembler: []}
        for _ in range(3):
            for kind, results in found.items():
                results.append(measure(kind, record, classes, coarse))
        before, now = (min(seconds for seconds, _ in results) for results in found.values())
        same = float(np.mean(found[ByClasses][0][1] == found[Assembler][0][1]))
        row = {
            "classes": classes,
            "coarse": coarse,
            "before": before,
            "now": now,
            "same": same,
            "network": networks[classes],
        }
        print(line(row), flush=True)
        rows.append(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
