"""Cubic and linear resampling side by side with scikit-image (what nnU-Net calls), on one core.

OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/resample.py
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import time

import numpy as np
from skimage.transform import resize

from napari_nnunet.engine.image.resample import resample_image
from napari_nnunet.schema.plans import Resampling

CASES = [
    ((96, 192, 192), (120, 200, 200), 3),
    ((160, 192, 192), (128, 160, 160), 3),
    ((96, 128, 128), (144, 192, 192), 1),
]


def main() -> None:
    rng = np.random.default_rng(0)
    print(
        "| shape | to | order | scikit-image | ours | times faster | largest difference |\n|---|---|---|---|---|---|---|"
    )
    for shape, target, order in CASES:
        image = rng.normal(size=shape).astype(np.float32)
        rule = Resampling(function="resample_data_or_seg_to_shape", order=order)
        resample_image(image[None, :4], (4, *target[1:]), (1, 1, 1), (1, 1, 1), rule)  # imports and matrices
        began = time.perf_counter()
        expected = resize(image.astype(float), target, order, mode="edge", anti_aliasing=False, clip=True)
        middle = time.perf_counter()
        result = resample_image(image[None], target, (1, 1, 1), (1, 1, 1), rule)[0]
        end = time.perf_counter()
        theirs, ours = middle - began, end - middle
        difference = np.abs(result - expected).max()
        print(
            f"| {shape} | {target} | {order} | {theirs:.2f} s | {ours:.2f} s | {theirs / ours:.1f} | {difference:.1e} |"
        )


if __name__ == "__main__":
    main()
