"""Plans against those that nnU-Net's planners made (needs NAPARI_NNUNET_TEST_DATA)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from napari_nnunet.engine.planning.planner import plan
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.fingerprint import Fingerprint
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.planning import PlanSettings

pytestmark = pytest.mark.parity


def _differences(found: Any, expected: Any, where: str = "") -> Iterator[str]:
    if isinstance(found, dict) and isinstance(expected, dict):
        if list(found) != list(expected):
            yield f"{where}: keys {list(found)} instead of {list(expected)}"
        for key in set(found) & set(expected):
            yield from _differences(found[key], expected[key], f"{where}/{key}")
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            yield from _differences(a, b, f"{where}/{i}")
    elif isinstance(found, float) and isinstance(expected, float):
        if not math.isclose(found, expected, rel_tol=1e-6):
            yield f"{where}: {found} instead of {expected}"
    elif type(found) is not type(expected) or found != expected:
        yield f"{where}: {found!r} instead of {expected!r}"


def test_every_recorded_plan_is_identical(real_data: Path):
    root = real_data / "parity" / "planner"
    index = json.loads((root / "index.json").read_text(encoding="utf-8"))
    assert index["count"] == len(index["cases"]) > 100
    wrong = {}
    for entry in index["cases"]:
        case = json.loads((root / entry["file"]).read_text(encoding="utf-8"))
        expected = case["expected_plans"]
        found = plan(
            Fingerprint.model_validate(case["fingerprint"]),
            DatasetInfo.parse(case["dataset_json"]),
            PlanSettings(
                planner=case["planner"],
                gpu_memory_gb=case["gpu_memory_target_in_gb"],
                target_spacing=case["overwrite_target_spacing"],
                plans_name=case["overwrite_plans_name"],
            ),
            dataset_name=case["dataset_name"],
            reader=expected["image_reader_writer"],
            existing=case["existing_plans"],
        )
        differences = list(_differences(json.loads(json.dumps(found)), expected))
        if differences:
            wrong[entry["name"]] = differences[:3]
        parsed = Plans.parse(found)
        for name in set(parsed.configurations) - set((case["existing_plans"] or {}).get("configurations", {})):
            assert parsed.configuration(name).architecture.divisor
    assert not wrong
