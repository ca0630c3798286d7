"""The Plan dock brings the files of a case together as it was preprocessed, whatever the headers say, and says so."""

from __future__ import annotations

import json
import shutil

import pytest

from helpers import DATASET, make_dataset
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.planning.classes import MEASURED_FROM
from napari_nnunet.jobs.planning.plan import _joining, extract_fingerprint
from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
from napari_nnunet.jobs.planning.preprocess import preprocess
from napari_nnunet.schema.requests.planning import FingerprintRequest, PlanAndPreprocessRequest, PreprocessRequest
from turned_files import claim_mirrored

MEASURE = {"dataset": DATASET, "workers": 1}
SAID = "voxels are taken as they lie, whatever the headers say, as before"


@pytest.fixture
def workspace(tmp_path):
    raw = make_dataset(tmp_path, spacing=(1.0, 1.0, 1.0))
    shutil.copytree(raw / "labelsTr", tmp_path / "true")
    for path in sorted((raw / "labelsTr").iterdir()):
        claim_mirrored(path)
    return Workspace.at(tmp_path)


def as_the_dock(workspace):
    """Plan without saying anything of places; returns what was said."""
    request = PlanAndPreprocessRequest(dataset=DATASET, configurations=(), measure_workers=1)
    return [e.text for e in plan_and_preprocess(workspace, request, as_before=True) if isinstance(e, Note)]


def prepare(workspace):
    """Do what a shell does with --ignore_geometry."""
    request = PlanAndPreprocessRequest(
        dataset=DATASET, configurations=("3d_fullres",), measure_workers=1, workers=1, ignore_geometry=True
    )
    assert not drain(plan_and_preprocess(workspace, request)).cases.failed


def changed(workspace, name="c1"):
    path = workspace.raw / DATASET / "imagesTr" / f"{name}_0000.nii.gz"
    path.write_bytes((path.parent / "c2_0000.nii.gz").read_bytes())


def test_what_was_never_preprocessed_is_refused_as_ever(workspace):
    with pytest.raises(DatasetError, match="c0"):
        as_the_dock(workspace)


def test_what_was_preprocessed_by_voxels_is_measured_so_and_said(workspace):
    prepare(workspace)
    assert f"{DATASET}: the fingerprint is up to date." in as_the_dock(workspace)  # it is the same measurement
    changed(workspace)
    said = as_the_dock(workspace)
    assert any("the data changed" in text for text in said)
    assert f"c0, c1, c2, c3: {SAID}." in said
    assert f"{DATASET}: the fingerprint is up to date." in as_the_dock(workspace)
    with pytest.raises(DatasetError, match="c0"):  # a shell says what it wants
        drain(extract_fingerprint(workspace, FingerprintRequest(**MEASURE)))


def test_what_was_only_measured_by_voxels_is_measured_so_again(workspace):
    drain(extract_fingerprint(workspace, FingerprintRequest(**MEASURE, ignore_geometry=True)))
    changed(workspace)
    assert f"c0, c1, c2, c3: {SAID}." in as_the_dock(workspace)


def test_only_the_cases_that_were_made_so_are_taken_by_voxels(workspace, tmp_path):
    prepare(workspace)
    for name in ("c0", "c1"):
        shutil.copyfile(tmp_path / "true" / f"{name}.nii.gz", workspace.raw / DATASET / "labelsTr" / f"{name}.nii.gz")
    request = PreprocessRequest(dataset=DATASET, configurations=("3d_fullres",), workers=1)
    failed = drain(preprocess(workspace, request)).failed
    assert sorted(failed) == ["c2", "c3"]
    with pytest.raises(DatasetError, match="c2"):
        as_the_dock(workspace)


def test_where_only_some_were_measured_by_voxels_the_others_stay_as_they_were(workspace):
    drain(extract_fingerprint(workspace, FingerprintRequest(**MEASURE, ignore_geometry=True)))
    path = workspace.preprocessed / DATASET / MEASURED_FROM
    path.write_text(json.dumps({**json.loads(path.read_text()), "apart": {"c0": "ignore", "c1": "ignore"}}))
    joining = _joining(workspace.preprocessed / DATASET, open_dataset(workspace.raw / DATASET))
    assert [joining.of_case(f"c{i}") for i in range(4)] == ["ignore", "ignore", "refuse", "refuse"]
    assert joining.of_case("new") == "refuse"
