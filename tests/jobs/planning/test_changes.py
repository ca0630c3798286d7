"""Configurations that a person changes, and what training would cost."""

from __future__ import annotations

import json
from functools import partial

import pytest

from helpers import DATASET, make_dataset
from napari_nnunet.engine.planning.cost import Trial
from napari_nnunet.engine.planning.derive import derive, entries_of
from napari_nnunet.errors import PlanError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats import speed
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.arithmetic import REAL, step_key, training_choice, training_device
from napari_nnunet.jobs.planning import cost as module
from napari_nnunet.jobs.planning.cost import training_costs
from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
from napari_nnunet.jobs.planning.preprocess import preprocess
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.planning import PlanAndPreprocessRequest, PreprocessRequest
from napari_nnunet.schema.requests.training import TrainSettings

pytestmark = pytest.mark.usefixtures("known_arithmetic", "in_one_process")


@pytest.fixture
def planned(tmp_path):
    """A planned dataset: workspace, plans, dataset."""
    raw = make_dataset(tmp_path, shape=(36, 48, 44))
    workspace = Workspace.at(tmp_path)
    path = drain(plan_and_preprocess(workspace, PlanAndPreprocessRequest(dataset=DATASET, configurations=()))).plans
    return (
        workspace,
        path,
        Plans.parse_json(path.read_text(encoding="utf-8")),
        DatasetInfo.parse_json((raw / "dataset.json").read_text(encoding="utf-8")),
    )


def change(plans, name="mine", base="3d_fullres", **changes):
    return derive(plans, base, name, labels=2, **changes)


def test_another_batch_inherits_everything_else(planned):
    plans = planned[2]
    found = change(plans, batch=5)
    assert found.entries == {"inherits_from": "3d_fullres", "batch_size": 5}
    assert not found.preprocess
    before = plans.configuration("3d_fullres").batch_size
    assert found.consequences == (
        f"Training takes about {5 / before:.2g} times the memory and time per step of 3d_fullres",
    )


def test_another_patch_gets_a_network_that_fits_it(planned):
    plans = planned[2]
    found = change(plans, patch=(17, 32, 32))
    patch = found.entries["patch_size"]
    assert patch[0] % 4 == 0
    assert patch[0] >= 17
    assert "data_identifier" not in found.entries
    assert any("its edges must be multiples of" in text for text in found.consequences)
    new = Plans.parse(entries_of(plans.raw, "mine", found)).configuration("mine")
    assert new.architecture.stages == len(new.architecture.strides)
    assert all(p % d == 0 for p, d in zip(new.patch_size, new.architecture.divisor, strict=True))
    assert new.spacing == plans.configuration("3d_fullres").spacing


def test_a_patch_beyond_the_images_is_allowed_up_to_twice_their_size_and_many_times_are_whole_numbers(planned):
    plans = planned[2]
    assert change(plans, patch=(64, 96, 80)).entries["patch_size"]
    many = change(plans, batch=1000 * plans.configuration("3d_fullres").batch_size).consequences[-1]
    assert "about 1,000 times the memory" in many


def test_another_voxel_size_is_preprocessed_into_a_folder_of_its_own(planned):
    workspace, path, plans, _ = planned
    found = change(plans, spacing=(2.0, 1.6, 1.6))
    assert found.preprocess
    assert found.entries["data_identifier"] == "nnUNetPlans_mine"
    median = plans.resolved("3d_fullres")["median_image_size_in_voxels"]
    assert found.entries["median_image_size_in_voxels"] == pytest.approx([n / 2 for n in median])
    path.write_text(json.dumps(entries_of(plans.raw, "mine", found)))
    result = drain(preprocess(workspace, PreprocessRequest(dataset=DATASET, configurations=["mine"])))
    assert [folder.name for folder in result.folders] == ["nnUNetPlans_mine"]
    assert len(result.done) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Nothing changes"),
        ({"batch": 0}, "The batch size is 0"),
        ({"patch": (32, 32)}, "The patch needs 3 positive numbers"),
        ({"patch": (4, 4, 4)}, "too small for a U-Net"),
        ({"patch": (5120, 5120, 5120)}, "more than four times as large as the images, whose median is 36 × 48 × 44"),
        ({"spacing": (1.0, -1.0, 1.0)}, "The voxel size needs 3 positive numbers"),
        ({"batch": 3, "name": "2d"}, "A configuration 2d already exists"),
        ({"batch": 3, "name": "a/b"}, "is not a valid configuration name"),
        ({"batch": 3, "base": "none"}, "have no configuration 'none'"),
    ],
)
def test_changes_that_cannot_be(planned, changes, words):
    with pytest.raises(PlanError, match=words):
        change(planned[2], **changes)


