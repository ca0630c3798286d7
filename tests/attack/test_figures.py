"""The table of docs/safety.md is of a whole attack, made at once or in pieces; a part of one leaves it as it is."""

from __future__ import annotations

import json

import pytest
import tally
from tally import KINDS, Tally

_PAGE = "before\n<!-- figures -->\n| all | 76,211 |\n<!-- /figures -->\nbehind\n"


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "safety.md"
    path.write_text(_PAGE, encoding="utf-8")
    return path


def counted(*kinds):
    found = Tally()
    for kind in kinds:
        found.note(kind, "harmless")
    return found


def test_a_part_leaves_the_table_as_it_is_and_says_what_was_not_tried(page):
    assert "two at once, zarr, zips were not tried" in counted("killed").write(page)
    some = counted(*KINDS)
    some.partial = True
    assert "this was a part of the attack" in some.write(page)
    assert page.read_text(encoding="utf-8") == _PAGE


def test_a_whole_attack_writes_the_table(page):
    assert counted(*KINDS).write(page) == ""
    text = page.read_text(encoding="utf-8")
    assert "| killed | 1 | 0 | 1 | 0 | 0 | 0 | 0 | 0 |" in text and "76,211" not in text
    assert text.startswith("before") and text.endswith("behind\n")


def test_pieces_are_a_whole_together(page, tmp_path, monkeypatch):
    file = tmp_path / "figures.jsonl"
    monkeypatch.setattr(tally, "FIGURES", str(file))
    for seed, kinds in ((1, KINDS[:5]), (2, KINDS[5:])):
        monkeypatch.setattr(tally, "SEED", seed)
        counted(*kinds)
    piece = Tally()
    piece.gather(file)
    assert piece.write(page) == "" and "with NAPARI" in page.read_text(encoding="utf-8")
    assert "the seeds 1, 2." in page.read_text(encoding="utf-8")
    assert len([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]) == len(KINDS)
