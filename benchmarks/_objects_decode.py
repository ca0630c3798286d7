"""Probabilities of 50,000 touching and lone objects in 10,000 x 10,000 pixels, decoded in bounded memory.

    python benchmarks/_objects_decode.py [--memory GIB] [--cut]

The memory is that of all addresses of the process (Linux, macOS), file of the probabilities included.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from napari_nnunet.engine.objects.decode import Rule
from napari_nnunet.jobs.objects.find import Decoding, find_objects

SIDE, COUNT, ROWS = 10_000, 50_000, 224
REACH = 24  # pixels from a middle to where an object ends


def draw(path: Path, seed: int = 0) -> None:
    """Write float32 probabilities (background, core, border) of ellipses of 14 to 22 pixels radius."""
    rng = np.random.default_rng(seed)
    stored = open_memmap(path, "w+", np.float32, (3, SIDE, SIDE))
    core, inside = np.zeros((2, SIDE, SIDE), np.float32)
    rows, columns = np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1]
    for place in range(COUNT):
        y, x = ((n + 0.5) * SIDE / ROWS + rng.uniform(-2, 2) for n in divmod(place, ROWS))
        long, radius = rng.uniform(0.8, 1.2), rng.uniform(14, 22.5)
        depth = np.hypot(rows * long, columns / long) - radius
        low = [max(0, int(n) - REACH) for n in (y, x)]
        high = [min(SIDE, int(n) + REACH + 1) for n in (y, x)]
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        part = tuple(slice(a - int(n) + REACH, b - int(n) + REACH) for a, b, n in zip(low, high, (y, x), strict=True))
        np.maximum(inside[box], 1 / (1 + np.exp(1.5 * depth[part])), out=inside[box])
        np.maximum(core[box], 1 / (1 + np.exp(1.5 * (depth[part] + 2.5))), out=core[box])
    for start in range(0, SIDE, 500):
        rows = slice(start, start + 500)
        noise = rng.normal(0, 0.05, (500, SIDE)).astype(np.float32)
        stored[0, rows] = 1 - inside[rows]
        stored[1, rows] = np.clip(core[rows] + noise, 0, 1)
        stored[2, rows] = inside[rows] - core[rows]
    stored.flush()


def main() -> None:
    """Draw, bound the memory, decode, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", type=float, default=5.0, help="GiB")
    parser.add_argument("--cut", action="store_true", help="also cut seeds with a neck, and leave out doubtful objects")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probabilities.npy"
        draw(path)
        limit = int(arguments.memory * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        rule = Rule(2.0, smallest=20, smallest_seed=5)
        if arguments.cut:
            rule = Rule(2.0, smallest=20, smallest_seed=5, split=0.75, sure=0.6)
        probabilities, objects = np.load(path, mmap_mode="r"), np.zeros((SIDE, SIDE), np.uint32)
        begun, used = time.monotonic(), time.process_time()
        found = find_objects(probabilities, Decoding({"object": (1, 2)}, {"object": rule}), (1.0, 1.0), objects)
        spent = f"{time.monotonic() - begun:.1f} s on the wall, {time.process_time() - used:.1f} s of processors"
        print(f"{len(found)} objects, {spent}, within {arguments.memory:g} GiB")


if __name__ == "__main__":
    main()
