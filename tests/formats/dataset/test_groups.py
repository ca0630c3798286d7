"""Which cases belong together is read from names and tables; what is not certain is said or refused."""

from __future__ import annotations

import pytest

from napari_nnunet.errors import DatasetError, SettingsError
from napari_nnunet.formats.dataset.groups import likely_pattern, read_groups, stored_groups, write_groups

SIDES = ["anna_left", "anna_right", "bob_left", "bob_right", "carl"]


def test_the_brackets_of_a_pattern_are_the_group():
    found = read_groups(SIDES, "^(.+)_(?:left|right)$")
    assert found.of == {
        "anna_left": "anna",
        "anna_right": "anna",
        "bob_left": "bob",
        "bob_right": "bob",
        "carl": "carl",
    }
    assert found.alone == ("carl",)


def test_without_brackets_the_match_is_the_group():
    assert set(read_groups(SIDES, "^[a-z]+").of.values()) == {"anna", "bob", "carl"}


def test_a_case_called_like_a_group_belongs_to_it():
    found = read_groups(["anna", "anna_left", "bob_left"], "^(.+)_left$")
    assert found.of == {"anna": "anna", "anna_left": "anna", "bob_left": "bob"}
    assert not found.alone


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("heading", [True, False])
def test_a_table_names_groups(tmp_path, separator, heading):
    lines = ["case,group"] * heading + ["anna_left,A", "anna_right, A", "stranger,A"]
    path = tmp_path / "groups.csv"
    path.write_text("\ufeff" + "\n".join(line.replace(",", separator) for line in lines), encoding="utf-8")
    found = read_groups(SIDES[:3], str(path))
    assert found.of == {"anna_left": "A", "anna_right": "A", "bob_left": "bob_left"}
    assert found.alone == ("bob_left",)


def test_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="is not a valid regular expression"):
        read_groups(SIDES, "(")
    with pytest.raises(DatasetError, match="names none of the 5 cases, which are called anna_left"):
        read_groups(SIDES, "patient")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_groups(SIDES, str(tmp_path / "none.csv"))
    path = tmp_path / "twice.csv"
    path.write_text("anna_left,A\nanna_left,B\n")
    with pytest.raises(DatasetError, match="two groups, A and B"):
        read_groups(SIDES, str(path))
    path.write_text("anna_left\n")
    with pytest.raises(SettingsError, match="has no group"):
        read_groups(SIDES, str(path))


TWICE = ["p00_t0", "p00_t1", "p01_t0", "p01_t1"]


def _table(tmp_path, head, rows):
    path = tmp_path / "groups.csv"
    path.write_text("\n".join([head, *rows]), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("head", "line"),
    [
        ("case,age,group", "{case},{age},{patient}"),
        ("Image_ID;Age;Patient ID", "{case};{age};{patient}"),
        ("group,case", "{patient},{case}"),
        ("subject,file name,id", "{patient},{case},{age}"),
        ("patient_id,session,group,image", "{age},x,{patient},{case}"),
        ("patient,what", "{patient},{case}"),
        ("case,group,,", "{case},{patient},,"),
    ],
)
def test_the_first_line_of_a_table_tells_which_columns_count(tmp_path, head, line):
    rows = [line.format(case=case, age=60 + i, patient=case[:3]) for i, case in enumerate(TWICE)]
    assert read_groups(TWICE, _table(tmp_path, head, rows)).of == {case: case[:3] for case in TWICE}


def test_the_first_case_of_a_table_without_headings_may_be_gone_and_called_like_one(tmp_path):
    rows = [f"{case},{case[:3]}" for case in TWICE]
    for head in ("sub-07,A", "patient_3,A", "animal12,B"):
        assert read_groups(TWICE, _table(tmp_path, head, rows)).of == {case: case[:3] for case in TWICE}


@pytest.mark.parametrize(
    ("head", "column"),
    [("case,hospital", "hospital"), ("Image ID;Site", "Site"), ("case,scan", "scan"), ("patient,ward", "ward")],
)
def test_of_two_columns_the_one_without_cases_has_the_groups_and_that_is_said(tmp_path, head, column):
    rows = [f"{case}{';' if ';' in head else ','}{case[:3]}" for case in TWICE]
    path = _table(tmp_path, head, rows)
    found = read_groups(TWICE, path)
    assert found.of == {case: case[:3] for case in TWICE}
    assert found.remark == f"{path}: the groups were taken from the column '{column}'"
    for plain in ("case,group", "sub-07,A", "scan_3,A"):
        assert not read_groups(TWICE, _table(tmp_path, plain, [f"{case},{case[:3]}" for case in TWICE])).remark


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("case,age,site", "the columns 'case', 'age', 'site', which do not tell where the groups are. Write case over"),
        ("case,patient,subject", "do not tell where the groups are"),
        ("what,age,patient", "do not tell where the cases are"),
        ("p00_t0,60,p00", r"has 3 columns, and its first line \(p00_t0, 60, p00\) does not tell which"),
    ],
)
def test_columns_are_not_guessed(tmp_path, head, said):
    columns = head.count(",")
    rows = [",".join([case, *[str(60 + i)] * columns]) for i, case in enumerate(TWICE)]
    with pytest.raises(SettingsError, match=said):
        read_groups(TWICE, _table(tmp_path, head, rows))


