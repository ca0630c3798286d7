"""Requests about measuring, planning and preprocessing a dataset."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge
from pydantic import field_validator

from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.plans import STANDARD
from napari_nnunet.schema.requests.option import (
    Cluster,
    EachDataset,
    GridSettings,
    Memory,
    Request,
    Workers,
    option,
    read_largest,
)

_FEWEST_FOLDS = 2
Clean = Annotated[bool, option("From scratch", "--clean", "Do it again even if nothing changed.")]
Check = Annotated[bool, option("Check first", "--verify_dataset_integrity", "Check the dataset first.")]
Sampled = Annotated[
    bool, option("Draws", "--sampled", "nnU-Net's random draws instead of exact figures, for identical numbers.")
]
Configurations = Annotated[
    tuple[str, ...],
    option(
        "Configurations",
        "-c CONFIGURATION",
        "Configurations to preprocess; standard ones that the plans lack are skipped.",
    ),
]
SeveralWorkers = Annotated[
    int,
    Ge(0),
    option(
        "Processes",
        "-np N",
        "Cases at the same time, at most; fewer run where memory is short. Of nnU-Net's one number per configuration "
        "the largest is taken: all are made in one pass.",
        otherwise="all cores",
        many=True,
        once=True,
        reads=read_largest,
    ),
]


FoldCount = int | Literal["loo"]


def parse_fold_count(text: str) -> FoldCount:
    """Return a number of folds given as text, or "loo".

    Raises
    ------
    SettingsError
        If it is neither.
    """
    cleaned = text.strip().lower()
    if cleaned == "loo":
        return "loo"
    if not cleaned.isdecimal() or int(cleaned) < _FEWEST_FOLDS:
        raise SettingsError(f"{text!r} is not a number of folds; give 2 or more, or 'loo' to leave one out at a time.")
    return int(cleaned)


class FoldSettings(Request):
    """Which cases train and which validate, where nnU-Net's five random folds do not fit."""

    group_by: str | None = option(
        "Group by",
        "--group_by --group-by PATTERN",
        "Keep cases of one group (patient) together: a regular expression whose brackets find the group in a case's "
        "name, such as '^(patient[0-9]+)', or a CSV file with the columns case, group.",
        default=None,
        otherwise="every case for itself",
    )
    folds: FoldCount | None = option(
        "Number of folds",
        "--folds N",
        "How many folds; 'loo' leaves one case, or group, out at a time.",
        default=None,
        otherwise="5",
        reads=parse_fold_count,
    )

    @field_validator("folds", mode="before")
    @classmethod
    def _counted(cls, value: Any) -> Any:
        return value if value is None else parse_fold_count(str(value))

    @property
    def asks(self) -> bool:
        """Whether other folds are asked for than those that are there, or nnU-Net's."""
        return self.group_by is not None or self.folds is not None


class PlanSettings(Request):
    """How a dataset is planned."""

    planner: str = option(
        "Preset",
        "-pl PLANNER",
        "nnU-Net's planners, or SmallPlanner for CPUs; larger networks need more GPU memory and are a little better.",
        default="ExperimentPlanner",
    )
    gpu_memory_gb: float | None = option(
        "GPU memory (GB)",
        "-gpu_memory_target GB",
        "What a training may take.",
        default=None,
        gt=0,
        otherwise="the planner's",
        row=True,
    )
    target_spacing: tuple[float, float, float] | None = option(
        "Target spacing (mm)",
        "-overwrite_target_spacing",
        "Voxel size of the network grid in mm, in the reader's axis order.",
        default=None,
        otherwise="the data decide",
        axes=("Z", "Y", "X"),
        row=True,
    )
    plans_name: str | None = option(
        "Plans name",
        "-overwrite_plans_name NAME",
        "Name of the plans.",
        default=None,
        otherwise="the planner's",
        row=True,
    )
    preprocessor: Literal["DefaultPreprocessor"] = option(
        "Preprocessor", "-preprocessor_name", "The only one there is.", default="DefaultPreprocessor"
    )


class FingerprintRequest(GridSettings):
    """Measure all training cases of datasets (spacings, shapes, intensities) for planning."""

    dataset: EachDataset
    workers: Workers = 0
    check: Check = False
    clean: Clean = False
    sampled: Sampled = False
    memory_gb: Memory = 0
    cluster: Cluster = None


class PlanRequest(FoldSettings, PlanSettings):
    """Choose spacing, patch, network and batch of every configuration from the fingerprint."""

    dataset: EachDataset


class PreprocessRequest(GridSettings):
    """Crop, normalise and resample all training cases; what is up to date is left as it is."""

    dataset: EachDataset
    plans: str = option("Plans", "-plans_name -p NAME", "Name of the plans.", default="nnUNetPlans")
    configurations: Configurations = STANDARD
    workers: SeveralWorkers = 0
    memory_gb: Memory = 0
    clean: Clean = False
    cluster: Cluster = None


class PlanAndPreprocessRequest(GridSettings, FoldSettings, PlanSettings):
    """Do everything between raw data and training: check (on request), measure, plan, preprocess."""

    dataset: EachDataset
    measure_workers: int = option(
        "Measuring processes",
        "-npfp N",
        "Cases measured at the same time, at most.",
        default=0,
        ge=0,
        otherwise="all cores",
    )
    check: Check = False
    clean: Clean = False
    sampled: Sampled = False
    preprocess: bool = option(
        "Preprocess", "--no_pp", "Off: stop after planning.", default=True, sets=False, shell="Stop after planning."
    )
    configurations: Configurations = STANDARD
    workers: SeveralWorkers = 0
    memory_gb: Memory = 0
    cluster: Cluster = None


class FoldsRequest(FoldSettings):
    """Show which cases train and validate in every fold; with --group_by or --folds make such folds first."""

    dataset: EachDataset
    dry_run: bool = option("Only show", "--dry_run", "Show the folds and write nothing.", default=False)


class MovePlansRequest(Request):
    """Write the plans of one dataset for another; preprocess it with them afterwards."""

    source: str = option("From", "-s SOURCE", "Dataset whose plans are used.")
    target: str = option("To", "-t TARGET", "Dataset that receives them.")
    plans: str = option("Plans", "-sp PLANS", "Name of the plans.")
    new_name: str | None = option(
        "New name", "-tp NAME", "Their name in the target.", default=None, otherwise="the same"
    )
