"""Fingerprints against those that nnU-Net took (needs NAPARI_NNUNET_TEST_DATA)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from napari_nnunet.events import drain
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.planning.plan import extract_fingerprint, plan_experiment
from napari_nnunet.schema.requests.planning import FingerprintRequest, PlanRequest

pytestmark = pytest.mark.parity

DATASETS = ["ct_oblique", "mr_separate_z", "masked_zscore", "rgb_png", "rgb_png_01", "grey_tif_2d", "tif_3d_sidecar",
            "mixed_nrrd", "ignore_label", "regions", "thick_last_axis", "reorient_nibabel", "listed_files",
            "lowres_and_own_configurations", "mha_2d"]  # fmt: skip
STATISTICS = ("mean", "std", "median", "percentile_00_5", "percentile_99_5")


def _workspace(real_data: Path, name: str, tmp_path: Path) -> tuple[Workspace, str, dict, dict]:
    base = real_data / "parity" / "preprocess" / name
    shutil.copytree(base / "raw", tmp_path / "nnUNet_raw")
    (dataset,) = (tmp_path / "nnUNet_raw").iterdir()
    recorded = json.loads((base / "fingerprint.json").read_text(encoding="utf-8"))
    return (
        Workspace.at(tmp_path),
        dataset.name,
        recorded,
        json.loads((base / "nnUNetPlans.json").read_text(encoding="utf-8")),
    )


@pytest.mark.parametrize("name", DATASETS)
def test_a_fingerprint_holds_the_recorded_figures(real_data: Path, name: str, tmp_path: Path):
    workspace, dataset, recorded, plans = _workspace(real_data, name, tmp_path)
    found = drain(extract_fingerprint(workspace, FingerprintRequest(dataset=dataset))).to_json()
    assert json.loads(json.dumps(found["shapes_after_crop"])) == recorded["shapes_after_crop"]
    for a, b in zip(found["spacings"], recorded["spacings"], strict=True):
        assert list(a) == pytest.approx(b, rel=1e-7)
    assert found["median_relative_size_after_cropping"] == pytest.approx(
        recorded["median_relative_size_after_cropping"]
    )
    for channel, expected in recorded["foreground_intensity_properties_per_channel"].items():
        given = found["foreground_intensity_properties_per_channel"][channel]
        spread = expected["percentile_99_5"] - expected["percentile_00_5"]
        for statistic in STATISTICS:
            assert given[statistic] == pytest.approx(expected[statistic], rel=2e-3, abs=2e-3 * spread), statistic
        assert given["min"] <= expected["min"] + 1e-5
        assert given["max"] >= expected["max"] - 1e-5
    path = drain(plan_experiment(workspace, PlanRequest(dataset=dataset)))
    mine = json.loads(path.read_text(encoding="utf-8"))
    for configuration in ("2d", "3d_fullres"):
        if configuration in mine["configurations"]:
            a, b = mine["configurations"][configuration], plans["configurations"][configuration]
            for key in ("patch_size", "batch_size", "architecture", "normalization_schemes", "use_mask_for_norm"):
                assert a[key] == b[key], (configuration, key)
    assert mine["image_reader_writer"] == plans["image_reader_writer"]
    assert mine["transpose_forward"] == plans["transpose_forward"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rgb_png", "ignore_label"])
def test_with_nnunets_draws_the_statistics_are_identical(real_data: Path, name: str, tmp_path: Path):
    workspace, dataset, recorded, _ = _workspace(real_data, name, tmp_path)
    found = drain(
        extract_fingerprint(workspace, FingerprintRequest(dataset=dataset, sampled=True, workers=1))
    ).to_json()
    for channel, expected in recorded["foreground_intensity_properties_per_channel"].items():
        given = found["foreground_intensity_properties_per_channel"][channel]
        assert given == pytest.approx(expected, rel=1e-6), channel
