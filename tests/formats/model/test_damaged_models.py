"""Zips and checkpoints that are damaged anywhere are refused in words."""

from __future__ import annotations

import zipfile
from contextlib import suppress

import pytest
import torch

import nasty
from napari_nnunet.errors import ModelError
from napari_nnunet.formats.model import bundle
from napari_nnunet.formats.model.checkpoint import read_checkpoint


def test_a_zip_damaged_anywhere_is_unpacked_or_refused(tmp_path):
    root = "Dataset001_X/nnUNetTrainer__nnUNetPlans__2d"
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (f"{root}/plans.json", f"{root}/dataset.json", f"{root}/fold_0/checkpoint_final.pth"):
            archive.writestr(name, '{"dataset_name": "Dataset001_X"}' * 5)
    assert bundle.is_model_zip(tmp_path / "a.zip")
    path = tmp_path / "b.zip"
    for i, data in enumerate(nasty.damaged((tmp_path / "a.zip").read_bytes())):
        path.write_bytes(data)
        bundle.is_model_zip(path)
        with suppress(ModelError):
            list(bundle.extract(bundle.inspect(path), tmp_path / str(i)))


def test_a_checkpoint_cut_off_anywhere_is_refused(tmp_path):
    torch.save({"network_weights": {"w": torch.ones(9)}}, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    for end in range(0, len(whole) - 30, len(whole) // 20):
        (tmp_path / "b.pth").write_bytes(whole[:end])
        with pytest.raises(ModelError, match=r"b\.pth"):
            read_checkpoint(tmp_path / "b.pth")


@pytest.mark.parametrize("axes", [True, "x", [[]], [None], [0.5], [3], [-1], [float("inf")], {"a": 0}])
def test_axes_of_mirroring_that_are_none_are_refused(tmp_path, axes):
    torch.save({"network_weights": {"w": torch.ones(1)}, "inference_allowed_mirroring_axes": axes}, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="axes are 0, 1 and 2"):
        read_checkpoint(tmp_path / "a.pth")
