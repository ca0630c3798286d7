"""What one may not read is named as that: no folder is passed over without a word, and nothing is called missing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from helpers import write_nifti
from napari_nnunet.formats.preprocessed.cases import case_names

#: As root one may read everything; without these two of its powers it is a user like others.
WEAKER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
PROGRAM = """
from pathlib import Path
from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.dataset.case_files import find_cases
from napari_nnunet.formats.images.files import read_header, read_volume
from napari_nnunet.formats.preprocessed.cases import case_names
try:
    print({call})
except (NnunetError, OSError) as error:
    print(type(error).__name__, error)
"""


def said(call: str) -> str:
    """Return what a process says that may not read everything."""
    words = [*(WEAKER if os.geteuid() == 0 else []), sys.executable, "-c", textwrap.dedent(PROGRAM.format(call=call))]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("nothing here takes root's powers away")
    if done.returncode:
        pytest.skip(f"root's powers cannot be taken away: {done.stderr[-200:]}")
    return done.stdout


@pytest.fixture
def folder(tmp_path):
    if sys.platform == "win32":
        pytest.skip("Windows has other permissions")
    for place in ("in", "in/shut"):
        (tmp_path / place).mkdir()
        write_nifti(tmp_path / place / "a_0000.nii.gz", np.ones((4, 5, 6), np.float32))
    yield tmp_path / "in"
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o755)


def cases_in(source: Path, *, subfolders: bool = True) -> str:
    return said(
        f"find_cases(Path({str(source)!r}), ending='.nii.gz', channels=1, subfolders={subfolders}).left_out_text"
    )


def test_a_folder_that_is_shut_is_named_where_subfolders_are_looked_into(folder):
    (folder / "shut").chmod(0)
    assert "shut/ (it may not be read by you)" in cases_in(folder)
    assert "shut/ (a subfolder)" in cases_in(folder, subfolders=False)


def test_a_file_in_a_folder_that_is_shut_is_not_called_missing(folder):
    (folder / "shut").chmod(0)
    text = cases_in(folder / "shut" / "a_0000.nii.gz")
    assert f"cannot be looked for: {folder / 'shut'} may not be read by you. Change its permissions" in text


def test_a_file_that_is_missing_from_a_folder_whose_names_are_secret_is_called_missing(folder):
    (folder / "shut").chmod(0o111)
    assert f"The input {folder / 'shut' / 'b.nii.gz'} does not exist." in cases_in(folder / "shut" / "b.nii.gz")


def test_a_folder_that_is_shut_further_up_is_named(folder):
    (folder / "shut" / "deep").mkdir()
    (folder / "shut").chmod(0)
    assert f"{folder / 'shut'} may not be read by you" in cases_in(folder / "shut" / "deep" / "a_0000.nii.gz")


def test_where_shut_folders_hold_all_images_they_are_named(folder):
    (folder / "a_0000.nii.gz").unlink()
    (folder / "shut").chmod(0)
    assert "Left out: shut/ (it may not be read by you). Change the permissions." in cases_in(folder)


def test_an_image_that_may_not_be_read_is_not_called_truncated(folder):
    path = folder / "a_0000.nii.gz"
    path.chmod(0)
    for call in ("read_volume([Path({!r})])", "read_header(Path({!r}))"):
        assert (
            said(call.format(str(path))).strip() == f"ImageError {path} may not be read by you. Change its permissions."
        )


def test_preprocessed_cases_that_may_not_be_read_are_not_called_missing(folder):
    assert case_names(folder) == []
    folder.chmod(0)
    assert "PermissionError" in said(f"case_names(Path({str(folder)!r}))")
