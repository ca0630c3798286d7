"""Files and folders as people give them: links, patterns, folders within folders, what lies beside images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.dataset.case_files import find_cases
from napari_nnunet.formats.dataset.pairs import pair_subfolders

ONE = {"ending": ".nii.gz", "channels": 1, "reader": "SimpleITKIO"}


def fill(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def named(found):
    return [case.name for case in found.cases]


def test_what_a_shell_left_as_a_pattern_is_looked_up(tmp_path):
    fill(tmp_path, "a_0000.nii.gz", "b.nii.gz", "b.txt", "p1/c.nii.gz", "x[1].nii.gz")
    assert named(find_cases(tmp_path / "?*.nii.gz", **ONE)) == ["a", "b", "x[1]"]
    assert named(find_cases(tmp_path / "p*", **ONE)) == ["c"]
    assert named(find_cases(tmp_path / "x[1].nii.gz", **ONE)) == ["x[1]"]
    with pytest.raises(DatasetError, match=r"\*\.nrrd matches no file\."):
        find_cases(tmp_path / "*.nrrd", **ONE)


def test_what_is_given_twice_is_taken_once(tmp_path):
    image = fill(tmp_path, "a_0000.nii.gz") / "a_0000.nii.gz"
    (tmp_path / "link").symlink_to(tmp_path)
    for sources in ([image, image], [tmp_path, tmp_path / "link"], [tmp_path, image]):
        assert named(find_cases(sources, **ONE)) == ["a"]


def test_what_lies_beside_images_is_no_reason_to_refuse_a_list_of_files(tmp_path):
    fill(tmp_path, "a.tif", "a.json", "notes.txt", "Thumbs.db", "._a.tif")
    found = find_cases(sorted(tmp_path.iterdir()), ending=".tif", channels=1, reader="Tiff3DIO")
    assert named(found) == ["a"]
    assert set(found.left_out) == {"a.json", "notes.txt", "Thumbs.db", "._a.tif"}
    with pytest.raises(DatasetError, match=r"a\.json: unknown kind of image"):
        find_cases(tmp_path / "a.json", **ONE)


def test_files_that_systems_leave_in_folders_are_not_mentioned(tmp_path):
    found = find_cases(fill(tmp_path, "a.nii.gz", "Thumbs.db", "desktop.ini", ".DS_Store", "._a.nii.gz"), **ONE)
    assert (named(found), found.left_out) == (["a"], ())


def test_images_in_folders_further_down_are_named(tmp_path):
    fill(tmp_path, "a.nii.gz", "p1/study/b.nii.gz", "empty/deep/x.txt")
    assert find_cases(tmp_path, **ONE).left_out == ("p1/ (a subfolder)",)
    (tmp_path / "a.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"1 of its subfolders hold images \(--subfolders\)"):
        find_cases(tmp_path, **ONE)


def test_an_image_that_is_a_folder_is_named(tmp_path):
    fill(tmp_path, "a.nii.gz", "b.zarr/0/.zarray")
    assert find_cases(tmp_path, **ONE).left_out == ("b.zarr (OME-Zarr, one image at a time)",)


def test_links_to_folders_are_looked_into_once_and_never_in_circles(tmp_path):
    fill(tmp_path, "in/a.nii.gz", "elsewhere/b.nii.gz", "elsewhere/deep/c.nii.gz", "in/own/d.nii.gz")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in" / "own")
    found = find_cases(tmp_path / "in", **ONE, subfolders=True)
    assert named(found) == ["a", "more/b", "more/deep/c", "own/d"]


def test_a_link_to_itself_ends_no_folder(tmp_path):
    fill(tmp_path, "b.nii.gz")
    (tmp_path / "a.nii.gz").symlink_to(tmp_path / "a.nii.gz")
    assert named(find_cases(tmp_path, **ONE)) == ["a", "b"]  # which is said when its turn comes


def test_results_around_the_images_hide_none_of_them(tmp_path):
    fill(tmp_path, "in/p/a.nii.gz", "in/b.nii.gz")
    assert named(find_cases(tmp_path / "in", **ONE, subfolders=True, without=tmp_path)) == ["b", "p/a"]


def test_hidden_images_alone_are_told_from_none(tmp_path):
    with pytest.raises(DatasetError, match=r"trained on\. Files whose names begin with a dot are hidden ones"):
        find_cases(fill(tmp_path, "._a_0000.nii.gz"), **ONE)


def test_numbers_of_cases_that_look_like_channels_are_refused_with_how_to_rename_them(tmp_path):
    fill(tmp_path, "scan_2023.nii.gz", "scan_2024.nii.gz")
    with pytest.raises(DatasetError, match=r"the name of a case, rename scan_2024\.nii\.gz to scan_2024_0000\.nii\.gz"):
        find_cases(tmp_path, **ONE)


def test_an_import_looks_behind_links_too(tmp_path):
    for kind in ("images", "masks"):
        fill(tmp_path, f"real/{kind}/deep/x.nii.gz", f"{kind}/y.nii.gz")
        (tmp_path / kind / "linked").symlink_to(tmp_path / "real" / kind)
        (tmp_path / kind / "linked" / "circle").symlink_to(tmp_path / kind)
    found = pair_subfolders(tmp_path / "images", tmp_path / "masks")
    assert [pair.name for pair in found.pairs] == ["linked_deep_x", "y"]


def test_links_of_two_names_to_one_file_are_two_images(tmp_path):
    """So git-annex and DVC keep cases, or channels, that hold the same."""
    fill(tmp_path, "store/xyz", "a_0000.nii.gz", "a_0001.nii.gz")
    links = [tmp_path / "in" / name for name in ("p_0000.nii.gz", "p_0001.nii.gz", "q_0000.nii.gz", "q_0001.nii.gz")]
    links[0].parent.mkdir()
    for link in links:
        link.symlink_to(tmp_path / "store" / "xyz")
    assert named(find_cases([links[0], links[2]], **ONE)) == ["p", "q"]
    assert named(find_cases(links, **{**ONE, "channels": 2})) == ["p", "q"]
    assert named(find_cases([links[0], tmp_path / "in" / ".." / "in" / links[0].name], **ONE)) == ["p"]


def test_brackets_in_a_name_stand_for_themselves(tmp_path):
    fill(tmp_path, "scan1.nii.gz", "scan[2].nii.gz", "s[3]/a.nii.gz", "s3/b.nii.gz")
    with pytest.raises(DatasetError, match=r"The input .*scan\[1\]\.nii\.gz does not exist\."):
        find_cases(tmp_path / "scan[1].nii.gz", **ONE)
    assert named(find_cases(tmp_path / "s[3]" / "*.nii.gz", **ONE)) == ["a"]


def test_the_home_of_nobody_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("x.nii.gz", "*.nii.gz"):
        with pytest.raises(DatasetError, match=r"The input ~nosuchperson/.* (does not exist|matches no file)\."):
            find_cases(Path("~nosuchperson") / name, **ONE)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_what_is_neither_a_file_nor_a_folder_is_refused_as_that(tmp_path):
    (tmp_path / "circle.nii.gz").symlink_to(tmp_path / "circle.nii.gz")
    (tmp_path / "gone.nii.gz").symlink_to(tmp_path / "elsewhere.nii.gz")
    os.mkfifo(tmp_path / "pipe.nii.gz")
    for name, said in (
        ("circle", "is a link that leads nowhere"),
        ("gone", r"leads nowhere \(to .*elsewhere\.nii\.gz\)\. Put its file back"),
        ("pipe", "is neither a file nor a folder"),
    ):
        with pytest.raises(DatasetError, match=f"{name}.nii.gz {'.*' if name == 'gone' else ''}{said}"):
            find_cases([tmp_path / f"{name}.nii.gz"], **ONE)
