"""Preprocessed cases against those that nnU-Net wrote (needs NAPARI_NNUNET_TEST_DATA)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_nnunet.engine.image.locations import class_locations
from napari_nnunet.engine.image.prepare import crop_to_nonzero, plan_grid
from napari_nnunet.engine.image.resample import resample_image
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.formats.preprocessed.cases import case_names, open_case
from napari_nnunet.formats.preprocessed.chunks import chunks_and_blocks
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.planning.preprocess import preprocess
from napari_nnunet.schema.geometry import lift
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.planning import PreprocessRequest

pytestmark = pytest.mark.parity

DATASETS = ["ct_oblique", "mr_separate_z", "masked_zscore", "rgb_png", "rgb_png_01", "grey_tif_2d", "tif_3d_sidecar",
            "mixed_nrrd", "ignore_label", "regions", "thick_last_axis", "reorient_nibabel", "listed_files",
            "lowres_and_own_configurations", "torch_resampling", "mha_2d"]  # fmt: skip


@pytest.mark.parametrize("name", DATASETS)
def test_stored_cases_hold_what_nnunet_stored(real_data: Path, name: str, tmp_path: Path):
    base = real_data / "parity" / "preprocess" / name
    shutil.copytree(base / "raw", tmp_path / "nnUNet_raw")
    (dataset,) = (tmp_path / "nnUNet_raw").iterdir()
    folder = tmp_path / "nnUNet_preprocessed" / dataset.name
    folder.mkdir(parents=True)
    shutil.copy(base / "nnUNetPlans.json", folder)
    configurations = sorted(path.name for path in (base / "expected").iterdir())
    plans = json.loads((base / "nnUNetPlans.json").read_text(encoding="utf-8"))
    result = drain(
        preprocess(Workspace.at(tmp_path), PreprocessRequest(dataset=dataset.name, configurations=configurations))
    )
    assert not result.failed
    ending = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))["file_ending"]
    for configuration in configurations:
        expected = base / "expected" / configuration
        own = folder / plans["configurations"][configuration]["data_identifier"]
        recorded = {path.stem for path in expected.glob("*.npz")}
        assert recorded
        assert recorded <= set(case_names(own))
        assert {path.suffix for path in own.iterdir()} == {".b2nd", ".pkl"}
        raw = {case.name: case for case in open_dataset(dataset).cases}
        rules = Plans.parse(plans)
        for case in recorded:
            stored = open_case(own, case)
            _compare(stored, np.load(expected / f"{case}.npz"), expected / f"{case}.json")
            seg = np.load(expected / f"{case}.npz")["seg"]
            _assert_equal_but_for_ties(stored.labels[:], seg, raw[case], rules, rules.configuration(configuration))
            assert (folder / "gt_segmentations" / f"{case}{ending}").is_file()


def _assert_equal_but_for_ties(labels, recorded, case, plans, configuration) -> None:
    """Where a sample point lies exactly between voxels, rounding decides which of two equal weights wins."""
    differ = np.argwhere(labels[0] != recorded[0])
    if not len(differ):
        return
    assert len(differ) <= 1e-2 * labels.size
    volume = read_volume(case.images, reader=plans.reader)
    reference, _ = read_labels(case.label, reader=plans.reader)
    axes = plans.transpose_forward
    data = np.transpose(np.asarray(lift(volume.array, channels=True)), (0, *(a + 1 for a in axes)))
    _, marked, box = crop_to_nonzero(data, np.transpose(reference.reshape(volume.shape_3d), axes)[None])
    record = plan_grid(volume.shape_3d, volume.geometry.spacing_3d, plans, configuration, box)
    linear = configuration.resample_seg.model_copy(update={"is_seg": False, "order": 1})
    values = np.unique(marked)
    indicators = np.stack([(marked[0] == value).astype(np.float32) for value in values])
    scores = resample_image(indicators, record.network_shape, record.spacing, record.network_spacing, linear)
    index = {int(value): i for i, value in enumerate(values)}
    for z, y, x in differ:
        a, b = index[int(labels[0, z, y, x])], index[int(recorded[0, z, y, x])]
        assert scores[a, z, y, x] == pytest.approx(scores[b, z, y, x], abs=1e-5)


def _compare(stored, arrays, described: Path) -> None:
    data, labels = stored.data[:], stored.labels[:]
    assert data.dtype == np.float32
    assert labels.dtype == np.int16
    assert data.shape == arrays["data"].shape
    np.testing.assert_allclose(data, arrays["data"], atol=1e-5 * max(1.0, float(np.abs(arrays["data"]).max())))
    assert labels.shape == arrays["seg"].shape
    wanted = json.loads(described.read_text(encoding="utf-8"))
    properties = stored.read_properties()
    assert list(properties["spacing"]) == pytest.approx(wanted["spacing"])
    assert list(properties["shape_before_cropping"]) == wanted["shape_before_cropping"]
    assert [list(pair) for pair in properties["bbox_used_for_cropping"]] == wanted["bbox_used_for_cropping"]
    cropped = "shape_after_cropping_and_before_resampling"
    assert list(properties[cropped]) == wanted[cropped]
    assert "sitk_stuff" in properties or "nibabel_stuff" in properties or not wanted.get("sitk_stuff")
    locations = properties["class_locations"]
    assert {str(key) for key in locations} == set(wanted["class_locations"])
    if (labels != arrays["seg"]).any():  # a tie went the other way; the rule is compared on the recorded labels
        locations = class_locations(arrays["seg"][0], list(locations))
    for key, rows in locations.items():
        recorded = wanted["class_locations"][str(key)]
        assert len(rows) == recorded["rows"]
        assert np.asarray(rows)[: len(recorded["first_rows"])].tolist() == recorded["first_rows"]


def test_chunks_and_blocks_are_nnunets(real_data: Path):
    recorded = json.loads((real_data / "parity" / "numerics" / "chunks.json").read_text(encoding="utf-8"))["cases"]
    for case in recorded:
        chunks, blocks = chunks_and_blocks(case["image"], case["patch"], case["bytes_per_pixel"])
        assert (list(chunks), list(blocks)) == (case["chunks"], case["blocks"])


def test_class_locations_are_drawn_as_nnunet_draws_them(real_data: Path):
    base = real_data / "parity" / "numerics"
    arrays = np.load(base / "class_locations.npz")
    for case in json.loads((base / "class_locations.json").read_text(encoding="utf-8"))["cases"]:
        keys = [tuple(key) if isinstance(key, list) else key for key in case["classes"]]
        found = class_locations(arrays[f"{case['id']}_seg"][0], keys)
        for entry in case["keys"]:
            rows = found[tuple(entry["key"]) if isinstance(entry["key"], list) else entry["key"]]
            assert len(rows) == entry["rows"]
            recorded = arrays[entry["array"]].reshape(-1, 4)
            assert (np.asarray(rows).reshape(-1, 4)[: entry["stored_rows"]] == recorded).all()
