"""A training step with either way of normalising: CPU seconds of the process, one thread, candidates in turns.

python benchmarks/norm.py [ROUNDS]
"""

from __future__ import annotations

import sys
import time
from typing import Literal

import torch

from _networks import built, plain
from napari_nnunet.engine.network.device import BackendChoice
from napari_nnunet.engine.training.learner import Learner
from napari_nnunet.engine.training.loss import SegmentationLoss
from napari_nnunet.schema.trainers import TrainerRecipe

# nnU-Net's plans of the hippocampus
PATCHES = {"3d_fullres": (7, 40, 56, 40), "2d": (281, 56, 40)}


def learner(ndim: Literal[2, 3], precision: str, norms: str) -> Learner:
    network = built(plain(ndim, (32, 64, 128, 256)), 3)
    loss = SegmentationLoss(
        regions=False, ignore_label=None, batch_dice=False, smooth=1e-5, terms="dice_ce", label_smoothing=0, total=None
    )
    made = Learner(network, TrainerRecipe(), loss, BackendChoice("cpu", "torch", precision, "", 1))
    made.use_norms(norms)
    return made


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    for name, (batch, *patch) in PATCHES.items():
        image = torch.randn(batch, 1, *patch)
        targets = [torch.randint(0, 3, (batch, 1, *(n // 2**k for n in patch))).short() for k in range(3)]
        for precision in ("bfloat16", "float32"):
            learners = {norms: learner(len(patch), precision, norms) for norms in ("torch", "samples", "kernels")}
            best = dict.fromkeys(learners, float("inf"))
            for turn in range(rounds + 1):  # the first is not counted
                for norms, one in learners.items():
                    began = time.process_time()
                    one.step(image, targets)
                    if turn:
                        best[norms] = min(best[norms], time.process_time() - began)
            found = ", ".join(f"{norms} {best['torch'] / took:.2f} ({took:.2f} s)" for norms, took in best.items())
            print(f"{name} {precision}, times faster than torch: {found}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