def test_costs_are_measured_once_and_remembered(planned, monkeypatch):
    workspace, _, plans, info = planned
    base = workspace.preprocessed / DATASET
    content = entries_of(plans.raw, "small", change(plans, patch=(16, 16, 16), batch=1))
    content = {**content, "configurations": {"2d": content["configurations"]["2d"], **content["configurations"]}}
    for configuration in content["configurations"].values():
        if "architecture" in configuration:  # a quarter of the features: a step is measured in a moment
            kwargs = configuration["architecture"]["arch_kwargs"]
            kwargs["features_per_stage"] = [count // 4 for count in kwargs["features_per_stage"]]
    plans = Plans.parse(content)
    monkeypatch.setattr(Trial, "step_alone", lambda trial: (9.0, 9.0))  # tests run beside others
    found = drain(training_costs(base, plans, info, ["3d_fullres", "small"], device="cpu"))
    assert 0 < found["small"].hours_per_fold < found["3d_fullres"].hours_per_fold
    assert 0 < found["small"].memory_gb < found["3d_fullres"].memory_gb
    voxels = 4 * 36 * 48 * 44  # at the target spacing, which is the images' own
    assert found["3d_fullres"].disk_gb == pytest.approx(voxels * 6 / 1e9, rel=0.05)
    monkeypatch.setattr(module, "measure_step", None)  # a second measurement would fail
    assert drain(training_costs(base, plans, info, ["small"], device="cpu")) == {"small": found["small"]}
    settings, small = TrainSettings(device="cpu"), plans.configuration("small")
    choice = training_choice(settings, small.architecture, training_device(settings, "cpu"))
    speed.remember(f"{step_key(small, 1, 2, choice)}-{REAL}", 3600 / 1000)
    real = drain(training_costs(base, plans, info, ["small"], device="cpu"))["small"]
    assert real.real and real.hours_per_fold == pytest.approx(250 + 50 / 3)  # a training is believed more than a trial
    with pytest.raises(TypeError):  # measured again
        drain(training_costs(base, plans, info, ["small"], device="cpu", anew=True))


def test_what_was_measured_beside_other_programs_is_said_to_be_and_not_remembered(planned, monkeypatch):
    workspace, _, plans, info = planned
    monkeypatch.setattr(Trial, "step", lambda trial: 2.0)
    monkeypatch.setattr(Trial, "step_alone", lambda trial: (1.0, 5.0))
    job = partial(training_costs, workspace.preprocessed / DATASET, plans, info, ["2d"], device="cpu", anew=True)
    busy = drain(job())["2d"]
    monkeypatch.setattr(Trial, "step_alone", lambda trial: (3.0, 3.0))
    quiet = drain(job(anew=False))["2d"]  # measured, as nothing was remembered
    assert (busy.busy, quiet.busy) == (True, False)
    assert quiet.hours_per_fold == pytest.approx(2 * busy.hours_per_fold)
    again = drain(job(anew=False))["2d"]
    assert again == quiet


def test_a_network_that_cannot_be_built_is_left_out(planned):
    workspace, _, plans, info = planned
    raw = json.loads(json.dumps(plans.raw))
    kwargs = raw["configurations"]["2d"]["architecture"]["arch_kwargs"]
    for key in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage"):
        kwargs[key] = kwargs[key][:1]
    kwargs.update(n_stages=1, n_conv_per_stage_decoder=[])
    job = training_costs(workspace.preprocessed / DATASET, Plans.parse(raw), info, ["2d"], device="cpu")
    notes = [event.text for event in job if isinstance(event, Note)]
    assert notes == [notes[0]]
    assert "2d cannot be measured: The plans describe a network of a single stage" in notes[0]
