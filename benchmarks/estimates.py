"""What the docks say a segmentation will take, and what it takes: with an empty notebook of speeds, and after runs.

python benchmarks/estimates.py MODEL [MODEL ...]

Each model segments a synthetic image of a few tiles; two models or more are joined at the end, and so must take the
same channels and have the same classes. On a quiet computer the figures agree within a factor of 1.5.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_nnunet.engine.prediction.vote import VoteSettings
from napari_nnunet.errors import NnunetError
from napari_nnunet.events import drain
from napari_nnunet.formats.model.folder import TrainedModel, load_model
from napari_nnunet.jobs.choosing.ensemble import check_models
from napari_nnunet.jobs.prediction.combined import Combination, Member, predict_combined
from napari_nnunet.jobs.prediction.estimate import estimate_combined, estimate_presets
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.jobs.prediction.predictor import forget
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.volume import Volume

SETTINGS = PredictSettings(device="cpu", mirroring=False)


def image(model: TrainedModel, times: float) -> Volume:
    """Return noise of some windows along each axis."""
    patch = (24, *model.configuration.patch_size)[-3:]
    spacing = tuple(model.configuration.spacing)
    shape = tuple(max(8, round(times * n)) for n in patch)
    noise = np.random.default_rng(0).normal(size=(model.channels_in, *shape)).astype(np.float32)
    return Volume(noise, Geometry(spacing=(spacing[0],) * (3 - len(spacing)) + spacing))


def row(name: str, said: float | None, run: Callable[[], Any]) -> None:
    """Print a line of the table."""
    began = time.monotonic()
    run()
    took = time.monotonic() - began
    ratio = "" if not said else f"{max(said / took, took / said):.2f}"
    print(f"| {name} | {'–' if said is None else f'{said:.1f} s'} | {took:.1f} s | {ratio} |", flush=True)


def main(folders: list[str]) -> None:
    """Print the table."""
    models = [load_model(Path(folder)) for folder in folders]
    if len(models) > 1:
        check_models(models)  # before minutes are spent
    print("| segmentation | said | took | factor |\n|---|---|---|---|")
    for model in models:
        for name, times in (("first", 1.3), ("again", 1.3), ("larger", 2.0)):
            volume = image(model, times)
            found = drain(estimate_presets(model, volume.shape, volume.geometry.spacing, SETTINGS))["own"]
            title = f"{model.configuration.name}, {name}"
            row(title, found.seconds, lambda model=model, volume=volume: drain(predict(model, volume, SETTINGS)))
    if len(models) > 1:
        members = tuple(Member(model, SETTINGS) for model in models)
        together = Combination(members, VoteSettings(uncertainty=True))
        volume = image(models[0], 1.3)
        for name in ("first", "again"):
            forget()
            said = estimate_combined(together, volume.shape, volume.geometry.spacing)["seconds"]
            row(f"ensemble of {len(models)}, {name}", said, lambda: drain(predict_combined(together, volume)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a model folder, which holds plans.json and folds")
    chosen = parser.parse_args().models
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache  # a notebook of its own, which is empty
        try:
            main(chosen)
        except NnunetError as error:
            sys.exit(str(error))
