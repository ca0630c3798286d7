"""Mask files per class are told by their names alone, also among many thousands."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from napari_nnunet.formats.masks.class_files import find_class_files


def found(cases, files):
    """Return what is found among files of one folder, whose names are taken as they are."""
    return find_class_files(cases, [Path(name) for name in files], lambda _: (), str.casefold, lambda path: path.stem)


def test_the_longest_case_that_a_name_begins_or_ends_with_is_its_own():
    cases = ("p", "p_1", "1")
    named = ("p_1_liver.png", "p_liver.png", "liver_1.png", "p_1_spleen.png", "spleen_p.png", "p_liver_1.png")
    classes = found(cases, named)
    assert classes is not None
    assert {case: {name: path.name for name, path in own.items()} for case, own in classes.files.items()} == {
        "p_1": {"liver": "p_1_liver.png", "spleen": "p_1_spleen.png"},
        "p": {"liver": "p_liver.png", "spleen": "spleen_p.png", "liver_1": "p_liver_1.png"},
        "1": {"liver": "liver_1.png"},
    }


def test_names_of_no_case_and_of_no_class_are_left():
    classes = found(("a", "b"), ("a_cell.png", "b_cell.png", "b_rim.png", "c_cell.png", "a_7.png", "a.png"))
    assert classes is not None
    assert [path.name for path in classes.rest] == ["c_cell.png", "a_7.png", "a.png"]


@pytest.mark.parametrize(
    "files",
    [
        ("a_cell.png", "b_rim.png"),  # no case has two
        ("a_cell.png", "A_cell.png", "a_rim.png", "b_rim.png"),  # one twice
        ("a_x.png", "a_y.png", "b_z.png"),  # no class that two share: objects
        tuple(f"{case}_n{n}.png" for case in "ab" for n in range(1, 260)),  # more than there are classes
    ],
)
def test_other_files_are_no_classes(files):
    assert found(("a", "b"), files) is None


def test_many_cases_are_not_gone_through_for_every_file():
    cases = [f"slide_{n:05}" for n in range(20_000)]
    began = time.process_time()
    classes = found(cases, [f"{case}_{name}.png" for case in cases for name in ("rim", "core")])
    assert classes is not None
    assert len(classes.files) == 20_000
    assert time.process_time() - began < 10  # gone through, it takes minutes
