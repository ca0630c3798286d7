"""Evaluation, postprocessing and ensembling side by side with nnunetv2, in one run on this machine.

    python benchmarks/evaluate.py --data DIR [--peer PYTHON] [--repeat 3] [--large] [--huge] [--json FILE]

Both sides are run as commands (start-up included) with two workers. ``--data`` holds
``data/Dataset004_Hippocampus`` and ``models`` with the validation of 40 of its cases. The memory is the peak of the sum
over the process tree. ``--large`` adds eight made-up label maps of 200 x 512 x 512 voxels with 24 classes, measured once
(determine_postprocessing on our side only: nnunetv2 had not finished after 23 minutes); ``--huge`` two of 1000 x 1000 x 1000
with 200 classes, on our side only.
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

OURS = "import sys; from napari_nnunet.cli import main; sys.exit(main(sys.argv[1:]))"
PEER = "import sys; sys.argv[0] = 'x'\nfrom {module} import {name} as run\nif __name__ == '__main__': run()"
EVALUATE = ("nnunetv2.evaluation.evaluate_predictions", "evaluate_folder_entry_point")
DETERMINE = ("nnunetv2.postprocessing.remove_connected_components", "entry_point_determine_postprocessing_folder")


def large(folder: Path, plans: Path) -> None:
    """Write eight made-up label maps with 24 classes, and predictions that are wrong at the borders."""
    for part in ("ref", "pred"):
        (folder / part).mkdir(parents=True)
    shape = (200, 512, 512)
    for i in range(8):
        field = ndimage.zoom(np.random.default_rng(i).normal(size=(12, 30, 30)), (17, 17.1, 17.1), order=1)[: shape[0]]
        field = field[:, : shape[1], : shape[2]]
        labels = np.digitize(field, np.linspace(0.2, 1.6, 24)).astype(np.uint8)
        for part, array in (("ref", labels), ("pred", np.roll(labels, 2, axis=1))):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / part / f"c{i}.nii.gz"), useCompression=True)
    names = {"background": 0, **{f"class_{v}": v for v in range(1, 25)}}
    content = {"channel_names": {"0": "CT"}, "labels": names, "numTraining": 8, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    shutil.copy(plans, folder)


def huge(folder: Path, plans: Path) -> None:
    """Write two label maps with 200 classes, two balls each, and predictions that are moved and have stray voxels."""
    for part in ("ref", "pred"):
        (folder / part).mkdir(parents=True)
    z, y, x = np.ogrid[-60:60, -60:60, -60:60]
    ball = z * z + y * y + x * x < 55**2
    for i in range(2):
        rng = np.random.default_rng(i)
        labels = np.zeros((1000, 1000, 1000), dtype=np.uint8)
        for value in [*range(1, 201)] * 2:
            corner = rng.integers(0, 880, 3)
            labels[tuple(slice(c, c + 120) for c in corner)][ball] = value
        for part in ("ref", "pred"):
            if part == "pred":
                labels = np.roll(labels, 2, axis=2)
                labels[tuple(rng.integers(0, 1000, (3, 3000)))] = rng.integers(1, 201, 3000)
            sitk.WriteImage(sitk.GetImageFromArray(labels), str(folder / part / f"c{i}.nii.gz"), useCompression=True)
    names = {"background": 0, **{f"class_{v}": v for v in range(1, 201)}}
    content = {"channel_names": {"0": "CT"}, "labels": names, "numTraining": 2, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    shutil.copy(plans, folder)


def run(python: str, code: str, words: list[str], place: Path) -> Measured:
    """Run one side."""
    script = place / "run.py"
    script.write_text(code)
    return measure([python, str(script), *words], place / "log", pause=0.1)


def compare(
    name: str, words: list[str], entry: tuple[str, str], place: Path, options: argparse.Namespace, *, alone: bool
) -> dict:
    """Run both sides in turn (or only ours, once); the median of each counts."""
    verb = "evaluate_folder" if entry is EVALUATE else "determine_postprocessing"
    theirs_code = PEER.format(module=entry[0], name=entry[1])
    ours, theirs = [], []
    if alone:
        own = run(sys.executable, OURS, [verb, *words], place)
        print(f"| {name} | – | {own.seconds:.1f} s, {own.tree / 1e6:.0f} MB | – | – |", flush=True)
        return {"task": name, "seconds": own.seconds, "mb": own.tree / 1e6}
    for _ in range(options.repeat):
        ours.append(run(sys.executable, OURS, [verb, *words], place))
        theirs.append(run(options.peer, theirs_code, words, place))
    mine, peer = (sorted(m.seconds for m in side)[options.repeat // 2] for side in (ours, theirs))
    memory, peer_memory = (max(m.tree for m in side) for side in (ours, theirs))
    row = {"task": name, "peer_seconds": peer, "seconds": mine, "times_faster": peer / mine,
           "peer_mb": peer_memory / 1e6, "mb": memory / 1e6}  # fmt: skip
    print(
        f"| {name} | {peer:.1f} s, {peer_memory / 1e6:.0f} MB | {mine:.2f} s, {memory / 1e6:.0f} MB | "
        f"{peer / mine:.1f} | {memory / peer_memory:.2f} |",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", default=sys.executable)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--huge", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print("| task | nnunetv2 | napari-nnunet | times faster | memory ratio |\n|---|---|---|---|---|")
    rows = []
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        model = options.data / "models" / "Dataset004_Hippocampus" / "nnUNetTrainer__nnUNetPlansSmall__3d_fullres"
        shutil.copytree(model / "fold_0" / "validation", place / "pred")
        references = place / "ref"
        references.mkdir()
        for path in (place / "pred").glob("*.nii.gz"):
            shutil.copy(options.data / "data" / "Dataset004_Hippocampus" / "labelsTr" / path.name, references)
        (place / "pred" / "summary.json").unlink()
        # name, references, predictions, folder of plans.json and dataset.json, runs, what nnunetv2 takes part in
        cases = [("40 hippocampus cases", place / "ref", place / "pred", model, options.repeat, (EVALUATE, DETERMINE))]
        for wanted, make, name, peers in (
            (options.large, large, "8 label maps of 200 x 512 x 512, 24 classes", (EVALUATE,)),
            (options.huge, huge, "2 label maps of 1000 x 1000 x 1000, 200 classes", ()),
        ):
            if wanted:
                folder = place / make.__name__
                make(folder, model / "plans.json")
                cases.append((name, folder / "ref", folder / "pred", folder, 1, peers))
        for name, ref, pred, files, repeat, peers in cases:
            options.repeat = repeat
            plans, dataset = str(files / "plans.json"), str(files / "dataset.json")
            words = [str(ref), str(pred), "-djfile", dataset, "-pfile", plans, "-o", str(place / "s.json"), "-np", "2"]
            rows.append(
                compare(f"evaluate_folder, {name}", words, EVALUATE, place, options, alone=EVALUATE not in peers)
            )
            words = ["-i", str(pred), "-ref", str(ref), "-plans_json", plans, "-dataset_json", dataset, "-np", "2"]
            rows.append(
                compare(
                    f"determine_postprocessing, {name}", words, DETERMINE, place, options, alone=DETERMINE not in peers
                )
            )
    if options.json is not None:
        options.json.write_text(json.dumps({"cores": os.cpu_count(), "rows": rows}, indent=4))


if __name__ == "__main__":
    main()
