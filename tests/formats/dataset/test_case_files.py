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
    cases = find_cases(tmp_path, ending=".nii.gz", channels=2).cases
    assert [case.name for case in cases] == ["b", "Ärzte Fall 1"]
    assert [path.name for path in cases[0].files] == ["b_0000.nii.gz", "b_0001.nii.gz"]


def test_only_the_last_four_digits_are_the_channel(tmp_path):
    (case,) = find_cases(fill(tmp_path, "a_0001_0000.png"), ending=".png", channels=1).cases
    assert case.name == "a_0001"


def test_an_ending_is_no_pattern(tmp_path):
    fill(tmp_path, "a_0000.png", "b_0000xpng")
    assert [case.name for case in find_cases(tmp_path, ending=".png", channels=1).cases] == ["a"]


def test_hidden_files_are_no_cases(tmp_path):
    fill(tmp_path, "a_0000.png", "._a_0000.png", ".b_0000.png.partial-1-abc")
    assert [case.name for case in find_cases(tmp_path, ending=".png", channels=1).cases] == ["a"]


def test_a_picture_with_its_colours_in_one_file_is_a_case(tmp_path):
    fill(tmp_path, "a_0000.png", "b_0000.png")
    assert [len(case.files) for case in find_cases(tmp_path, ending=".png", channels=3).cases] == [1, 1]


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


def test_what_does_not_exist_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere does not exist"):
        find_cases(tmp_path / "nowhere", ending=".png", channels=1)


ITK = {"ending": ".nii.gz", "channels": 1, "reader": "SimpleITKIO"}


def named(found):
    return [case.name for case in found.cases]


def test_cases_of_other_endings_are_taken_where_they_are_named_like_channels(tmp_path):
    fill(tmp_path, "lower_0000.nii.gz", "UPPER_0000.NII.GZ", "plain_0000.nii", "view.png", "notes.nrrd", "a.json")
    found = find_cases(tmp_path, **ITK)
    assert named(found) == ["UPPER", "lower", "plain"]
    assert set(found.left_out) == {"view.png", "notes.nrrd"}
    assert found.left_out_text.startswith("2 entries of the input are left out: ")


def test_the_same_case_in_two_kinds_of_files_is_taken_once_and_that_is_said(tmp_path):
    fill(tmp_path, "a_0000.nii", "a_0000.nii.gz", "a.nii.gz")
    found = find_cases(tmp_path, **ITK)
    assert [path.name for case in found.cases for path in case.files] == ["a_0000.nii.gz"]
    assert len(found.left_out) == 2
    assert all("a_0000.nii.gz is the same case" in text for text in found.left_out)


def test_one_channel_needs_no_number(tmp_path):
    assert named(find_cases(fill(tmp_path, "a.nii.gz", "b_0000.nii.gz"), **ITK)) == ["a", "b"]
    with pytest.raises(DatasetError, match=r"a\.nii\.gz: the name must end in _0000\.nii\.gz"):
        find_cases(tmp_path, **{**ITK, "channels": 2})


def test_coloured_pictures_need_no_number_either(tmp_path):
    assert named(find_cases(fill(tmp_path, "a.png", "b.png"), ending=".png", channels=3)) == ["a", "b"]
    with pytest.raises(DatasetError, match=r"a\.png: the name must end in _0000\.png"):
        find_cases(tmp_path, ending=".png", channels=2)
    fill(tmp_path, "c_0000.png")
    with pytest.raises(DatasetError, match=r"a\.png: the name must end in _0000\.png"):
        find_cases(tmp_path, ending=".png", channels=3)


def test_a_folder_of_another_kind_is_taken_whole(tmp_path):
    assert named(find_cases(fill(tmp_path, "a.nrrd", "b.mha"), **ITK)) == ["a", "b"]


def test_subfolders_are_named_or_looked_into_and_results_are_passed_over(tmp_path):
    for name in ("more/deep", "out"):
        (tmp_path / name).mkdir(parents=True)
    fill(tmp_path, "a_0000.nii.gz", "more/b_0000.nii.gz", "more/deep/a_0000.nii.gz", "out/a.nii.gz")
    found = find_cases(tmp_path, **ITK)
    assert named(found) == ["a"]
    assert "more/ (a subfolder)" in found.left_out
    found = find_cases(tmp_path, **ITK, subfolders=True, without=tmp_path / "out")
    assert named(found) == ["a", "more/b", "more/deep/a"]
    assert found.left_out == ()


def test_nothing_found_mentions_subfolders_with_images(tmp_path):
    (tmp_path / "more").mkdir()
    fill(tmp_path, "more/b_0000.nii.gz")
    with pytest.raises(DatasetError, match=r"1 of its subfolders hold images \(--subfolders\)"):
        find_cases(tmp_path, **ITK)


def test_files_and_folders_may_be_mixed_and_names_must_differ(tmp_path):
    (tmp_path / "in").mkdir()
    fill(tmp_path, "x.nrrd", "a.nii", "in/a_0000.nii.gz")
    assert named(find_cases([tmp_path / "x.nrrd", tmp_path / "in"], **ITK)) == ["a", "x"]
    with pytest.raises(DatasetError, match="would both be the case a"):
        find_cases([tmp_path / "a.nii", tmp_path / "in"], **ITK)


def test_channels_given_as_files_are_one_case(tmp_path):
    fill(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz")
    paths = [tmp_path / "a_0001.nii.gz", tmp_path / "a_0000.nii.gz"]
    (case,) = find_cases(paths, **{**ITK, "channels": 2}).cases
    assert [path.name for path in case.files] == ["a_0000.nii.gz", "a_0001.nii.gz"]


def test_pictures_are_no_volumes(tmp_path):
    found = find_cases(fill(tmp_path, "a_0000.nii.gz", "a_0001.png", "b_0000.png"), **ITK)
    assert named(found) == ["a"]
    assert found.left_out == ("a_0001.png", "b_0000.png")


def test_what_is_left_out_or_wrong_in_subfolders_is_named_with_its_folder(tmp_path):
    for patient in ("p1", "p2"):
        (tmp_path / patient).mkdir()
        fill(tmp_path, f"{patient}/scan_0000.nii.gz", f"{patient}/scan.nii.gz", f"{patient}/view.png")
    found = find_cases(tmp_path, **ITK, subfolders=True)
    assert named(found) == ["p1/scan", "p2/scan"]
    assert {text.partition(" ")[0] for text in found.left_out} == {
        "p1/scan.nii.gz", "p1/view.png", "p2/scan.nii.gz", "p2/view.png"
    }  # fmt: skip
    with pytest.raises(DatasetError, match=r"p2/scan\.nii\.gz: the name must end in _0000"):
        find_cases(tmp_path, **{**ITK, "channels": 2}, subfolders=True)
    for patient in ("p1", "p2"):
        (tmp_path / patient / "scan.nii.gz").unlink()
    fill(tmp_path, "p1/scan_0001.nii.gz")
    with pytest.raises(DatasetError, match=r"p2/scan: missing scan_0001\.nii\.gz"):
        find_cases(tmp_path, **{**ITK, "channels": 2}, subfolders=True)
