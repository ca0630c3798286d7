"""Commands, and what they answered, for tests with files as people have them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk

PLAIN = ("--precision", "float32", "--disable_tta", "--disable_progress_bar")
SHORT = ("--epochs", "1", "--iterations", "2", "--validation_iterations", "1", "--workers", "0", "-device", "cpu")


@dataclass(frozen=True)
class Said:
    """What a command answered.

    Parameters
    ----------
    status : int
        Its exit status.
    text : str
        All that it printed.
    """

    status: int
    text: str

    def has(self, *words: str) -> bool:
        """Whether all words were said, and no traceback was."""
        return "Traceback" not in self.text and all(word in self.text for word in words)


def model_in(folder: Path) -> Path:
    """Return the folder with plans.json somewhere below one."""
    (found,) = folder.glob("Dataset*/*__*__*")
    return found


def voxels(path: Path) -> np.ndarray:
    """Return the voxels of a file as they are stored; nibabel reads NIfTI, for ITK refuses sheared axes."""
    if path.name.endswith(".nii.gz"):
        return np.asarray(nibabel.load(path).dataobj).T
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def same_voxels(one: Path, other: Path) -> bool:
    """Whether two files hold the same."""
    return np.array_equal(voxels(one), voxels(other))
