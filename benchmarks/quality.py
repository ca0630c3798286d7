"""Train like a model that nnU-Net trained, and compare the validation Dice.

    python benchmarks/quality.py --data DATA --model MODEL --epochs 40 --iterations 60 --validation_iterations 4
        [--workspace DIR] [--precision auto|float32|bfloat16] [--rounded] [--seed 0]

DATA holds the raw dataset in ``data/DATASET``; MODEL is nnU-Net's model folder, whose plans and fold 0 are taken. The
dataset is preprocessed here, fold 0 trained with the same number of steps, and its validation cases segmented.
``--rounded`` rounds the inputs, weights and results of every convolution to bfloat16, which is what a processor with
bfloat16 units does under autocast (sums stay float32); it is how bfloat16 is judged on computers without such units.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from napari_nnunet.engine.training.learner import Learner
from napari_nnunet.events import EpochDone, drain
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.planning.plan import extract_fingerprint
from napari_nnunet.jobs.planning.preprocess import preprocess
from napari_nnunet.jobs.training.train import train
from napari_nnunet.schema.requests.planning import FingerprintRequest, PreprocessRequest
from napari_nnunet.schema.requests.training import TrainRequest, TrainSettings

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class _Rounded(torch.autograd.Function):
    """Round to bfloat16, values on the way forth and gradients on the way back."""

    @staticmethod
    def forward(ctx, value):
        return value.bfloat16().to(value.dtype)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.bfloat16().to(gradient.dtype)


def round_convolutions(network: nn.Module) -> None:
    """Let every convolution see and give values with bfloat16's eight digits."""
    for module in network.modules():
        if isinstance(module, CONVOLUTIONS):
            module.forward = _rounding(module)


def _rounding(module):
    plain = {2: functional.conv2d, 3: functional.conv3d}
    transposed = {2: functional.conv_transpose2d, 3: functional.conv_transpose3d}

    def forward(x):
        weight = _Rounded.apply(module.weight)
        if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
            out = transposed[x.ndim - 2](_Rounded.apply(x), weight, module.bias, module.stride)
        else:
            out = plain[x.ndim - 2](_Rounded.apply(x), weight, module.bias, module.stride, module.padding)
        return _Rounded.apply(out)

    return forward


def main() -> None:
    """Train and print the comparison."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--validation_iterations", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="auto", help="of the training")
    parser.add_argument("--rounded", action="store_true")
    options = parser.parse_args()
    if options.rounded:
        make = Learner.__init__

        def rounded(self, network, *arguments, **named):
            make(self, network, *arguments, **named)
            round_convolutions(self.network)

        Learner.__init__ = rounded
    dataset, configuration = options.model.parent.name, options.model.name.split("__")[2]
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Workspace.at(options.workspace or Path(temporary))
        base = workspace.preprocessed / dataset
        plans = json.loads((options.model / "plans.json").read_text())
        if not base.is_dir():
            shutil.copytree(options.data / "data" / dataset, workspace.raw / dataset)
            drain(extract_fingerprint(workspace, FingerprintRequest(dataset=dataset)))
            (base / f"{plans['plans_name']}.json").write_text(json.dumps(plans))
            drain(
                preprocess(
                    workspace,
                    PreprocessRequest(dataset=dataset, plans=plans["plans_name"], configurations=[configuration]),
                )
            )
        settings = TrainSettings(
            epochs=options.epochs, iterations=options.iterations, seed=options.seed,
            validation_iterations=options.validation_iterations, precision=options.precision,
        )  # fmt: skip

        def tell(event):
            if isinstance(event, EpochDone):
                print(f"epoch {event.epoch + 1}: {event.train_loss:.4f} {event.val_loss:.4f} {event.dice}", flush=True)

        found = drain(
            train(
                workspace,
                TrainRequest.like(
                    settings, dataset=dataset, configuration=configuration, fold=0, plans=plans["plans_name"]
                ),
            ),
            tell,
        )
        peer = json.loads((options.model / "fold_0" / "validation" / "summary.json").read_text())
        print(
            "nnU-Net",
            {label: round(v["Dice"], 4) for label, v in peer["mean"].items()},
            peer["foreground_mean"]["Dice"],
        )
        print("ours   ", {label: round(v, 4) for label, v in found.validation.per_class.items()}, found.validation.dice)


if __name__ == "__main__":
    main()
