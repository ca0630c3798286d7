"""Synthetic zarr volumes of several gigabytes, segmented with a fixed amount of memory, and by one and two workers.

python benchmarks/large.py [--gb 3 6 12] [--memory 2] [--folder DIR]
python benchmarks/large.py --gb 3 --workers

Prints wall and processor time, processor time per billion voxels, and the peak of the whole process tree. The network
is tiny and works at voxels three times as large, so that reading, resampling, deciding and writing count, which is what
grows with an image. With ``--workers``, the same volume by a local cluster of one worker and of two, with a thread
each; their time counts from when the first block is handed out until the last is written.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from _measure import measure
from helpers import Recipe, make_model

PLANE = (1250, 1200)
CHUNK = 128


def make_volume(path: Path, gigabytes: float) -> int:
    """Write a volume of uint16 with structures some voxels wide, chunk by chunk; return its voxels."""
    depth = round(gigabytes * 1e9 / 2 / (PLANE[0] * PLANE[1]))
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.normal(size=(CHUNK,) * 3), 4, mode="wrap")
    block = (3000 + 300 * noise / noise.std()).astype(np.uint16)
    shape = (depth, *PLANE)
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    array = group.create_array("0", shape=shape, chunks=(CHUNK,) * 3, dtype="uint16", compressors=None)
    for z in range(0, depth, CHUNK):
        for y in range(0, PLANE[0], CHUNK):
            row = np.concatenate(
                [np.roll(block, rng.integers(CHUNK, size=3), (0, 1, 2)) for _ in range(0, PLANE[1], CHUNK)], 2
            )
            array[z : z + CHUNK, y : y + CHUNK] = row[: depth - z, : PLANE[0] - y, : PLANE[1]]
    axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"name": "image", "axes": axes, "datasets": datasets}]}
    return int(np.prod(shape))


def command(model: Path, image: Path, result: Path, *more: str) -> list[str]:
    """Return the words that segment a volume."""
    words = [sys.executable, "-m", "napari_nnunet", "predict_image", "-m", str(model), "-i", str(image)]
    words += ["-o", str(result), "--disable_tta", "-device", "cpu", "--precision", "float32", "--no_pbar"]
    return [*words, *more]


def with_memory(model: Path, folder: Path, gigabytes: float, memory: float) -> None:
    """Print the row of a volume."""
    image, result = folder / "image.zarr", folder / "result.zarr"
    voxels = make_volume(image, gigabytes)
    found = measure(command(model, image, result, "--memory", str(memory)), folder / "log.txt")
    print(
        f"| {gigabytes:g} GB | {memory:g} GB | {found.seconds:.0f} | {found.cpu:.0f} | {found.cpu / voxels * 1e9:.1f} "
        f"| {found.tree / 1e9:.2f} GB |",
        flush=True,
    )
    shutil.rmtree(result)


def with_workers(model: Path, folder: Path, gigabytes: float) -> None:
    """Print the rows of one worker and of two."""
    image = folder / "image.zarr"
    make_volume(image, gigabytes)
    for workers in (1, 2):
        events, result = folder / f"{workers}.jsonl", folder / f"{workers}.zarr"
        more = ("--cluster", f"local:{workers}", "--threads", "1", "--memory", "1", "--events", str(events))
        found = measure(command(model, image, result, *more), folder / "log.txt", tree=False)
        known = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
        began = next(event["time"] for event in known if event["kind"] == "stage" and event["name"] == "Segmenting")
        times = [event["time"] for event in known if event["kind"] == "painted"]
        print(f"| {workers} | {len(times)} | {found.seconds:.1f} | {times[-1] - began:.1f} |", flush=True)
        shutil.rmtree(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, nargs="+", default=[3, 6, 12])
    parser.add_argument("--memory", type=float, default=2)
    parser.add_argument("--workers", action="store_true")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=asked.folder))
    heads = ["volume", "--memory", "seconds", "processor seconds", "the same per billion voxels", "peak of the tree"]
    if asked.workers:
        heads = ["workers", "blocks", "seconds", "seconds for all blocks"]
    try:
        model = make_model(folder, Recipe(patch=(48, 64, 64), spacing=(3.0, 3.0, 3.0))).folder
        print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
        for gigabytes in asked.gb:
            if asked.workers:
                with_workers(model, folder, gigabytes)
            else:
                with_memory(model, folder, gigabytes, asked.memory)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
