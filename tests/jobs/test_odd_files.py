"""What is odd about files is said by every verb that counts their voxels."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from choices import DATASET_JSON
from napari_nnunet.cli.main import main
from napari_nnunet.formats.results.postprocessing import write_cleaning
from napari_nnunet.schema.cleaning import Cleaning

NAN = "27 of its voxels are NaN or infinite and were read as 0"


def odd_folder(folder: Path, *names: str) -> Path:
    """Write files with two objects each, the first of which is NaN."""
    folder.mkdir()
    values = np.zeros((6, 10, 9), np.float32)
    values[1:4, 1:4, 1:4], values[1:4, 6:9, 1:4] = np.nan, 2
    for name in names:
        sitk.WriteImage(sitk.GetImageFromArray(values), str(folder / f"{name}.nii.gz"))
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return folder


@pytest.mark.parametrize("verb", ["measure", "track", "evaluate_objects", "apply", "determine", "curves", "simple"])
def test_voxels_without_a_number_are_counted(tmp_path, capsys, verb):
    if verb == "track":
        pytest.importorskip("laptrack", reason="laptrack is not installed: it comes with napari-nnunet[tracking]")
    folder, out = str(odd_folder(tmp_path / "o", "p_t0", "p_t1")), str(tmp_path / "out")
    pairs = ["--chill", folder, folder]
    (tmp_path / "rules").mkdir()
    write_cleaning(tmp_path / "rules" / "p.pkl", Cleaning.of([1]))
    words = {
        "measure": ["measure", "-i", folder, "-o", f"{out}.csv"],
        "track": ["track", "-i", folder, "-o", out, "--distance", "8"],
        "evaluate_objects": ["evaluate_objects", folder, folder],
        "apply": ["apply_postprocessing", "-i", folder, "-o", out, "-pp_pkl_file", str(tmp_path / "rules" / "p.pkl")],
        "determine": ["determine_postprocessing", "-i", folder, "-ref", folder, "--remove_postprocessed"],
        "curves": ["curves", "-i", folder, "-o", out],
        "simple": ["evaluate_simple", *pairs, "-l", "2"],
    }[verb]
    assert main(words) == 0, capsys.readouterr().err
    assert f"p_t0, p_t1: {NAN}." in capsys.readouterr().err


def test_an_image_without_numbers_is_told_from_its_objects(tmp_path, capsys):
    objects = odd_folder(tmp_path / "o", "a")
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((6, 10, 9), np.uint8)), str(objects / "a.nii.gz"))
    images = odd_folder(tmp_path / "i", "a")
    assert main(["measure", "-i", str(objects), "--images", str(images), "-o", str(tmp_path / "t.csv")]) == 0
    assert f"a: of its image: {NAN}." in capsys.readouterr().err


def test_a_voxel_size_that_was_made_up_is_said_beside_a_volume(tmp_path, capsys):
    folder = tmp_path / "o"
    folder.mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((6, 10, 9), np.uint8)), str(folder / "a.nii"))
    content = bytearray((folder / "a.nii").read_bytes())
    struct.pack_into("<f", content, 76 + 4, 0.0)  # pixdim[1]
    struct.pack_into("<2h", content, 252, 1, 0)  # no sform
    (folder / "a.nii").write_bytes(content)
    (folder / "a.nii.gz").write_bytes(gzip.compress(bytes(content)))
    (folder / "a.nii").unlink()
    assert main(["measure", "-i", str(folder), "-o", str(tmp_path / "t.csv")]) == 0
    assert "voxels of size 0 along x; 1 mm was used instead" in capsys.readouterr().err
