"""Plans move to another dataset with their names changed and nothing else."""

from __future__ import annotations

import json

import pytest

from helpers import STATISTICS, Recipe, configuration_of, dataset_json, make_dataset
from napari_nnunet.cli.main import main
from napari_nnunet.errors import DatasetError, PlanError, SettingsError
from napari_nnunet.formats.claim import moving
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.planning.move_plans import move_plans
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.planning import MovePlansRequest

SOURCE, TARGET = "Dataset001_From", "Dataset002_To"


@pytest.fixture
def workspace(tmp_path):
    """Plans with a configuration of their own, one that inherits and one named by a person; a dataset without any."""
    workspace = Workspace.at(tmp_path)
    own = configuration_of(Recipe())
    content = {
        "dataset_name": SOURCE, "plans_name": "nnUNetPlans", "image_reader_writer": "NibabelIO",
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "note of a person": "Größe",
        "configurations": {
            "3d_fullres": own, "small": {"inherits_from": "3d_fullres", "batch_size": 5},
            "other": {"inherits_from": "3d_fullres", "data_identifier": "by_hand"},
        },
        "foreground_intensity_properties_per_channel": {"0": STATISTICS},
    }  # fmt: skip
    (workspace.preprocessed / SOURCE).mkdir(parents=True)
    (workspace.preprocessed / SOURCE / "nnUNetPlans.json").write_text(json.dumps(content))
    make_dataset(tmp_path, cases=1, name=TARGET)
    return workspace


def move(workspace, **changes):
    return move_plans(workspace, MovePlansRequest(**{"source": "1", "target": "2", "plans": "nnUNetPlans"} | changes))


def identifiers(path):
    plans = Plans.parse_json(path.read_text(encoding="utf-8"))
    return {name: plans.configuration(name).data_identifier for name in plans.configurations}


def test_under_the_same_name_only_dataset_and_reader_change(workspace):
    before = json.loads((workspace.preprocessed / SOURCE / "nnUNetPlans.json").read_text(encoding="utf-8"))
    path = move(workspace)
    assert path == workspace.preprocessed / TARGET / "nnUNetPlans.json"
    assert json.loads(path.read_text(encoding="utf-8")) == before | {
        "dataset_name": TARGET,
        "image_reader_writer": "SimpleITKIO",
    }
    assert json.loads((workspace.preprocessed / SOURCE / "nnUNetPlans.json").read_text(encoding="utf-8")) == before


def test_under_another_name_the_data_lie_in_folders_of_their_own(workspace):
    path = move(workspace, new_name="Umzug größer")
    assert Plans.parse_json(path.read_text(encoding="utf-8")).plans_name == "Umzug größer"
    assert identifiers(path) == {
        "3d_fullres": "Umzug größer_3d_fullres", "small": "Umzug größer_3d_fullres", "other": "Umzug größer_by_hand",
    }  # fmt: skip


def test_plans_can_move_on_and_stay_beside_others(workspace):
    move(workspace, new_name="one")
    path = move(workspace, source="2", plans="one", new_name="two")
    assert identifiers(path)["3d_fullres"] == "two_3d_fullres"
    assert (path.parent / "one.json").exists()


def test_the_reader_that_the_target_names_is_kept(workspace):
    dataset_json(workspace.raw / TARGET, overwrite_image_reader_writer="NibabelIOWithReorient")
    assert Plans.parse_json(move(workspace).read_text(encoding="utf-8")).reader == "NibabelIOWithReorient"


def test_the_dataset_json_of_the_target_comes_along(workspace):
    (workspace.preprocessed / TARGET).mkdir()
    (workspace.preprocessed / TARGET / "dataset.json").write_text("stale")
    base = move(workspace).parent
    assert (base / "dataset.json").read_bytes() == (workspace.raw / TARGET / "dataset.json").read_bytes()


def test_nothing_is_written_for_a_target_that_is_not_complete(workspace):
    (workspace.raw / TARGET / "labelsTr" / "c0.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"c0\.nii\.gz is missing"):
        move(workspace)
    assert not (workspace.preprocessed / TARGET).exists()


def test_plans_that_the_source_lacks_are_told_with_those_it_has(workspace):
    with pytest.raises(PlanError, match=r"no plans named 'mine' \(there: nnUNetPlans\)"):
        move(workspace, plans="mine")


def test_plans_for_other_channels_are_refused(workspace):
    dataset_json(workspace.raw / TARGET, channel_names={"0": "MR", "1": "CT"})
    for path in sorted((workspace.raw / TARGET / "imagesTr").glob("*_0000.nii.gz")):
        path.with_name(path.name.replace("_0000", "_0001")).write_bytes(path.read_bytes())
    with pytest.raises(DatasetError, match=r"1 channel, Dataset002_To has 2 channels \(MR, CT\)"):
        move(workspace)
    assert not (workspace.preprocessed / TARGET).exists()


def test_plans_for_other_intensities_and_voxels_are_moved_with_a_warning(workspace, capsys):
    words = ["move_plans_between_datasets", "-s", "1", "-t", "2", "-sp", "nnUNetPlans", "-tp", "Moved"]
    path = workspace.preprocessed / SOURCE / "nnUNetPlans.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    target = json.loads((workspace.raw / TARGET / "dataset.json").read_text(encoding="utf-8"))
    content["configurations"]["3d_fullres"] |= {"normalization_schemes": ["CTNormalization"], "spacing": [1e-3] * 3}
    path.write_text(json.dumps(content))
    (workspace.raw / TARGET / "dataset.json").write_text(json.dumps(target | {"channel_names": {"0": "MRI"}}))
    assert main([*words, "--workspace", str(workspace.raw.parent)]) == 0
    said = capsys.readouterr().err
    assert "normalise the channel MRI as CT, with the intensities of the other dataset" in said
    assert "3d_fullres resamples them to 0.001 x 0.001 x 0.001 mm" in said


def test_a_dataset_that_is_being_moved_gets_no_plans(workspace):
    with (
        moving(workspace.preprocessed / TARGET, f"{TARGET} is being removed"),
        pytest.raises(SettingsError, match=f"{TARGET} is being removed"),
    ):
        move(workspace)
    assert not (workspace.preprocessed / TARGET / "nnUNetPlans.json").exists()
