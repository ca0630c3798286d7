"""Train StarDist or Cellpose from nothing and predict; runs in an environment that has the one or the other.

    PYTHON _objects_peer.py stardist|cellpose DATA OUT --minutes M [--processors]

DATA holds ``images`` and ``masks`` to train with, ``imagesTs`` to predict. OUT gets a 16-bit picture per image and
``OUT.json``. Both are trained with the settings that their own examples for training from nothing recommend, until the
minutes are used (StarDist, whose rate of learning does not depend on the number of epochs) or for as many epochs as the
first ones say they allow (Cellpose). With ``--processors`` minutes are those of all processes of the training. Only the
packages of that environment are imported.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from _spent import Budget

Trained = tuple[dict[str, float], Callable[[np.ndarray], np.ndarray]]
EPOCHS = 10_000  # more than ever fit: the budget ends the training
FULL = {True: 2400.0, False: 1200.0}  # seconds by either clock in which StarDist's 100 steps make a score of epochs
PILOT = 16  # pictures that show how long an epoch of Cellpose takes


def pictures(folder: Path) -> dict[str, np.ndarray]:
    """Return the pictures of a folder by name; colours are averaged."""
    found = {path.name: iio.imread(path) for path in sorted(folder.iterdir())}
    return {name: (p[..., :3].mean(axis=2) if p.ndim == 3 else p).astype(np.float32) for name, p in found.items()}


def stardist(data: Path, budget: Budget, place: Path) -> Trained:
    """Train as examples/2D/2_training.ipynb does: 32 rays, patches of 256, flips, turns and changes of brightness."""
    import keras
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

    class Until(keras.callbacks.Callback):
        """Ends the training when its budget is used."""

        def on_train_batch_end(self, batch, logs=None):
            if not budget.left:
                self.model.stop_training = True

        def on_epoch_end(self, epoch, logs=None):
            print(f"epoch {epoch + 1}: {budget.spent / 60:.1f} minutes used", flush=True)

    model.prepare_for_training()
    model.callbacks.append(Until())
    model.train(
        [images[i] for i in train],
        [masks[i] for i in train],
        validation_data=([images[i] for i in val], [masks[i] for i in val]),
        augmenter=augmented,
        epochs=EPOCHS,
        steps_per_epoch=max(5, min(100, round(100 * budget.seconds / FULL[budget.processors]))),
    )
    figures = budget.figures()
    model.optimize_thresholds([images[i] for i in val], [masks[i] for i in val])
    return figures, lambda p: model.predict_instances(normalize(p, 1, 99.8))[0]


def cellpose(data: Path, budget: Budget, place: Path) -> Trained:
    """Train as ``python -m cellpose --train --pretrained_model None`` does, and rescale to the mean diameter."""
    from cellpose import models, train
    from cellpose.utils import diameters

    images = list(pictures(data / "images").values())
    masks = [iio.imread(p).astype(np.int32) for p in sorted((data / "masks").iterdir())]
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

    def fit(pictures, epochs):
        """Train a network from nothing, and return it with the seconds that it took."""
        fresh, begun = models.CellposeModel(gpu=False, pretrained_model=None), budget.spent
        fresh.diam_mean = 30.0
        train.train_seg(fresh.net, images[:pictures], masks[:pictures], n_epochs=epochs, **settings)
        return fresh, budget.spent - begun

    few = min(PILOT, len(images))
    (_, one), (_, three) = fit(few, 1), fit(few, 3)
    share = len(images) / few
    epoch = max(1e-3, (three - one) / 2) * share
    preparing = max(0.0, one - epoch / share) * share  # flows of all masks
    epochs = max(1, round((budget.left - preparing) / epoch))
    print(f"{epoch:.1f} s an epoch: {epochs} epochs", flush=True)
    model, _ = fit(len(images), epochs)
    figures = budget.figures()
    diameter = float(np.mean([diameters(mask)[0] for mask in masks]))
    return figures, lambda p: model.eval(p, channels=[0, 0], diameter=diameter)[0]


def main() -> None:
    """Train, predict, and write pictures and times."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("stardist", "cellpose"))
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--processors", action="store_true")
    arguments = parser.parse_args()
    random.seed(0)
    np.random.seed(0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    place = arguments.out.with_name(f"{arguments.out.name}-model")
    place.mkdir(parents=True, exist_ok=True)
    learn = {"stardist": stardist, "cellpose": cellpose}[arguments.what]
    figures, predict = learn(arguments.data, Budget(arguments.minutes, arguments.processors), place)
    begun = time.monotonic()
    for name, picture in pictures(arguments.data / "imagesTs").items():
        iio.imwrite(arguments.out / name, np.asarray(predict(picture)).astype(np.uint16))
    times = {**figures, "predict": time.monotonic() - begun}
    arguments.out.with_name(f"{arguments.out.name}.json").write_text(json.dumps(times))


if __name__ == "__main__":
    main()
