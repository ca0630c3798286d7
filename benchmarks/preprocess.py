"""Planning and preprocessing side by side with nnunetv2, in one run on this machine.

    python benchmarks/preprocess.py [--data DIR] [--peer PYTHON] [--repeat 3] [--only ROW] [--json FILE]

Both sides are run as commands (start-up included) with two workers, 2d and 3d_fullres: extract the fingerprint, plan,
preprocess. The memory is the largest high-water mark of any worker process. ``--data`` holds
``data/Dataset004_Hippocampus``; without it that row is left out. The CT row is made up: eight volumes of
160 x 256 x 256 voxels with slices of 2.0 to 3.0 mm and pixels of 0.70 to 0.85 mm, so that every case is resampled.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from _measure import Measured, measure

OURS = "import sys; from napari_nnunet.cli import main; sys.exit(main(['plan_and_preprocess', *sys.argv[1:]]))"
PEER = (
    "import sys; sys.argv[0] = 'plan'; "
    "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry as run\n"
    "if __name__ == '__main__': run()"
)


def ct_dataset(folder: Path) -> None:
    """Write eight made-up CT volumes with two classes."""
    rng = np.random.default_rng(7)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for i in range(8):
        field = ndimage.gaussian_filter(rng.normal(size=(80, 128, 128)), 6)
        smooth = ndimage.zoom(field, 2, order=1) / field.std()
        labels = (smooth > 1).astype(np.uint8) + (smooth > 1.8)
        image = (smooth * 150 + rng.normal(scale=20, size=smooth.shape)).astype(np.int16)
        spacing = (rng.uniform(0.7, 0.85),) * 2 + (rng.uniform(2.0, 3.0),)
        for array, name in ((image, f"imagesTr/ct{i}_0000"), (labels.astype(np.uint8), f"labelsTr/ct{i}")):
            picture = sitk.GetImageFromArray(array)
            picture.SetSpacing(spacing)
            sitk.WriteImage(picture, str(folder / f"{name}.nii.gz"), useCompression=True)
    content = {
        "channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1, "b": 2}, "numTraining": 8,
        "file_ending": ".nii.gz",
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content))


def run(python: str, code: str, dataset: str, raw: Path, place: Path) -> Measured:
    """Plan and preprocess into an empty folder."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    script = place / "run.py"
    script.write_text(code)
    environment = {"nnUNet_raw": str(raw), "nnUNet_preprocessed": str(place / "pre"), "nnUNet_results": str(place)}
    (place / "pre").mkdir()
    flags = ["-d", dataset, "-c", "2d", "3d_fullres", "-npfp", "2", "-np"]
    workers = ["2"] if code == OURS else ["2", "2"]
    return measure([python, str(script), *flags, *workers], place / "log", environment=environment, tree=False)


def compare(name: str, dataset: str, raw: Path, place: Path, peer: str, repeat: int) -> dict[str, float | str]:
    """Run both sides in turn; the median of each counts."""
    ours = [run(sys.executable, OURS, dataset, raw, place / "ours") for _ in range(repeat)]
    theirs = run(peer, PEER, dataset, raw, place / "peer")
    mine = sorted(ours, key=lambda measured: measured.seconds)[len(ours) // 2]
    row = {
        "task": name,
        "peer_seconds": theirs.seconds,
        "seconds": mine.seconds,
        "times_faster": theirs.seconds / mine.seconds,
        "peer_worker_mb": theirs.worker / 1e6,
        "worker_mb": max(measured.worker for measured in ours) / 1e6,
        "memory_ratio": max(measured.worker for measured in ours) / theirs.worker,
    }
    print(
        f"| {name} | {theirs.seconds:.1f} s, {theirs.worker / 1e6:.0f} MB | {mine.seconds:.1f} s, "
        f"{row['worker_mb']:.0f} MB | {row['times_faster']:.1f} | {row['memory_ratio']:.2f} |",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--peer", default=sys.executable)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=["hippocampus", "ct"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print("| task | nnunetv2, one worker's peak | napari-nnunet | times faster | memory ratio |\n|---|---|---|---|---|")
    rows = []
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        if options.data is not None and options.only != "ct":
            raw = options.data.absolute() / "data"
            rows.append(compare("hippocampus", "4", raw, place, options.peer, options.repeat))
        if options.only != "hippocampus":
            ct_dataset(place / "raw" / "Dataset901_CT")
            rows.append(compare("synthetic CT", "901", place / "raw", place, options.peer, options.repeat))
    if options.json is not None:
        options.json.write_text(json.dumps({"cores": os.cpu_count(), "rows": rows}, indent=4))


if __name__ == "__main__":
    main()
