"""What this computer can do, and which way of computing a window is the fastest that is safe."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from threading import Lock
from typing import Any, Literal

import torch

from napari_nnunet.engine.machine import available_memory, available_threads
from napari_nnunet.errors import ResourceError, SettingsError
from napari_nnunet.schema.requests.prediction import PredictSettings

Precision = Literal["float32", "bfloat16", "float16", "int8"]
Backend = Literal["torch", "openvino"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "bfloat16")  # the most digits first
_SLACK = 1.15  # what a more exact arithmetic may take of the fastest one's time, which is not known better than that
_GAIN = 4 / 3  # how much faster bfloat16 must be than float32 to train in it
#: How far the numbers that the beginning of a network gives may be off, by norm. bfloat16 keeps 8 binary digits: with
#: random weights its outputs are off by 0.01 and its gradients by 0.02 to 0.04 there; what is beyond is a fault.
_LARGEST_DEVIATION = 0.1
_ONE_CORE = Lock()


@dataclass(frozen=True)
class Timed:
    """How one arithmetic did on the beginning of a network; see :mod:`napari_nnunet.engine.planning.probe`.

    Parameters
    ----------
    backend, precision
        What was tried.
    seconds : float or None
        Of one run; None if the process that tried it did not survive.
    deviation : float
        Of its numbers from float32, relative, by norm.
    """

    backend: Backend
    precision: Precision
    seconds: float | None
    deviation: float = 0.0

    @property
    def usable(self) -> float | None:
        """The seconds of a run that can be relied on; None otherwise."""
        return self.seconds if self.deviation <= _LARGEST_DEVIATION else None

    def __str__(self) -> str:
        how = "failed" if self.seconds is None else f"{1e3 * self.seconds:.1f} ms"
        off = f", off by {self.deviation:.2g}" if self.usable is None and self.seconds is not None else ""
        return f"{self.backend} {self.precision} {how}{off}"


@dataclass(frozen=True)
class BackendChoice:
    """Where and how windows are computed.

    Parameters
    ----------
    device : str
        "cpu", "cuda:0", "mps".
    backend : {"torch", "openvino"}
        What runs the network.
    precision : {"float32", "bfloat16", "float16", "int8"}
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


def openvino_core() -> Any:
    """Return the one core of OpenVINO that this process has, an ``openvino.Core``.

    A core's CPU plugin gives the thread that makes it a stack for signals, and takes that memory back when the core
    goes, from whatever thread and in whatever order cores go: after two of them the next signal that Python handles, a
    Ctrl-C, finds no memory and ends the process without a word. What stays takes nothing back.
    """
    with _ONE_CORE:
        return _core()


@cache
def _core() -> Any:
    from napari_nnunet.engine.openvino_runtime import ov  # an optional part of the installation

    return ov.Core()


def gpu_count() -> int:
    """Return how many CUDA GPUs torch sees."""
    return int(torch.cuda.device_count())


def free_memory(choice: BackendChoice) -> float:
    """Return the free bytes where a choice computes."""
    if choice.kind == "cuda":
        return float(torch.cuda.mem_get_info(torch.device(choice.device))[0])
    return float(available_memory())


def is_measured(settings: PredictSettings) -> bool:
    """Whether measurements decide: on a CPU, where no precision is asked for."""
    return settings.precision == "auto" and _kind(settings) == "cpu"


def backend_candidates() -> list[tuple[Backend, Precision]]:
    """Return what might be the fastest on this CPU; what it lists is no promise, but what it does not is emulated."""
    found: list[tuple[Backend, Precision]] = [("torch", "float32")]
    if has_fast_bfloat16():
        found.append(("torch", "bfloat16"))
    if has_openvino():
        listed = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        known: dict[str, Precision] = {"FP32": "float32", "FP16": "float16", "BF16": "bfloat16"}
        found += [("openvino", precision) for name, precision in known.items() if name in listed]
    return found


