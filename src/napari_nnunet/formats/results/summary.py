"""nnU-Net's summary.json: how good the segmentations of a folder are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.atomic import write_json
from napari_nnunet.schema.json_text import read_object

SUMMARY_FILE = "summary.json"


@dataclass(frozen=True)
class CaseScore:
    """How good one case is.

    Parameters
    ----------
    name : str
        Of the case.
    prediction, reference : Path
        The files that were compared.
    metrics : dict of str to dict
        Per label or region, as named in the file: Dice, IoU and counts of voxels; NaN where neither file had it.
    """

    name: str
    prediction: Path
    reference: Path
    metrics: Mapping[str, Mapping[str, float]]

    @property
    def dice(self) -> dict[str, float]:
        """The Dice of every label or region; NaN where neither file had it."""
        return {label: values["Dice"] for label, values in self.metrics.items()}

    @property
    def mean(self) -> float:
        """Mean Dice over the labels that occur; NaN if none does."""
        known = [value for value in self.dice.values() if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan


@dataclass(frozen=True)
class Summary:
    """How good the segmentations of a folder are.

    Parameters
    ----------
    foreground : dict of str to float
        Means over labels of the means over cases, by metric.
    mean : dict of str to dict
        Means over cases, by label or region and metric.
    cases : tuple of CaseScore
        In the order of the file.
    """

    foreground: Mapping[str, float]
    mean: Mapping[str, Mapping[str, float]]
    cases: tuple[CaseScore, ...] = ()

    @classmethod
    def read(cls, path: Path, *, ending: str = "") -> Summary:
        """Read a summary.json of ours or nnU-Net's.

        Parameters
        ----------
        path : Path
            The file.
        ending : str
            Of the segmentations; cases are named by their files without it.

        Raises
        ------
        DatasetError
            If the file is not there, or not a summary.
        """
        content = read_object(path, DatasetError)
        try:
            return cls(
                _numbers(content["foreground_mean"]),
                {str(label): _numbers(values) for label, values in content["mean"].items()},
                tuple(_case(entry, ending) for entry in content["metric_per_case"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DatasetError(f"{path} is not a summary.json of nnU-Net ({error}). Evaluate again.") from error

    @property
    def dice(self) -> float:
        """Mean foreground Dice; NaN where a label occurs nowhere."""
        return self.foreground["Dice"]

    @property
    def class_dice(self) -> dict[str, float]:
        """Mean Dice of every label or region."""
        return {label: values["Dice"] for label, values in self.mean.items()}

    @property
    def absent(self) -> tuple[str, ...]:
        """Labels and regions that occur in no case: they have no mean, and neither has the whole."""
        return tuple(label for label, dice in self.class_dice.items() if math.isnan(dice))

    @property
    def worst_first(self) -> Sequence[CaseScore]:
        """The cases, worst first; those without any label come last."""
        return sorted(self.cases, key=lambda case: (math.isnan(case.mean), case.mean))

    def to_json(self) -> dict[str, Any]:
        """Return the dictionary as nnU-Net writes it."""
        cases = [
            {
                "metrics": case.metrics,
                "prediction_file": str(case.prediction),
                "reference_file": str(case.reference),
            }
            for case in self.cases
        ]
        return {**self.means(), "metric_per_case": cases}

    def means(self) -> dict[str, Any]:
        """Return what the file says of all cases together."""
        return {"foreground_mean": self.foreground, "mean": self.mean}

    def write(self, path: Path) -> None:
        """Write a summary.json, keys sorted as nnU-Net does."""
        write_json(path, self.to_json(), sort_keys=True)


def find_summary(folder: Path) -> Summary | None:
    """Return the summary of a folder of segmentations, None if there is none that can be read."""
    try:
        return Summary.read(folder / SUMMARY_FILE)
    except DatasetError:
        return None


def _case(entry: Mapping[str, Any], ending: str) -> CaseScore:
    prediction = Path(entry["prediction_file"])
    metrics = {str(label): _numbers(values) for label, values in entry["metrics"].items()}
    return CaseScore(prediction.name.removesuffix(ending), prediction, Path(entry["reference_file"]), metrics)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    if "Dice" not in values or not all(isinstance(value, int | float) for value in values.values()):
        raise ValueError(f"{dict(values)} are not scores")
    return dict(values)
