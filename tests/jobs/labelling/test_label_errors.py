"""Wrong labels are found by the cross-validation, named, and written to a table, worst first."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
import SimpleITK as sitk
from suspected import CASES, DATASET, request, truth

import napari_nnunet
from choices import notes, run_verb
from helpers import Recipe, make_model, write_nifti
from napari_nnunet.errors import DatasetError, ModelError, SettingsError
from napari_nnunet.events import drain
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.labelling.label_errors import find_label_errors


def test_labels_that_are_right_are_not_suspected(suspected):
    workspace, _, _ = suspected
    found = drain(find_label_errors(workspace, request()))
    assert len(found.cases) == CASES
    assert found.suspects == ()


def test_spoiled_cases_come_first_and_say_what_is_wrong(suspected):
    workspace, spoil, model = suspected
    spoil(1, np.choose(truth(1), [0, 2, 1]).astype(np.uint8))
    spoil(5, np.where(truth(5) == 2, 0, truth(5)).astype(np.uint8))
    spoil(8, np.roll(truth(8), 4, axis=1))
    spoil(10, truth(2))
    found = drain(find_label_errors(workspace, request()))
    assert found.cases[0].name == "c01"
    assert {case.name for case in found.cases[:3]} == {"c01", "c05", "c08"}
    assert {case.name for case in found.suspects} >= {"c01", "c05", "c08"}
    told = {case.name: case.text for case in found.cases}
    assert "exchanged" in told["c01"]
    assert "is not drawn; the network sees" in told["c05"]
    assert "y -4" in told["c08"]
    assert "the same labels as c02" in told["c10"]
    assert found.file == model / "suspects.csv"


def test_the_table_has_a_line_for_each_part_and_at_least_one_for_each_case(suspected, tmp_path):
    workspace, spoil, _ = suspected
    labels = truth(4)
    labels[2:6, 18:21, 4:10] = 1
    spoil(4, labels)
    found = drain(find_label_errors(workspace, request(target=tmp_path / "lists" / "s.csv")))
    rows = list(csv.DictReader(found.file.read_text(encoding="utf-8").splitlines()))
    assert {row["case"] for row in rows} == {f"c{n:02}" for n in range(CASES)}
    first = rows[0]
    assert (first["rank"], first["case"], first["part"], first["voxels"]) == ("1", "c04", "1", "72")
    assert (first["drawn"], first["seen"]) == ("organ", "background")
    assert float(first["certainty"]) > 0.9
    assert labels[int(first["z"]), int(first["y"]), int(first["x"])] == 1


def test_without_probabilities_it_says_what_is_not_known_and_still_ranks(suspected):
    workspace, spoil, model = suspected
    for path in model.glob("fold_*/validation/*.npz"):
        path.unlink()
    spoil(7, np.choose(truth(7), [0, 2, 1]).astype(np.uint8))
    found, said = notes(find_label_errors(workspace, request()))
    assert "without probabilities" in said
    assert "--val --npz" in said
    assert [case.name for case in found.suspects] == ["c07"]


def test_cases_that_no_fold_validated_are_named(suspected):
    workspace, spoil, _ = suspected
    spoil(40, truth(0))
    _, said = notes(find_label_errors(workspace, request()))
    assert "1 of 13 cases (c40) are not judged" in said


@pytest.mark.parametrize("spoiled", [False, True])
def test_what_is_odd_about_files_is_said_once(suspected, spoiled):
    workspace, spoil, _ = suspected
    for number in (3, 4):
        if spoiled:
            spoil(number, np.choose(truth(number), [0, 2, 1]).astype(np.uint8))  # suspects are looked at twice
        path = workspace.raw / DATASET / "labelsTr" / f"c{number:02}.nii.gz"
        labels = np.where(np.arange(22) < 2, np.nan, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
        write_nifti(path, labels.astype(np.float32))
    _, said = notes(find_label_errors(workspace, request()))
    assert "c03, c04: 384 of its voxels are NaN or infinite and were read as 0." in said and said.count("NaN") == 1


def test_a_fold_trained_on_all_cases_is_no_judge(suspected):
    workspace, _, _ = suspected
    with pytest.raises(SettingsError, match="trained on every case"):
        drain(find_label_errors(workspace, request(folds=("all",))))


def test_a_dataset_without_a_validated_model_says_what_to_do_first(tmp_path):
    make_model(tmp_path / "nnUNet_results", Recipe(folds=(0,)))
    with pytest.raises(ModelError, match="was validated on cases that it did not see"):
        drain(find_label_errors(Workspace.at(tmp_path), request()))


def test_the_model_with_more_validated_cases_judges(suspected):
    workspace, _, _ = suspected
    few = make_model(workspace.results, Recipe(configuration="2d", patch=(16, 16), folds=(0,)))
    (few.folder / "fold_0" / "validation").mkdir()
    write_nifti(few.folder / "fold_0" / "validation" / "c00.nii.gz", truth(0))
    assert drain(find_label_errors(workspace, request())).model.endswith("3d_fullres")
    with pytest.raises(ModelError, match="3d_lowres"):
        drain(find_label_errors(workspace, request(configuration="3d_lowres")))


def test_labels_of_other_classes_than_the_validation_are_refused(suspected):
    workspace, _, model = suspected
    info = json.loads((model / "dataset.json").read_text(encoding="utf-8"))
    info["labels"]["third"] = 3
    (model / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(DatasetError, match="changed since the validation"):
        drain(find_label_errors(workspace, request()))


def test_labels_that_were_stored_in_another_order_are_not_held_against_old_probabilities(suspected):
    workspace, _, _ = suspected
    path = workspace.raw / DATASET / "labelsTr" / "c03.nii.gz"
    image = sitk.ReadImage(str(path))
    sitk.WriteImage(sitk.Flip(image, [True, False, False]), str(path))
    found = drain(find_label_errors(workspace, request()))
    assert list(found.failed) == ["c03"]
    assert "another orientation" in found.failed["c03"].message


@pytest.mark.parametrize("value", [255, -1, 7])
def test_values_of_no_class_are_said(suspected, value):
    workspace, spoil, _ = suspected
    labels = truth(3).astype(np.int16)
    labels[0, 0, :5] = value
    spoil(3, labels)
    _, told = notes(find_label_errors(workspace, request()))
    assert (
        f"1 file (c03.nii.gz) of the references have values that dataset.json does not define ({value}); they count as "
        "background."
    ) in told


def test_the_shell_lists_them(suspected, capsys):
    workspace, spoil, _ = suspected
    spoil(1, np.choose(truth(1), [0, 2, 1]).astype(np.uint8))
    assert run_verb("find_label_errors", "-d", 1, "--workspace", workspace.raw.parent) == 0
    out = capsys.readouterr().out
    assert out.startswith("1 of 12 cases looks wrong")
    assert "1. c01" in out
    assert out.rstrip().endswith("suspects.csv")


def test_python_has_the_same_cases(suspected):
    workspace, spoil, _ = suspected
    spoil(1, np.choose(truth(1), [0, 2, 1]).astype(np.uint8))
    found = napari_nnunet.find_label_errors("1", workspace=workspace.raw.parent)
    assert [case.name for case in found.suspects] == ["c01"]


def test_classes_with_other_values_than_the_model_learnt_are_refused(suspected):
    workspace, _, model = suspected
    info = json.loads((model / "dataset.json").read_text(encoding="utf-8"))
    info["labels"] = {"background": 0, "lesion": 1, "organ": 2}
    (workspace.raw / DATASET / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(ModelError, match="trained with the classes background = 0, organ = 1, lesion = 2") as raised:
        drain(find_label_errors(workspace, request()))
    assert "--continue_from" in raised.value.message


def test_a_single_case_is_examined_and_it_says_that_little_can_be_told(suspected):
    workspace, _, model = suspected
    for path in model.glob("fold_*/validation/c*"):
        if not path.name.startswith("c00"):
            path.unlink()
    found, said = notes(find_label_errors(workspace, request(folds=(0,))))
    assert "Only 1 validated case: what is usual cannot be known from so few" in said
    assert [case.name for case in found.cases] == ["c00"]
    assert found.suspects == ()


def test_all_suspicious_places_may_lie_in_one_case(suspected):
    workspace, spoil, _ = suspected
    labels = truth(4)
    labels[2:6, 17:22, 2:8] = 1
    labels[2:6, 17:22, 12:20] = 2
    spoil(4, labels)
    found = drain(find_label_errors(workspace, request()))
    assert [case.name for case in found.suspects] == ["c04"]
    assert len(found.suspects[0].parts) == 2


def test_a_case_that_cannot_be_examined_does_not_end_the_others(suspected, capsys):
    workspace, spoil, _ = suspected
    spoil(5, np.where(truth(5) == 2, 0, truth(5)).astype(np.uint8))
    (workspace.raw / DATASET / "labelsTr" / "c03.nii.gz").write_bytes(b"no image")
    assert run_verb("find_label_errors", "-d", 1, "--workspace", workspace.raw.parent) == 1
    said = capsys.readouterr()
    assert "c03 FAILED" in said.err
    assert re.search(r"of 11 cases looks? wrong", said.out)
    found = drain(find_label_errors(workspace, request()))
    assert list(found.failed) == ["c03"]
    assert "c03" not in {case.name for case in found.cases}
    assert len(found.cases) == CASES - 1
    assert found.cases[0].name == "c05"
    assert "c05" in found.file.read_text(encoding="utf-8")
