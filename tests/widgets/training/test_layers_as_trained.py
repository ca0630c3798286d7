"""Layers of validation cases show channels, numbered objects and what nobody annotated as they were trained."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from helpers import make_dataset, smooth_image, write_nifti
from napari_nnunet.errors import ImageError
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.raw_writer import create_dataset
from napari_nnunet.formats.images.files import read_labels, read_volume, write_image, write_labels
from napari_nnunet.formats.preprocessed.journal import Journal, joined_by, joined_in
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.objects.derive import derive_objects
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.dataset import DeriveObjectsRequest
from napari_nnunet.widgets.files import place
from napari_nnunet.widgets.files.reader import case_layers
from napari_nnunet.widgets.training.layers import score_layers
from turned_files import claim_mirrored, shift, spread

pytestmark = pytest.mark.filterwarnings("ignore:.*by their header:UserWarning")
SHAPE = (6, 24, 20)
GRID = Geometry(spacing=(2.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=(1.0, 0, 0, 0, 1, 0, 0, 0, 1))


def note(raw, how):
    data = Workspace.around(raw).preprocessed / raw.name / "nnUNetPlans_3d_fullres"
    data.parent.mkdir(parents=True, exist_ok=True)
    Journal.of(data).note(["c0"], f"rules:files:content:{how}")


@pytest.fixture
def channels(tmp_path):
    """A case of two channels, of which the second says that its voxels are larger."""
    raw = make_dataset(tmp_path, cases=1, shape=SHAPE)
    path = raw / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "channel_names": {"0": "T1", "1": "T2"}}))
    write_nifti(raw / "imagesTr" / "c0_0001.nii.gz", smooth_image(SHAPE, seed=3)[0], (1.0, 0.8, 0.8))
    spread(raw / "imagesTr" / "c0_0001.nii.gz")
    return raw


@pytest.mark.parametrize("how", ["ignore", "resample"])
def test_channels_are_shown_as_they_were_joined(channels, how):
    label, second = channels / "labelsTr" / "c0.nii.gz", channels / "imagesTr" / "c0_0001.nii.gz"
    with pytest.raises(ImageError):
        drain(score_layers(channels, "c0", label))
    note(channels, how)
    shown = drain(score_layers(channels, "c0", label))
    files = (channels / "imagesTr" / "c0_0000.nii.gz", second)
    np.testing.assert_array_equal(shown[1][0], np.asarray(read_volume(files, apart=how).array)[1])
    if how == "resample":  # what is saved from there would be interpolated
        with pytest.raises(ImageError):
            case_layers(channels, "c0")
    else:
        np.testing.assert_array_equal(case_layers(channels, "c0")[1][0], np.asarray(read_volume([second]).array)[0])


@pytest.mark.parametrize("lie", [claim_mirrored, shift])
def test_objects_are_shown_by_their_voxels_with_what_nobody_annotated(tmp_path, in_one_process, lie):
    raw = Workspace.at(tmp_path).raw / "Dataset001_Boxes"
    create_dataset(raw, ["grey"], {"background": 0, "object": 1}, ".nii.gz")
    for name in ("objectsTr", "kindsTr"):
        (raw / name).mkdir()
    objects = np.zeros(SHAPE, np.uint16)
    objects[1:5, 4:14, 2:8] = 1
    kinds = objects.copy()
    kinds[:, 18:, :5] = 2
    write_image(np.zeros(SHAPE, np.float32), GRID, raw / "imagesTr" / "c0_0000.nii.gz")
    write_labels(objects, GRID, raw / "objectsTr" / "c0.nii.gz")
    write_labels(kinds, GRID, raw / "kindsTr" / "c0.nii.gz")
    request = DeriveObjectsRequest(dataset="1", kinds={1: "box"}, ignore=2, width=1, workers=1)
    drain(derive_objects(Workspace.at(tmp_path), request))
    for name in ("objectsTr", "kindsTr", "labelsTr"):
        lie(raw / name / "c0.nii.gz")
    note(raw, "ignore")
    found = objects.copy()
    found[2, 20, 1:4] = 7  # invented where nobody looked, so that it does not count
    result = tmp_path / "validation" / "c0.nii.gz"
    (result.parent / "objects").mkdir(parents=True)
    write_labels(found, read_labels(raw / "labelsTr" / "c0.nii.gz")[1], result.parent / "objects" / "c0.nii.gz")
    _, drawn, seen, verdicts = drain(score_layers(raw, "c0", result))
    np.testing.assert_array_equal(drawn[0], objects)
    np.testing.assert_array_equal(seen[0], found)
    assert not verdicts[0][2, 20, 1:4].any() and verdicts[0][2, 6, 4]


def test_labels_of_a_case_that_nnunet_preprocessed_are_shown_voxel_by_voxel_and_that_is_said(tmp_path, monkeypatch):
    raw = make_dataset(tmp_path, cases=1, shape=SHAPE)
    label = raw / "labelsTr" / "c0.nii.gz"
    voxels = read_labels(label)[0]
    claim_mirrored(label)
    data = Workspace.around(raw).preprocessed / raw.name / "nnUNetPlans_3d_fullres"
    data.mkdir(parents=True)
    assert joined_by(raw, "c0") == "refuse"
    for name in ("c0.b2nd", "c0_seg.b2nd", "c0.pkl"):
        (data / name).write_bytes(b"of nnU-Net")
    assert joined_in(raw) == {"c0": "ignore"}
    said = []
    monkeypatch.setattr(place, "show_warning", said.append)
    shown = case_layers(raw, "c0")
    assert "as the case was preprocessed whatever the headers say" in said[0]
    np.testing.assert_array_equal(shown[-1][0], voxels)
    os.utime(label, ns=(label.stat().st_mtime_ns, (data / "c0.b2nd").stat().st_mtime_ns + 10**9))
    assert joined_by(raw, "c0") == "refuse"  # they were written since
    os.utime(label, (0, 0))
    Journal.of(data).note(["c0"], "rules:files:content")
    assert joined_by(raw, "c0") == "refuse"  # this program believes headers
