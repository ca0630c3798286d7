"""Python's door: every function lists what its request takes, and does what the job does."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest

import napari_nnunet
from choices import CPU, notes, validated
from helpers import TRAINED, make_model, make_trainable, smooth_image
from napari_nnunet import api
from napari_nnunet.engine.prediction.vote import VoteSettings
from napari_nnunet.errors import SettingsError
from napari_nnunet.events import Progress, drain
from napari_nnunet.jobs.choosing.best import find_best
from napari_nnunet.jobs.prediction.combined import Combination, Member, best_combination, predict_combined
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.choosing import CompareRequest, EvaluateFolderRequest, FindBestRequest
from napari_nnunet.schema.requests.dataset import VerifyRequest
from napari_nnunet.schema.requests.labelling import FindLabelErrorsRequest, SuggestRequest
from napari_nnunet.schema.requests.large import PredictImageSettings
from napari_nnunet.schema.requests.planning import PlanAndPreprocessRequest
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.schema.requests.sharing import ExportSettings, ListModelsRequest
from napari_nnunet.schema.requests.training import TrainAllRequest, TrainRequest
from napari_nnunet.volume import Volume

HOME = Path(api.__file__).parent
#: What each function takes as keywords; the others take no request.
DOORS = {
    "compare": CompareRequest, "evaluate": EvaluateFolderRequest, "export_models": ExportSettings,
    "fetch_model": ListModelsRequest, "find_best": FindBestRequest, "find_label_errors": FindLabelErrorsRequest,
    "list_models": ListModelsRequest, "plan_and_preprocess": PlanAndPreprocessRequest, "predict": PredictSettings,
    "predict_best": PredictSettings, "predict_image": PredictImageSettings, "suggest": SuggestRequest,
    "train": TrainRequest, "train_all": TrainAllRequest, "verify_dataset": VerifyRequest,
}  # fmt: skip
WITHOUT = {"ensemble_predict", "install_models"}
IMAGE = smooth_image((10, 24, 24), seed=3)
VOLUME = Volume(IMAGE, Geometry(spacing=(1.0, 1.0, 1.0)))
pytestmark = pytest.mark.usefixtures("known_arithmetic", "in_one_process")


def made():
    """Yield the functions of the door, and whether each takes keywords of a request."""
    for path in sorted(HOME.glob("*.py")):
        if path.name == "doors.py":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield node.name, bool(node.decorator_list)


def test_every_function_of_the_rooms_is_public():
    assert dict(made()) == {**dict.fromkeys(DOORS, True), **dict.fromkeys(WITHOUT, False)}
    assert dict(made()).keys() <= set(napari_nnunet.__all__)


@pytest.mark.parametrize("name", [*DOORS, *sorted(WITHOUT)])
def test_signature_and_docstring_list_the_same_and_every_field_of_the_request(name):
    function = getattr(napari_nnunet, name)
    offered = list(inspect.signature(function).parameters)
    assert set(DOORS[name].model_fields if name in DOORS else ()) <= set(offered)
    parameters = inspect.getdoc(function).partition("Parameters\n----------\n")[2].partition("\n\nReturns")[0]
    heads = [line.partition(" : ")[0] for line in parameters.splitlines() if line and not line.startswith(" ")]
    assert sorted(one.strip() for head in heads for one in head.split(",")) == sorted(offered)


@pytest.mark.parametrize("name", sorted(DOORS))
def test_a_setting_that_does_not_exist_is_refused_with_those_that_do(name, tmp_path, model):
    function = getattr(napari_nnunet, name)
    given = {
        parameter.name: model.folder if parameter.name == "model" else [model] if parameter.name == "models" else
        VOLUME if parameter.name == "image" else 0 if parameter.name == "fold" else TRAINED
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is inspect.Parameter.empty
    }  # fmt: skip
    make_trainable(tmp_path)
    workspace = {"workspace": tmp_path} if "workspace" in inspect.signature(function).parameters else {}
    with pytest.raises(SettingsError, match="There is no setting 'epoch'. Known: "):
        function(**given, **workspace, epoch=3)


def test_several_models_segment_an_array_as_the_job_does(tmp_path):
    first, second = make_model(tmp_path / "a"), make_model(tmp_path / "b", seed=1)
    said = []
    found = napari_nnunet.ensemble_predict(
        [(first, CPU), (second, CPU)], IMAGE[0], spacing=(1.0, 1.0, 1.0), weights=(1.0, 3.0), uncertainty=True,
        keep_largest=[1], on_event=said.append,
    )  # fmt: skip
    vote = VoteSettings(weights=(1.0, 3.0), uncertainty=True)
    combination = Combination((Member(first, CPU), Member(second, CPU)), vote, Cleaning.of([1]))
    wanted = drain(predict_combined(combination, VOLUME))
    np.testing.assert_array_equal(found.labels, wanted.labels)
    np.testing.assert_array_equal(found.uncertainty, wanted.uncertainty)
    assert any(isinstance(event, Progress) for event in said)


def test_the_best_is_found_and_segments_an_array_as_the_job_does(tmp_path):
    workspace = validated(tmp_path, "3d_fullres", (0, 1), quality=0.3)
    validated(tmp_path, "2d", (0, 1), quality=0.3)
    ours = napari_nnunet.find_best("1", workspace=tmp_path)
    answer, _ = notes(find_best(workspace, FindBestRequest(dataset="Dataset001_Tiny")))
    assert ours.best.models == answer.best.models and len(answer.best.models) == 2
    found = napari_nnunet.predict_best("1", IMAGE[0], workspace=tmp_path, spacing=(1.0, 1.0, 1.0), settings=CPU)
    wanted = drain(predict_combined(best_combination(workspace, "Dataset001_Tiny", CPU), VOLUME))
    np.testing.assert_array_equal(found.labels, wanted.labels)


def test_keywords_win_over_settings(model):
    whole = napari_nnunet.predict(model, IMAGE[0], spacing=(1.0, 1.0, 1.0), settings=CPU, probabilities=True)
    assert whole.probabilities is not None
    assert napari_nnunet.predict(model, IMAGE[0], spacing=(1.0, 1.0, 1.0), settings=CPU).probabilities is None


def test_trainings_that_would_be_submitted_are_listed(tmp_path):
    make_trainable(tmp_path)
    found = napari_nnunet.train_all(TRAINED, workspace=tmp_path, folds=(0,), dry_run=True)
    assert found.jobs and "napari-nnunet train" in found.script and not found.submitted
