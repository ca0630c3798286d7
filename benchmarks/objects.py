"""Numbered objects: ours, StarDist and Cellpose, trained from nothing on the same pictures for the same time.

    python benchmarks/objects.py --data DATA [--minutes 20 | --cpu-minutes 40] [--stardist PYTHON] [--cellpose PYTHON]
        [--sets nuclei particles cells] [--only ours stardist cellpose] [--workspace DIR]
    python benchmarks/objects.py --ellipsoids [--minutes 10 | --cpu-minutes 20] [--workspace DIR]

DATA holds ``nuclei``, ``particles`` and ``cells``, each with ``images`` and ``labels`` (a number per object). Of every
folder each third picture by name is kept for testing; of the nuclei only the grey ones are taken. PYTHON is the
interpreter of an environment with ``stardist`` and ``tensorflow``, or with ``cellpose``; what is not given is left out.
The minutes are those of the training steps; choosing thresholds afterwards is not counted for anyone. Where other work
shares the computer, time on the wall is no fair budget: ``--cpu-minutes`` counts the processor time of all processes of a
training (40 are what 20 minutes of two cores hold); how many epochs that allows is found from the first steps, those included.
What was used by both clocks is in the table. ``--ellipsoids`` trains on synthetic touching ellipsoids with voxels three times as high as wide, and tests on others.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np

from _spent import Budget, processor_seconds
from napari_nnunet.engine.synthetic import make_crowd
from napari_nnunet.events import EpochDone, Note, Pump
from napari_nnunet.formats import speed
from napari_nnunet.formats.images.files import write_image, write_labels
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.evaluate_objects import evaluate_objects, scores
from napari_nnunet.jobs.objects.import_objects import import_objects
from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
from napari_nnunet.jobs.prediction.predict_files import predict_folder
from napari_nnunet.jobs.training.train import train
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.choosing import EvaluateObjectsRequest
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest
from napari_nnunet.schema.requests.planning import PlanAndPreprocessRequest, PlanSettings
from napari_nnunet.schema.requests.prediction import PredictFolderRequest
from napari_nnunet.schema.requests.training import TrainRequest, TrainSettings

METHODS = ("ours", "stardist", "cellpose")
SETS = ("nuclei", "particles", "cells")
PICTURES = PlanSettings(planner="SmallPlanner", gpu_memory_gb=0.04)
VOLUMES = PlanSettings(planner="SmallPlanner", gpu_memory_gb=0.5)
TRAINER = "nnUNetTrainerAdam1en3"  # in so few steps the default's plain gradient descent does not get far
HIGH = Geometry(spacing=(3.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=(1.0, 0, 0, 0, 1, 0, 0, 0, 1))
FIGURES = ("AP@0.5", "AP@0.75", "PQ")


def prepare(source: Path, target: Path) -> None:
    """Copy pictures and masks, each third by name for testing."""
    names = sorted(path.name for path in (source / "images").iterdir())
    names = [name for name in names if not name.startswith("colour")]
    for i, name in enumerate(names):
        kept = "Ts" if i % 3 == 2 else ""
        for place, kind in (("images", "images"), ("labels", "masks")):
            folder = target / f"{kind}{kept}"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / place / name, folder / name)


def run(job):
    """Run a job, print what it notes, return its result."""
    with Pump(job) as events:
        for event in events:
            if isinstance(event, Note):
                print("   ", event.text, flush=True)
    return events.result


@contextmanager
def counted(processors: bool) -> Iterator[None]:
    """Let time budgets count the seconds of processors instead of those on the wall, and be kept to alike."""
    if not processors:
        yield
        return
    clock = SimpleNamespace(monotonic=processor_seconds, time=time.time, sleep=time.sleep)
    with (
        patch("napari_nnunet.jobs.training.train.time", clock),
        patch("napari_nnunet.jobs.training.session.time", clock),
        patch.object(speed, "remember", lambda *_: None),  # which is of seconds on the wall
    ):
        yield


def learn(workspace: Workspace, request: TrainRequest, budget: Budget) -> dict[str, float]:
    """Train; return what the steps took, without the validation that follows."""
    figures: dict[str, float] = {}
    with counted(budget.processors), Pump(train(workspace, request)) as events:
        for event in events:
            if isinstance(event, EpochDone):
                figures = budget.figures()
            if isinstance(event, Note):
                print("   ", event.text, flush=True)
    return figures


def ours(
    data: Path,
    out: Path,
    minutes: float,
    processors: bool,
    plans: PlanSettings,
    configuration: str,
    trainer: str = TRAINER,
) -> dict[str, float]:
    """Import, plan, train one fold, find the objects of the test pictures; return the seconds."""
    workspace = Workspace.at(out.parent / "workspace")
    shutil.rmtree(workspace.raw.parent, ignore_errors=True)
    request = ImportFoldersRequest(images=data / "images", masks=data / "masks", name="Benchmark", objects="object")
    dataset = run(import_objects(workspace, request))
    planned = run(
        plan_and_preprocess(
            workspace, PlanAndPreprocessRequest.like(plans, dataset=dataset.name, configurations=[configuration])
        )
    )
    name = planned.plans.stem
    order = {"dataset": dataset.name, "configuration": configuration, "fold": 0, "plans": name}
    budget = Budget(minutes, processors)
    settings = TrainSettings(trainer=trainer, time_budget=budget.seconds)
    seconds = learn(workspace, TrainRequest.like(settings, **order), budget)
    begun = time.monotonic()
    model = load_model(workspace.results / dataset.name / f"{trainer}__{name}__{configuration}")
    run(predict_folder(model, PredictFolderRequest(source=(data / "imagesTs",), target=out, folds=(0,))))
    return {**seconds, "predict": time.monotonic() - begun}


def peer(python: str, what: str, data: Path, out: Path, minutes: float, processors: bool) -> dict[str, float]:
    """Let a package train and predict in its own environment; return the seconds."""
    script = Path(__file__).with_name("_objects_peer.py")
    words = [python, str(script), what, str(data), str(out), "--minutes", str(minutes)]
    subprocess.run([*words, *(["--processors"] if processors else [])], check=True)
    return json.loads(out.with_name(f"{out.name}.json").read_text())


def judged(data: Path, out: Path) -> dict[str, float]:
    """Return the scores of predictions, all test pictures counted together."""
    for path in out.glob("*.json"):
        path.unlink()
    evaluation = run(evaluate_objects(EvaluateObjectsRequest(reference=data / "masksTs", prediction=out)))
    return scores(evaluation.all)


def row(name: str, values: dict[str, float], seconds: dict[str, float]) -> str:
    """Return a line of the table."""
    figures = " | ".join(f"{values[figure]:.3f}" for figure in FIGURES)
    trained = f"{seconds['train'] / 60:.1f} min | {seconds['train_cpu'] / 60:.1f} min"
    return f"| {name} | {figures} | {trained} | {seconds['predict']:.1f} s |"


def head(processors: bool) -> Iterator[str]:
    """Yield the first lines of a table, which say which of the two clocks was the budget."""
    clocks = (
        ("training", "its processor time, the budget") if processors else ("training, the budget", "processor time")
    )
    yield f"| | {' | '.join((*FIGURES, *clocks))} | prediction |"
    yield "|---|---|---|---|---|---|---|"


def compare(place: Path, arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the table."""
    minutes, processors = length(arguments)
    yield from head(processors)
    peers = {"stardist": arguments.stardist, "cellpose": arguments.cellpose}
    for name in arguments.sets:
        data = place / name
        prepare(arguments.data / name, data)
        if "ours" in arguments.only:
            seconds = ours(data, data / "ours", minutes, processors, PICTURES, "2d", arguments.trainer)
            yield row(f"{name}: ours", judged(data, data / "ours"), seconds)
        for what, python in peers.items():
            if python and what in arguments.only:
                seconds = peer(python, what, data, data / what, minutes, processors)
                yield row(f"{name}: {what}", judged(data, data / what), seconds)


