"""Cases are told from the names of the files in a folder of images."""

from __future__ import annotations

import pytest

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.dataset.case_files import find_cases


def fill(folder, *names):
    for name in names:
        (folder / name).touch()
    return folder


def test_channels_of_a_case_come_in_their_order_and_cases_by_name(tmp_path):
    fill(tmp_path, "b_0001.nii.gz", "b_0000.nii.gz", "Ärzte Fall 1_0000.nii.gz", "Ärzte Fall 1_0001.nii.gz")
    cases = find_cases(tmp_path, ending=".nii.gz", channels=2)
    assert [case.name for case in cases] == ["b", "Ärzte Fall 1"]
    assert [path.name for path in cases[0].files] == ["b_0000.nii.gz", "b_0001.nii.gz"]


def test_only_the_last_four_digits_are_the_channel(tmp_path):
    (case,) = find_cases(fill(tmp_path, "a_0001_0000.png"), ending=".png", channels=1)
    assert case.name == "a_0001"


def test_an_ending_is_no_pattern(tmp_path):
    fill(tmp_path, "a_0000.png", "b_0000xpng")
    assert [case.name for case in find_cases(tmp_path, ending=".png", channels=1)] == ["a"]


def test_hidden_files_are_no_cases(tmp_path):
    fill(tmp_path, "a_0000.png", "._a_0000.png", ".b_0000.png.partial-1-abc")
    assert [case.name for case in find_cases(tmp_path, ending=".png", channels=1)] == ["a"]


def test_a_picture_with_its_colours_in_one_file_is_a_case(tmp_path):
    fill(tmp_path, "a_0000.png", "b_0000.png")
    assert [len(case.files) for case in find_cases(tmp_path, ending=".png", channels=3)] == [1, 1]


def test_one_file_per_case_is_not_enough_where_another_case_has_more(tmp_path):
    fill(tmp_path, "a_0000.png", "b_0000.png", "b_0001.png")
    with pytest.raises(DatasetError, match=r"a: missing a_0001\.png \(the model has 2 channels\)") as told:
        find_cases(tmp_path, ending=".png", channels=2)
    assert "b: " not in str(told.value)


def test_a_single_file_that_is_not_the_first_channel_is_none(tmp_path):
    with pytest.raises(DatasetError, match=r"missing a_0000\.png"):
        find_cases(fill(tmp_path, "a_0001.png"), ending=".png", channels=1)


def test_names_and_gaps_are_told_at_once_and_not_endlessly(tmp_path):
    fill(tmp_path, "x.png", *(f"c{i:02d}_0001.png" for i in range(30)))
    with pytest.raises(DatasetError, match=r"x\.png: the name must end in _0000\.png") as told:
        find_cases(tmp_path, ending=".png", channels=2)
    assert "... and 11 more" in str(told.value)
    assert len(str(told.value).splitlines()) == 22


@pytest.mark.parametrize(
    ("names", "said"),
    [((), r"trained on\.$"), (("a.nii.gz", "b.mha"), r"it has \.mha, \.nii\.gz\.$")],
)
def test_a_folder_of_something_else_is_told_with_what_it_has(tmp_path, names, said):
    with pytest.raises(DatasetError, match=said):
        find_cases(fill(tmp_path, *names), ending=".png", channels=1)


def test_a_file_or_nothing_is_no_folder(tmp_path):
    for path in (fill(tmp_path, "a_0000.png") / "a_0000.png", tmp_path / "nowhere"):
        with pytest.raises(DatasetError, match="does not exist"):
            find_cases(path, ending=".png", channels=1)
