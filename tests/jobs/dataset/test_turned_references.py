"""References in another orientation than their image are looked at, and corrected, on the image's voxels."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from helpers import dataset_json, make_dataset, write_nifti
from napari_nnunet.engine.labelling.doubt import Part
from napari_nnunet.engine.labelling.queries import Spot
from napari_nnunet.errors import ImageError
from napari_nnunet.events import CaseDone, CaseFailed, drain
from napari_nnunet.formats.dataset.case_files import Case
from napari_nnunet.formats.dataset.objects import ignored_beside, object_kinds, read_objects
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.dataset.raw_writer import create_dataset
from napari_nnunet.formats.dataset.read_case import labels_over, lay_labels
from napari_nnunet.formats.images.files import read_labels, read_volume, write_image, write_labels
from napari_nnunet.formats.preprocessed.journal import Journal
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.grid import Grid, Turned
from napari_nnunet.jobs.dataset.cases import correct_reference, thumbnails
from napari_nnunet.jobs.labelling.suspects import Examined
from napari_nnunet.jobs.labelling.take import take_correction, take_prediction
from napari_nnunet.jobs.objects.cases import correct_objects
from napari_nnunet.jobs.objects.derive import derive_objects
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.dataset import DeriveObjectsRequest
from turned_files import claim_mirrored, mirror, permute, shift

SHAPE = (6, 40, 32)
SPACING = (2.0, 0.8, 0.8)


def painted():
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 5:15, 3:9] = 1
    return labels


@pytest.fixture
def raw(tmp_path):
    folder = make_dataset(tmp_path, cases=1, shape=SHAPE, spacing=SPACING)
    write_nifti(reference(folder), painted(), SPACING)
    return folder


def reference(folder) -> Path:
    return folder / "labelsTr" / "c0.nii.gz"


def on_image(folder, where="labelsTr", case="c0"):
    """Return labels by the place of the image, and how their file lies to it."""
    image = read_volume([folder / "imagesTr" / f"{case}_0000.nii.gz"])
    laid = lay_labels(folder / where / f"{case}.nii.gz", Grid(image.shape, image.geometry), reader=None)
    return laid.voxels, laid.found


@pytest.mark.parametrize("turn", [mirror, permute])
def test_a_corrected_reference_lies_where_it_was_painted(raw, turn):
    turn(reference(raw))
    voxels, found = on_image(raw)
    np.testing.assert_array_equal(voxels, painted())
    assert isinstance(found, Turned)
    voxels = voxels.copy()
    voxels[3, 20, 10] = 1
    drain(correct_reference(raw, "c0", voxels, seen=painted()))
    stored, found = on_image(raw)
    np.testing.assert_array_equal(stored, voxels)
    assert found is None  # and can be trained on


def test_a_reference_elsewhere_is_not_corrected(raw):
    shift(reference(raw))
    before = reference(raw).read_bytes()
    with pytest.raises(ImageError, match="c0.nii.gz: the labels lie in another place than the image") as raised:
        drain(correct_reference(raw, "c0", painted()))
    assert "which can fix it" in raised.value.in_window
    assert reference(raw).read_bytes() == before
    image = read_volume([raw / "imagesTr" / "c0_0000.nii.gz"])
    with pytest.raises(ImageError):
        labels_over(reference(raw), Grid(image.shape, image.geometry), reader=None)


def test_a_small_picture_shows_labels_where_they_lie(raw):
    picture = {}
    for turn in (None, mirror, permute):
        if turn is not None:
            turn(reference(raw))
        (done,) = [event for event in thumbnails(raw) if isinstance(event, CaseDone)]
        picture[turn] = iio.imread(done.path)
        reference(raw).unlink()
        write_nifti(reference(raw), painted(), SPACING)
    np.testing.assert_array_equal(picture[mirror], picture[None])
    np.testing.assert_array_equal(picture[permute], picture[None])
    shift(reference(raw))
    (failed,) = [event for event in thumbnails(raw) if isinstance(event, CaseFailed)]
    assert "the labels lie in another place than the image" in failed.message


def test_a_place_is_added_where_it_was_suggested(raw):
    dataset_json(raw, labels={"background": 0, "a": 1, "ignore": 2})
    mirror(reference(raw))
    box = ((3, 4), (0, 40), (0, 32))
    labels = np.zeros(SHAPE, np.uint8)
    labels[3, 30, 4] = 1
    spot = Spot("c0", 0, box, 0, 0.0, {}, 0, (3, 30, 4))
    drain(take_correction(raw, spot, Case("c0", (raw / "imagesTr" / "c0_0000.nii.gz",)), labels))
    stored, found = on_image(raw)
    np.testing.assert_array_equal(stored, painted() + labels)
    assert found is None


def test_a_part_that_a_network_sees_is_taken_where_it_lies(raw, tmp_path):
    seen = painted()
    seen[2, 5:15, 3:9] = 0
    write_nifti(tmp_path / "seen.nii.gz", seen, SPACING)
    part = Part(label=1, seen=0, voxels=60, certainty=0.9, evidence=100.0, place=(2, 6, 4))
    case = Examined("c0", 1.0, True, {}, (part,), (), (), 1.0, tmp_path / "seen.nii.gz")
    mirror(reference(raw))
    drain(take_prediction(raw, case, part))
    assert not on_image(raw)[0].any()


GRID = Geometry(spacing=(2.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=(1.0, 0, 0, 0, 1, 0, 0, 0, 1))


def balls():
    objects = np.zeros((6, 20, 24), np.uint16)
    objects[1:5, 4:14, 2:12], objects[1:5, 4:14, 13:20] = 1, 2
    return objects


@pytest.fixture
def boxes(tmp_path, in_one_process):
    """A dataset of objects of two kinds."""
    folder = Workspace.at(tmp_path).raw / "Dataset001_Boxes"
    create_dataset(folder, ["grey"], {"background": 0, "object": 1}, ".nii.gz")
    for name in ("objectsTr", "kindsTr"):
        (folder / name).mkdir()
    write_image(np.random.default_rng(0).normal(size=(6, 20, 24)).astype(np.float32), GRID, image_of(folder))
    write_labels(balls(), GRID, folder / "objectsTr" / "c0.nii.gz")
    kinds = balls()
    kinds[0, 0, 0] = 3
    write_labels(kinds, GRID, folder / "kindsTr" / "c0.nii.gz")
    request = DeriveObjectsRequest(dataset="1", kinds={1: "box", 2: "crate"}, ignore=3, width=1, workers=1)
    drain(derive_objects(Workspace.at(tmp_path), request))
    return folder


def image_of(folder):
    return folder / "imagesTr" / "c0_0000.nii.gz"


@pytest.mark.parametrize("turn", [mirror, permute])
def test_corrected_objects_lie_where_they_were_painted(boxes, turn):
    turn(boxes / "objectsTr" / "c0.nii.gz")
    changed = balls()
    changed[2, 17, 3] = 3
    drain(correct_objects(boxes, "c0", changed, {1: "box", 2: "crate", 3: "box"}))
    for where in ("objectsTr", "kindsTr", "labelsTr"):
        voxels, found = on_image(boxes, where)
        assert found is None and voxels[2, 17, 3], where
    np.testing.assert_array_equal(on_image(boxes, "objectsTr")[0], changed)
    kinds, _ = on_image(boxes, "kindsTr")
    assert kinds[2, 17, 3] == 1 and kinds[0, 0, 0] == 3


@pytest.mark.parametrize("turn", [claim_mirrored, shift])
def test_objects_whose_headers_were_not_believed_are_corrected_by_their_voxels(boxes, turn):
    masks = [boxes / where / "c0.nii.gz" for where in ("objectsTr", "kindsTr", "labelsTr")]
    for path in masks:
        turn(path)
    header = read_labels(masks[0])[1]
    data = Workspace.around(boxes).preprocessed / boxes.name / "nnUNetPlans_3d_fullres"
    data.parent.mkdir(parents=True, exist_ok=True)
    Journal.of(data).note(["c0"], "rules:files:content:ignore")
    changed = balls()
    changed[2, 17, 3] = 3
    drain(correct_objects(boxes, "c0", changed, {1: "box", 2: "crate", 3: "box"}))
    np.testing.assert_array_equal(read_objects(masks[0])[0], changed)
    kinds, labels = (read_labels(path)[0] for path in masks[1:])
    assert kinds[2, 17, 3] == 1 and kinds[0, 0, 0] == 3 and labels[2, 17, 3]
    assert all(read_labels(path)[1] == header for path in masks)


def test_kinds_of_objects_are_read_where_they_lie(boxes):
    mirror(boxes / "kindsTr" / "c0.nii.gz")
    objects, geometry = read_objects(boxes / "objectsTr" / "c0.nii.gz")
    assert object_kinds(boxes, "c0", objects, geometry) == {1: "box", 2: "crate"}
    ignored = ignored_beside(boxes / "objectsTr" / "c0.nii.gz", Grid(objects.shape, geometry))
    assert np.argwhere(ignored).tolist() == [[0, 0, 0]]


def test_objects_elsewhere_are_not_corrected(boxes):
    shift(boxes / "objectsTr" / "c0.nii.gz")
    with pytest.raises(ImageError, match="the labels lie in another place than the image"):
        drain(correct_objects(boxes, "c0", balls(), {1: "box", 2: "crate"}))
    assert open_dataset(boxes).cases
    assert read_labels(boxes / "objectsTr" / "c0.nii.gz")[0].any()
