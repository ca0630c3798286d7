"""What this computer can do, and which way of computing a window is the fastest that is safe."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

import torch

from napari_nnunet.engine.machine import available_memory, available_threads
from napari_nnunet.errors import ResourceError, SettingsError
from napari_nnunet.schema.requests.prediction import PredictSettings

Precision = Literal["float32", "bfloat16", "float16"]
Backend = Literal["torch", "openvino"]


@dataclass(frozen=True)
class Choice:
    """Where and how windows are computed.

    Parameters
    ----------
    device : str
        "cpu", "cuda:0", "mps".
    backend : {"torch", "openvino"}
        What runs the network.
    precision : {"float32", "bfloat16", "float16"}
        Arithmetic of the network.
    why : str
        A sentence for the user.
    threads : int
        CPU threads, at least 1.
    """

    device: str
    backend: Backend
    precision: Precision
    why: str
    threads: int

    @property
    def kind(self) -> str:
        """The family of the device: "cpu", "cuda" or "mps"."""
        return self.device.partition(":")[0]

    def __str__(self) -> str:
        return f"{self.device} with {self.backend} in {self.precision}"


@lru_cache(maxsize=1)
def cpu_features() -> frozenset[str]:
    """Return the features of this processor that decide the precision, such as "amx_bf16", "avx512_bf16", "avx2"."""
    known = (
        "avx2",
        "avx512f",
        "avx512_bf16",
        "avx512_fp16",
        "amx_bf16",
        "amx_fp16",
        "amx_tile",
        "asimd",
        "bf16",
        "i8mm",
    )
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            words = set(file.read().split())
        return frozenset(name for name in known if name in words)
    except OSError:
        return frozenset({torch.backends.cpu.get_cpu_capability().lower()})


def has_fast_bfloat16() -> bool:
    """True if the processor has bfloat16 in hardware (AMX or AVX512-BF16)."""
    return bool(cpu_features() & {"amx_bf16", "avx512_bf16"})


def has_openvino() -> bool:
    """True if OpenVINO is installed and supports this processor."""
    return find_spec("openvino") is not None and platform.machine().lower() in {"x86_64", "amd64", "arm64", "aarch64"}


def free_memory(choice: Choice) -> float:
    """Return the free bytes where a choice computes."""
    if choice.kind == "cuda":
        return float(torch.cuda.mem_get_info(torch.device(choice.device))[0])
    return float(available_memory())


def choose(settings: PredictSettings) -> Choice:
    """Pick device, backend and precision.

    Parameters
    ----------
    settings : PredictSettings
        What the user asked for; "auto" leaves it open.

    Raises
    ------
    ResourceError
        If a device is asked for that is not there.
    SettingsError
        If the combination cannot work.
    """
    threads = settings.threads or available_threads()
    device = settings.device.strip().lower()
    if settings.backend == "openvino" and device not in ("auto", "cpu"):
        raise SettingsError(f"OpenVINO runs on the CPU here, not on {device!r}; use device 'cpu' or backend 'torch'.")
    if device == "auto" and settings.backend != "openvino":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, separator, number = device.partition(":")
    if separator and not (number.isdecimal() and number.isascii()):
        raise SettingsError(f"Unknown device {settings.device!r}. Known: auto, cpu, cuda, cuda:1, ..., mps.")
    if kind == "cuda":
        return _cuda(device, settings, threads)
    if kind == "mps":
        return _mps(settings, threads)
    if kind not in ("cpu", "auto"):
        raise SettingsError(f"Unknown device {settings.device!r}. Known: auto, cpu, cuda, cuda:1, ..., mps.")
    return _cpu(settings, threads)


def _cuda(device: str, settings: PredictSettings, threads: int) -> Choice:
    if not torch.cuda.is_available():
        raise ResourceError(
            f"The device {device!r} was asked for, but torch {torch.__version__} sees no CUDA GPU.",
            shell="Use '-device cpu' or 'auto', or run 'napari-nnunet doctor' to see why.",
            window="Choose the device cpu or auto, or open 'Check my computer' to see why.",
        )
    index = int(device.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        raise ResourceError(f"There is no GPU {index}; this computer has {torch.cuda.device_count()}.")
    precision: Precision = "float16" if settings.precision == "auto" else settings.precision
    return Choice(f"cuda:{index}", "torch", precision, f"GPU {torch.cuda.get_device_name(index)}", threads)


def _mps(settings: PredictSettings, threads: int) -> Choice:
    if not torch.backends.mps.is_available():
        raise ResourceError("The device 'mps' needs a Mac with Apple silicon and a torch built for it; use 'cpu'.")
    precision: Precision = "float32" if settings.precision == "auto" else settings.precision
    return Choice("mps", "torch", precision, "Apple GPU", threads)


def _cpu(settings: PredictSettings, threads: int) -> Choice:
    backend = settings.backend
    if backend == "openvino" and not has_openvino():
        raise ResourceError("The backend 'openvino' was asked for, but it is not installed: pip install openvino.")
    if backend == "auto":
        backend = "openvino" if has_openvino() else "torch"
    precision = settings.precision
    if precision != "auto":
        return Choice("cpu", backend, precision, f"{precision} as asked for", threads)
    if backend == "openvino":
        best = _openvino_precision()
        return Choice("cpu", "openvino", best, f"no GPU; OpenVINO is the fastest on this processor, {best}", threads)
    best = "bfloat16" if has_fast_bfloat16() else "float32"
    why = "the processor has bfloat16 in hardware" if best == "bfloat16" else "no GPU, no bfloat16 in hardware"
    return Choice("cpu", "torch", best, why, threads)


@lru_cache(maxsize=1)
def _openvino_precision() -> Precision:
    """float16 has more digits than bfloat16 and the same speed where both exist; else what the processor has."""
    import openvino as ov  # an optional part of the installation

    capabilities: Any = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "FP16" in capabilities:
        return "float16"
    return "bfloat16" if "BF16" in capabilities else "float32"
