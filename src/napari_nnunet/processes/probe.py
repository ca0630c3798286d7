"""Measure arithmetic in a process of its own, which may end by an instruction that the processor does not have."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from napari_nnunet.engine.network.device import Timed
from napari_nnunet.engine.planning.probe import Purpose, beginning
from napari_nnunet.errors import ResourceError
from napari_nnunet.schema.architecture import Architecture

COMMAND = (sys.executable, "-m", "napari_nnunet.engine.planning.probe")
_PATIENCE = 60.0  # seconds; it takes two or three


def time_apart(
    purpose: Purpose, architecture: Architecture, *, command: tuple[str, ...] = COMMAND, patience: float = _PATIENCE
) -> list[Timed]:
    """Try what might be the fastest on this CPU; what its process does not survive comes back without seconds.

    Parameters
    ----------
    purpose : {"prediction", "training"}
        What is timed.
    architecture : Architecture
        Of the network.
    command : tuple of str
        What does it.
    patience : float
        Seconds after which a candidate counts as failed.

    Raises
    ------
    ResourceError
        If nothing could be tried.
    """
    fatal: list[list[str]] = []
    while True:
        request = {
            "purpose": purpose,
            "architecture": beginning(architecture).model_dump(mode="json"),
            "without": fatal,
        }
        lines, fate = _answers([*command, json.dumps(request)], patience)
        found = next((line["timed"] for line in lines if "timed" in line), None)
        if found is not None:
            return [Timed(**entry) for entry in found] + [Timed(b, p, None) for b, p in fatal]  # type: ignore[arg-type]
        last = lines[-1]["trying"] if lines else None
        if last is None or last in fatal:
            raise ResourceError(f"The speed of this computer could not be measured: {fate}")
        fatal.append(last)


def _answers(command: list[str], patience: float) -> tuple[list[dict[str, Any]], str]:
    """Return what a process said, line by line, and how it ended."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
        output, fate = done.stdout, (done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}."])
    except subprocess.TimeoutExpired as late:
        said: Any = late.stdout or b""  # bytes, whatever was asked for
        output = said.decode() if isinstance(said, bytes) else said
        fate = [f"it took longer than {patience:.0f} s."]
    except OSError as error:
        output, fate = "", [str(error)]
    lines = []
    for line in output.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue  # what a library prints
    return [line for line in lines if isinstance(line, dict) and line.keys() & {"trying", "timed"}], fate[-1]
