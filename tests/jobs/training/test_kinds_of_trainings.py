"""Other datasets and networks learn too: 2-D, regions, ignored voxels, residual networks, cascades."""

from __future__ import annotations

import json

import numpy as np
import pytest
from trainings import MODEL, SHORT, folder_of, of, run

from helpers import TRAINED, Recipe, preprocess_here
from napari_nnunet.engine.batches.patches import patch_rule
from napari_nnunet.engine.training.splits import make_splits
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import EpochDone, Note
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.model.checkpoint import read_raw
from napari_nnunet.formats.results.summary import Summary


def test_fold_all_and_few_cases(new_workspace):
    workspace = new_workspace(cases=3)
    result, _ = run(workspace, "all")
    assert len(list(result.folder.validation.glob("*.nii.gz"))) == 3
    assert not (workspace.preprocessed / TRAINED / "splits_final.json").exists()
    run(workspace, 2, validation=False)
    assert len(json.loads((workspace.preprocessed / TRAINED / "splits_final.json").read_text(encoding="utf-8"))) == 3


@pytest.mark.parametrize(
    ("recipe", "dataset", "names"),
    [
        (Recipe(patch=(16, 16), spacing=(1.0, 1.0), configuration="2d"), {}, ("organ", "lesion")),
        (
            Recipe(labels={"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}),
            {"regions_class_order": [1, 2]},
            ("whole", "core"),
        ),
        (Recipe(labels={"background": 0, "organ": 1, "ignore": 2}), {}, ("organ",)),
        (Recipe(norm="BatchNorm", use_mask=True), {}, ("organ", "lesion")),
    ],
)
def test_other_kinds_of_datasets_learn_too(new_workspace, recipe, dataset, names):
    workspace = new_workspace(recipe, **dataset)
    settings = SHORT.replace(epochs=6)
    result, events = run(workspace, configuration=recipe.configuration, settings=settings)
    ends = of(EpochDone, events)
    assert ends[0].names == names
    assert ends[-1].train_loss < ends[0].train_loss
    assert set(result.validation.per_class) == {str(r) for r in _labels(recipe)}


@pytest.mark.parametrize(
    ("labels", "dataset"),
    [
        ({"background": 0, "organ": 1, "lesion": 2}, {}),
        ({"background": 0, "whole": [1, 2], "lesion": [2]}, {"regions_class_order": [1, 2]}),
    ],
)
def test_classes_that_nobody_looked_for_in_some_cases_are_learned_from_the_others(new_workspace, labels, dataset):
    workspace = new_workspace(Recipe(labels=labels), **dataset)
    _, first, _ = labels
    _erase(workspace, ("c0", "c1"), 2)
    _say(workspace, {"c0": [first], "c1": [first]})
    fold = next(i for i in range(5) if "c0" in _validation(workspace, i))
    result, events = run(workspace, fold, settings=SHORT.replace(epochs=8))
    ends = of(EpochDone, events)
    assert ends[-1].train_loss < ends[0].train_loss
    assert any("'lesion' was looked for in 3 of 4 training cases" in note.text for note in of(Note, events))
    (case,) = Summary.read(result.folder.validation / "summary.json", ending=".nii.gz").cases
    assert case.name == "c0"
    assert [np.isnan(value) for value in case.dice.values()] == [False, True]
    _erase(workspace, ("c2", "c3", "c4"), 2)
    _say(workspace, {f"c{i}": [first] for i in range(5)})
    with pytest.raises(DatasetError, match="'lesion' was looked for in none of the 4 training cases"):
        run(workspace, fold)


def test_a_case_with_a_class_of_which_it_is_said_that_nobody_looked_for_it_is_refused(new_workspace):
    workspace = new_workspace()
    _say(workspace, {"c2": ["organ"]})
    with pytest.raises(DatasetError, match=r"c2: it contains 2 \(lesion\), but by 'napari_nnunet_annotated'"):
        run(workspace)


def _erase(workspace, cases, value):
    """Remove a value from the labels of some cases, and preprocess all again."""
    raw = workspace.raw / TRAINED
    for case in cases:
        path = raw / "labelsTr" / f"{case}.nii.gz"
        labels, geometry = read_labels(path)
        write_labels(np.where(labels == value, 0, labels), geometry, path)
    preprocess_here(workspace, open_dataset(raw))


def _say(workspace, annotated):
    path = workspace.raw / TRAINED / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "napari_nnunet_annotated": annotated}))


