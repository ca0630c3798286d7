"""Names of models and ensembles, as their folders bear them."""

from __future__ import annotations

import pytest

from napari_nnunet.errors import ModelError
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.model_name import EnsembleName, ModelName, label_of


def test_a_model_is_named_by_its_folder_and_back():
    name = ModelName.parse("nnUNetTrainer_5epochs__nnUNetResEncUNetMPlans__3d_cascade_fullres")
    assert name == ModelName("nnUNetTrainer_5epochs", "nnUNetResEncUNetMPlans", "3d_cascade_fullres")
    assert ModelName.parse(name.folder) == name


@pytest.mark.parametrize("text", ["", "a__b", "a__b__c__d", "a____c", "a__b__../../c"])
def test_other_text_is_no_name_of_a_model(text):
    with pytest.raises(ModelError, match="TRAINER__PLANS__CONFIGURATION"):
        ModelName.parse(text)
    assert ModelName.of(text) is None
    assert label_of(text) == text


@pytest.mark.parametrize("plans", ["", "..", "my__plans", "a/b", "a\\b"])
def test_names_that_lead_elsewhere_are_refused(plans):
    with pytest.raises(ModelError, match=r"plans of a model is named .*use letters, digits"):
        ModelName("nnUNetTrainer", plans, "2d")


def test_the_label_tells_what_is_unusual():
    assert ModelName("nnUNetTrainer", "nnUNetPlans", "2d").label == "2d"
    assert ModelName("nnUNetTrainer_5epochs", "nnUNetPlans", "2d").label == "2d (nnUNetTrainer_5epochs)"
    assert ModelName("nnUNetTrainer", "SmallPlans", "2d").flags == " -p SmallPlans"


def test_an_ensemble_is_named_by_its_members_and_folds():
    members = ("nnUNetTrainer__nnUNetPlans__2d", "nnUNetTrainer__nnUNetPlans__3d_fullres")
    name = EnsembleName.join(members, (0, 1, "all"))
    assert name.folder == f"ensemble___{members[0]}___{members[1]}___0_1_all"
    assert EnsembleName.of(name.folder) == name
    assert EnsembleName.of(members[0]) is None


def test_a_workspace_lists_the_models_of_a_dataset(tmp_path):
    workspace = Workspace(tmp_path, tmp_path, tmp_path)
    name = ModelName("nnUNetTrainer", "nnUNetPlans", "2d")
    workspace.model("Dataset001_A", name).mkdir(parents=True)
    (tmp_path / "Dataset001_A" / "a__b__c__d").mkdir()
    assert workspace.models("Dataset001_A") == [name]
    assert workspace.models("Dataset002_B") == []
