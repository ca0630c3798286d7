"""Start jobs in processes of their own: detached from a window, or several for one training."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def relaunch_distributed(processes: int, arguments: Sequence[str]) -> int:
    """Run the command line again in several processes that share each batch; returns the exit status.

    Parameters
    ----------
    processes : int
        How many; on GPUs one per GPU.
    arguments : sequence of str
        Of the command line, beginning with the verb.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return subprocess.run([*command, "-m", "napari_nnunet", *arguments], check=False).returncode


def start_detached(arguments: Sequence[str], log: Path) -> int:
    """Run the command line in a process that outlives this one; returns its number.

    Parameters
    ----------
    arguments : sequence of str
        Of the command line, beginning with the verb.
    log : Path
        Gets what it prints.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, object] = {"start_new_session": True}
    if os.name == "nt":
        options = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined]
    with log.open("ab") as output:
        process = subprocess.Popen(  # type: ignore[call-overload]
            [sys.executable, "-m", "napari_nnunet", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            close_fds=True,
            **options,
        )
    return int(process.pid)
