"""What failures of other libraries become."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch

from napari_nnunet.errors import ModelError, ResourceError, is_out_of_memory, out_of_memory
from napari_nnunet.events import drain


def _torch_on_a_cpu():
    torch.empty(1 << 58, dtype=torch.uint8)


def _numpy():
    np.empty(1 << 58, dtype=np.uint8)


def _python():
    bytearray(1 << 62)


@pytest.mark.parametrize("allocate", [_torch_on_a_cpu, _numpy, _python])
def test_memory_that_a_library_misses_here_is_recognised(allocate):
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        allocate()
    assert is_out_of_memory(caught.value)
    assert out_of_memory(caught.value).message.startswith("Not enough main memory")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of ..."
            ),
            "Not enough GPU memory: another 21.5 GB were needed. Close other programs.",
        ),
        (
            RuntimeError(
                "MPS backend out of memory (MPS allocated: 9 GB). Tried to allocate 256.00 MB on private pool."
            ),
            "Not enough GPU memory: another 0.3 GB were needed. Close other programs.",
        ),
        (
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 2500000000 bytes."),
            "Not enough main memory: another 2.5 GB were needed. Close other programs.",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "Not enough GPU memory. Close other programs.",
        ),
        (
            RuntimeError("Exception from src/inference/src/cpp/core.cpp:104: std::bad_alloc"),
            "Not enough main memory. Close other programs.",
        ),
        (
            RuntimeError("[GPU] CL_OUT_OF_RESOURCES exception."),
            "Not enough GPU memory. Close other programs.",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Not enough main memory. Close other programs."),
    ],
)
def test_memory_that_a_library_misses_elsewhere_is_recognised(error, sentence):
    assert is_out_of_memory(error)
    assert out_of_memory(error).message == sentence


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        KeyError("out of memory"),
        OSError(errno.ENOSPC, "No space left on device"),
        ModelError("There is not enough memory of this model."),
    ],
)
def test_other_errors_are_not_taken_for_a_lack_of_memory(error):
    assert not is_out_of_memory(error)


def test_every_job_that_runs_out_of_memory_raises_an_error_for_people():
    def job():
        yield from ()
        _torch_on_a_cpu()

    with pytest.raises(ResourceError, match="another 288,230,376.2 GB were needed") as caught:
        drain(job())
    assert isinstance(caught.value.__cause__, RuntimeError)
