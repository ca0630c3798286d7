"""summary.json: one value that is read and written."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.results.summary import CaseScore, Summary, find_summary


def _metrics(dice):
    return {"Dice": dice, "IoU": dice / 2, "TP": 3}


def _summary():
    cases = (
        CaseScore("good", Path("p/good.nrrd"), Path("r/good.nrrd"), {"1": _metrics(0.9), "(1, 2)": _metrics(math.nan)}),
        CaseScore("empty", Path("p/empty.nrrd"), Path("r/empty.nrrd"), {"1": _metrics(math.nan)}),
        CaseScore("bad", Path("p/bad.nrrd"), Path("r/bad.nrrd"), {"1": _metrics(0.1), "(1, 2)": _metrics(0.3)}),
    )
    return Summary(_metrics(0.5), {"1": _metrics(0.5), "(1, 2)": _metrics(0.3)}, cases)


def test_a_summary_comes_back_as_it_was_written(tmp_path):
    _summary().write(tmp_path / "summary.json")
    found = Summary.read(tmp_path / "summary.json", ending=".nrrd")
    assert json.dumps(found.to_json(), sort_keys=True) == json.dumps(_summary().to_json(), sort_keys=True)
    assert [case.name for case in found.cases] == ["good", "empty", "bad"]
    assert found.dice == 0.5
    assert found.class_dice == {"1": 0.5, "(1, 2)": 0.3}


def test_the_worst_case_comes_first_and_empty_ones_last():
    assert [case.name for case in _summary().worst_first] == ["bad", "good", "empty"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"foreground_mean": {}, "mean": {}, "metric_per_case": []}'])
def test_other_files_are_no_summary(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(DatasetError, match=r"summary\.json (is not|must hold)"):
        Summary.read(tmp_path / "summary.json")
    assert find_summary(tmp_path) is None