def _validation(workspace, fold):
    names = [f"c{i}" for i in range(5)]
    return make_splits(names, 5)[fold].val


def _labels(recipe):
    values = [v for k, v in recipe.labels.items() if k not in ("background", "ignore")]
    return [tuple(v) if isinstance(v, list) else v for v in values]


def test_residual_networks_and_thick_slices_learn(new_workspace):
    workspace = new_workspace(Recipe(patch=(4, 16, 16)))
    path = workspace.preprocessed / TRAINED / "nnUNetPlans.json"
    plans = json.loads(path.read_text(encoding="utf-8"))
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["network_class_name"] = architecture["network_class_name"].replace("PlainConv", "ResidualEncoder")
    own = architecture["arch_kwargs"]
    own["n_blocks_per_stage"] = [1, 1, 2]
    del own["n_conv_per_stage"]
    own["strides"] = [[1, 1, 1], [1, 2, 2], [1, 2, 2]]
    path.write_text(json.dumps(plans))
    result, events = run(workspace, settings=SHORT.replace(epochs=5))
    assert of(EpochDone, events)[-1].train_loss < of(EpochDone, events)[0].train_loss
    assert result.validation.dice is not None
    assert patch_rule((4, 16, 16)).dummy_2d


def test_a_cascade_trains_on_what_its_first_stage_segmented(new_workspace):
    recipe = Recipe(configuration="3d_lowres")
    workspace = new_workspace(recipe)
    base = workspace.preprocessed / TRAINED
    plans = json.loads((base / "nnUNetPlans.json").read_text(encoding="utf-8"))
    low = plans["configurations"]["3d_lowres"]
    low["next_stage"] = "3d_cascade_fullres"
    cascade = {**low, "spacing": [0.7, 0.8, 0.9], "data_identifier": "nnUNetPlans_3d_fullres"}
    cascade.pop("next_stage")
    plans["configurations"]["3d_cascade_fullres"] = {**cascade, "previous_stage": "3d_lowres"}
    (base / "nnUNetPlans.json").write_text(json.dumps(plans))
    from helpers import preprocess_here
    from napari_nnunet.formats.dataset.raw_dataset import open_dataset
    from napari_nnunet.formats.preprocessed.cases import open_case, read_next_stage

    preprocess_here(workspace, open_dataset(workspace.raw / TRAINED))
    with pytest.raises(DatasetError, match="Train the folds of 3d_lowres"):
        run(workspace, configuration="3d_cascade_fullres")
    for fold in range(5):
        run(workspace, fold, configuration="3d_lowres", settings=SHORT.replace(epochs=8 if fold == 0 else 1))
    handed = workspace.results / TRAINED / MODEL.replace("fullres", "lowres") / "predicted_next_stage"
    for i in range(5):
        shape = open_case(base / "nnUNetPlans_3d_fullres", f"c{i}").labels.shape[1:]
        found = read_next_stage(handed / "3d_cascade_fullres", f"c{i}")
        assert found.shape == shape
        assert found.dtype == np.uint8
    result, events = run(workspace, configuration="3d_cascade_fullres")
    assert of(EpochDone, events)[-1].train_loss < of(EpochDone, events)[0].train_loss
    assert result.validation.dice is not None
    weights = read_raw(result.folder.final)["network_weights"]
    assert weights["encoder.stages.0.0.convs.0.conv.weight"].shape[1] == 3


def test_a_case_is_never_in_training_and_validation_at_once(new_workspace):
    workspace = new_workspace()
    path = workspace.preprocessed / TRAINED / "splits_final.json"
    names = [f"c{i}" for i in range(5)]
    path.write_text(json.dumps([{"train": names, "val": names[:1]}]))
    with pytest.raises(DatasetError, match="Fold 0 .* 1 of its cases in both training and validation: c0"):
        run(workspace)
    assert not folder_of(workspace).path.exists()