def choose(settings: PredictSettings, timed: Sequence[Timed] = ()) -> BackendChoice:
    """Pick device, backend and precision.

    Parameters
    ----------
    settings : PredictSettings
        What the user asked for; "auto" leaves it open.
    timed : sequence of Timed
        What was measured on this CPU with the beginning of the network; without it, float32.

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
    kind = _kind(settings)
    if settings.precision == "int8" and (kind != "cpu" or settings.backend == "torch" or not has_openvino()):
        raise SettingsError(
            "8-bit arithmetic (int8) runs on the CPU with OpenVINO only. Choose those, or another precision."
        )
    _, separator, number = device.partition(":")
    if separator and not (number.isdecimal() and number.isascii()):
        raise SettingsError(f"Unknown device {settings.device!r}. Known: auto, cpu, cuda, cuda:1, ..., mps.")
    if kind == "cuda":
        return _cuda("cuda" if device == "auto" else device, settings, threads)
    if kind == "mps":
        return _mps(settings, threads)
    if kind != "cpu":
        raise SettingsError(f"Unknown device {settings.device!r}. Known: auto, cpu, cuda, cuda:1, ..., mps.")
    return _cpu(settings, threads, timed)


def _kind(settings: PredictSettings) -> str:
    """Return the family of the device that is asked for, or of the best one there is."""
    device = settings.device.strip().lower()
    if device != "auto":
        return device.partition(":")[0]
    if settings.backend == "openvino" or settings.precision == "int8":
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _cuda(device: str, settings: PredictSettings, threads: int) -> BackendChoice:
    if not torch.cuda.is_available():
        raise ResourceError(
            f"The device {device!r} was asked for, but torch {torch.__version__} sees no CUDA GPU.",
            shell="Use '-device cpu' or 'auto', or run 'napari-nnunet doctor' to see why.",
            window="Choose the device cpu or auto, or open 'Check my computer' to see why.",
        )
    index = int(device.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ResourceError(f"There is no GPU {index}; this computer has {count}, numbered from 0.")
    precision: Precision = "float16" if settings.precision == "auto" else settings.precision
    return BackendChoice(f"cuda:{index}", "torch", precision, f"GPU {torch.cuda.get_device_name(index)}", threads)


def _mps(settings: PredictSettings, threads: int) -> BackendChoice:
    if not torch.backends.mps.is_available():
        raise ResourceError("The device 'mps' needs a Mac with Apple silicon and a torch built for it; use 'cpu'.")
    precision: Precision = "float32" if settings.precision == "auto" else settings.precision
    return BackendChoice("mps", "torch", precision, "Apple GPU", threads)


def _cpu(settings: PredictSettings, threads: int, timed: Sequence[Timed]) -> BackendChoice:
    backend = settings.backend
    if backend == "openvino" and not has_openvino():
        raise ResourceError("The backend 'openvino' was asked for, but it is not installed: pip install openvino.")
    allowed = [entry for entry in timed if backend in ("auto", entry.backend)]
    if settings.precision == "auto" and (best := preferred(allowed)) is not None:
        return BackendChoice("cpu", best.backend, best.precision, _compared(best, allowed), threads)
    if backend == "auto":
        backend = "openvino" if has_openvino() else "torch"
    if settings.precision == "auto":
        return BackendChoice("cpu", backend, "float32", "not measured for this network", threads)
    return BackendChoice("cpu", backend, settings.precision, f"{settings.precision} as asked for", threads)


def preferred(timed: Sequence[Timed]) -> Timed | None:
    """Return the most exact arithmetic that takes hardly longer than the fastest one; None if none is usable."""
    usable = [(entry.usable, entry) for entry in timed if entry.usable is not None]
    fastest = min((seconds for seconds, _ in usable), default=0.0)
    close = [pair for pair in usable if pair[0] <= _SLACK * fastest]
    ranked = sorted(close, key=lambda pair: (PRECISIONS.index(pair[1].precision), pair[0]))
    return ranked[0][1] if ranked else None


def training_precision(timed: Sequence[Timed]) -> tuple[Precision, str]:
    """Return what trains on this CPU, and why: bfloat16 where it is faster by a third, else float32."""
    seconds = {entry.precision: entry.usable for entry in timed}
    plain, short = seconds.get("float32"), seconds.get("bfloat16")
    if plain is None or short is None:
        return "float32", "as nnU-Net trains"
    chosen: Precision = "bfloat16" if plain >= _GAIN * short else "float32"
    return chosen, f"bfloat16 was {plain / short:.1f} times as fast as float32 when it was measured here"


def _compared(best: Timed, timed: Sequence[Timed]) -> str:
    """Say how the chosen arithmetic compares with float32."""
    plain = min((e.usable for e in timed if e.precision == "float32" and e.usable is not None), default=None)
    if best.precision == "float32" or plain is None or best.seconds is None:
        return "the fastest when it was measured here"
    return f"{plain / best.seconds:.1f} times as fast as float32 when it was measured here"
