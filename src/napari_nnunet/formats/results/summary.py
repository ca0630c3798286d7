"""nnU-Net's summary.json: how good the segmentations of a folder are."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.atomic import write_json


@dataclass(frozen=True)
class CaseScore:
    """How good one case is.

    Parameters
    ----------
    name : str
        Of the case.
    prediction, reference : Path
        The files that were compared.
    dice : dict of str to float
        Per label or region, as named in the file; NaN where neither had it.
    """

    name: str
    prediction: Path
    reference: Path
    dice: dict[str, float]

    @property
    def mean(self) -> float:
        """Mean over the labels that occur; NaN if none does."""
        known = [value for value in self.dice.values() if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write a summary, keys sorted as nnU-Net does."""
    write_json(path, summary, sort_keys=True)


def read_scores(path: Path, *, ending: str) -> list[CaseScore]:
    """Return the cases of a summary, worst first; cases without any label come last.

    Parameters
    ----------
    path : Path
        summary.json of ours or nnU-Net's.
    ending : str
        Of the files.

    Raises
    ------
    DatasetError
        If the file is not a summary.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = [
            CaseScore(
                Path(entry["prediction_file"]).name.removesuffix(ending),
                Path(entry["prediction_file"]),
                Path(entry["reference_file"]),
                {str(label): float(values["Dice"]) for label, values in entry["metrics"].items()},
            )
            for entry in content["metric_per_case"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path} is not a summary.json of nnU-Net ({error}).") from error
    return sorted(found, key=lambda score: (math.isnan(score.mean), score.mean))
