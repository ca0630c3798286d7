"""Predicted Dice is learnt once from a model's validation cases, and written beside the segmentations, worst first."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

from choices import notes, run_verb
from helpers import Recipe, make_model, smooth_image, write_nifti
from napari_nnunet import predict as predict_array
from napari_nnunet.errors import ModelError, SettingsError
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.case_files import Case
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.preprocessed.journal import Journal
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.jobs.prediction.presets import image_and_labels
from napari_nnunet.schema.requests.prediction import PredictSettings
from turned_files import claim_mirrored, mirror, shift

SHAPE = (10, 22, 20)
QUALITY = PredictSettings(device="cpu", mirroring=False, quality=True)


@pytest.fixture
def place(tmp_path, known_arithmetic):
    """A model whose one fold validated six cases, and those cases."""
    model = make_model(tmp_path / "nnUNet_results", Recipe())
    raw = tmp_path / "nnUNet_raw" / "Dataset001_Tiny"
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    validation = model.folder / "fold_0" / "validation"
    validation.mkdir()
    rng = np.random.default_rng(0)
    for n in range(6):
        write_nifti(raw / "imagesTr" / f"c{n}_0000.nii.gz", smooth_image(SHAPE, seed=n)[0])
        volume = read_volume((raw / "imagesTr" / f"c{n}_0000.nii.gz",))
        seen = drain(predict(model, volume, QUALITY.replace(quality=False))).labels
        truth = np.where(rng.random(SHAPE) < 0.1 * n, 0, seen).astype(np.uint8)
        write_nifti(raw / "labelsTr" / f"c{n}.nii.gz", truth)
        write_nifti(validation / f"c{n}.nii.gz", seen)
    (raw / "dataset.json").write_text((model.folder / "dataset.json").read_text(encoding="utf-8"))
    return model, raw


def image(raw, n=0):
    return read_volume((raw / "imagesTr" / f"c{n}_0000.nii.gz",))


def test_the_first_time_it_is_learnt_and_then_known(place):
    model, raw = place
    first, said = notes(predict(model, image(raw), QUALITY))
    assert "6 validation cases and 3 degraded copies" in said
    assert set(first.quality.dice) == {"organ", "lesion", "mean"}
    assert all(lo <= value <= hi for value, lo, hi in first.quality.dice.values())
    assert first.quality.unlike == ()
    assert first.probabilities is None
    again, said = notes(predict(model, image(raw), QUALITY))
    assert "degraded" not in said
    assert again.quality == first.quality


def test_labels_are_laid_over_their_images_before_they_are_counted(place):
    model, raw = place
    first = drain(predict(model, image(raw), QUALITY))
    (model.folder / "quality.json").unlink()
    mirror(raw / "labelsTr" / "c1.nii.gz")
    shift(raw / "labelsTr" / "c0.nii.gz")
    again, said = notes(predict(model, image(raw), QUALITY))
    assert "c0 is left out: its image and its labels show different places" in said and "c1" not in said
    stored = json.loads((model.folder / "quality.json").read_text(encoding="utf-8"))["plain"]["model"]["scored"]
    (c1,) = (entry["dice"]["mean"] for entry in stored if entry["case"] == "c1" and entry["plain"])
    assert c1 > 0.9 and {entry["case"] for entry in stored} == {f"c{n}" for n in range(1, 6)}
    assert set(again.quality.dice) == set(first.quality.dice)


def test_cases_that_were_trained_whatever_their_headers_say_are_measured_so(place):
    model, raw = place
    drain(predict(model, image(raw), QUALITY))
    before = json.loads((model.folder / "quality.json").read_text(encoding="utf-8"))["plain"]["model"]
    (model.folder / "quality.json").unlink()
    claim_mirrored(raw / "labelsTr" / "c1.nii.gz")
    shift(raw / "labelsTr" / "c0.nii.gz")
    data = Workspace.around(raw).preprocessed / raw.name / "nnUNetPlans_3d_fullres"
    data.parent.mkdir(parents=True)
    Journal.of(data).note(["c0", "c1"], "rules:files:content:ignore")
    _, said = notes(predict(model, image(raw), QUALITY))
    assert "left out" not in said
    assert json.loads((model.folder / "quality.json").read_text(encoding="utf-8"))["plain"]["model"] == before
    path = raw / "imagesTr" / "c1_0000.nii.gz"
    _, truth = image_and_labels(Case("c1", (path,)), raw / "labelsTr" / "c1.nii.gz", "SimpleITKIO")
    np.testing.assert_array_equal(truth, read_labels(raw / "labelsTr" / "c1.nii.gz")[0])


def test_labels_are_those_of_a_prediction_without_it(place):
    model, raw = place
    plain = drain(predict(model, image(raw), QUALITY.replace(quality=False)))
    np.testing.assert_array_equal(drain(predict(model, image(raw), QUALITY)).labels, plain.labels)
    assert plain.quality is None


def test_a_model_that_was_trained_on_is_measured_anew(place):
    model, raw = place
    drain(predict(model, image(raw), QUALITY))
    other = make_model(model.folder.parents[1], Recipe(), seed=5)
    _, said = notes(predict(other, image(raw), QUALITY))
    assert "was not measured yet" in said


def test_a_folder_gets_a_table_with_the_worst_first_and_keeps_what_is_finished(place, tmp_path, capsys):
    model, raw = place
    words = ["predict_from_modelfolder", "-m", model.folder, "-i", raw / "imagesTr", "-o", tmp_path / "out"]
    words += ["--quality", "--disable_tta", "-device", "cpu"]
    assert run_verb(*words) == 0
    table = tmp_path / "out" / "quality.csv"
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    dice = [float(row["mean Dice"]) for row in rows]
    assert dice == sorted(dice)
    assert {row["image"] for row in rows} == {f"c{n}" for n in range(6)}
    assert list(rows[0]) == [
        *("image", "mean Dice", "mean low", "mean high", "organ Dice", "organ low", "organ high"),
        *("lesion Dice", "lesion low", "lesion high", "nothing found", "unlike"),
    ]
    (tmp_path / "out" / "c3.nii.gz").unlink()
    assert run_verb(*words, "--c") == 0
    assert list(csv.DictReader(table.read_text(encoding="utf-8").splitlines())) == rows


def test_a_case_in_which_a_class_is_wholly_missed_comes_first_and_is_said(place, tmp_path, capsys):
    model, raw = place
    write_nifti(raw / "imagesTr" / "flat_0000.nii.gz", np.zeros(SHAPE, np.float32))  # nothing to be told apart
    words = ["predict_from_modelfolder", "-m", model.folder, "-i", raw / "imagesTr", "-o", tmp_path / "out"]
    assert run_verb(*words, "--quality", "--disable_tta", "-device", "cpu") == 0
    labels, _ = read_labels(tmp_path / "out" / "flat.nii.gz")
    missed = [name for name, value in (("organ", 1), ("lesion", 2)) if value not in labels]
    assert missed
    rows = list(csv.DictReader((tmp_path / "out" / "quality.csv").read_text(encoding="utf-8").splitlines()))
    assert rows[0]["image"] == "flat"
    assert all(f"{name}, which 6 of 6 known cases have" in rows[0]["nothing found"] for name in missed)
    assert float(rows[0]["mean Dice"]) < min(float(row["mean Dice"]) for row in rows[1:])
    assert "flat: Predicted Dice" in (told := capsys.readouterr()).out + told.err
    assert "Nothing was found of" in told.out + told.err


def test_labels_that_are_corrected_afterwards_are_noticed_and_only_they_are_measured_again(place):
    model, raw = place
    drain(predict(model, image(raw), QUALITY))
    before = json.loads((model.folder / "quality.json").read_text(encoding="utf-8"))["plain"]
    seen, _ = read_labels(model.folder / "fold_0" / "validation" / "c5.nii.gz")
    write_nifti(raw / "labelsTr" / "c5.nii.gz", seen)  # what was wrong in half of its voxels is right now
    _, said = notes(predict(model, image(raw), QUALITY))
    assert "The labels of c5 changed since it was measured" in said
    assert "1 validation case and 3 degraded copies are segmented once" in said
    after = json.loads((model.folder / "quality.json").read_text(encoding="utf-8"))["plain"]
    (was,), (now,) = (
        [r["dice"]["mean"] for r in entry["model"]["scored"] if r["case"] == "c5" and r["plain"]]
        for entry in (before, after)
    )
    assert was < 0.8 and now > 0.99
    others = [[r for r in entry["model"]["scored"] if r["case"] != "c5"] for entry in (before, after)]
    assert others[0] == others[1] and len(after["model"]["scored"]) == len(before["model"]["scored"])
    assert after["weights"] == before["weights"]
    assert "degraded" not in notes(predict(model, image(raw), QUALITY))[1]


def test_labels_that_were_only_written_again_are_the_same(place):
    model, raw = place
    drain(predict(model, image(raw), QUALITY))
    for path in (raw / "labelsTr").iterdir():
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    assert "degraded" not in notes(predict(model, image(raw), QUALITY))[1]


def test_a_file_that_does_not_say_from_which_labels_was_learnt_is_made_anew_where_these_are(place, tmp_path):
    model, raw = place
    drain(predict(model, image(raw), QUALITY))
    path = model.folder / "quality.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["plain"]["labels"]
    path.write_text(json.dumps(content))
    away = tmp_path / "colleague" / model.folder.parent.name / model.folder.name
    shutil.copytree(model.folder, away)
    assert "degraded" not in notes(predict(load_model(away), image(raw), QUALITY))[1]  # it came without its dataset
    assert "or it was not noted what they were: 6 validation cases" in notes(predict(model, image(raw), QUALITY))[1]


def test_a_dataset_that_cannot_be_read_does_not_keep_anybody_from_segmenting(place):
    model, raw = place
    first = drain(predict(model, image(raw), QUALITY)).quality
    (raw / "dataset.json").write_text("{")
    assert drain(predict(model, image(raw), QUALITY)).quality == first


def test_what_somebody_else_left_out_of_the_file_is_measured_again_with_the_rest(place):
    model, raw = place
    drain(predict(model, image(raw), QUALITY))
    path = model.folder / "quality.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["plain"]["model"]["looks"].pop()
    path.write_text(json.dumps(content))
    write_nifti(raw / "labelsTr" / "c5.nii.gz", np.ones(SHAPE, np.uint8))
    _, said = notes(predict(model, image(raw), QUALITY))
    assert "The labels of c5 changed" in said and "6 validation cases" in said


def test_where_it_cannot_be_measured_again_it_says_that_it_goes_by_earlier_labels(place, tmp_path, capsys):
    model, raw = place
    first = drain(predict(model, image(raw), QUALITY)).quality
    for n in range(3):
        (raw / "labelsTr" / f"c{n}.nii.gz").write_bytes(b"no image")
    again, said = notes(predict(model, image(raw), QUALITY))
    assert "The Dice is predicted by labels that changed since (c0, c1, c2)" in said
    assert again.quality == first
    words = ["predict_from_modelfolder", "-m", model.folder, "-i", raw / "imagesTr", "-o", tmp_path / "out"]
    assert run_verb(*words, "--quality", "--disable_tta", "-device", "cpu") == 0
    told = capsys.readouterr()
    assert 1 <= (told.out + told.err).count("labels that changed since") <= 2  # not for each of six images


def test_where_folds_are_averaged_it_says_that_it_was_learnt_from_single_ones(place, tmp_path, capsys):
    model, raw = place
    single = drain(predict(model, image(raw), QUALITY)).quality
    assert single.averaged == "" and single.text == single.brief
    shutil.copytree(model.folder / "fold_0", model.folder / "fold_1")
    both = load_model(model.folder)
    found = drain(predict(both, image(raw), QUALITY.replace(folds=(0, 1)))).quality
    assert found.text.endswith("one fold at a time; the mean of 2 folds may be better than predicted.")
    words = ["predict_from_modelfolder", "-m", model.folder, "-i", raw / "imagesTr", "-o", tmp_path / "out"]
    assert run_verb(*words, "-f", 0, 1, "--quality", "--disable_tta", "-device", "cpu") == 0
    told = capsys.readouterr()
    assert (told.out + told.err).count("the mean of 2 folds may be better than predicted") == 1


def test_a_model_without_validation_cases_says_what_to_do(tmp_path, known_arithmetic):
    model = make_model(tmp_path / "nnUNet_results", Recipe())
    array = smooth_image(SHAPE)
    with pytest.raises(ModelError, match="at least 5 validation cases") as raised:
        predict_array(model, array, spacing=(1.0, 1.0, 1.0), device="cpu", quality=True)
    assert "--val" in raised.value.message
    assert "Train dock" in raised.value.in_window


def test_a_part_of_an_image_and_numbered_objects_are_not_judged(place):
    model, raw = place
    with pytest.raises(SettingsError, match="Segment the whole image"):
        drain(predict(model, image(raw), QUALITY, roi=((0, 5), (0, 5), (0, 5))))


def test_a_damaged_file_of_what_was_learnt_is_made_anew(place):
    model, raw = place
    drain(predict(model, image(raw), QUALITY))
    path = model.folder / "quality.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["plain"]["model"] = {"scored": 3}
    path.write_text(json.dumps(content))
    _, said = notes(predict(model, image(raw), QUALITY))
    assert "was not measured yet" in said
