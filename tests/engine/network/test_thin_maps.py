"""Convolutions whose kernel is larger than the map: oneDNN's bfloat16 kernels read memory there that nobody wrote."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

STEP = """
import torch
from napari_nnunet.engine.network.unet import build, initialize
from napari_nnunet.schema.architecture import Architecture

def gradients(ndim, strides, patch, precision):
    network = build(Architecture(
        name="PlainConvUNet", ndim=ndim, features=(8, 8, 8), kernel_sizes=((3,) * ndim,) * 3,
        strides=((1,) * ndim, *strides), blocks=(2, 2, 2), decoder_convs=(2, 2)), 1, 2)
    initialize(network, torch.Generator().manual_seed(0))
    layout = {2: torch.channels_last, 3: torch.channels_last_3d}[ndim]
    network.to(memory_format=layout)
    image = torch.randn((2, 1, *patch), generator=torch.Generator().manual_seed(1)).to(memory_format=layout)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        out = network(image)
    out.float().square().mean().backward()
    return [out.detach().float(), *(p.grad for p in network.parameters() if p.grad is not None)]

torch.set_num_threads(1)
cases = [
    (3, ((2, 2, 2), (2, 2, 2)), (8, 16, 16)), (3, ((2, 2, 2), (2, 2, 2)), (4, 16, 16)),
    (3, ((1, 2, 2), (1, 2, 2)), (2, 16, 16)), (3, ((1, 2, 2), (1, 2, 2)), (1, 16, 16)),
    (2, ((2, 2), (2, 1)), (16, 2)), (2, ((2, 2), (2, 2)), (8, 4)),
]
for case in cases:
    for plain, short in zip(gradients(*case, "float32"), gradients(*case, "bfloat16")):
        assert torch.isfinite(short).all(), case
        assert short.abs().max() <= 2 * plain.abs().max() + 1, (case, short.abs().max(), plain.abs().max())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone can fill fresh memory")
def test_nothing_is_read_that_nobody_wrote():
    environment = {**os.environ, "MALLOC_PERTURB_": "128"}  # fresh memory holds large numbers instead of zeros
    done = subprocess.run([sys.executable, "-c", STEP], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