@pytest.mark.parametrize(
    "names",
    [
        ["anna_left", "anna_right", "bob_left", "bob_right"],
        ["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1", "sub-02_ses-2"],
        ["p1_t0", "p1_t1", "p2_t0", "p2_t1", "p3_t0"],
        ["patient001_frame01", "patient001_frame12", "patient002_frame01", "patient002_frame13"],
        ["a_20200101", "a_20210101", "b_20200203", "b_20211231"],
        ["vol1_slice3", "vol1_slice4", "vol2_slice3", "vol2_slice4"],
    ],
)
def test_names_of_one_patient_are_recognised(names):
    pattern = likely_pattern(names)
    assert pattern is not None
    assert len(set(read_groups(names, pattern).of.values())) < len(names)


@pytest.mark.parametrize(
    "names",
    [
        [f"hippocampus_{i:03d}" for i in range(40)],
        [f"BraTS20_Training_{i:03d}" for i in range(40)],
        [f"c{i}" for i in range(12)],
        [f"case_{i:05d}" for i in range(12)],
        [f"la_{i:03d}" for i in range(12)],
        [f"img_t{i}" for i in range(12)],
        ["anna", "bob", "carl"],
    ],
)
def test_plain_numbering_is_no_group(names):
    assert likely_pattern(names) is None


def test_groups_are_read_as_they_were_named_though_none_is_a_formula_in_their_table(tmp_path):
    of = {"-1_left": "=1+1", "-1_right": "=1+1", "plain": "@bob"}
    write_groups(tmp_path, of)
    assert not [
        line
        for line in (tmp_path / "groups.csv").read_text(encoding="utf-8").splitlines()
        if line[0] in "=+-@" or ",=" in line
    ]
    assert read_groups(list(of), stored_groups(tmp_path)).of == of


@pytest.mark.parametrize("cell", ["{}.nii.gz", "{}_0000.nii.gz", "/data/imagesTr/{}_0000.NII.GZ", "C:\\data\\{}.nii"])
def test_a_table_may_name_cases_by_their_files(tmp_path, cell):
    by = _table(tmp_path, "file,patient", [f"{cell.format(name)},{name[:3]}" for name in TWICE])
    assert read_groups(TWICE, by).of == {name: name[:3] for name in TWICE}


def test_a_path_is_not_searched_for_in_names(tmp_path):
    """A table with another ending was taken for a pattern that names no case."""
    path = tmp_path / "groups.txt"
    path.write_text("case|group\n" + "".join(f"{name}|{name[:3]}\n" for name in TWICE))
    assert set(read_groups(TWICE, str(path)).of.values()) == {"p00", "p01"}
    with pytest.raises(SettingsError, match="is a folder; a file is expected"):
        read_groups(TWICE, str(tmp_path))
    (tmp_path / "groups.xlsx").write_bytes(b"PK")
    with pytest.raises(SettingsError, match="is a spreadsheet. Save it as CSV"):
        read_groups(TWICE, str(tmp_path / "groups.xlsx"))


@pytest.mark.parametrize(
    "names",
    [
        "{}_links {}_rechts", "p{}L p{}R", "L_p{} R_p{}", "t0_p{} t1_p{}", "p{}t0 p{}t1", "p{}_6m p{}_12m",
        "X-{}-000 X-{}-001",
    ],
)  # fmt: skip
def test_more_ways_to_name_images_of_one_patient(names):
    cases = sorted(name.format(f"{i:04d}") for i in range(5) for name in names.split())
    pattern = likely_pattern(cases)
    assert pattern is not None
    assert len(set(read_groups(cases, pattern).of.values())) == 5


@pytest.mark.parametrize("name", ["hippocampus_{:03d}", "amos_{:04d}", "BraTS2021_{:05d}", "site1_{:03d}", "m{}"])
def test_numbers_of_cases_are_not_taken_for_images_of_one_patient(name):
    assert likely_pattern([name.format(i) for i in range(40)]) is None


def test_groups_that_end_in_the_name_of_a_case_stay_as_they_are(tmp_path):
    cases = ["1", "2", "3", "4"]
    rows = ["img/1_0000.nii.gz,A/1", "2,B/1", "3,A/1", "4,B/1"]
    assert read_groups(cases, _table(tmp_path, "case,group", rows)).of == {
        "1": "A/1", "2": "B/1", "3": "A/1", "4": "B/1"
    }  # fmt: skip


def test_a_pattern_that_begins_like_somebodys_home_is_a_pattern():
    with pytest.raises(DatasetError, match="The pattern '~nosuchperson/x' names none"):
        read_groups(SIDES, "~nosuchperson/x")
    with pytest.raises(SettingsError, match=r"~nosuchperson/x\.csv cannot be read"):
        read_groups(SIDES, "~nosuchperson/x.csv")
