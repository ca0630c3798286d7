"""Folds of a model share one plans.json and one dataset.json: what was trained with others is never used with them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from trainings import SHORT, folder_of, run

from helpers import TRAINED, Recipe, make_model, preprocess_here, smooth_image, write_nifti
from napari_nnunet.cli.main import main
from napari_nnunet.errors import DatasetError, ModelError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.model.checkpoint import read_raw, told_apart
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.model.model_trash import folds_in_trash
from napari_nnunet.formats.model.torch_file import write_torch
from napari_nnunet.jobs.planning.folds import adopt_cases, take_raw_folds
from napari_nnunet.jobs.prediction.predict_files import predict_folder
from napari_nnunet.jobs.training.improve import continued
from napari_nnunet.jobs.training.prepare import check_training
from napari_nnunet.jobs.training.train import train
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.prediction import PredictFolderRequest
from napari_nnunet.schema.requests.training import TrainCommand, TrainRequest
from napari_nnunet.schema.requests.words import words

ONE = SHORT.replace(epochs=1, iterations=1, validation_iterations=1)


def change(path, function):
    content = json.loads(path.read_text(encoding="utf-8"))
    function(content)
    path.write_text(json.dumps(content))


def entry(content):
    return content["configurations"]["3d_fullres"]


def coarser(content):
    entry(content)["spacing"] = [2.0, 2.0, 2.0]


def unscaled(content):
    entry(content)["normalization_schemes"] = ["NoNormalization"]


def turned(content):
    content["transpose_forward"], content["transpose_backward"] = [1, 0, 2], [1, 0, 2]


def wider(content):
    entry(content)["architecture"]["arch_kwargs"]["features_per_stage"] = [12, 16]


def swapped(content):
    content["labels"] = {"background": 0, "organ": 2, "lesion": 1}


@pytest.fixture
def trained(new_workspace):
    workspace = new_workspace()
    run(workspace, settings=ONE, validation=False)
    return workspace


def files(workspace):
    base = workspace.preprocessed / TRAINED
    return base / "nnUNetPlans.json", base / "dataset.json"


@pytest.mark.parametrize(
    ("function", "key"),
    [(coarser, "spacing"), (unscaled, "normalization_schemes"), (turned, "transpose_forward"), (swapped, "labels")],
)
def test_what_a_fold_was_trained_with_is_not_changed_under_it(trained, function, key):
    change(files(trained)[function is swapped], function)
    model = folder_of(trained).path.parent
    before = [(model / name).read_bytes() for name in ("plans.json", "dataset.json")]
    with pytest.raises(ModelError, match=f"fold_0.checkpoint_final.pth was trained otherwise .*'{key}'") as raised:
        run(trained, fold=1, settings=ONE, validation=False)
    assert "-overwrite_plans_name NAME" in raised.value.message
    assert "Plan dock" in raised.value.in_window and "Discard" in raised.value.in_window
    assert [(model / name).read_bytes() for name in ("plans.json", "dataset.json")] == before
    for asked in ({"resume": True}, {"validate_only": True}):
        with pytest.raises(ModelError, match=f"'{key}' .* cannot be used with that"):
            run(trained, settings=ONE.replace(epochs=2), **asked)
    with pytest.raises(ModelError, match=key):  # a dock asks before it starts a process
        drain(check_training(trained, [TrainRequest(dataset=TRAINED, configuration="3d_fullres", fold=1)]))


def test_a_fold_alone_is_trained_anew_with_other_classes(trained):
    for path in (trained.raw / TRAINED / "dataset.json", files(trained)[1]):
        change(path, swapped)
    preprocess_here(trained, open_dataset(trained.raw / TRAINED))
    result, _ = run(trained, settings=ONE, validation=False)
    assert result.finished


def test_patch_and_batch_may_be_changed_between_folds(trained):
    change(files(trained)[0], lambda content: entry(content).update(batch_size=3))
    result, _ = run(trained, fold=1, settings=ONE, validation=False)
    assert result.finished and len(load_model(folder_of(trained).path.parent).folds()) == 2


def test_folds_that_one_request_trains_anew_need_not_be_put_away(trained, capsys):
    run(trained, fold=1, settings=ONE, validation=False)
    change(
        files(trained)[0],
        lambda content: entry(content)["architecture"]["arch_kwargs"].update(features_per_stage=[6, 6, 6]),
    )
    command = {"dataset": TRAINED, "configuration": "3d_fullres", "validation": False}
    both = [TrainCommand.like(ONE, **command, fold=fold) for fold in (0, 1)]
    for left in ([both[0]], [request.replace(resume=True) for request in both]):
        with pytest.raises(ModelError, match="'architecture: features"):
            drain(check_training(trained, left))
    drain(check_training(trained, both))
    words_of = ["train", *words(both), "--workspace", str(trained.raw.parent)]
    assert main(words_of) == 0
    assert "The earlier training of fold 1, with other plans or classes, was moved to" in capsys.readouterr().err
    model = load_model(folder_of(trained).path.parent)
    assert all(model.read_fold(fold, "checkpoint_final.pth").weights for fold in (0, 1))
    assert len(folds_in_trash(trained.results)) == 2


def test_a_fold_that_the_same_request_has_just_trained_is_not_put_away(new_workspace, monkeypatch, capsys):
    """Somebody plans anew while the first of two folds is trained."""
    workspace = new_workspace()

    def train_and_plan_anew(*given):
        result = yield from train(*given)
        change(files(workspace)[0], coarser)
        return result

    monkeypatch.setattr("napari_nnunet.jobs.training.train.train", train_and_plan_anew)
    command = {"dataset": TRAINED, "configuration": "3d_fullres", "validation": False}
    both = [TrainCommand.like(ONE, **command, fold=fold) for fold in (0, 1)]
    assert main(["train", *words(both), "--workspace", str(workspace.raw.parent)]) == 1
    assert "fold_0/checkpoint_final.pth was trained otherwise" in capsys.readouterr().err.replace("\\", "/")
    assert folder_of(workspace).final.is_file() and not folds_in_trash(workspace.results)


@pytest.mark.parametrize(
    ("name", "function", "key"),
    [
        ("plans.json", turned, "transpose_forward"),
        ("plans.json", unscaled, "normalization_schemes"),
        ("dataset.json", swapped, "labels"),
    ],
)
def test_weights_are_not_used_with_what_they_were_not_trained_with(tmp_path, name, function, key):
    model = make_model(tmp_path, Recipe())
    change(model.folder / name, function)
    with pytest.raises(ModelError, match=f"checkpoint_final.pth was trained otherwise .*'{key}' in {name}"):
        load_model(model.folder).read_fold(0, "checkpoint_final.pth")


@pytest.mark.parametrize(
    ("key", "said", "why"),
    [
        ("plans", {"configurations": {}}, "its plans with plans.json (its plans: no 'configurations'"),
        ("plans", {"configurations": {"2d": {}}}, "its plans with plans.json ("),
        ("dataset_json", {"labels": 3}, "its classes with dataset.json (its dataset.json"),
    ],
)
def test_weights_that_cannot_be_compared_with_their_model_are_used_with_a_word(tmp_path, key, said, why):
    model = make_model(tmp_path, Recipe(folds=(0, 1)))
    path = model.checkpoint_path(1, "checkpoint_final.pth")
    content = read_raw(path)
    content["init_args"][key] = said
    write_torch(content, path.with_name("new"), path)
    path.with_name("new").replace(path)
    for name in "ab":
        write_nifti(tmp_path / f"{name}_0000.nii.gz", smooth_image((8, 12, 12))[0])
    events = []
    request = PredictFolderRequest.of(source=tmp_path, target=tmp_path / "out", mirroring=False, device="cpu")
    assert not drain(predict_folder(load_model(model.folder), request), events.append).failed
    texts = [event.text for event in events if isinstance(event, Note) and event.level == "warning"]
    (doubt,) = [text for text in texts if "compared" in text]  # once, and not for every image
    assert doubt.startswith(f"{path} could not be compared with the files in {model.folder}: {why}")
    assert doubt.endswith("with other plans or classes than it was trained with, what it segments is wrong.")


def test_a_model_with_a_new_patch_new_names_or_unused_statistics_is_read(tmp_path):
    model = make_model(tmp_path, Recipe())
    change(model.folder / "plans.json", lambda content: entry(content).update(batch_size=7))
    change(model.folder / "plans.json", coarser)  # as people do who trained on micrometres that were called mm
    change(model.folder / "dataset.json", lambda content: content["labels"].update(ignore=3))
    assert load_model(model.folder).read_fold(0, "checkpoint_final.pth").weights
    change(
        model.folder / "dataset.json",
        lambda content: content.update(labels={"background": 0, "liver": 1, "tumour": 2}, channel_names={"0": "MRI"}),
    )
    assert load_model(model.folder).read_fold(0, "checkpoint_final.pth").weights


REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


@pytest.mark.parametrize(
    ("labels", "order", "same"),
    [
        ({"whole": [2, 1], "core": [2], "background": 0}, [1, 2], True),
        ({"background": 0, "core": 2, "whole": [1, 2]}, [1, 2], False),
        (REGIONS, [2, 1], False),
    ],
)
def test_regions_are_told_apart_by_their_values_and_order_and_not_by_how_they_are_written(
    tmp_path, labels, order, same
):
    made = dict(load_model(make_model(tmp_path, Recipe()).folder).read_fold(0, "checkpoint_final.pth").made_with)
    made["dataset_json"] = made["dataset_json"] | {"labels": REGIONS, "regions_class_order": (1, 2)}
    info = DatasetInfo.parse(made["dataset_json"] | {"labels": labels, "regions_class_order": order})
    found = told_apart(made, Plans.parse(made["plans"], where="plans"), info, "3d_fullres")
    assert (not found) == same


def test_probabilities_of_an_earlier_network_do_not_stay_beside_new_segmentations(new_workspace):
    workspace = new_workspace()
    run(workspace, settings=ONE.replace(probabilities=True))
    folder = folder_of(workspace).validation
    assert sorted(path.suffix for path in folder.glob("c*")) == [".gz", ".npz", ".pkl"]
    np.savez(folder / "other.npz", a=np.zeros(1))
    run(workspace, settings=ONE.replace(epochs=2), resume=True)
    assert [path.suffix for path in folder.glob("c*")] == [".gz"] and not (folder / "other.npz").exists()
    run(workspace, settings=ONE.replace(epochs=2, probabilities=True), validate_only=True)
    assert sorted(path.suffix for path in folder.glob("c*")) == [".gz", ".npz", ".pkl"]


def test_a_fold_does_not_validate_on_what_it_was_trained_with(new_workspace):
    workspace = new_workspace()
    run(workspace, settings=ONE)
    splits = workspace.preprocessed / TRAINED / "splits_final.json"
    content = json.loads(splits.read_text(encoding="utf-8"))
    splits.write_text(json.dumps([*content[1:], content[0]]))
    for asked in ({"resume": True}, {"validate_only": True}):
        with pytest.raises(DatasetError, match=r"was trained with 1 of the cases that validate it now .*splits_final"):
            run(workspace, settings=ONE.replace(epochs=2), **asked)


def test_segmentations_of_cases_that_left_a_fold_do_not_stay_in_its_validation(new_workspace):
    workspace = new_workspace()
    splits = workspace.preprocessed / TRAINED / "splits_final.json"
    splits.write_text(json.dumps([{"train": ["c0", "c1"], "val": ["c2", "c3"]}]))
    run(workspace, settings=ONE)
    splits.write_text(json.dumps([{"train": ["c0", "c1"], "val": ["c3", "c4"]}]))
    run(workspace, settings=ONE, validate_only=True)
    assert sorted(path.name for path in folder_of(workspace).validation.glob("c*")) == ["c3.nii.gz", "c4.nii.gz"]


def test_folds_that_a_raw_dataset_brings_are_not_taken_under_trained_models(trained):
    splits = trained.preprocessed / TRAINED / "splits_final.json"
    before = splits.read_text(encoding="utf-8")
    own = trained.raw / TRAINED / "splits_final.json"
    own.write_text(before)
    take_raw_folds(trained, TRAINED)
    names = [case.name for case in open_dataset(trained.raw / TRAINED).cases]
    own.write_text(json.dumps([{"train": names[:2], "val": names[2:]}]))
    with pytest.raises(DatasetError, match="nnUNetPlans__3d_fullres/fold_0 was trained with them.* Move .*raw.* away"):
        take_raw_folds(trained, TRAINED)
    assert splits.read_text(encoding="utf-8") == before


def test_cases_that_folds_of_a_raw_dataset_do_not_know_may_train_in_addition(trained):
    splits, own = trained.preprocessed / TRAINED / "splits_final.json", trained.raw / TRAINED / "splits_final.json"
    own.write_text(splits.read_text(encoding="utf-8"))
    adopt_cases(trained, TRAINED, ["new", "newer"])
    with_new = splits.read_text(encoding="utf-8")
    take_raw_folds(trained, TRAINED)
    assert splits.read_text(encoding="utf-8") == with_new and "newer" in with_new
    folds = json.loads(with_new)
    folds[0]["val"].append(folds[0]["train"].pop())  # another fold
    splits.write_text(json.dumps(folds))
    with pytest.raises(DatasetError, match="was trained with them"):
        take_raw_folds(trained, TRAINED)


def test_a_model_is_continued_by_the_folds_of_the_raw_dataset_where_it_was_never_planned(trained, tmp_path):
    model = folder_of(trained).path.parent.rename(tmp_path / folder_of(trained).path.parent.name)
    own = trained.raw / TRAINED / "splits_final.json"
    (trained.preprocessed / TRAINED / "splits_final.json").rename(own)
    asked = [TrainRequest.like(ONE, dataset=TRAINED, configuration="3d_fullres", fold=0, continue_from=model)]
    folds = json.loads(own.read_text(encoding="utf-8"))[::-1]  # not those that would be made
    own.write_text(json.dumps(folds))
    drain(continued(trained, asked))
    assert json.loads((trained.preprocessed / TRAINED / "splits_final.json").read_text(encoding="utf-8")) == folds
    with pytest.raises(
        DatasetError, match=r"fold_0, which is to be continued, was trained with \d of the cases"
    ) as raised:
        run(trained, settings=ONE, continue_from=model, plans="nnUNetPlans_continued")
    assert "train the fold 'all'" in raised.value.message
