"""Values that dataset.json does not define are named before a training begins, on every way to it."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import make_trainable, write_nifti
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.read_case import unknown_values
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.verify import verify
from napari_nnunet.jobs.planning.plan import extract_fingerprint
from napari_nnunet.jobs.planning.preprocess import preprocess
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.requests.dataset import VerifyRequest
from napari_nnunet.schema.requests.planning import FingerprintRequest, PreprocessRequest

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


def test_labels_of_a_scheme_pass_and_gaps_in_it_do_not():
    labels = np.array([[0, 1, 3], [3, 2, 2]], np.int32)
    scheme = LabelScheme(labels={"background": 0, "a": 1, "b": 2, "ignore": 3})
    assert not unknown_values(labels, scheme)
    gaps = LabelScheme(labels={"background": 0, "a": 1, "b": 3})
    assert unknown_values(labels, gaps) == {2: 2}
    assert not unknown_values(np.zeros((0, 3), np.int32), gaps)
