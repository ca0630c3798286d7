"""Values that dataset.json does not define are named before a training begins, on every way to it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from helpers import make_trainable, write_nifti
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.dataset.read_case import unknown_values
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.pickles import write_pickle
from napari_nnunet.formats.preprocessed.cases import open_case, remove_case, store_case
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.verify import verify
from napari_nnunet.jobs.planning.foreign_labels import require_learnable
from napari_nnunet.jobs.planning.plan import extract_fingerprint
from napari_nnunet.jobs.planning.preprocess import preprocess
from napari_nnunet.jobs.training.prepare import check_training
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.requests.dataset import VerifyRequest
from napari_nnunet.schema.requests.planning import FingerprintRequest, PreprocessRequest
from napari_nnunet.schema.requests.training import TrainRequest

NAME = "Dataset001_Tiny"


@pytest.fixture(params=[255, -1])
def spoiled(request, tmp_path):
    """Return a workspace with one case that holds a value of no class, and the sentence of the check."""
    workspace = Workspace.at(make_trainable(tmp_path))
    (raw,) = workspace.raw.iterdir()
    path = raw / "labelsTr" / "c1.nii.gz"
    labels = read_labels(path)[0].astype(np.int16)
    labels[:, :2] = request.param
    write_nifti(path, labels)
    voxels = int((labels == request.param).sum())
    return workspace, raw.name, f"c1.nii.gz: it contains {request.param} ({voxels} voxels), which dataset.json does not"


def test_measuring_and_preprocessing_say_what_the_check_says(spoiled):
    workspace, name, sentence = spoiled
    report = drain(verify(workspace, VerifyRequest(dataset=name)))
    assert any(f"{problem.where}: {problem.text}".startswith(sentence) for problem in report.errors)
    with pytest.raises(DatasetError) as told:
        drain(extract_fingerprint(workspace, FingerprintRequest(dataset=name)))
    assert sentence in told.value.message
    result = drain(preprocess(workspace, PreprocessRequest(dataset=name, configurations=("3d_fullres",))))
    assert list(result.failed) == ["c1"]
    assert sentence in result.failed["c1"].message
    assert "import_folders" not in result.failed["c1"].in_window


def from_elsewhere(tmp_path, value):
    """Return a workspace whose cases another program preprocessed; one of them has a value of no class."""
    workspace = Workspace.at(make_trainable(tmp_path))
    (base,) = workspace.preprocessed.iterdir()
    for journal in base.glob("*.cases.jsonl"):
        journal.unlink()
    path = base / "gt_segmentations" / "c1.nii.gz"
    labels = read_labels(path)[0].astype(np.int16)
    labels[:2] = value
    write_nifti(path, labels)
    request = TrainRequest(dataset=base.name, configuration="3d_fullres", fold=0)
    sentence = f"c1.nii.gz: it contains {value} ({(labels == value).sum()} voxels), which dataset.json does not define"
    return workspace, request, sentence


def test_what_another_program_preprocessed_is_looked_at_before_it_is_trained(tmp_path):
    workspace, request, sentence = from_elsewhere(tmp_path, 255)
    with pytest.raises(DatasetError) as told:
        drain(check_training(workspace, [request]))
    assert told.value.message.startswith(sentence) and "then preprocess the dataset again" in told.value.message
    assert (
        "'Check dataset' in the Training cases dock" in told.value.in_window
        and ".json. Add" not in told.value.in_window
    )


def test_what_is_trained_as_background_is_said(tmp_path):
    """Outside of the image, preprocessed labels hold -1 too: only the labels themselves tell."""
    workspace, request, sentence = from_elsewhere(tmp_path, -1)
    for _ in range(2):
        events = []
        drain(check_training(workspace, [request]), events.append)
        (warning,) = [event for event in events if isinstance(event, Note) and event.text.startswith("c1")]
        assert warning.text.startswith(sentence) and "trained as background" in warning.text


def test_a_value_that_would_end_the_training_is_not_called_background(tmp_path):
    workspace, request, sentence = from_elsewhere(tmp_path, -100)
    with pytest.raises(DatasetError) as told:
        drain(check_training(workspace, [request]))
    assert told.value.message.startswith(sentence)


def without_references(tmp_path, change, *, npz=False):
    """Return a workspace that holds nothing but what nnU-Net left of its preprocessing, changed in case c1."""
    workspace = Workspace.at(make_trainable(tmp_path))
    (base,) = workspace.preprocessed.iterdir()
    (data,) = (folder for folder in base.glob("nnUNetPlans_*") if folder.is_dir())
    shutil.rmtree(base / "gt_segmentations")
    shutil.rmtree(workspace.raw)
    for journal in base.glob("*.cases.jsonl"):
        journal.unlink()
    case = open_case(data, "c1")
    image, labels = np.asarray(case.data[:]), np.asarray(case.labels[:])
    change(labels)
    if npz:
        remove_case(data, "c1")
        np.savez(data / "c1.npz", data=image, seg=labels)
        write_pickle(data / "c1.pkl", {})
    else:
        properties = dict(case.read_properties())
        store_case(data, "c1", image, labels, properties, patch=(8, 8, 8), staging=tmp_path)
    return workspace, TrainRequest(dataset=base.name, configuration="3d_fullres", fold=0), labels


@pytest.mark.parametrize(("value", "npz"), [(255, False), (3, True), (-2, False)])
def test_preprocessed_labels_are_looked_at_themselves_where_no_others_are(tmp_path, value, npz):
    def change(labels):
        labels[:, :2] = value

    workspace, request, labels = without_references(tmp_path, change, npz=npz)
    voxels = int((labels == value).sum())
    with pytest.raises(DatasetError) as told:
        drain(check_training(workspace, [request]))
    named = "c1.npz" if npz else "c1_seg.b2nd"
    sentence = f"{named}: it contains {value} ({voxels} voxels), which dataset.json does not define"
    assert told.value.message.startswith(sentence) and "'ignore'" in told.value.message


def test_what_preprocessing_marks_as_outside_is_no_fault(tmp_path):
    def change(labels):
        labels[:, :2] = -1

    workspace, request, _ = without_references(tmp_path, change)
    stages, warnings = [], []
    for _ in range(2):
        events = []
        drain(check_training(workspace, [request]), events.append)
        stages += [event for event in events if getattr(event, "name", "").startswith("Looking at the labels")]
        warnings += [event.text for event in events if isinstance(event, Note)]
    assert len(stages) == 1 and not any("contains" in text for text in warnings)
    assert sum("no reference (" in text and "gt_segmentations" in text for text in warnings) == 2


def test_one_case_that_was_not_preprocessed_here_is_looked_at(tmp_path):
    """The others are known; of this one, another program's files were laid beside them."""
    workspace = Workspace.at(make_trainable(tmp_path))
    (base,) = workspace.preprocessed.iterdir()
    (data,) = (folder for folder in base.glob("nnUNetPlans_*") if folder.is_dir())
    case = open_case(data, "c1")
    labels = np.asarray(case.labels[:])
    labels[:, :1] = 7
    arrays = np.asarray(case.data[:]), labels, dict(case.read_properties())
    store_case(data, "x9", *arrays, patch=(8, 8, 8), staging=tmp_path)
    request = TrainRequest(dataset=base.name, configuration="3d_fullres", fold=0)
    with pytest.raises(DatasetError, match="x9_seg.b2nd: it contains 7"):
        drain(check_training(workspace, [request]))