def length(arguments: argparse.Namespace) -> tuple[float, bool]:
    """Return the minutes, and whether they are those of processors."""
    counted = arguments.cpu_minutes is not None
    return (arguments.cpu_minutes, True) if counted else (arguments.minutes, False)


def crowd(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a volume of touching ellipsoids, three times as high as wide voxels."""
    image, objects = make_crowd(seed, (60, 64, 64))
    return image[1::3], objects[1::3]


def ellipsoids(place: Path, minutes: float, processors: bool, trainer: str) -> Iterator[str]:
    """Train on synthetic volumes and test on others."""
    data = place / "ellipsoids"
    for kept, seeds in (("", range(100, 116)), ("Ts", range(4))):
        for kind in ("images", "masks"):
            (data / f"{kind}{kept}").mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            image, objects = crowd(seed)
            channel = "_0000" if kept else ""
            write_image(image, HIGH, data / f"images{kept}" / f"crowd_{seed:03d}{channel}.nii.gz")
            write_labels(objects, HIGH, data / f"masks{kept}" / f"crowd_{seed:03d}.nii.gz")
    seconds = ours(data, data / "ours", minutes, processors, VOLUMES, "3d_fullres", trainer)
    yield from head(processors)
    yield row("ellipsoids: ours", judged(data, data / "ours"), seconds)


def main(words: Sequence[str] | None = None) -> None:
    """Train, predict, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--minutes", type=float, default=20, help="on the wall")
    parser.add_argument("--cpu-minutes", type=float, help="of all processes of a training, instead")
    parser.add_argument("--stardist", help="its Python")
    parser.add_argument("--cellpose", help="its Python")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--ellipsoids", action="store_true")
    parser.add_argument("--trainer", default=TRAINER)
    parser.add_argument("--workspace", type=Path)
    arguments = parser.parse_args(words)
    if not arguments.ellipsoids and arguments.data is None:
        parser.error("give --data, or --ellipsoids")
    with tempfile.TemporaryDirectory() as temporary:
        place = arguments.workspace or Path(temporary)
        lines = []
        table = (
            ellipsoids(place, *length(arguments), arguments.trainer)
            if arguments.ellipsoids
            else compare(place, arguments)
        )
        for line in table:
            lines.append(line)
            print(line, flush=True)
    sys.stdout.write("\n".join(["", *lines, ""]))


if __name__ == "__main__":
    main()
