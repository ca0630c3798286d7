"""What recipes do when somebody pastes them: into a fresh shell, a fresh Python, or here."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

from napari_nnunet.cli import main


def _run(words, cwd):
    source = str(Path(__file__).parents[3] / "src")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    subprocess.run([sys.executable, *words], check=True, cwd=cwd, env=environment, capture_output=True)


def by_command(text, work, *, fresh):
    """Carry out the lines of a command; returns the folder in which the last one leaves its results."""
    lines = [shlex.split(line) for line in text.splitlines() if not line.startswith("#")]
    for line in lines:
        assert line[0] == "napari-nnunet"
        if fresh:
            _run(["-m", "napari_nnunet", *line[1:]], work)
        else:
            assert main(line[1:]) == 0
    return Path(lines[-1][lines[-1].index("-o") + 1])


def by_python(text, files, work, *, fresh):
    """Carry out Python with the names of a case's files put in; returns the labels."""
    for file in files:
        assert f'"{file.name}"' in text, text
        text = text.replace(f'"{file.name}"', repr(str(file)))
    if fresh:
        _run(["-c", text + f"import numpy; numpy.save({str(work / 'labels.npy')!r}, labels)"], work)
        return np.load(work / "labels.npy")
    names: dict = {}
    exec(text, names)
    return names["labels"]
