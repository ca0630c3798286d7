"""Reading images and labels by two states of this program: has well-formed input become slower?

    git worktree add --detach OLD COMMIT
    python benchmarks/reading.py --old OLD/src [--new src] [--only nii.gz] [--seconds 6] [--json FILE]

Two processes, one per state, read the same file in turns of a few milliseconds each; what counts is the processor time of a
read, the least of all turns, which another load on the machine disturbs least. The files are made up: small (40 x 50 x 35), medium
(64 x 160 x 160) and large (96 x 256 x 256) volumes, images (int16) and labels (uint8), and pictures of 64 x 64 and 512 x 512. ``--huge`` reads images of 210 MB instead.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import nibabel
import numpy as np
import SimpleITK as sitk
import tifffile
from scipy import ndimage

READER = """
import json, sys, time
from pathlib import Path
from napari_nnunet.formats.images.files import read_header, read_labels, read_volume
reads = {
    "image": lambda path, reader: read_volume([path], reader=reader),
    "labels": lambda path, reader: read_labels(path, reader=reader, as_stored=True),
    "labels, int32": lambda path, reader: read_labels(path, reader=reader),
    "header": lambda path, reader: read_header(path, reader=reader),
}
for line in sys.stdin:
    what, name, reader, times = json.loads(line)
    path, read = Path(name), reads[what]
    began = time.process_time()
    for _ in range(times):
        read(path, reader)
    print((time.process_time() - began) / times, flush=True)
"""
SIZES = {"small": (40, 50, 35), "medium": (64, 160, 160), "large": (96, 256, 256)}
HUGE = (400, 512, 512)
PICTURES = {"small": (64, 64), "medium": (512, 512)}
READERS: dict[str, tuple[str | None, ...]] = {
    ".nii.gz": (None, "NibabelIO", "NibabelIOWithReorient", "SimpleITKIOWithReorient"),
    ".nii": (None, "SimpleITKIO"),
    ".nrrd": (None,),
    ".mha": (None,),
    ".tif": (None, "Tiff3DIO"),
}
HEAD = "| task | before | now | change |\n|---|---|---|---|"
HUGE_READERS: dict[str, str | None] = {".nii.gz": None, ".nii": None, ".nrrd": None, ".mha": None, ".tif": "Tiff3DIO"}
TURN = 0.02  # seconds of a turn


def volumes(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return an image and its labels."""
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    smooth /= smooth.std()
    image = (1000 * smooth + rng.normal(0, 30, shape)).astype(np.int16)
    return {"image": image, "labels": np.digitize(smooth, [1, 2]).astype(np.uint8)}


def written(folder: Path) -> list[tuple[str, str, Path, str | None]]:
    """Write all files; return (task, what is read, path, reader)."""
    tasks: list[tuple[str, str, Path, str | None]] = []
    for size, shape in SIZES.items():
        for kind, array in volumes(shape).items():
            for ending, readers in READERS.items():
                path = folder / f"{size}_{kind}{ending}"
                write(array, path)
                for reader in readers:
                    if ending == ".tif" and (size == "large" or reader is None):
                        continue
                    whats = [kind, "header"] if kind == "image" else [kind, "labels, int32"]
                    for what in whats:
                        named = what if kind in what or what == "header" else f"{kind}, {what}"
                        tasks.append((f"{ending} {reader or 'by ending'}, {size}, {named}", what, path, reader))
    for size, picture in PICTURES.items():
        values = volumes((3, *picture))
        for kind, array in (("image", values["image"].clip(0, 255).astype(np.uint8)), ("labels", values["labels"])):
            for ending in (".png", ".tif"):
                path = folder / f"picture_{size}_{kind}{ending}"
                (iio.imwrite if ending == ".png" else tifffile.imwrite)(path, array[0])
                whats = (kind, "header") if kind == "image" else (kind,)
                tasks += [(f"{ending} picture, {size}, {what}", what, path, "NaturalImage2DIO") for what in whats]
    return tasks


def written_huge(folder: Path) -> Iterator[tuple[str, str, Path, str | None]]:
    """Write large images, each when it is its turn."""
    rng = np.random.default_rng(0)
    image = (rng.integers(-200, 200, HUGE, np.int16) // 8) * 8
    for ending, reader in HUGE_READERS.items():
        path = folder / f"huge_image{ending}"
        write(image, path)
        yield from (
            (f"{ending} {reader or 'by ending'}, huge, {what}", what, path, reader) for what in ("image", "header")
        )
        path.unlink()


def write(array: np.ndarray, path: Path) -> None:
    """Write one file by the library that most people use for its kind."""
    name = path.name
    if name.endswith((".nii", ".nii.gz")):
        nibabel.save(nibabel.Nifti1Image(array.transpose(), np.diag([0.9, 0.9, 2.0, 1.0])), path)
    elif name.endswith(".tif"):
        tifffile.imwrite(path, array, compression="zlib", metadata={"axes": "ZYX"}, photometric="minisblack")
    else:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.9, 0.9, 2.0))
        sitk.WriteImage(image, str(path), useCompression=True)


def started(source: Path, program: str = READER) -> subprocess.Popen[str]:
    """Start one state's process."""
    environment = {**os.environ, "PYTHONPATH": str(source.resolve())}
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def ask(side: subprocess.Popen[str], *question: Any) -> float:
    """Return the seconds of one read."""
    assert side.stdin is not None
    assert side.stdout is not None
    side.stdin.write(json.dumps(question) + "\n")
    side.stdin.flush()
    answer = side.stdout.readline()
    if not answer:
        raise SystemExit(f"{question} could not be done.")
    return float(answer)


def compare(sides: list[subprocess.Popen[str]], question: tuple[Any, ...], seconds: float) -> list[float]:
    """Return the least seconds of a read for each side."""
    first = [min(ask(side, *question, 1) for _ in range(3)) for side in sides]
    times = max(1, int(TURN / max(first)))
    least = [float("inf")] * len(sides)
    for turn in range(max(5, int(seconds / (2 * times * max(first))))):
        for index in (0, 1) if turn % 2 else (1, 0):
            least[index] = min(least[index], ask(sides[index], *question, times))
    return least


def line(row: dict[str, Any]) -> str:
    """Return a line of the table."""
    old, new = row["before"], row["now"]
    return f"| {row['task']} | {old * 1e3:.3f} ms | {new * 1e3:.3f} ms | {(new / old - 1) * 100:+.1f} % |"


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown."""
    return "\n".join([HEAD, *map(line, rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="the folder src of the earlier state")
    parser.add_argument("--new", type=Path, default=Path(__file__).parents[1] / "src")
    parser.add_argument("--only", default="", help="tasks whose name holds this")
    parser.add_argument("--seconds", type=float, default=6.0, help="per task")
    parser.add_argument("--huge", action="store_true", help="images of 210 MB instead of the others")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(HEAD)
    rows = []
    with tempfile.TemporaryDirectory() as text:
        sides = [started(options.old), started(options.new)]
        for name, what, path, reader in (written_huge if options.huge else written)(Path(text)):
            if options.only not in name:
                continue
            old, new = compare(sides, (what, str(path), reader), options.seconds)
            rows.append({"task": name, "before": old, "now": new})
            print(line(rows[-1]), flush=True)
        for side in sides:
            side.kill()
            side.wait()
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
