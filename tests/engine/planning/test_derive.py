"""A configuration that a person changes: what follows from it, and what cannot be."""

from __future__ import annotations

import json

import pytest

from helpers import STATISTICS, Recipe, configuration_of
from napari_nnunet.engine.planning.derive import derive, entries_of
from napari_nnunet.errors import PlanError
from napari_nnunet.schema.plans import Plans


@pytest.fixture
def content():
    """The content of plans whose tiny network of three stages no rule would make."""
    return {
        "dataset_name": "Dataset001_Tiny", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration_of(Recipe())},
        "foreground_intensity_properties_per_channel": {"0": STATISTICS},
    }  # fmt: skip


def change(content, name="mine", **changes):
    return derive(Plans.parse(content), "3d_fullres", name, labels=3, **changes)


def changed(content, **changes):
    """Return the configuration as it is read from plans it was added to."""
    return Plans.parse(entries_of(content, "mine", change(content, **changes))).configuration("mine")


def test_what_is_not_named_is_inherited(content):
    before = Plans.parse(content).configuration("3d_fullres")
    found = changed(content, batch=7)
    assert found.batch_size == 7
    assert (found.patch_size, found.spacing, found.architecture) == (
        before.patch_size, before.spacing, before.architecture
    )  # fmt: skip
    assert found.data_identifier == before.data_identifier
    assert not change(content, batch=7).preprocess


def test_the_plans_it_is_added_to_stay_as_they_are(content):
    before = json.dumps(content)
    assert "mine" in entries_of(content, "mine", change(content, batch=7))["configurations"]
    assert json.dumps(content) == before


def test_a_patch_that_is_padded_is_said_and_its_network_takes_it(content):
    derived = change(content, patch=(30, 30, 30))
    found = changed(content, patch=(30, 30, 30))
    assert found.patch_size == (32, 32, 32)
    assert found.architecture.features[0] == 4  # as wide as before
    assert any("becomes 32 × 32 × 32" in sentence for sentence in derived.consequences)
    assert any("starts untrained" in sentence for sentence in derived.consequences)


def test_another_voxel_size_scales_the_images_and_gets_data_of_its_own(content):
    derived = change(content, spacing=(2.0, 0.5, 1.0))
    found = changed(content, spacing=(2.0, 0.5, 1.0))
    assert derived.preprocess
    assert found.data_identifier == "nnUNetPlans_mine"
    assert found.spacing == (2.0, 0.5, 1.0)
    assert derived.entries["median_image_size_in_voxels"] == [4.0, 32.0, 16.0]
    assert "at 2 × 0.5 × 1 mm" in derived.consequences[0]


def test_plans_of_others_that_lack_the_size_of_images_can_be_changed(content):
    del content["configurations"]["3d_fullres"]["median_image_size_in_voxels"]
    assert "median_image_size_in_voxels" not in change(content, spacing=(2.0, 2.0, 2.0)).entries


def test_twice_the_batch_takes_twice_the_memory(content):
    one, two = (float(change(content, batch=2 * n).consequences[-1].split()[3]) for n in (2, 4))
    assert two == pytest.approx(2 * one, rel=0.05)


def test_a_network_that_is_deeper_than_the_rule_can_be_changed(content):
    architecture = content["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    architecture |= {
        "n_stages": 4, "features_per_stage": [4, 6, 8, 8], "kernel_sizes": [[3] * 3] * 4, "n_conv_per_stage": [2] * 4,
        "strides": [[1] * 3, [2] * 3, [2] * 3, [1, 2, 2]], "n_conv_per_stage_decoder": [2] * 3,
    }  # fmt: skip
    assert len(changed(content, batch=7).architecture.strides) == 4
    assert changed(content, patch=(32, 32, 32)).architecture.strides == ((1, 1, 1), *[(2, 2, 2)] * 3)


def test_a_change_can_be_changed_again(content):
    content = entries_of(content, "mine", change(content, spacing=(2.0, 2.0, 2.0)))
    derived = derive(Plans.parse(content), "mine", "again", labels=3, batch=5)
    found = Plans.parse(entries_of(content, "again", derived)).configuration("again")
    assert (found.batch_size, found.spacing, found.data_identifier) == (5, (2.0, 2.0, 2.0), "nnUNetPlans_mine")


def test_two_dimensional_configurations_take_two_numbers(content):
    content["configurations"]["2d"] = configuration_of(Recipe(patch=(16, 16), spacing=(1.0, 1.0), configuration="2d"))
    plans = Plans.parse(content)
    assert derive(plans, "2d", "wide", labels=3, patch=(64, 32)).entries["patch_size"] == [64, 32]
    with pytest.raises(PlanError, match="patch needs 2 positive numbers"):
        derive(plans, "2d", "wide", labels=3, patch=(64, 32, 8))


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("", {"batch": 3}, "not a valid configuration name"), ("../x", {"batch": 3}, "not a valid"),
        ("a b", {"batch": 3}, "not a valid"), ("3d_fullres", {"batch": 3}, "already exists"),
        ("x", {}, "Nothing changes"), ("x", {"batch": 2, "spacing": (1, 1, 1)}, "Nothing changes"),
        ("x", {"batch": 0}, "must be at least 1"), ("x", {"batch": -3}, "must be at least 1"),
        ("x", {"patch": (16, 16)}, "patch needs 3 positive"), ("x", {"patch": (0, 16, 16)}, "patch needs 3 positive"),
        ("x", {"patch": (1, 1, 1)}, "too small for a U-Net"), ("x", {"patch": (7, 7, 7)}, "too small for a U-Net"),
        ("x", {"patch": (8, 1, 1)}, "too small for a U-Net"),
        ("x", {"spacing": (1, 1)}, "voxel size needs 3"), ("x", {"spacing": (1, 0, 1)}, "voxel size needs 3"),
        ("x", {"spacing": (1, -1, 1)}, "voxel size needs 3"), ("x", {"spacing": (1, float("nan"), 1)}, "voxel size needs 3"),
        ("x", {"spacing": (1, float("inf"), 1)}, "voxel size needs 3"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(content, name, changes, said):
    with pytest.raises(PlanError, match=said):
        change(content, name, **changes)


def test_a_configuration_that_the_plans_lack_is_told_with_those_they_have(content):
    with pytest.raises(PlanError, match="3d_fullres"):
        derive(Plans.parse(content), "3d_lowres", "x", labels=3, batch=3)
