"""JSON files with one value missing or wrong are refused in words: no other error ever leaves a reader."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

import nasty
from helpers import REGIONS as DATASET
from helpers import STATISTICS
from helpers import TINY_PLANS as PLANS
from napari_nnunet.errors import DatasetError, NnunetError, PlanError
from napari_nnunet.schema.architecture import Architecture
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.fingerprint import Fingerprint
from napari_nnunet.schema.names import is_plain, parse_fold, require_plain
from napari_nnunet.schema.plans import Plans


def test_plans_with_one_wrong_value_are_read_or_refused():
    refused = 0
    for _, content in nasty.all_spoiled(PLANS):
        try:
            plans = Plans.parse(content)
            for name in plans.configurations:
                plans.configuration(name)
        except NnunetError:
            refused += 1
    assert refused > 500


def test_a_dataset_json_with_one_wrong_value_is_read_or_refused():
    refused = 0
    for _, content in nasty.all_spoiled(DATASET):
        try:
            DatasetInfo.parse_json(json.dumps(content), where="dataset.json")
        except DatasetError:
            refused += 1
    assert refused > 80


@pytest.mark.parametrize("parse", [Plans.parse, DatasetInfo.parse])
@pytest.mark.parametrize("content", [None, [], "x", 3, {}])
def test_what_is_no_object_is_refused(parse, content):
    with pytest.raises(NnunetError):
        parse(content)


@pytest.mark.parametrize(
    ("place", "word"),
    [
        (("architecture", "arch_kwargs", "strides"), "strides"),
        (("architecture", "arch_kwargs", "n_stages"), "n_stages"),
        (("patch_size",), "patch_size"),
        (("architecture", "network_class_name"), "network_class_name"),
    ],
)
def test_what_a_configuration_lacks_is_named_with_the_configuration(place, word):
    content = nasty.spoiled(PLANS, ("configurations", "3d_fullres", *place))
    with pytest.raises(PlanError, match=f"3d_fullres.*{word}"):
        Plans.parse(content).configuration("3d_fullres")


@pytest.mark.parametrize("data", [b"\xff\xfe{}", b"\xe4", b'{"a": "\xfc"}', b"", b"[", b"nul"])
@pytest.mark.parametrize("kind", [Plans, DatasetInfo])
def test_files_of_another_encoding_or_torn_ones_are_named(tmp_path, kind, data):
    path = tmp_path / "ä.json"
    path.write_bytes(data)
    with pytest.raises(NnunetError, match="ä.json"):
        kind.read(path)


def test_a_fingerprint_with_one_wrong_value_is_read_or_refused():
    content = {
        "foreground_intensity_properties_per_channel": {"0": STATISTICS},
        "median_relative_size_after_cropping": 1.0,
        "shapes_after_crop": [[4, 5, 6]],
        "spacings": [[1.0, 1.0, 1.0]],
    }
    Fingerprint.parse_json(json.dumps(content))
    for _, wrong in nasty.all_spoiled(content):
        with suppress(DatasetError):
            Fingerprint.parse_json(json.dumps(wrong))


@pytest.mark.parametrize("text", ["²", "-1", "1.5", "", "All", "0x1", "1 2"])
def test_what_is_no_fold_is_refused(text):
    with pytest.raises(NnunetError, match="is no fold|not a fold|fold"):
        parse_fold(text)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "c:", "a*", "a?", 'a"', "a<", "a>", "a|", "a\0"])
def test_names_that_lead_elsewhere_are_not_plain(name):
    assert not is_plain(name)
    with pytest.raises(DatasetError, match="The case"):
        require_plain(name, "The case")


@pytest.mark.parametrize("name", ["a", "..x", "ä b.c", "-x", "nnUNetTrainer__nnUNetPlans__2d"])
def test_other_names_are_plain(name):
    assert require_plain(name, "The case") == name


def architecture_with(**changes):
    content = nasty.spoiled(PLANS, ("configurations", "3d_fullres", "batch_size"), 2)
    content["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].update(changes)
    return content


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("batch_size", 0, "'batch_size' is 0: it must be greater than or equal to 1"),
        ("spacing", None, "'spacing' is None; it must be a list"),
        ("patch_size", "32 32 32", "'patch_size' is '32 32 32'; it must be a list"),
        ("spacing", [0.0, 1.0, 1.0], r"'spacing\.0' is 0\.0: it must be greater than 0"),
        ("spacing", [1.0, 1.0], r"'spacing' is \[1\.0, 1\.0\], with 2 entries; the network has 3 axes"),
        ("patch_size", [15, 16, 17], r"'patch_size' is .*divide it by.*The nearest that works is \[16, 16, 16\]"),
        ("use_mask_for_norm", [], "'use_mask_for_norm' is .*with 0 entries"),
        ("batch_size", True, "'batch_size' is True: it must be a number, and is neither true nor false"),
        ("batch_size", "2", "'batch_size' is '2': it must be a number, without quotation marks"),
        ("batch_size", 2.5, r"'batch_size' is 2\.5: it must be a valid integer"),
        ("patch_size", [True, 32, 32], r"'patch_size\.0' is True: it must be a number"),
        ("spacing", ["1.0", 1.0, 1.0], r"'spacing\.0' is '1\.0': it must be a number, without quotation marks"),
        ("spacing", [True, 1.0, 1.0], r"'spacing\.0' is True: it must be a number"),
        ("batch_dice", "false", "'batch_dice' is 'false': it must be true or false, without quotation marks"),
        ("use_mask_for_norm", ["no"], r"'use_mask_for_norm\.0' is 'no': it must be true or false"),
    ],
)
def test_a_slip_in_a_configuration_is_named_with_what_would_work(key, value, sentence):
    content = nasty.spoiled(PLANS, ("configurations", "3d_fullres", key), value)
    with pytest.raises(PlanError, match=f"x/nnUNetPlans.json, configuration '3d_fullres': {sentence}"):
        Plans.parse(content, where="x/nnUNetPlans.json").configuration("3d_fullres")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"n_stages": 10**9}, "'n_stages' is 1000000000; it must be a number from 1 to 12"),
        (
            {"features_per_stage": [4]},
            r"'features_per_stage' is \[4\], with 1 entries.*The nearest that works is \[4, 4",
        ),
        ({"features_per_stage": 5000}, r"'features_per_stage\.0' is 5000: it must be less than or equal to 4096"),
        ({"kernel_sizes": 4}, r"'kernel_sizes' has \[4, 4, 4\]; sizes are odd\. The nearest is \[5, 5, 5\]"),
        ({"kernel_sizes": 13}, r"'kernel_sizes\.0\.0' is 13: it must be less than or equal to 11"),
        ({"strides": 2}, r"'strides' begins with \[2, 2, 2\]; the first stage works at full resolution"),
        ({"features_per_stage": 4096, "kernel_sizes": 11}, "would have about .* billion weights"),
        ({"features_per_stage": "many"}, "'features_per_stage' is 'many'; it must be a list"),
        ({"features_per_stage": True}, r"'features_per_stage\.0' is True: it must be a number"),
        ({"kernel_sizes": True}, r"'kernel_sizes\.0\.0' is True: it must be a number"),
        ({"conv_bias": "false"}, "'conv_bias' is 'false': it must be true or false"),
        ({"norm_op_kwargs": {"eps": "1e-5"}}, "'norm_op_kwargs: eps' is '1e-5': it must be a number"),
        ({"norm_op_kwargs": {"affine": "yes"}}, "'norm_op_kwargs: affine' is 'yes': it must be true or false"),
    ],
)
def test_a_network_that_nobody_can_mean_is_refused_before_it_is_built(changes, sentence):
    with pytest.raises(PlanError, match=sentence):
        Plans.parse(architecture_with(**changes)).configuration("3d_fullres")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"foreground_intensity_properties_per_channel": {"0": {**STATISTICS, "mean": True}}},
            r"'foreground_intensity_properties_per_channel\.0\.mean' is True: it must be a number",
        ),
        (
            {"original_median_spacing_after_transp": ["1", 1.0, 1.0]},
            r"'original_median_spacing_after_transp' is \['1', 1\.0, 1\.0\]; it must be a list of numbers of mm",
        ),
    ],
)
def test_a_slip_beside_the_configurations_is_named_with_its_key(change, sentence):
    with pytest.raises(PlanError, match=f"plans.json.*{sentence}"):
        Plans.parse({**PLANS, **change})


@pytest.mark.parametrize(
    ("key", "kwargs", "sentence"),
    [
        ("resampling_fn_data_kwargs", {"order": "3"}, "'order' is '3': it must be a number"),
        ("resampling_fn_seg_kwargs", {"force_separate_z": "None"}, "'force_separate_z' is 'None': it must be true or"),
    ],
)
def test_numbers_of_resampling_are_numbers(key, kwargs, sentence):
    content = nasty.spoiled(PLANS, ("configurations", "3d_fullres", key), kwargs)
    with pytest.raises(PlanError, match=f"'3d_fullres', '{key}': {sentence}"):
        Plans.parse(content).configuration("3d_fullres")


@pytest.mark.parametrize("key", ["UNet_base_num_features", "unet_max_num_features"])
@pytest.mark.parametrize("value", [True, "32", 32.5, 0])
def test_numbers_of_features_in_older_plans_are_numbers(key, value):
    older = {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 32,
        "unet_max_num_features": 320,
        "n_conv_per_stage_encoder": [2, 2],
        "n_conv_per_stage_decoder": [2],
        "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2]],
        "conv_kernel_sizes": [[3, 3, 3], [3, 3, 3]],
    }
    with pytest.raises(PlanError, match=f"x: '{key}' is {value!r}; it must be a number of features"):
        Architecture.parse({**older, key: value}, "x")


def test_whole_numbers_with_a_point_are_whole():
    content = nasty.spoiled(PLANS, ("configurations", "3d_fullres", "batch_size"), 2.0)
    assert Plans.parse(content).configuration("3d_fullres").batch_size == 2


def test_configurations_that_inherit_in_a_long_chain_are_refused():
    chain = {f"c{i}": {"inherits_from": f"c{i + 1}"} for i in range(5_000)}
    content = {**PLANS, "configurations": {**chain, "c5000": PLANS["configurations"]["3d_fullres"]}}
    with pytest.raises(PlanError, match="more than 20 configurations inherit from each other"):
        Plans.parse(content).configuration("c0")
    assert (
        Plans.parse(content).configuration("c4990").batch_size
        == Plans.parse(PLANS).configuration("3d_fullres").batch_size
    )


def test_ct_without_intensities_is_refused():
    content = nasty.spoiled(PLANS, ("configurations", "3d_fullres", "normalization_schemes"), ["CTNormalization"])
    for statistics in ({}, {"0": {**STATISTICS, "mean": float("nan")}}):
        content["foreground_intensity_properties_per_channel"] = statistics
        with pytest.raises(PlanError, match="channel 0 has CTNormalization"):
            Plans.parse(content).configuration("3d_fullres")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"numTraining": "four"}, "'numTraining' is 'four'; it must be the number of training cases"),
        ({"regions_class_order": [[1], [2]]}, r"'regions_class_order' is \[\[1\], \[2\]\]; it must be a list"),
        ({"labels": {"background": 0, "a": []}}, r"'labels': 'a' is \[\]; it must be an integer"),
        ({"labels": {"background": 0, "a": 1.5}}, r"'labels': 'a' is 1\.5; it must be an integer"),
        ({"labels": {"background": 0, "a": -1}}, "'labels': 'a' is -1; it must be an integer"),
        ({"channel_names": {"0": ["CT"]}}, "'channel_names': '0' is .*a channel's name is a text"),
        ({"file_ending": 3}, "'file_ending' is 3; it must be a text"),
        ({"channel_names": {"0": True}}, "'channel_names': '0' is True; a channel's name is a text"),
        ({"numTraining": True}, "'numTraining' is True; it must be the number"),
        ({"labels": {"background": 0, "a": True}}, "'labels': 'a' is True; it must be an integer"),
        ({"regions_class_order": [True, 2]}, r"'regions_class_order' is \[True, 2\]; it must be a list"),
    ],
)
def test_a_slip_in_dataset_json_is_named_with_file_and_key(changes, sentence):
    with pytest.raises(DatasetError, match=f"raw/dataset.json: {sentence}"):
        DatasetInfo.parse({**DATASET, **changes}, where="raw/dataset.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"file_ending": "nii.gz"}, r"'file_ending' is 'nii\.gz'; it must begin with a dot"),
        ({"channel_names": ["CT"]}, r"'channel_names' is \['CT'\]; expected an object"),
        ({"labels": ["background", "organ"]}, r"'labels' is \['background', 'organ'\]; expected"),
    ],
)
def test_what_is_there_but_wrong_is_not_said_to_be_missing(change, said):
    with pytest.raises(DatasetError, match=said):
        DatasetInfo.parse({**DATASET, **change})


CT = {"mean": 40.0, "std": 20.0, "percentile_00_5": -30.0, "percentile_99_5": 90.0}


def _edited(**entries):
    content = json.loads(json.dumps(PLANS))
    content["configurations"]["3d_fullres"].update(entries)
    return content


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"use_mask_for_norm": False}, "'use_mask_for_norm' is False; it must be a list"),
        ({"normalization_schemes": [], "use_mask_for_norm": []}, "'normalization_schemes' is empty"),
        ({"architecture": [1]}, r"'architecture' is \[1\]; it must be an object"),
        ({"inherits_from": "3d_ful"}, "no configuration '3d_ful', from which '3d_fullres' inherits"),
        ({"resampling_fn_data_kwargs": {"order": 9}}, "'resampling_fn_data_kwargs': 'order' is 9"),
        ({"resampling_fn_seg_kwargs": [1]}, r"'resampling_fn_seg_kwargs' is \[1\]; it must be an object"),
    ],
)
def test_slips_in_plans_name_key_and_value(entries, said):
    with pytest.raises(PlanError, match=said):
        Plans.parse(_edited(**entries)).configuration("3d_fullres")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"percentile_00_5": 90.0, "percentile_99_5": -30.0}, "'percentile_00_5' 90, which is above"),
        ({"std": 0.0}, "'std' 0, although intensities run from -30 to 90"),
        ({"std": -2.0}, "'std' -2, although"),
    ],
)
def test_intensities_that_would_make_every_image_flat_are_refused(change, said):
    """Limits in the wrong order made every voxel of every case the same, without a word."""
    content = _edited(normalization_schemes=["CTNormalization"], use_mask_for_norm=[False])
    content["foreground_intensity_properties_per_channel"] = {"0": CT}
    Plans.parse(content).configuration("3d_fullres")
    content["foreground_intensity_properties_per_channel"] = {"0": {**CT, **change}}
    with pytest.raises(PlanError, match=said):
        Plans.parse(content).configuration("3d_fullres")
    for wrong in ([CT], {"CT": CT}):
        content["foreground_intensity_properties_per_channel"] = wrong
        with pytest.raises(PlanError, match="'foreground_intensity_properties_per_channel' is .* by their numbers"):
            Plans.parse(content)


@pytest.mark.parametrize("key", ["previous_stage", "next_stage"])
def test_stages_that_plans_do_not_have_are_refused_before_a_training(key):
    for stage, said in (("3d_lowres", "a configuration that these plans lack"), ("3d_fullres", "itself")):
        plans = Plans.parse(_edited(**{key: stage}))
        with pytest.raises(PlanError, match=f"'{key}' is '{stage}', .*{said}"):
            plans.require_stages(plans.configuration("3d_fullres"))
