"""JSON files with one value missing or wrong are refused in words: no other error ever leaves a reader."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

import nasty
from helpers import STATISTICS, Recipe, configuration_of
from napari_nnunet.errors import DatasetError, NnunetError, PlanError
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.fingerprint import Fingerprint
from napari_nnunet.schema.names import is_plain, parse_fold, require_plain
from napari_nnunet.schema.plans import Plans

PLANS = {
    "dataset_name": "Dataset001_Tiny",
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "configurations": {
        "3d_fullres": configuration_of(Recipe()),
        "changed": {"inherits_from": "3d_fullres", "batch_size": 3},
    },
    "foreground_intensity_properties_per_channel": {"0": STATISTICS},
}
DATASET = {
    "channel_names": {"0": "CT", "1": "MR"},
    "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
    "regions_class_order": [1, 2],
    "numTraining": 3,
    "file_ending": ".nii.gz",
    "overwrite_image_reader_writer": "SimpleITKIO",
}


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
