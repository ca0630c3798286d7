"""Cases that were preprocessed whatever their headers say are shown and corrected voxel by voxel, as they are trained."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest

from helpers import dataset_json, make_dataset, write_nifti
from napari_nnunet.engine.labelling.doubt import Part
from napari_nnunet.engine.labelling.queries import Spot
from napari_nnunet.events import CaseDone, Note, drain
from napari_nnunet.formats.dataset.case_files import Case
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.images.files import read_labels, read_volume, write_labels
from napari_nnunet.formats.preprocessed.journal import Journal, joined_by, joined_in
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.cases import NewCase, add_case, correct_reference, thumbnails
from napari_nnunet.jobs.dataset.overlays import plot_overlays
from napari_nnunet.jobs.labelling.suspects import Examined
from napari_nnunet.jobs.labelling.take import take_correction, take_prediction
from napari_nnunet.schema.requests.dataset import OverlaysRequest
from turned_files import claim_mirrored, shift

SHAPE = (6, 40, 32)
SPACING = (2.0, 0.8, 0.8)


def painted():
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 5:15, 3:9] = 1
    return labels


def changed():
    labels = painted()
    labels[3, 20, 10] = 1
    return labels


@pytest.fixture(params=[claim_mirrored, shift])
def raw(tmp_path, request):
    """A case whose labels lie over its image voxel by voxel, and elsewhere by their header; preprocessed by voxels."""
    folder = make_dataset(tmp_path, cases=1, shape=SHAPE, spacing=SPACING)
    write_nifti(reference(folder), painted(), SPACING)
    note(folder, "ignore")
    request.param(reference(folder))
    return folder


def note(folder, how):
    base = Workspace.around(folder).preprocessed / folder.name
    base.mkdir(parents=True, exist_ok=True)
    Journal(base / "nnUNetPlans_2d.cases.jsonl").note(["c0"], f"rules:files:content:{how}")


def reference(folder):
    return folder / "labelsTr" / "c0.nii.gz"


def stored(folder):
    return read_labels(reference(folder))


def test_what_joined_a_case_is_what_its_last_preprocessing_did(raw, monkeypatch, tmp_path):
    assert joined_in(raw) == {"c0": "ignore"} and joined_by(raw, "c1") == "refuse"
    base = Workspace.around(raw).preprocessed / raw.name
    later = Journal(base / "nnUNetPlans_3d_fullres.cases.jsonl")
    later.note(["c0"], "rules:files:content")
    assert joined_by(raw, "c0") == "refuse"
    later.note(["c0"], None)  # is being made
    assert joined_by(raw, "c0") == "ignore"
    other = tmp_path / "elsewhere"
    base.parent.rename(other)
    assert joined_by(raw, "c0") == "refuse"
    for variable, folder in (("raw", raw.parent), ("preprocessed", other), ("results", tmp_path / "results")):
        monkeypatch.setenv(f"nnUNet_{variable}", str(folder))
    assert joined_by(raw, "c0") == "ignore"


def test_a_corrected_reference_keeps_its_header_and_lies_voxel_by_voxel(raw):
    before = stored(raw)[1]
    drain(correct_reference(raw, "c0", changed(), seen=painted()))
    np.testing.assert_array_equal(stored(raw)[0], changed())
    assert stored(raw)[1] == before


def test_a_case_that_is_saved_again_keeps_the_header_of_its_labels(raw):
    before = stored(raw)[1]
    image = read_volume([raw / "imagesTr" / "c0_0000.nii.gz"], as_stored=True)
    classes, names = dict(read_info(raw).labels.labels), ("MR",)
    own = (list(image.array), changed(), image.geometry, {0: 0, 1: 1}, classes, names, ".nii.gz")
    drain(add_case(NewCase(raw, "c0", *own)))
    assert stored(raw)[1] == before
    np.testing.assert_array_equal(stored(raw)[0], changed())
    other = [np.asarray(image.array)[0] + 1]
    drain(add_case(NewCase(raw, "c0", other, *own[1:])))  # another image, which its header fits
    assert stored(raw)[1] == image.geometry


def test_a_small_picture_shows_labels_voxel_by_voxel_from_then_on(raw):
    note(raw, "")
    header = reference(raw).read_bytes()
    write_nifti(reference(raw), painted(), SPACING)
    (done,) = [event for event in thumbnails(raw) if isinstance(event, CaseDone)]
    right = iio.imread(done.path)
    reference(raw).write_bytes(header)
    drain(thumbnails(raw))  # turned, or not drawn at all
    note(raw, "ignore")
    (done,) = [event for event in thumbnails(raw) if isinstance(event, CaseDone)]
    np.testing.assert_array_equal(iio.imread(done.path), right)
    drawn = (raw / ".thumbnails" / "c0.png").stat().st_mtime_ns, (raw / ".thumbnails" / "c0.png").stat().st_ino
    drain(thumbnails(raw))
    assert drawn == (
        (raw / ".thumbnails" / "c0.png").stat().st_mtime_ns,
        (raw / ".thumbnails" / "c0.png").stat().st_ino,
    )


def test_pictures_of_a_shell_say_what_the_header_says_and_not_that_training_was_wrong(raw, tmp_path, in_one_process):
    request = OverlaysRequest(dataset=raw.name, target=tmp_path / "out", raw=True)
    events = []
    drain(plot_overlays(Workspace.around(raw), request), events.append)
    said = " ".join(event.text for event in events if isinstance(event, Note))
    assert "c0: by their header the labels" in said and "would use them" not in said


def test_a_place_is_added_where_it_was_suggested(raw):
    dataset_json(raw, labels={"background": 0, "a": 1, "ignore": 2})
    labels = np.zeros(SHAPE, np.uint8)
    labels[3, 30, 4] = 1
    spot = Spot("c0", 0, ((3, 4), (0, 40), (0, 32)), 0, 0.0, {}, 0, (3, 30, 4))
    drain(take_correction(raw, spot, Case("c0", (raw / "imagesTr" / "c0_0000.nii.gz",)), labels))
    np.testing.assert_array_equal(stored(raw)[0], painted() + labels)


def test_a_part_that_a_network_sees_is_taken_voxel_by_voxel(raw, tmp_path):
    seen = painted()
    seen[2, 5:15, 3:5] = 0
    write_labels(seen, stored(raw)[1], tmp_path / "seen.nii.gz")  # the validation writes the header of the reference
    part = Part(label=1, seen=0, voxels=20, certainty=0.9, evidence=100.0, place=(2, 6, 4))
    case = Examined("c0", 1.0, True, {}, (part,), (), (), 1.0, tmp_path / "seen.nii.gz")
    drain(take_prediction(raw, case, part))
    np.testing.assert_array_equal(stored(raw)[0], seen)
