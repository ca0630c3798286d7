"""What a folder of results holds is told by what lies beside: the same request, another one, or nothing that is known."""

from __future__ import annotations

import json

import pytest

from helpers import Recipe, make_model
from napari_nnunet.formats.model.side_files import rules_of_folds, what_is_there, write_side_files
from napari_nnunet.formats.results.recipe import write_recipe
from napari_nnunet.schema.objects import RULES_FILE
from napari_nnunet.schema.requests.prediction import PredictFolderRequest

ARGUMENTS = "predict_from_raw_data_args.json"


@pytest.fixture
def tiny(tmp_path):
    return make_model(tmp_path / "models", Recipe(folds=(0, 1)))


def asked(tmp_path, **changes):
    return PredictFolderRequest(**{"source": tmp_path / "in", "target": tmp_path / "out", **changes})


def finished(model, request, more=None):
    """Leave what a prediction leaves: a segmentation, its recipe, and the files beside."""
    request.target.mkdir(exist_ok=True)
    settings = request.settings(model.resolve_folds(None, request.checkpoint))
    write_side_files(model, request, settings, more)
    (request.target / "a.nii.gz").touch()
    folds = model.resolve_folds(settings.folds, settings.checkpoint)
    write_recipe(
        request.target,
        {"folder": str(model.folder), "configuration": "3d_fullres", "folds": list(folds), "checkpoint": "checkpoint_final.pth",
         "sha256": model.hashes(folds, settings.checkpoint), "spacing": list(request.spacing or ()) or None},
    )  # fmt: skip


def test_nnunets_tools_find_the_models_files_and_the_arguments(tmp_path, tiny):
    request = asked(tmp_path, source=(tmp_path / "in", tmp_path / "more"))
    finished(tiny, request)
    for name in ("dataset.json", "plans.json"):
        assert (request.target / name).read_bytes() == (tiny.folder / name).read_bytes()
    said = json.loads((request.target / ARGUMENTS).read_text(encoding="utf-8"))
    assert said["model"] == str(tiny.folder)
    assert said["input"] == [str(tmp_path / "in"), str(tmp_path / "more")]
    assert said["napari_nnunet"] == {}


def test_files_of_another_model_are_replaced_and_those_of_the_same_are_not_touched(tmp_path, tiny):
    request = asked(tmp_path)
    finished(tiny, request)
    before = (request.target / "plans.json").stat().st_mtime_ns
    (request.target / "dataset.json").write_text("{}")
    finished(tiny, request)
    assert (request.target / "plans.json").stat().st_mtime_ns == before
    assert (request.target / "dataset.json").read_bytes() == (tiny.folder / "dataset.json").read_bytes()


def test_a_folder_without_segmentations_holds_nothing(tmp_path, tiny):
    request = asked(tmp_path)
    assert what_is_there(tiny, request) == "nothing"
    finished(tiny, request)
    (request.target / "a.nii.gz").rename(request.target / "a.mha")
    assert what_is_there(tiny, request) == "nothing"


def test_the_same_request_is_known_again(tmp_path, tiny):
    for request in (asked(tmp_path), asked(tmp_path, folds=(0,), mirroring=False, spacing=(2.0, 1.0, 1.0))):
        finished(tiny, request)
        assert what_is_there(tiny, request) == "the same"
    # where, how fast and which part of the cases does not decide
    same = {"folds": (0,), "mirroring": False, "spacing": (2.0, 1.0, 1.0)}
    assert what_is_there(tiny, asked(tmp_path, **same, device="cpu", threads=1, parts=2, table=True)) == "the same"


@pytest.mark.parametrize(
    "changes",
    [{"folds": (1,)}, {"mirroring": False}, {"step": 0.25}, {"classes": True}, {"spacing": (1.0, 1.0, 1.0)},
     {"region": (0, 1, 0, 1, 0, 1)}, {"source": "elsewhere"}, {"gaussian": False}],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_what_decides_about_a_result_makes_it_another_one(tmp_path, tiny, changes):
    finished(tiny, asked(tmp_path))
    assert what_is_there(tiny, asked(tmp_path, **changes)) == "others"


def test_weights_that_were_trained_on_since_are_others(tmp_path, tiny):
    request = asked(tmp_path)
    finished(tiny, request)
    again = make_model(tmp_path / "models", Recipe(folds=(0, 1)), seed=5)
    assert what_is_there(again, request) == "others"


@pytest.mark.parametrize("content", [None, "", "[]", "{", '{"model": 3}'])
@pytest.mark.parametrize("name", [ARGUMENTS, "recipe.json"])
def test_files_that_cannot_be_read_are_not_taken_for_the_same(tmp_path, tiny, name, content):
    request = asked(tmp_path)
    finished(tiny, request)
    (request.target / name).unlink()
    if content is not None:
        (request.target / name).write_text(content)
    assert what_is_there(tiny, request) == "others"


def test_an_ensemble_is_told_by_its_members(tmp_path, tiny):
    request, members = asked(tmp_path), {"members": [{"folds": (0, 1), "weight": 0.5}]}
    finished(tiny, request, members)
    assert what_is_there(tiny, request, members) == "the same"
    assert what_is_there(tiny, request, {"members": [{"folds": (0,), "weight": 0.5}]}) == "others"
    assert what_is_there(tiny, request) == "others"


def test_rules_by_which_objects_are_found_decide_too_unless_classes_are_wanted(tmp_path, tiny):
    request = asked(tmp_path)
    finished(tiny, request)
    assert rules_of_folds(tiny, request.settings((0, 1))) == {}
    (tiny.folder / "fold_1" / RULES_FILE).write_text(json.dumps({"rules": {"cell": {"least": 3}}}))
    assert rules_of_folds(tiny, request.settings((0, 1))) == {"fold_1": {"cell": {"least": 3}}}
    assert what_is_there(tiny, request) == "others"
    finished(tiny, request)
    assert what_is_there(tiny, request) == "the same"
    assert rules_of_folds(tiny, asked(tmp_path, classes=True).settings((0, 1))) == {}
    assert rules_of_folds(tiny, asked(tmp_path, folds=(0,)).settings((0, 1))) == {}
