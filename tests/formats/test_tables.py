"""Tables that people fill in are read as programs for tables write them, or refused with their line."""

from __future__ import annotations

import csv
import io

import pytest

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.tables import read_rows, text_of


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table_is_read_as_programs_for_tables_write_it(tmp_path, encoding, separator, end):
    lines = ["case,kind,size", ' a ,"böse, ""alte"" zelle",3', ",,", "b,x"]
    text = end.join(line if "böse" in line else line.replace(",", separator) for line in lines)
    text = text.replace(" a ,", f" a {separator}").replace('",3', f'"{separator}3')
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    assert read_rows(tmp_path / "a.csv", DatasetError, ["case", "kind"]) == [
        (2, {"case": "a", "kind": 'böse, "alte" zelle', "size": "3"}),
        (4, {"case": "b", "kind": "x", "size": ""}),
    ]


@pytest.mark.parametrize("name", ["=1+1", "+x", "-case", "@SUM(A1)", " =1", "\t=1", "a;=cmd|' /C calc'!A0", "a\t=1"])
def test_a_name_is_never_a_formula_and_is_read_as_it_was(tmp_path, name):
    text = text_of([{"case": name, name: "x", "Dice": -0.5, "text": "-1e-3"}])
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    for separator in ",;\t":
        for line in csv.reader(io.StringIO(text), delimiter=separator):
            assert not [cell for cell in line if cell.strip()[:1] in tuple("=+@-") and not _is_number(cell)]
    ((_, row),) = read_rows(tmp_path / "a.csv", DatasetError, ["case"], separators=",")
    assert row == {"case": name.strip(), name.strip(): "x", "Dice": "-0.5", "text": "-1e-3"}


def _is_number(cell):
    return cell.strip().lstrip("-").replace(".", "").replace("e-", "").isdecimal()


def test_what_is_written_is_read_again(tmp_path):
    table = [{"case": 'a "b", c', "size": 0.5}, {"case": "d\ne", "size": 12345678.0}]
    (tmp_path / "a.csv").write_text(text_of(table), newline="")
    found = [row for _, row in read_rows(tmp_path / "a.csv", DatasetError, ["case"])]
    assert found == [{"case": 'a "b", c', "size": "0.5"}, {"case": "d\ne", "size": "1.234568e+07"}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no column case, kind; it must have"),
        (b"case,size\na,1\n", "has no column kind"),
        (b"case,kind,case\na,x,b\n", "has the column case more than once"),
        (b"case,kind\na,b,c\n", "line 2 has 3 cells, and there are 2 columns"),
        (b'case,kind\na,"' + b"x" * 200_000 + b'"\n', "line 2 is not a line of a table: field larger"),
        (b"case,kind\n\x81\x8d\x00", "is not text"),
    ],
)
def test_a_table_that_cannot_be_told_is_refused(tmp_path, content, words):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=words):
        read_rows(tmp_path / "a.csv", DatasetError, ["case", "kind"])
