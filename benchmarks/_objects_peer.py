"""Train StarDist or Cellpose from nothing and predict; runs in an environment that has the one or the other.

    PYTHON _objects_peer.py stardist|cellpose DATA OUT --minutes M

DATA holds ``images`` and ``masks`` to train with, ``imagesTs`` to predict. OUT gets a 16-bit picture per image and
``times.json``. Both are trained with the settings that their own examples for training from nothing recommend; how many
epochs the minutes allow is measured first. Only the packages of that environment are imported.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np


def pictures(folder: Path) -> dict[str, np.ndarray]:
    """Return the pictures of a folder by name; colours are averaged."""
    found = {path.name: iio.imread(path) for path in sorted(folder.iterdir())}
    return {name: (p[..., :3].mean(axis=2) if p.ndim == 3 else p).astype(np.float32) for name, p in found.items()}


def stardist(data: Path, minutes: float, place: Path):
    """Train as examples/2D/2_training.ipynb does: 32 rays, patches of 256, flips, turns and changes of brightness."""
    from csbdeep.utils import normalize
    from stardist import calculate_extents
    from stardist.models import Config2D, StarDist2D

    images = [normalize(p, 1, 99.8) for p in pictures(data / "images").values()]
    masks = [iio.imread(p).astype(np.int32) for p in sorted((data / "masks").iterdir())]
    order = np.random.default_rng(42).permutation(len(images))
    count = max(1, round(0.15 * len(images)))
    val, train = order[:count], order[count:]
    smallest = min(min(p.shape) for p in images)
    patch = min(256, smallest // 16 * 16)
    config = Config2D(n_rays=32, grid=(2, 2), n_channel_in=1, train_patch_size=(patch, patch), train_tensorboard=False)
    model = StarDist2D(config, name="model", basedir=str(place))
    extent = np.mean([calculate_extents(p) for p in masks], axis=0).max()
    print("mean extent of objects", extent, flush=True)

    def augmented(x, y):
        axes = tuple(range(y.ndim))
        turned = np.random.permutation(axes)
        x, y = x.transpose(turned), y.transpose(turned)
        for axis in axes:
            if np.random.rand() > 0.5:
                x, y = np.flip(x, axis), np.flip(y, axis)
        x = x * np.random.uniform(0.6, 2) + np.random.uniform(-0.2, 0.2)
        return x + 0.02 * np.random.uniform() * np.random.normal(size=x.shape), y

    def fit(epochs, steps):
        model.train(
            [images[i] for i in train],
            [masks[i] for i in train],
            validation_data=([images[i] for i in val], [masks[i] for i in val]),
            augmenter=augmented,
            epochs=epochs,
            steps_per_epoch=steps,
        )

    begun = time.monotonic()
    fit(1, 2)  # builds the graph
    warm = time.monotonic()
    fit(1, 6)
    step = (time.monotonic() - warm) / 6
    left = 60 * minutes - (time.monotonic() - begun)
    steps = max(1, min(100, int(left / step / 10)))
    fit(max(1, int(left / step / steps)), steps)
    trained = time.monotonic() - begun
    model.optimize_thresholds([images[i] for i in val], [masks[i] for i in val])
    return trained, lambda p: model.predict_instances(normalize(p, 1, 99.8))[0]


def cellpose(data: Path, minutes: float, place: Path):
    """Train as ``python -m cellpose --train --pretrained_model None`` does, and rescale to the mean diameter."""
    from cellpose import models, train
    from cellpose.utils import diameters

    images = list(pictures(data / "images").values())
    masks = [iio.imread(p).astype(np.int32) for p in sorted((data / "masks").iterdir())]
    model = models.CellposeModel(gpu=False, pretrained_model=None)
    model.diam_mean = 30.0
    settings = {
        "channels": [0, 0],
        "normalize": True,
        "SGD": True,
        "learning_rate": 0.1,
        "weight_decay": 1e-4,
        "batch_size": 8,
        "min_train_masks": 1,
        "save_path": str(place),
    }
    begun = time.monotonic()
    few = list(range(min(16, len(images))))
    warm = time.monotonic()
    train.train_seg(model.net, [images[i] for i in few], [masks[i] for i in few], n_epochs=1, **settings)
    epoch = (time.monotonic() - warm) * len(images) / len(few)
    left = 60 * minutes - (time.monotonic() - begun)
    model = models.CellposeModel(gpu=False, pretrained_model=None)
    train.train_seg(model.net, images, masks, n_epochs=max(1, math.floor(left / epoch)), **settings)
    trained = time.monotonic() - begun
    diameter = float(np.mean([diameters(mask)[0] for mask in masks]))
    return trained, lambda p: model.eval(p, channels=[0, 0], diameter=diameter)[0]


def main() -> None:
    """Train, predict, and write pictures and times."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("stardist", "cellpose"))
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    arguments = parser.parse_args()
    random.seed(0)
    np.random.seed(0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    place = arguments.out.with_name(f"{arguments.out.name}-model")
    place.mkdir(parents=True, exist_ok=True)
    learn = {"stardist": stardist, "cellpose": cellpose}[arguments.what]
    trained, predict = learn(arguments.data, arguments.minutes, place)
    begun = time.monotonic()
    for name, picture in pictures(arguments.data / "imagesTs").items():
        iio.imwrite(arguments.out / name, np.asarray(predict(picture)).astype(np.uint16))
    times = {"train": trained, "predict": time.monotonic() - begun}
    arguments.out.with_name(f"{arguments.out.name}.json").write_text(json.dumps(times))


if __name__ == "__main__":
    main()
