"""Plans are told from the other JSON files beside them, and the missing ones with those that are there."""

from __future__ import annotations

import pytest

import nasty
from helpers import make_model
from napari_nnunet.errors import PlanError
from napari_nnunet.formats.preprocessed.plans import plan_files, read_plans


def test_plans_are_told_from_other_files_however_odd_these_are(tmp_path):
    model = make_model(tmp_path / "models")
    base = tmp_path / "Dataset001_Tiny"
    base.mkdir()
    for name in ("b", "a größer"):
        (base / f"{name}.json").write_bytes((model.folder / "plans.json").read_bytes())
    for i, content in enumerate((*nasty.VALUES, {"labels": {}}, "configurations")):
        nasty.write(base / f"odd{i}.json", content)
    (base / "bytes.json").write_bytes(b"\xff\xfe\x00configurations")
    (base / "folder.json").mkdir()
    (base / "torn.json").write_text('{"configurations": {')
    assert [path.name for path in plan_files(base)] == ["a größer.json", "b.json"]
    assert read_plans(base, "a größer").configurations == model.plans.configurations
    with pytest.raises(PlanError, match=r"no plans named 'c' \(there: a größer, b\)") as told:
        read_plans(base, "c")
    assert "plan_experiment" in told.value.message
    assert "Plan dock" in told.value.in_window


def test_without_any_plans_none_are_listed(tmp_path):
    with pytest.raises(PlanError, match=r"there: none"):
        read_plans(tmp_path / "nowhere", "nnUNetPlans")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"configurations": 3}'])
def test_damaged_plans_are_an_error_of_plans(tmp_path, content):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(PlanError, match=r"p\.json|configurations"):
        read_plans(tmp_path, "p")
