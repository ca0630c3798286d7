"""What dataset.json and plans.json may say."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError

from helpers import TINY_PLANS, Recipe, configuration_of
from napari_nnunet.errors import DatasetError, ImageError, PlanError
from napari_nnunet.schema.dataset import DatasetInfo, LabelScheme
from napari_nnunet.schema.fingerprint import Fingerprint
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.plans import Plans


def _dataset(**changes):
    return {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nrrd", **changes}


def _plans(**changes):
    return Plans.parse({"configurations": {"c": {**configuration_of(Recipe()), **changes}}})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param({"labels": {"a": 1}}, "lack 'background': 0", id="no background"),
        pytest.param({"labels": {"background": 0, "a": 1, "ignore": 1}}, "must be the single value 2", id="ignore"),
        pytest.param({"labels": {"background": 0, "a": [1, 2]}}, "regions_class_order", id="regions without order"),
        pytest.param({"labels": {"background": 0, "a": "x"}}, "'a' is 'x'; it must be an integer", id="label is text"),
        pytest.param({"labels": None}, "'labels' is missing", id="no labels"),
        pytest.param({"channel_names": {}}, "'channel_names' is missing", id="no channels"),
    ],
)
def test_a_wrong_dataset_json_is_explained(content, sentence):
    with pytest.raises(DatasetError, match=sentence):
        DatasetInfo.parse(_dataset(**content))


def test_the_legacy_key_modality_and_a_missing_ending_are_read():
    info = DatasetInfo.parse({"modality": {"0": "MRI"}, "labels": {"background": 0, "a": 1}})
    assert info.channel_names == ("MRI",)
    assert info.file_ending == ".nii.gz"


def test_region_values_are_named_after_the_region_that_paints_them():
    scheme = LabelScheme(labels={"background": 0, "whole": (1, 2, 3), "core": (2, 3)}, regions_class_order=(1, 2))
    assert scheme.names == {0: "background", 1: "whole", 2: "core"}
    assert scheme.head_names == ("whole", "core")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({"architecture": {"network_class_name": "x.SwinUNETR", "arch_kwargs": {}}},
                     "unknown architecture 'x.SwinUNETR'. Known: PlainConvUNet, ResidualEncoderUNet", id="network"),
        pytest.param({"resampling_fn_data": "os.system"}, "unknown resampling function 'os.system'", id="resampling"),
        pytest.param({"normalization_schemes": ["Magic"]}, "unknown normalisation 'Magic'", id="normalisation"),
        pytest.param({"preprocessor_name": "Other"}, "unknown preprocessor 'Other'", id="preprocessor"),
        pytest.param({"architecture": None}, "neither 'architecture' nor the older keys", id="nothing"),
    ],
)  # fmt: skip
def test_names_in_plans_are_looked_up_and_never_imported(changes, sentence):
    with pytest.raises(PlanError, match=sentence):
        _plans(**changes).configuration("c")


def test_a_missing_configuration_lists_those_there_are():
    with pytest.raises(PlanError, match="no configuration '2d'. They have: c"):
        _plans().configuration("2d")


def test_configurations_inherit_and_circles_are_found():
    content = {"configurations": {"a": configuration_of(Recipe()), "b": {"inherits_from": "a", "batch_size": 7}}}
    assert Plans.parse(content).configuration("b").batch_size == 7
    content["configurations"]["a"]["inherits_from"] = "b"
    with pytest.raises(PlanError, match="circle: b -> a -> b"):
        Plans.parse(content).configuration("b")


@pytest.mark.parametrize("text", ["", "[1]", "{", json.dumps({"configurations": {}})])
def test_a_damaged_plans_json_is_explained(text):
    with pytest.raises(PlanError):
        Plans.parse_json(text)


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 0.0), (1.0, float("nan")), (1.0, -2.0, 1.0)])
def test_an_impossible_spacing_is_refused(spacing):
    with pytest.raises((ImageError, ValidationError)):
        Geometry(spacing=spacing)


@pytest.mark.parametrize(
    ("kind", "error"), [(Plans, PlanError), (DatasetInfo, DatasetError), (Fingerprint, DatasetError)]
)
def test_a_file_that_is_not_there_or_damaged_is_named(tmp_path, kind, error):
    with pytest.raises(error, match=r"gone\.json cannot be read: No such file or directory\.$"):
        kind.read(tmp_path / "gone.json")
    (tmp_path / "damaged.json").write_text("{")
    with pytest.raises(error, match=r"damaged\.json is "):
        kind.read(tmp_path / "damaged.json")


def test_plans_name_the_folder_of_their_cases_also_where_the_file_does_not():
    content = {"plans_name": "Mine", "configurations": {"c": configuration_of(Recipe())}}
    del content["configurations"]["c"]["data_identifier"]
    assert Plans.parse(content).configuration("c").data_identifier == "Mine_c"


def test_plans_of_other_programs_are_read():
    content = {**TINY_PLANS, "foreground_intensity_properties_per_channel": []}
    content["original_median_spacing_after_transp"] = [np.float64(1.0), np.float32(2.0), 3]
    entries = {**content["configurations"]["3d_fullres"], "batch_dice": None}
    entries["normalization_schemes"] = ["ZScoreNormalization" for _ in entries["normalization_schemes"]]
    plans = Plans.parse({**content, "configurations": {"3d_fullres": entries}})
    assert plans.intensities == () and not plans.configuration("3d_fullres").batch_dice
    with pytest.raises(PlanError, match="must be a list of numbers of mm"):
        Plans.parse({**content, "original_median_spacing_after_transp": [True, 1.0, 1.0]})
