"""A training that goes on with a model keeps what its classes learnt, learns new ones, and leaves the model alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from trainings import NEW, SHORT, folder_of, going_on, of, request, run

from helpers import TRAINED, Recipe, dataset_json, make_model
from napari_nnunet import train
from napari_nnunet.cli import main
from napari_nnunet.engine.training.heads import HeadFit
from napari_nnunet.errors import DatasetError, ModelError, SettingsError
from napari_nnunet.events import EpochDone, Note, drain
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.model.checkpoint import read_raw
from napari_nnunet.jobs.training.improve import continued, matching_heads
from napari_nnunet.jobs.training.train import train as train_job
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.model_name import continued_plans
from napari_nnunet.schema.requests.training import TrainRequest

ADAM = "nnUNetTrainerAdam1en3"


def hashes(folder: Path):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_heads_are_matched_by_name():
    old = LabelScheme(labels={"background": 0, "organ": 1, "lesion": 2})
    assert matching_heads(LabelScheme(labels=NEW), old) == [0, 2, 1, None]


def test_classes_keep_what_they_learnt_and_the_model_stays(trained):
    place, model = trained
    before = hashes(model)
    events = []
    result = train(
        TRAINED, "3d_fullres", 0, workspace=place.raw.parent, settings=SHORT, continue_from=model, epochs=1, iterations=1,
        on_event=events.append,
    )  # fmt: skip
    assert result.folder.path.parent.name == "nnUNetTrainer__nnUNetPlans_continued__3d_fullres"
    assert hashes(model) == before
    said = " ".join(event.text for event in of(Note, events))
    assert "New: cyst." in said
    assert "Output layers fitted to what the network sees: background, lesion, organ, cyst." in said
    assert "organ" in said.split("both models validated")[1]
    old = read_raw(model / "fold_0" / "checkpoint_final.pth")["network_weights"]
    new = read_raw(result.folder.final)["network_weights"]
    near = {"atol": 0.02, "rtol": 0.0}  # one step of training
    deep = next(name for name in old if name.startswith("encoder.stages.0") and name.endswith("conv.weight"))
    np.testing.assert_allclose(new[deep], old[deep], **near)


def test_classes_begin_with_the_output_layers_of_their_names(trained, monkeypatch):
    place, model = trained
    monkeypatch.setattr(HeadFit, "fit", lambda _: [])  # what would change them at once
    (made,) = drain(continued(place, [request(continue_from=model, epochs=1, iterations=1, trainer=ADAM)]))
    events = []
    result = drain(train_job(place, made), events.append)
    said = " ".join(event.text for event in of(Note, events))
    assert "The output layers could not be fitted" in said
    assert "fitted to what" not in said
    assert of(EpochDone, events)[0].rate == pytest.approx(1e-3), "which is for fitted ones"
    content = read_raw(result.folder.final)
    assert content["napari_nnunet"]["begun_with"]["fitted"] == []
    old, new = read_raw(model / "fold_0" / "checkpoint_final.pth")["network_weights"], content["network_weights"]
    head = next(name for name in old if name.endswith("seg_layers.1.weight"))
    for mine, theirs in ((0, 0), (1, 2), (2, 1)):
        np.testing.assert_allclose(new[head][mine], old[head][theirs], atol=0.002, rtol=0.0)  # one step of 0.001
    assert not np.allclose(old[head][1], old[head][2], atol=0.01)


def test_without_other_classes_nothing_is_fitted_and_the_rate_is_the_trainers(new_workspace):
    place = new_workspace()
    run(place)
    result, events = going_on(place, folder_of(place).path.parent, "same", trainer="nnUNetTrainerAdam1en3")
    assert not any("fitted" in note.text for note in of(Note, events))
    assert of(EpochDone, events)[0].rate == pytest.approx(1e-3)
    assert read_raw(result.folder.final)["napari_nnunet"]["begun_with"]["new"] == []


@pytest.mark.parametrize(
    ("trainer", "rate"),
    [
        ("nnUNetTrainer", 1e-2),
        ("nnUNetTrainerAdam1en3", 3e-3),
        ("nnUNetTrainerVanillaAdam3en4", 9e-4),
        ("nnUNetTrainerAdam", 1e-2),  # three times that spoils a network
    ],
)
def test_with_a_new_class_adam_learns_faster_and_it_is_kept(trained, trainer, rate):
    place, model = trained
    result, events = going_on(place, model, "more", trainer=trainer)
    assert of(EpochDone, events)[0].rate == pytest.approx(rate)
    own = read_raw(result.folder.final)["napari_nnunet"]
    assert own["rate"] == own["begun_with"]["rate"] == pytest.approx(rate)
    assert own["begun_with"]["new"] == ["cyst"]
    assert own["begun_with"]["fitted"] == ["background", "lesion", "organ", "cyst"]


def test_a_class_that_is_no_longer_asked_for_becomes_background_at_once(new_workspace):
    place = new_workspace()
    run(place)
    raw = place.raw / TRAINED
    dataset_json(raw, labels={"background": 0, "organ": 1})
    for path in sorted((raw / "labelsTr").iterdir()):
        labels, geometry = read_labels(path)
        write_labels(np.where(labels == 1, 1, 0).astype(np.uint8), geometry, path)
    _, events = going_on(place, folder_of(place).path.parent, "fewer", trainer="nnUNetTrainerAdam1en3")
    assert of(EpochDone, events)[0].rate == pytest.approx(1e-3), "nothing is new"
    said = " ".join(note.text for note in of(Note, events))
    assert "No longer asked for: lesion." in said
    assert "fitted to what the network sees: background, organ." in said


@pytest.mark.parametrize("again", [False, True])
def test_a_model_of_scribbles_that_goes_on_otherwise_is_said(new_workspace, again):
    place = new_workspace(Recipe(labels={"background": 0, "organ": 1, "lesion": 2, "ignore": 3}))
    run(place, settings=SHORT.replace(epochs=1, scribbles=True), validation=False)
    _, events = going_on(place, folder_of(place).path.parent, "more", scribbles=again)
    found = [note for note in of(Note, events) if "was trained on labels that are strokes" in note.text]
    assert len(found) == (0 if again else 1)
    if found:
        assert found[0].text.endswith("add --scribbles.") and found[0].in_window.endswith("switch 'Scribbles' on.")


def test_a_new_class_that_no_case_shows_is_said(trained):
    place, model = trained
    for path in sorted((place.raw / TRAINED / "labelsTr").iterdir()):
        labels, geometry = read_labels(path)
        write_labels(np.where(labels == 3, 0, labels).astype(np.uint8), geometry, path)
    _, events = going_on(place, model, "rare")
    assert any("No voxel of cyst was in the 32 batches" in note.text for note in of(Note, events))


def test_the_shell_goes_on_and_resumes_under_the_new_name(trained, capsys):
    place, model = trained
    words = [
        "train",
        TRAINED,
        "3d_fullres",
        "0",
        "--workspace",
        str(place.raw.parent),
        "--epochs",
        "1",
        "--iterations",
        "2",
    ]
    words += ["--validation_iterations", "1", "--workers", "0", "-device", "cpu", "--continue_from", str(model)]
    assert main(words) == 0
    assert "nnUNetPlans_continued__3d_fullres" in capsys.readouterr().out
    plans = json.loads((place.preprocessed / TRAINED / "nnUNetPlans_continued.json").read_text(encoding="utf-8"))
    assert plans["plans_name"] == "nnUNetPlans_continued"
    assert main([*words, "--c"]) == 1
    assert "cannot be combined" in capsys.readouterr().err


def test_without_a_length_it_is_a_quarter_of_the_trainers(trained):
    place, model = trained
    asked = TrainRequest(dataset=TRAINED, configuration="3d_fullres", fold=0, continue_from=model)
    events = []
    (made,) = drain(continued(place, [asked]), events.append)
    assert made.epochs == 250
    assert "a quarter" in " ".join(event.text for event in of(Note, events))


def test_plans_of_that_name_that_are_others_are_not_overwritten(trained):
    place, model = trained
    base = place.preprocessed / TRAINED
    other = json.loads((base / "nnUNetPlans.json").read_text(encoding="utf-8"))
    other["configurations"]["3d_fullres"]["batch_size"] = 7
    (base / "mine.json").write_text(json.dumps({**other, "plans_name": "mine"}))
    with pytest.raises(SettingsError, match="other plans"):
        drain(continued(place, [request(continue_from=model, plans="mine")]))


def test_the_models_own_place_is_refused(trained):
    place, model = trained
    with pytest.raises(SettingsError, match="would replace the model"):
        train(
            TRAINED,
            "3d_fullres",
            0,
            workspace=place.raw.parent,
            settings=SHORT,
            continue_from=model,
            plans="nnUNetPlans",
        )


@pytest.mark.parametrize(
    ("recipe", "error", "words"),
    [
        (Recipe(configuration="2d", patch=(16, 16), spacing=(1.0, 1.0)), ModelError, "is a 2d model"),
        (Recipe(channels=("MR", "T2")), DatasetError, "same number of channels"),
        (
            Recipe(labels={"background": 0, "whole": [1, 2], "core": 2}, regions_class_order=(1, 2)),
            DatasetError,
            "both",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_anything_is_written(workspace, tmp_path, recipe, error, words):
    model = make_model(tmp_path / "elsewhere", recipe)
    place = workspace
    before = sorted(place.preprocessed.rglob("*"))
    with pytest.raises(error, match=words):
        drain(continued(place, [request(continue_from=model.folder)]))
    assert sorted(place.preprocessed.rglob("*")) == before


def test_another_fold_than_the_models_is_warned_of(trained):
    place, model = trained
    shutil.copytree(model / "fold_0", model / "fold_1")
    shutil.rmtree(model / "fold_0")
    events = []
    train(
        TRAINED,
        "3d_fullres",
        0,
        workspace=place.raw.parent,
        settings=SHORT,
        continue_from=model,
        epochs=1,
        on_event=events.append,
    )
    assert any("may be too high" in event.text for event in of(Note, events))


def test_channels_of_other_names_are_warned_of(trained):
    place, model = trained
    dataset_json(place.raw / TRAINED, channel_names={"0": "T2"})
    events = []
    drain(continued(place, [request(continue_from=model)]), events.append)
    assert any("the same kind of image" in event.text for event in of(Note, events))


def test_cases_with_voxels_of_another_unit_are_refused_before_anything_is_written(trained):
    place, model = trained
    for path in [place.raw / TRAINED / "imagesTr" / "c1_0000.nii.gz", place.raw / TRAINED / "labelsTr" / "c1.nii.gz"]:
        image = sitk.ReadImage(str(path))
        image.SetSpacing([1000 * size for size in image.GetSpacing()])
        sitk.WriteImage(image, str(path))
    before = hashes(place.raw.parent)
    with pytest.raises(
        DatasetError, match=r"1 of 5 cases .* have other voxels than .* c1: The voxels of the image are"
    ):
        drain(continued(place, [request(continue_from=model)]))
    assert hashes(place.raw.parent) == before


def test_cases_of_another_kind_of_image_are_warned_of(trained):
    place, model = trained
    for path in sorted((place.raw / TRAINED / "imagesTr").iterdir()):
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32) * 1e-4, str(path))
    events = []
    drain(continued(place, [request(continue_from=model)]), events.append)
    said = [event.text for event in events if isinstance(event, Note) and event.level == "warning"]
    odd = [text.partition(":")[0] for text in said if "The intensities of MR" in text and "another modality" in text]
    assert odd == ["c0", "c2", "c4"]


def test_cases_that_are_in_no_fold_yet_train_in_every_fold(trained):
    place, model = trained
    raw = place.raw / TRAINED
    for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        shutil.copy(raw / part / f"c0{ending}", raw / part / f"new{ending}")
    found = []
    drain(continued(place, [request(continue_from=model, plans="more")]), found.append)
    splits = json.loads((place.preprocessed / TRAINED / "splits_final.json").read_text(encoding="utf-8"))
    assert all("new" in split["train"] and "new" not in split["val"] for split in splits)
    assert any(isinstance(event, Note) and "1 new case is trained with in every fold" in event.text for event in found)


def test_both_models_are_kept_side_by_side_for_the_dock(trained):
    place, model = trained
    made = drain(continued(place, [request(continue_from=model, plans="beside", epochs=1)]))
    drain(train_job(place, made[0]))
    fold = model.parent / "nnUNetTrainer__beside__3d_fullres" / "fold_0"
    content = json.loads((fold / "continued_from.json").read_text(encoding="utf-8"))
    assert content["model"] == str(model.resolve())
    assert all(len(pair) == 2 for pair in content.get("dice", {}).values())


def test_a_further_continuation_gets_another_name():
    assert continued_plans("nnUNetPlans") == "nnUNetPlans_continued"
    assert continued_plans("nnUNetPlans_continued") == "nnUNetPlans_continued2"
    assert continued_plans("nnUNetPlans", ["nnUNetPlans_continued"]) == "nnUNetPlans_continued2"
