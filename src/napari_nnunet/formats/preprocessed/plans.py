"""The plans files of a preprocessed dataset."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from napari_nnunet.errors import PlanError
from napari_nnunet.formats.images.files import ADAPTERS
from napari_nnunet.formats.workspace import entries
from napari_nnunet.schema.json_text import read_object
from napari_nnunet.schema.names import require_plain
from napari_nnunet.schema.plans import Plans


def read_plans(base: Path, name: str) -> Plans:
    """Read a plans file of a preprocessed dataset; the error lists the files there are."""
    path = base / f"{require_plain(name, 'The name of the plans')}.json"
    if not path.is_file():
        there = ", ".join(p.stem for p in plan_files(base)) or "none"
        raise PlanError(
            f"{base.name} has no plans named {name!r} (there: {there}).",
            shell="Run 'plan_experiment' first.",
            window="Plan the dataset in the Plan dock.",
        )
    return Plans.read(path)


def require_reader(plans: Plans) -> None:
    """Raise PlanError where plans name a reader of images that does not exist: every case would fail for it."""
    if plans.reader not in ADAPTERS:
        raise PlanError(
            f"{plans.where}: 'image_reader_writer' is {plans.reader!r}. Known readers: {', '.join(ADAPTERS)}."
        )


def unchanged(plans: Plans) -> bool:
    """Whether the file that plans were read from holds the same still; raises PlanError where it is gone."""
    return json.dumps(Plans.read(Path(plans.where)).raw) == json.dumps(plans.raw)  # texts, for no NaN equals another


def plan_files(base: Path) -> list[Path]:
    """Return the plans files of a preprocessed dataset; none where it, or its disk, is gone."""
    found = []
    for path in entries(base, "*.json"):
        with suppress(PlanError):
            found += [path] if "configurations" in read_object(path, PlanError) else []
    return found