def test_sound_labels_from_elsewhere_are_read_once(tmp_path):
    workspace, request, _ = from_elsewhere(tmp_path, 1)
    stages = []
    for _ in range(2):
        drain(check_training(workspace, [request]), lambda event: stages.append(getattr(event, "name", "")))
    assert sum(stage.startswith("Looking at the labels") for stage in stages) == 2  # as they were, and as trained


def test_labels_of_a_scheme_pass_and_gaps_in_it_do_not():
    labels = np.array([[0, 1, 3], [3, 2, 2]], np.int32)
    scheme = LabelScheme(labels={"background": 0, "a": 1, "b": 2, "ignore": 3})
    assert not unknown_values(labels, scheme)
    gaps = LabelScheme(labels={"background": 0, "a": 1, "b": 3})
    assert unknown_values(labels, gaps) == {2: 2}
    assert not unknown_values(np.zeros((0, 3), np.int32), gaps)


GAPS = [
    ({"background": 0, "a": 1, "b": 65538}, "the label values are 0, 1, 65538; they must be consecutive: 0 to 2"),
    ({"background": 0, "a": 1, "b": 3}, "the label values are 0, 1, 3; they must be consecutive: 0 to 2"),
    ({"background": 0, "b": 2, "ignore": 3}, "the label values are 0, 2, 3; they must be consecutive: 0 to 2"),
    ({"background": 0, "all": (1, 65538), "b": 65538}, "the label value 65538 is higher than 32767"),
]


@pytest.mark.parametrize(("labels", "sentence"), GAPS)
def test_values_that_no_network_can_learn_are_refused_before_they_are_stored_as_others(tmp_path, labels, sentence):
    workspace = Workspace.at(make_trainable(tmp_path))
    (raw,), (base,) = workspace.raw.iterdir(), workspace.preprocessed.iterdir()
    order = {"regions_class_order": [1, 65538]} if "all" in labels else {}
    for path in (raw / "dataset.json", base / "dataset.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**content, "labels": labels, **order}), encoding="utf-8")
    stored = {path.name: path.read_bytes() for path in base.rglob("*.b2nd")}
    for job in (
        preprocess(workspace, PreprocessRequest(dataset=raw.name, configurations=("3d_fullres",))),
        check_training(workspace, [TrainRequest(dataset=raw.name, configuration="3d_fullres", fold="all")]),
    ):
        with pytest.raises(DatasetError) as told:
            drain(job)
        assert sentence in told.value.message
        assert "import_folders" in told.value.message
        assert "Renumber labels" in told.value.in_window
    assert {path.name: path.read_bytes() for path in base.rglob("*.b2nd")} == stored


def test_values_of_regions_need_not_be_consecutive():
    require_learnable(LabelScheme(labels={"background": 0, "all": (1, 2, 4), "b": 4}, regions_class_order=(1, 4)))
