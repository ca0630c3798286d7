"""Writing by two states of this program: has it become slower?

    git worktree add --detach OLD COMMIT
    python benchmarks/writing.py --old OLD/src [--new src] [--only nii.gz] [--seconds 4]

As reading.py: two processes, one per state, write the same in turns of a few milliseconds each; what counts is the processor
time of a write, the least of all turns. Waiting for the disk is no processor time: both states wait until it has a file.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from reading import HEAD, SIZES, compare, line, started

WRITER = """
import json, sys, time
from pathlib import Path
import numpy as np
import torch
from scipy import ndimage
from napari_nnunet.formats.images.files import write_image, write_labels
from napari_nnunet.formats.model.checkpoint import write_checkpoint
from napari_nnunet.formats.results.probabilities import write_probabilities
from napari_nnunet.schema.geometry import Geometry

known = {}

def made(shape):
    if shape not in known:
        rng = np.random.default_rng(0)
        smooth = ndimage.gaussian_filter(rng.normal(size=shape), 3)
        smooth /= smooth.std()
        image = (1000 * smooth + rng.normal(0, 30, shape)).astype(np.int16)
        odds = rng.random((3, *shape)).astype(np.float32)
        known[shape] = image, np.digitize(smooth, [1, 2]).astype(np.uint8), odds / odds.sum(0)
    return known[shape]

def checkpoint(path, _):
    if "weights" not in known:
        torch.manual_seed(0)
        known["weights"] = {f"layer.{i}.weight": torch.randn(96, 96, 3, 3, 3) for i in range(11)}
    write_checkpoint(path, {"network_weights": known["weights"]}, plans={}, dataset={}, configuration="3d_fullres", fold=0, mirror_axes=(0, 1, 2),
                     epoch=3)

def geometry(array):
    return Geometry(spacing=(2.0, 0.9, 0.9)[-array.ndim :])

writes = {
    "image": lambda path, shape: write_image(made(shape)[0], geometry(made(shape)[0]), path),
    "labels": lambda path, shape: write_labels(made(shape)[1], geometry(made(shape)[1]), path),
    "picture": lambda path, shape: write_labels(made(shape)[1][0], geometry(made(shape)[1][0]), path),
    "probabilities": lambda path, shape: write_probabilities(made(shape)[2], path),
    "checkpoint": checkpoint,
}
for text in sys.stdin:
    what, name, shape, times = json.loads(text)
    path, write, shape = Path(name), writes[what], tuple(shape)
    began = time.process_time()
    for _ in range(times):
        write(path, shape)
    print((time.process_time() - began) / times, flush=True)
"""
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".tif")


def tasks() -> list[tuple[str, str, str, tuple[int, int, int]]]:
    """Return (task, what is written, name of the file, shape)."""
    found = []
    for size in ("small", "medium"):
        for what in ("labels", "image"):
            found += [(f"{ending}, {size}, {what}", what, f"{size}_{what}{ending}", SIZES[size]) for ending in ENDINGS]
        found.append((f".png, {size}", "picture", f"{size}.png", SIZES[size]))
    found.append((".npz, small, probabilities", "probabilities", "p.npz", SIZES["small"]))
    return [*found, (".pth of 11 MB, checkpoint", "checkpoint", "checkpoint.pth", SIZES["small"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="the folder src of the earlier state")
    parser.add_argument("--new", type=Path, default=Path(__file__).parents[1] / "src")
    parser.add_argument("--only", default="", help="tasks whose name holds this")
    parser.add_argument("--seconds", type=float, default=4.0, help="per task")
    options = parser.parse_args()
    print(HEAD)
    with tempfile.TemporaryDirectory() as text:
        sides = [started(options.old, WRITER), started(options.new, WRITER)]
        for name, what, file, shape in tasks():
            if options.only in name:
                old, new = compare(sides, (what, str(Path(text) / file), shape), options.seconds)
                print(line({"task": name, "before": old, "now": new}), flush=True)
        for side in sides:
            side.kill()
            side.wait()


if __name__ == "__main__":
    main()
