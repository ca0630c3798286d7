"""Unlabelled images, slices and boxes are ranked for labelling, with their cost, and written to a table."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

import napari_nnunet
from choices import notes, run_verb
from helpers import Recipe, make_model, smooth_image, write_nifti
from napari_nnunet.errors import DatasetError, ModelError, SettingsError
from napari_nnunet.events import Stage, drain
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.preprocessed.journal import Journal
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.amount import Amount, amount_in, note_amount, noted_amount
from napari_nnunet.jobs.labelling.suggest import learning, suggest
from napari_nnunet.schema.requests.labelling import SuggestRequest
from turned_files import claim_mirrored

SHAPE = (10, 24, 22)


@pytest.fixture
def place(tmp_path, known_arithmetic):
    """A workspace with a model, and a folder with three unlabelled images."""
    make_model(tmp_path / "nnUNet_results", Recipe())
    images = tmp_path / "new"
    images.mkdir()
    for n in range(3):
        write_nifti(images / f"u{n}_0000.nii.gz", smooth_image(SHAPE, seed=n)[0])
    return Workspace.at(tmp_path), images


def asked(images, **changes):
    return SuggestRequest.of(dataset="1", source=images, device="cpu", **changes)


def raw_case(workspace, name, drawn, **info):
    raw = workspace.raw / "Dataset001_Tiny"
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True, exist_ok=True)
    write_nifti(raw / "imagesTr" / f"{name}_0000.nii.gz", smooth_image(SHAPE)[0])
    write_nifti(raw / "labelsTr" / f"{name}.nii.gz", drawn)
    content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1, "lesion": 2}}
    (raw / "dataset.json").write_text(json.dumps({**content, "numTraining": 1, "file_ending": ".nii.gz", **info}))


@pytest.mark.parametrize("strategy", ["random", "entropy", "stratified"])
def test_slices_are_ranked_with_place_and_cost(place, strategy):
    workspace, images = place
    found = drain(suggest(workspace, asked(images, unit="slices", budget=4, strategy=strategy)))
    assert found.considered == 30
    assert len(found.chosen) == 4
    assert found.voxels == 4 * 24 * 22
    rows = list(csv.DictReader(found.file.read_text(encoding="utf-8").splitlines()))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert all(int(row["z_end"]) == int(row["z_first"]) + 1 and row["z"] == row["z_first"] for row in rows)
    assert all(float(row["minutes"]) > 0 for row in rows)
    if strategy == "entropy":
        entropies = [float(row["entropy"]) for row in rows]
        assert entropies == sorted(entropies, reverse=True)


def test_boxes_are_half_of_what_the_network_sees_or_as_large_as_was_asked(place):
    workspace, images = place
    own = drain(suggest(workspace, asked(images, unit="boxes", budget=1)))
    sides = [hi - lo for lo, hi in own.chosen[0].place.box]  # of windows of 8 x 16 x 16, in 10 x 24 x 22 voxels
    assert sides[:2] == [5, 8]
    assert sides[2] in (7, 8)
    large = drain(suggest(workspace, asked(images, unit="boxes", size=(10, 12, 22))))
    assert large.considered == 6
    with pytest.raises(SettingsError, match="does not fit an image with 3 axes"):
        drain(suggest(workspace, asked(images, unit="boxes", size=(4, 4))))


def test_proposals_of_the_suggested_images_are_kept_and_no_others(place, tmp_path):
    workspace, images = place
    found = drain(suggest(workspace, asked(images, budget=1, proposals=tmp_path / "proposals")))
    (suggestion,) = found.chosen
    assert [path.name for path in (tmp_path / "proposals").iterdir()] == [suggestion.proposal.name]
    labels, _ = read_labels(suggestion.proposal)
    assert labels.shape == SHAPE
    assert np.isin(labels, (0, 1, 2)).all()


def test_proposals_have_the_values_that_classes_have_now(place, tmp_path):
    workspace, images = place
    raw_case(workspace, "a", np.zeros(SHAPE, np.uint8), labels={"background": 0, "lesion": 1, "cyst": 2})
    request = asked(images / "u0_0000.nii.gz", proposals=tmp_path / "now")
    found, said = notes(suggest(workspace, request))
    assert "The dataset has no class organ any more" in said
    now, _ = read_labels(found.chosen[0].proposal)
    (workspace.raw / "Dataset001_Tiny" / "dataset.json").unlink()
    then = drain(suggest(workspace, request.replace(proposals=tmp_path / "then")))
    before, _ = read_labels(then.chosen[0].proposal)
    np.testing.assert_array_equal(now, before == 2)


def test_a_model_of_classes_proposes_nothing_where_the_dataset_has_regions_now(place, tmp_path):
    workspace, images = place
    regions = {"background": 0, "whole": [1, 2], "core": [2]}
    raw_case(workspace, "a", np.zeros(SHAPE, np.uint8), labels=regions, regions_class_order=[1, 2])
    with pytest.raises(ModelError, match=r"The regions of the dataset are not those .* Train a model with the current"):
        drain(suggest(workspace, asked(images, proposals=tmp_path / "now")))
    assert not (tmp_path / "now").exists()


def test_training_cases_are_left_out_and_where_nothing_is_left_it_says_so(place):
    workspace, images = place
    raw_case(workspace, "u1", np.zeros(SHAPE, np.uint8))
    found, said = notes(suggest(workspace, asked(images)))
    assert {s.place.case for s in found.chosen} == {"u0", "u2"}
    assert "1 of the images are training cases already (u1)" in said
    with pytest.raises(DatasetError, match="The image is a training case"):
        drain(suggest(workspace, asked(images / "u1_0000.nii.gz")))


def partly_annotated(workspace):
    """Make a training case of which only some slices are annotated, and a model of its classes."""
    labels = {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}
    make_model(workspace.results, Recipe(labels=labels))
    drawn = np.full(SHAPE, 3, np.uint8)
    drawn[2:6] = 0
    raw_case(workspace, "u1", drawn, labels=labels)


def test_what_is_not_annotated_yet_of_a_training_case_is_asked_for(place):
    workspace, images = place
    partly_annotated(workspace)
    found = drain(suggest(workspace, asked(images / "u1_0000.nii.gz", unit="slices", budget=9)))
    assert found.considered == 6
    assert {s.place.number for s in found.chosen} <= {0, 1, 6, 7, 8, 9}


def test_a_training_case_whose_headers_were_not_believed_is_asked_for_by_its_voxels(place):
    workspace, images = place
    partly_annotated(workspace)
    claim_mirrored(next(workspace.raw.rglob("labelsTr/u1.nii.gz")))
    data = workspace.preprocessed / "Dataset001_Tiny" / "nnUNetPlans_3d_fullres"
    data.parent.mkdir(parents=True)
    Journal.of(data).note(["u1"], "rules:files:content:ignore")
    found = drain(suggest(workspace, asked(images / "u1_0000.nii.gz", unit="slices", budget=9)))
    assert {s.place.number for s in found.chosen} <= {0, 1, 6, 7, 8, 9}


@pytest.mark.parametrize(("spacing", "shape"), [((2.0, 2.0, 2.0), SHAPE), ((1.0, 1.0, 1.0), SHAPE[::-1])])
def test_another_image_with_the_name_of_a_training_case_is_not_taken_for_it(place, spacing, shape):
    workspace, images = place
    labels = {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}
    make_model(workspace.results, Recipe(labels=labels))
    raw_case(workspace, "u1", np.full(shape, 3, np.uint8), labels=labels)
    label = next(workspace.raw.rglob("labelsTr/u1.nii.gz"))
    write_nifti(label, np.full(shape, 3, np.uint8), spacing)
    with pytest.raises(DatasetError, match=r"u1\.nii\.gz does not lie on the voxels of the image of the same name"):
        drain(suggest(workspace, asked(images / "u1_0000.nii.gz", unit="slices")))


def test_a_dataset_without_a_model_says_what_to_do_first(tmp_path):
    workspace = Workspace.at(tmp_path)
    raw_case(workspace, "a", np.zeros(SHAPE, np.uint8))
    with pytest.raises(ModelError, match="no trained model yet") as raised:
        drain(suggest(workspace, asked(tmp_path)))
    assert "napari-nnunet train" in raised.value.message
    assert "Training cases dock" in raised.value.in_window


def test_a_model_that_goes_meanwhile_is_told_of(place):
    workspace, images = place
    job = suggest(workspace, asked(images))
    next(event for event in job if isinstance(event, Stage))
    next(workspace.results.glob("*/*")).rename(workspace.results / "trash")
    with pytest.raises(ModelError, match="no longer there"):
        drain(job)


def test_a_folder_without_images_is_refused(place, tmp_path):
    workspace, _ = place
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty"):
        drain(suggest(workspace, asked(tmp_path / "empty")))


def test_an_image_that_cannot_be_read_does_not_end_the_others(place):
    workspace, images = place
    (images / "u1_0000.nii.gz").write_bytes(b"nothing")
    found = drain(suggest(workspace, asked(images)))
    assert {s.place.case for s in found.chosen} == {"u0", "u2"}


def curve_of(workspace, known):
    """Validated models, each of so many cases and so good; returns their folders."""
    folders = []
    for number, (n, dice) in enumerate(known):
        model = make_model(workspace.results, Recipe())
        folder = model.folder.with_name(f"nnUNetTrainer__plans{number}__3d_fullres")
        folder.mkdir()
        for name in ("plans.json", "fold_0"):
            (model.folder / name).rename(folder / name)
        info = json.loads((model.folder / "dataset.json").read_text(encoding="utf-8"))
        (folder / "dataset.json").write_text(json.dumps({**info, "numTraining": n}))
        _validated(folder / "fold_0" / "validation", dice)
        folders.append(folder)
    return folders


def test_the_learning_curve_is_told_when_three_numbers_of_cases_are_known(place):
    workspace, images = place
    assert "not known yet" in drain(suggest(workspace, asked(images))).learning
    *_, last = curve_of(workspace, ((4, 0.6), (8, 0.75), (16, 0.82)))
    info = json.loads((last / "dataset.json").read_text(encoding="utf-8"))
    found = drain(suggest(workspace, asked(images, budget=2)))
    gain = found.gain
    assert (gain.more, gain.unit) == (2, "cases")
    assert gain.middle > 0
    folder = last.with_name("nnUNetTrainer__more__3d_fullres")
    shutil.copytree(last, folder)
    classes = {"background": 0, "organ": 1, "lesion": 2, "cyst": 3}
    (folder / "dataset.json").write_text(json.dumps({**info, "labels": classes, "numTraining": 17}))
    shutil.rmtree(folder / "fold_0" / "validation")
    _validated(folder / "fold_0" / "validation", 0.4)
    known = load_model(last)
    again = learning(workspace, "Dataset001_Tiny", known, found.chosen, "cases")
    assert again == gain, "a model of other classes has another Dice"


def test_where_slices_are_suggested_the_curve_counts_the_slices_that_were_annotated(place):
    """Not images: a slice more in each of four images is four slices more."""
    workspace, images = place
    asked_for = asked(images, unit="slices", budget=3)
    models = curve_of(workspace, ((4, 0.6), (4, 0.75), (4, 0.82)))
    assert drain(suggest(workspace, asked_for)).gain is None, "nobody noted how many slices these models had"
    for folder, slices in zip(models, (4, 8, 16), strict=True):
        note_amount(folder / "fold_0", Amount(cases=4, slices=slices, voxels=slices * 528, every=4 * 5280))
    found = drain(suggest(workspace, asked_for))
    assert found.gain.middle > 0 and "3 more slices bring" in found.learning
    boxes = drain(suggest(workspace, asked(images, unit="boxes", budget=1)))
    assert "1 more box brings" in boxes.learning
    cases = drain(suggest(workspace, asked(images, budget=1)))
    assert "1 more case brings" in cases.learning  # 4 images of which a tenth, two and four tenths are annotated


def test_a_training_notes_how_much_was_annotated(tmp_path):
    labels = np.full((6, 8, 7), 2, np.uint8)
    labels[2], labels[4, :3] = 0, 1
    write_nifti(tmp_path / "a.nii.gz", labels, spacing=(3.0, 1.0, 1.0))
    found = amount_in([tmp_path / "a.nii.gz", tmp_path / "none.nii.gz"], "SimpleITKIO", 2)
    assert found == Amount(cases=1, slices=2, voxels=56 + 21, every=336)
    assert amount_in([tmp_path / "a.nii.gz"], "SimpleITKIO", None) == Amount(1, 6, 336, 336)
    note_amount(tmp_path, found)
    assert noted_amount(tmp_path) == found
    (tmp_path / "annotated.json").write_text('{"cases": "many"}')
    assert noted_amount(tmp_path) is None
    (tmp_path / "annotated.json").write_text('{"cases": 1, "slices": 1%s, "voxels": 1, "every": 1}' % (400 * "0"))
    assert noted_amount(tmp_path) is None


def test_a_model_that_knows_the_classes_of_now_is_asked_before_a_better_one_that_does_not(place, tmp_path):
    workspace, images = place
    labels = {"background": 0, "organ": 1, "lesion": 2, "cyst": 3}
    raw_case(workspace, "a", np.zeros(SHAPE, np.uint8), labels=labels)
    request = asked(images / "u0_0000.nii.gz", proposals=tmp_path / "proposals")
    _, said = notes(suggest(workspace, request))
    assert "was trained without cyst, which is background in its proposals: draw it before a place is taken" in said
    old = workspace.results / "Dataset001_Tiny" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    kept = shutil.copytree(old, tmp_path / "old")
    new = make_model(workspace.results, Recipe(labels=labels)).folder
    new.rename(new.with_name("nnUNetTrainer__more__3d_fullres"))
    shutil.copytree(kept, old)
    for folder, dice in ((old, 0.9), (old.with_name("nnUNetTrainer__more__3d_fullres"), 0.5)):
        _validated(folder / "fold_0" / "validation", dice)
    _, said = notes(suggest(workspace, request))
    assert "was trained without" not in said


def _validated(folder, dice):
    folder.mkdir()
    cases = []
    for n in range(4):
        write_nifti(folder / f"c{n}.nii.gz", np.zeros(SHAPE, np.uint8))
        metrics = {"1": {"Dice": dice + 0.001 * n}, "2": {"Dice": dice}}
        cases.append({"prediction_file": f"c{n}.nii.gz", "reference_file": f"c{n}.nii.gz", "metrics": metrics})
    mean = {"1": {"Dice": dice}, "2": {"Dice": dice}}
    content = {"foreground_mean": {"Dice": dice}, "mean": mean, "metric_per_case": cases}
    (folder / "summary.json").write_text(json.dumps(content))


def test_from_a_shell_and_from_python_alike(place, tmp_path, capsys):
    _, images = place
    words = ["suggest", "-d", "1", "-i", str(images), "--what", "slices", "--budget", "2", "-device", "cpu"]
    assert run_verb(*words, "-o", tmp_path / "s.csv", "--workspace", tmp_path) == 0
    said = capsys.readouterr().out
    assert "2 of 30 slices, by Dataset001_Tiny 3d_fullres" in said
    assert "Together 1056 voxels" in said
    own = napari_nnunet.suggest("1", images, workspace=tmp_path, unit="slices", budget=2, device="cpu")
    assert own.csv() == (tmp_path / "s.csv").read_text(encoding="utf-8")
