"""Where datasets and models lie, and names that lead nowhere else."""

from __future__ import annotations

import pytest

from napari_nnunet.errors import DatasetError, ModelError
from napari_nnunet.formats import speed
from napari_nnunet.formats.workspace import Workspace, default_folder


@pytest.fixture
def places(tmp_path):
    return Workspace.at(tmp_path)


def test_a_folder_given_counts_more_than_variables_and_these_more_than_the_users_folder(tmp_path):
    variables = {"nnUNet_raw": str(tmp_path / "r"), "nnUNet_results": "", "nnUNet_preprocessed": "relative"}
    found = Workspace.resolve(None, variables)
    assert found.raw == tmp_path / "r"
    assert found.results == default_folder() / "nnUNet_results"
    assert found.preprocessed.is_absolute()
    assert Workspace.resolve(tmp_path / "w", variables) == Workspace.at(tmp_path / "w")


def test_raw_datasets_are_listed_with_and_without_their_json(places):
    assert places.raw_datasets() == []
    for name in ("Dataset002_b/imagesTr", "Dataset001_a", "Dataset003_empty", "other/imagesTr"):
        (places.raw / name).mkdir(parents=True)
    (places.raw / "Dataset001_a" / "dataset.json").touch()
    assert [path.name for path in places.raw_datasets()] == ["Dataset001_a", "Dataset002_b"]


def test_a_dataset_is_found_by_number_in_any_of_the_three_folders(places):
    for root, name in ((places.raw, "Dataset004_Heart"), (places.preprocessed, "Dataset1004_Far"), (places.results, "Dataset012_x y")):  # fmt: skip
        (root / name).mkdir(parents=True)
    (places.raw / "Dataset005_file").touch()
    for number in ("4", "004", "00004"):
        assert places.dataset_name(number) == "Dataset004_Heart"
    assert places.dataset_name("1004") == "Dataset1004_Far"
    assert places.dataset_name("12") == "Dataset012_x y"
    assert places.dataset_name("Dataset777_Not_there_yet") == "Dataset777_Not_there_yet"
    for wrong in ("5", "100", "0"):
        with pytest.raises(DatasetError, match=f"number {wrong}"):
            places.dataset_name(wrong)


def test_a_dataset_is_found_by_the_name_it_was_given_without_its_number(places):
    for root, name in ((places.raw, "Dataset004_Heart"), (places.results, "Dataset005_Left.Heart"), (places.results, "Dataset007_Heart_2")):  # fmt: skip
        (root / name).mkdir(parents=True)
    assert places.dataset_name("Heart") == "Dataset004_Heart"
    assert places.dataset_name("Left.Heart") == "Dataset005_Left.Heart"
    for wrong in ("heart", "Hear", "Left_Heart", "004_Heart", "2"):
        with pytest.raises(DatasetError, match="neither a dataset number nor a name|No dataset with the number 2"):
            places.dataset_name(wrong)
    (places.preprocessed / "Dataset009_Heart").mkdir(parents=True)
    with pytest.raises(DatasetError, match="Heart is ambiguous: Dataset004_Heart, Dataset009_Heart"):
        places.dataset_name("Heart")


@pytest.mark.parametrize(
    "wrong", ["", "x", "-1", "1.5", "²", "Dataset1_x", "Dataset001", "Dataset001_", "dataset001_x"]
)
def test_what_is_neither_number_nor_name_is_refused(places, wrong):
    with pytest.raises(DatasetError, match="neither a dataset number nor a name|not of the form DatasetXXX_Name"):
        places.dataset_name(wrong)


@pytest.mark.parametrize("wrong", ["Dataset001_x/../../y", "Dataset001_/etc", "Dataset001_a\\b", "Dataset001_a:b"])
def test_names_that_lead_elsewhere_are_refused(places, wrong):
    with pytest.raises(DatasetError, match="Dataset001"):
        places.dataset_name(wrong)


def test_two_datasets_of_one_number_are_named(places):
    for root, name in ((places.raw, "Dataset004_Heart"), (places.results, "Dataset004_Liver")):
        (root / name).mkdir(parents=True)
    with pytest.raises(DatasetError, match="Dataset004_Heart, Dataset004_Liver"):
        places.dataset_name("4")


def test_the_speed_of_this_computer_is_remembered_and_the_oldest_forgotten():
    assert speed.seconds_per_run("a") is None
    for i in range(410):
        speed.remember(str(i), 0.5 + i)
    speed.remember("300", 7.0)
    assert speed.seconds_per_run("300") == 7.0
    assert speed.seconds_per_run("409") == 409.5
    assert speed.seconds_per_run("0") is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        '{"key": "a", "seconds": "x"}',
        '{"key": "a"}',
        '{"key": "a", "seconds": -1}',
        '{"key": "a", "seconds": NaN}',
        "\x00",
    ],
)
def test_a_notebook_of_something_else_is_no_reason_to_fail(content):
    speed.remember("b", 1.0)
    speed._path().write_text(content)
    assert speed.seconds_per_run("a") is None
    speed.remember("c", 2.0)
    assert speed.seconds_per_run("c") == 2.0


def test_a_notebook_that_cannot_be_written_is_no_reason_to_fail(monkeypatch):
    from napari_nnunet.errors import ResourceError

    def refuse(*_):
        raise ResourceError("No space left.")

    monkeypatch.setattr(speed, "append_lines", refuse)
    speed.remember("a", 1.0)
    assert speed.seconds_per_run("a") is None


def test_the_models_of_a_dataset_are_listed_where_another_is_asked_for(places):
    names = {"trainer": "nnUNetTrainer", "plans": "nnUNetPlans"}
    folder = places.results / "Dataset004_Heart" / "nnUNetTrainer__nnUNetPlans__2d"
    folder.mkdir(parents=True)
    assert places.model_folder("4", **names, configuration="2d") == folder
    with pytest.raises(ModelError, match="nnUNetTrainer__nnUNetPlans__2d"):
        places.model_folder("4", **names, configuration="3d_fullres")


def test_a_part_of_a_workspace_and_a_file_are_named_as_what_they_are(tmp_path):
    for inner in ("nnUNet_raw", "nnUNet_raw/Dataset001_A"):
        (tmp_path / inner).mkdir()
        with pytest.raises(DatasetError, match=f"The workspace is the folder that holds nnUNet_raw: {tmp_path}"):
            Workspace.at(tmp_path / inner).dataset_name("7")
    (tmp_path / "a.txt").touch()
    with pytest.raises(DatasetError, match=r"a\.txt is a file\. Set --workspace"):
        Workspace.at(tmp_path / "a.txt").dataset_name("7")
