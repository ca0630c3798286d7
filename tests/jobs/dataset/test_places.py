"""Masks and predictions that lie elsewhere than their images are turned, or refused; never compared as they are."""

from __future__ import annotations

import gzip
import json
from itertools import permutations, product

import nibabel
import numpy as np
import pytest

from helpers import make_dataset
from napari_nnunet.cli import main
from napari_nnunet.errors import NnunetError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.dataset.raw_writer import place_labels
from napari_nnunet.formats.images.files import read_labels, read_volume, write_image, write_labels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.import_folders import import_folders
from napari_nnunet.jobs.dataset.verify import verify
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest, VerifyRequest
from test_grid import turned_copy

pytestmark = pytest.mark.usefixtures("in_one_process")

UP = Geometry(spacing=(2.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=tuple(np.eye(3).ravel()))
#: The same place, with x running the other way (20 voxels of 1 mm).
MIRRORED = Geometry(spacing=(2.0, 1.0, 1.0), origin=(19.0, 0.0, 0.0), direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1))
AWAY = UP.model_copy(update={"origin": (50.0, 0.0, 0.0)})
SHAPE = (6, 16, 20)


def blob():
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 3:9, 2:7] = 1
    return labels


@pytest.fixture
def folders(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i in range(2):
        image = np.random.default_rng(i).normal(size=SHAPE).astype(np.float32)
        write_image(image, UP, tmp_path / "images" / f"c{i}.nii.gz")
        write_labels(blob(), UP, tmp_path / "masks" / f"c{i}.nii.gz")
    return tmp_path


def request(folders):
    return ImportFoldersRequest(images=folders / "images", masks=folders / "masks", name="X", workers=1)


def test_a_mask_that_is_stored_mirrored_is_turned_onto_its_image(folders):
    write_labels(blob()[:, :, ::-1], MIRRORED, folders / "masks" / "c1.nii.gz")
    events = []
    made = drain(import_folders(Workspace.at(folders), request(folders)), events.append)
    for name in ("c0", "c1"):
        labels, geometry = read_labels(made / "labelsTr" / f"{name}.nii.gz")
        assert (labels == blob()).all()
        assert np.allclose(geometry.origin, read_volume([made / "imagesTr" / f"{name}_0000.nii.gz"]).geometry.origin)
    assert any("1 of 2 cases" in event.text and "c1" in event.text for event in events if isinstance(event, Note))


def twice_placed(path, array):
    """Write NIfTI whose header says by its qform that x runs to the left, and by its sform to the right."""
    image = nibabel.Nifti1Image(array.T, np.diag([1.0, 1.0, 2.0, 1.0]))
    image.set_sform(image.affine, 2)
    image.set_qform(image.affine @ np.diag([-1.0, 1.0, 1.0, 1.0]), 1)
    nibabel.save(image, path)


def test_a_mask_with_its_images_header_is_not_mirrored_because_readers_take_other_parts_of_it(folders):
    for i in range(2):
        twice_placed(folders / "images" / f"c{i}.nii.gz", np.random.default_rng(i).normal(size=SHAPE))
        (folders / "masks" / f"c{i}.nii.gz").unlink()
        twice_placed(folders / "masks" / f"c{i}.nii", blob())
    events = []
    made = drain(import_folders(Workspace.at(folders), request(folders)), events.append)
    assert (read_labels(made / "labelsTr" / "c1.nii.gz")[0] == blob()).all()
    said = [event.text for event in events if isinstance(event, Note)]
    assert not any("reoriented onto their images" in text for text in said)
    assert sum("c0, c1: its header gives two orientations" in text for text in said) == 1


def test_a_mask_from_elsewhere_is_refused_by_its_name(folders):
    write_labels(blob(), AWAY, folders / "masks" / "c1.nii.gz")
    with pytest.raises(NnunetError, match="c1.*different places: places 50 mm apart"):
        drain(import_folders(Workspace.at(folders), request(folders)))


@pytest.fixture
def scored(tmp_path):
    for name in ("reference", "prediction"):
        (tmp_path / name).mkdir()
    write_labels(blob(), UP, tmp_path / "reference" / "a.nii.gz")
    content = {"labels": {"background": 0, "x": 1}, "channel_names": {"0": "ct"}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps({**content, "numTraining": 1}))
    return tmp_path


def score(folder, *more):
    words = ("evaluate_folder", folder / "reference", folder / "prediction", "-djfile", folder / "dataset.json")
    status = main([str(word) for word in (*words, *more)])
    path = folder / "prediction" / "summary.json"
    return status, json.loads(path.read_text(encoding="utf-8"))["foreground_mean"]["Dice"] if path.exists() else None


def test_evaluating_a_turned_copy_equals_evaluating_the_original(scored):
    write_labels(blob()[:, :, ::-1], MIRRORED, scored / "prediction" / "a.nii.gz")
    assert score(scored) == (0, 1.0)


def test_a_prediction_from_elsewhere_has_no_score_unless_asked_for(scored, capsys):
    write_labels(blob(), AWAY, scored / "prediction" / "a.nii.gz")
    assert score(scored) == (1, None)
    said = capsys.readouterr().err
    assert "places 50 mm apart" in said and "--ignore-geometry" in said
    assert score(scored, "--ignore-geometry") == (0, 1.0)


def test_what_a_float32_header_rounds_is_no_difference(scored):
    rounded = UP.model_copy(update={"origin": (0.0004, 0.0, 0.0), "spacing": (2.0, 1.00001, 1.0)})
    write_labels(blob(), rounded, scored / "prediction" / "a.nii.gz")
    assert score(scored) == (0, 1.0)


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("flips", list(product((False, True), repeat=3)))
def test_a_turned_copy_scores_like_the_prediction_itself(scored, axes, flips):
    reference, prediction = np.zeros(SHAPE, np.uint8), blob()
    reference[1:5, 4:9, 2:9] = 1
    write_labels(reference, UP, scored / "reference" / "a.nii.gz")
    stored, geometry = turned_copy(prediction, UP, axes, flips)
    write_labels(np.ascontiguousarray(stored), geometry, scored / "prediction" / "a.nii.gz")
    expected = 2 * int((reference & prediction).sum()) / (int(reference.sum()) + int(prediction.sum()))
    assert score(scored) == (0, pytest.approx(expected))


def test_what_chill_leaves_out_is_named(scored, capsys):
    for name in "ab":
        write_labels(blob(), UP, scored / "reference" / f"{name}.nii.gz")
    write_labels(blob(), UP, scored / "prediction" / "a.nii.gz")
    assert score(scored, "--chill") == (0, 1.0)
    assert "Left out, as there is no segmentation: 1 file (b.nii.gz)." in capsys.readouterr().err


@pytest.fixture
def raw(tmp_path):
    folder = make_dataset(tmp_path, spacing=(1.0, 1.0, 1.0))
    labels, geometry = read_labels(folder / "labelsTr" / "c1.nii.gz")
    return folder, labels, geometry


def _mirror(raw):
    folder, labels, geometry = raw
    origin = (labels.shape[2] - 1.0, *geometry.origin[1:])
    turned = geometry.model_copy(update={"origin": origin, "direction": (-1, 0, 0, 0, 1, 0, 0, 0, 1)})
    write_labels(np.ascontiguousarray(labels[:, :, ::-1]), turned, folder / "labelsTr" / "c1.nii.gz")


def _prepare(folder, *more):
    words = ("plan_and_preprocess", "-d", folder.name, "-c", "3d_fullres", "--workspace", folder.parents[1], "-np", "1")
    return main([str(word) for word in (*words, *more)])


def test_labels_stored_mirrored_stop_preprocessing_and_can_be_turned(raw, capsys):
    _mirror(raw)
    assert _prepare(raw[0]) == 1
    told = capsys.readouterr().err
    assert "c1.nii.gz: the labels are stored in another orientation than the image (mirrored along x)" in told
    assert "--ignore_geometry" in told
    place_labels(raw[0], "c1")
    labels, geometry = read_labels(raw[0] / "labelsTr" / "c1.nii.gz")
    assert (labels == raw[1]).all() and np.allclose(geometry.origin, raw[2].origin)
    assert any((raw[0] / "trash").rglob("c1.nii.gz"))
    assert _prepare(raw[0]) == 0


def test_those_who_know_take_labels_by_voxels(raw):
    _mirror(raw)
    assert _prepare(raw[0], "--ignore-geometry") == 0


def test_labels_from_elsewhere_stop_preprocessing_and_rounded_headers_do_not(raw, capsys):
    path = raw[0] / "labelsTr" / "c1.nii.gz"
    write_labels(raw[1], raw[2].model_copy(update={"origin": (30.0, 0.0, 0.0)}), path)
    assert _prepare(raw[0]) == 1
    assert "in another place than the image (places 30 mm apart)" in capsys.readouterr().err
    write_labels(raw[1], raw[2].model_copy(update={"origin": (0.01, 0.0, 0.0)}), path)
    assert _prepare(raw[0]) == 0


def test_the_check_offers_to_turn_or_to_place_labels(raw):
    _mirror(raw)
    report = drain(verify(Workspace.at(raw[0].parents[1]), VerifyRequest(dataset=raw[0].name)))
    assert [(p.level, p.where, p.fix) for p in report.problems if "labels are" in p.text] == [
        ("error", "c1", "turn_labels")
    ]
    write_labels(raw[1], raw[2].model_copy(update={"origin": (3.0, 0.0, 0.0)}), raw[0] / "labelsTr" / "c1.nii.gz")
    report = drain(verify(Workspace.at(raw[0].parents[1]), VerifyRequest(dataset=raw[0].name)))
    assert [p.fix for p in report.errors] == ["place_labels"]
    place_labels(raw[0], "c1")
    assert not drain(verify(Workspace.at(raw[0].parents[1]), VerifyRequest(dataset=raw[0].name))).errors


def test_the_check_warns_of_labels_that_are_taken_by_voxels_and_says_so(raw, capsys):
    _mirror(raw)
    assert _prepare(raw[0], "--verify_dataset_integrity") == 1
    assert "so that training would use them for the wrong voxels" in capsys.readouterr().err
    assert _prepare(raw[0], "--verify_dataset_integrity", "--ignore_geometry") == 0
    said = (
        "by their header the labels are stored in another orientation than the image (mirrored along x); they are taken"
    )
    assert f"c1: {said} voxel by voxel, whatever the headers say" in capsys.readouterr().err
    report = drain(verify(Workspace.at(raw[0].parents[1]), VerifyRequest(dataset=raw[0].name)))
    assert not report.errors
    (found,) = [problem for problem in report.problems if problem.where == "c1" and said in problem.text]
    assert found.fix == "turn_labels"
    assert _prepare(raw[0], "--verify_dataset_integrity") == 1  # now they are not


def test_what_is_odd_about_files_is_said_by_the_check_and_before_training(raw, capsys):
    for path in sorted((raw[0] / "imagesTr").iterdir()) + sorted((raw[0] / "labelsTr").iterdir()):
        image = nibabel.load(path)
        header = image.header.copy()
        header["pixdim"][1] = 3
        rows = nibabel.Nifti1Image(np.asarray(image.dataobj), None, header)
        rows.header["qform_code"] = 0
        path.write_bytes(gzip.compress(rows.to_bytes()))
    assert _prepare(raw[0]) == 0
    text = "its header gives two voxel sizes, 1 x 1 x 3 mm (pixdim) and 1 x 1 x 1 mm (sform)"
    assert capsys.readouterr().err.count(text) == 1
    found = drain(verify(Workspace.around(raw[0]), VerifyRequest(dataset=raw[0].name)))
    assert sum(text in problem.text for problem in found.problems) == 1
