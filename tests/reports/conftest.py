"""Input as people have it: small files of seventeen kinds, made by the script that lies beside the real data."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from as_people_have_them import Said
from napari_nnunet.cli.main import main


@pytest.fixture(scope="session")
def all_cases(real_data, tmp_path_factory) -> Path:
    """The files of all kinds, made once."""
    folder = tmp_path_factory.mktemp("reports")
    script = real_data / "data" / "reports" / "make_cases.py"
    made = subprocess.run([sys.executable, str(script), "-o", str(folder)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture
def kind(all_cases, tmp_path):
    """Return a copy of the files of a kind: ``kind("zips_by_hand")``."""

    def copied(name: str) -> Path:
        return Path(shutil.copytree(all_cases / name, tmp_path / name))

    return copied


@pytest.fixture
def say(capfd):
    """Run a command in this process and return its status and words."""

    def run(*words) -> Said:
        capfd.readouterr()
        status = main([str(word) for word in words])
        return Said(status, "".join(capfd.readouterr()))

    return run
