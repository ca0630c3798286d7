"""What this computer has, and what to do where something is missing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from napari_nnunet.engine import machine
from napari_nnunet.engine.network import device
from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.workspace import Workspace, default_folder
from napari_nnunet.jobs import arithmetic
from napari_nnunet.schema.names import typed
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.schema.requests.training import TrainSettings

_PACKAGES = ("napari-nnunet", "napari", "npe2", "magicgui", "torch", "openvino", "numpy", "scipy", "SimpleITK")
_BAD_TORCH = {"2.9": "its 3-D convolutions on CUDA are many times slower than in other releases"}


@dataclass(frozen=True)
class ComputerReport:
    """Facts in groups, and advice.

    Parameters
    ----------
    groups : dict
        Title to lines of (name, value).
    advice : tuple of str
        What to do, most urgent first; commands stand on lines of their own.
    """

    groups: dict[str, list[tuple[str, str]]]
    advice: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        lines = []
        for title, entries in self.groups.items():
            lines.append(title)
            lines += [f"  {name:<16} {value}" for name, value in entries]
        if self.advice:
            lines.append("What to do")
            lines += [f"  {line}" for text in self.advice for line in text.splitlines()]
        else:
            lines.append("Everything is in order.")
        return "\n".join(lines)


def examine(*, again: bool = False) -> ComputerReport:
    """Look at Python, torch, GPU, processor, memory and folders.

    Takes a second or two, and some more when arithmetic is measured: the first time, or ``again``.
    """
    groups = {
        "Software": [("Python", platform.python_version()), ("System", platform.platform()), *_versions()],
        "Processor": _processor(),
        "Arithmetic": _arithmetic(again=again),
        "GPU": _gpu(),
        "Memory": _memory(),
        "Folders": _folders(),
    }
    return ComputerReport(groups, tuple(_advice()))


def _versions() -> list[tuple[str, str]]:
    found = []
    for name in _PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            found.append((name, "not installed"))
    return found


def _processor() -> list[tuple[str, str]]:
    return [
        ("cores", f"{machine.available_threads()} usable of {psutil.cpu_count()}"),
        ("features", ", ".join(sorted(device.cpu_features())) or "unknown"),
    ]


def _arithmetic(*, again: bool) -> list[tuple[str, str]]:
    """Say what networks run in here, with the figures; those of nnU-Net's usual kinds are measured if need be."""
    entries: list[tuple[str, str]] = []
    for ndim in (3, 2):
        network = arithmetic.usual_network(ndim)
        try:
            if again:
                arithmetic.measure_anew(network)
            choice = arithmetic.prediction_choice(PredictSettings(), network)
            entries.append((f"{ndim}-D prediction", f"{choice} ({choice.why})"))
            settings = TrainSettings()
            choice = arithmetic.training_choice(settings, network, arithmetic.training_device(settings, "auto"))
            entries.append((f"{ndim}-D training", f"{choice} ({choice.why})"))
        except NnunetError as error:
            entries.append((f"{ndim}-D", error.message))
    known = arithmetic.known()
    for name, timed in known.timed.items():
        entries.append(("measured", f"{name}: {'; '.join(str(entry) for entry in timed)}"))
    if known.others:
        entries.append(("left aside", f"{known.others} measured on another computer or with other versions"))
    if known.damaged:
        entries.append(("damaged", f"{known.damaged} that cannot be read; measured again when they are needed"))
    return entries


def _gpu() -> list[tuple[str, str]]:
    entries = [("torch built for", f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only")]
    driver = nvidia_driver()
    entries.append(("NVIDIA driver", driver or "none found"))
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(i)
            entries.append(
                (f"cuda:{i}", f"{torch.cuda.get_device_name(i)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free")
            )
    if torch.backends.mps.is_available():
        entries.append(("mps", "Apple GPU"))
    return entries


def nvidia_driver() -> str | None:
    """Return the names of NVIDIA GPUs and their driver as ``nvidia-smi`` reports them, None without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return "; ".join(line.strip() for line in done.stdout.splitlines() if line.strip()) or None


def _memory() -> list[tuple[str, str]]:
    memory = psutil.virtual_memory()
    return [("main memory", f"{machine.available_memory() / 1e9:.1f} of {memory.total / 1e9:.1f} GB free")]


def _folders() -> list[tuple[str, str]]:
    space = Workspace.resolve()
    entries = [("raw data", str(space.raw)), ("preprocessed", str(space.preprocessed)), ("results", str(space.results))]
    parent = next((p for p in (space.results, *space.results.parents) if p.is_dir()), Path.home())
    entries.append(("free disk", f"{shutil.disk_usage(parent).free / 1e9:.1f} GB"))
    return entries


def _advice() -> list[str]:
    advice = []
    if nvidia_driver() and not torch.version.cuda:
        advice.append(
            "An NVIDIA GPU was found, but torch was installed for the CPU only. Install the CUDA build:\n"
            f"{typed(sys.executable)} -m pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128"
        )
    elif nvidia_driver() and not torch.cuda.is_available():
        advice.append("An NVIDIA GPU was found, but torch cannot use it; its driver may be too old. Update the driver.")
    short = ".".join(str(torch.__version__).split(".")[:2])
    if short in _BAD_TORCH:
        advice.append(
            f"torch {torch.__version__}: {_BAD_TORCH[short]}.\n{typed(sys.executable)} -m pip install -U 'torch!=2.9.*'"
        )
    if not device.has_openvino() and not torch.cuda.is_available():
        advice.append(f"OpenVINO makes prediction on the CPU faster:\n{typed(sys.executable)} -m pip install openvino")
    folder = next(p for p in (default_folder(), *default_folder().parents) if p.exists())
    if not os.access(folder, os.W_OK):
        advice.append(f"{folder} cannot be written to; set --workspace or nnU-Net's variables to another folder.")
    if machine.available_memory() < 4e9:
        advice.append("Less than 4 GB of memory is free: large volumes will not fit. Close other programs.")
    return advice
