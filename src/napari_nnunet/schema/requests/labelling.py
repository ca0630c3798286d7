"""Requests about labels: where they are wrong, and what to label next."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from napari_nnunet.schema.requests.choosing import ChosenFolds
from napari_nnunet.schema.requests.option import DatasetFlag, Request, Workers, option
from napari_nnunet.schema.requests.prediction import Device, Source

Strategy = Literal["random", "entropy", "stratified"]
Unit = Literal["cases", "slices", "boxes"]

#: Of places, where nothing is said.
BUDGETS: dict[Unit, int] = {"cases": 3, "slices": 10, "boxes": 10}


class JudgedBy(Request):
    """Which model of a dataset is asked."""

    configuration: str | None = option(
        "Configuration",
        "-c CONFIGURATION",
        "2d, 3d_fullres, ...",
        default=None,
        otherwise="the model with the most validated cases, the best of these",
    )
    trainer: str | None = option("Trainer", "-tr TRAINER", "Only models of this trainer.", default=None)
    plans: str | None = option("Plans", "-p PLANS", "Only models of these plans.", default=None)


class FindLabelErrorsRequest(JudgedBy):
    """Compare the labels of a dataset with cross-validated predictions; lists the cases that look wrong, worst first.

    Every case was segmented by a network that did not see it. Where that network is sure of itself and the labels
    differ, the labels are suspect. Train with --npz (or validate again with --val --npz): with probabilities it is
    known how sure the network is.
    """

    dataset: DatasetFlag
    target: Path | None = option(
        "Table", "-o FILE", "CSV to write.", default=None, otherwise="suspects.csv in the model's folder"
    )
    folds: ChosenFolds = None
    accept: tuple[str, ...] = option(
        "Accept",
        "--accept CASE",
        "Cases whose labels are right, or single parts as CASE:PART (numbers as in the table): accepted_labels.csv in "
        "the dataset keeps them off the list until labels or prediction change there.",
        default=(),
        otherwise="none",
    )
    doubt: tuple[str, ...] = option(
        "Doubt again",
        "--doubt_again CASE",
        "Accepted cases that are suspected again.",
        default=(),
        otherwise="none",
    )
    workers: Workers = 0


class SuggestRequest(JudgedBy):
    """Say which unlabelled images, slices or boxes to label next, and what it costs.

    A model of the dataset segments the images; places are ranked by what it sees there and how sure it is. Where models
    were trained on three or more different numbers of cases, the learning curve says what more cases are likely to
    bring.
    """

    dataset: DatasetFlag
    source: Source
    target: Path | None = option(
        "Table", "-o FILE", "CSV to write.", default=None, otherwise="suggestions.csv in the model's folder"
    )
    unit: Unit = option(
        "Label",
        "--what",
        "What is labelled at a time: whole images, slices of them, or boxes.",
        default="cases",
        row=True,
    )
    budget: int | None = option(
        "How many",
        "--budget N",
        "How many places to suggest.",
        default=None,
        ge=1,
        otherwise="3 cases, 10 slices or 10 boxes",
        row=True,
    )
    strategy: Strategy = option(
        "Strategy",
        "--strategy",
        "random: two thirds where the model sees foreground, the others anywhere; entropy: where it is least sure; "
        "stratified: where it is least sure of each class in turn, with noise that fades over the rounds.",
        default="random",
        row=True,
    )
    size: tuple[int, ...] | None = option(
        "Box",
        "--size N",
        "Voxels of a box along each axis, Z Y X (pictures: Y X).",
        default=None,
        once=True,
        min_length=2,
        otherwise="half of what the network sees at once",
    )
    turn: int = option(
        "Round", "--round N", "Which round of labelling this is; stratified is noisy in early ones.", default=1, ge=1
    )
    pace: float = option(
        "Seconds per outline",
        "--pace SECONDS",
        "What drawing one outline takes, for the estimate of minutes.",
        default=20.0,
        gt=0,
        row=True,
    )
    seed: int = option("Seed", "--seed N", "Of what is drawn at random.", default=0, ge=0)
    proposals: Path | None = option(
        "Proposals",
        "--proposals DIR",
        "Also write the model's segmentation of the suggested images, to be corrected.",
        default=None,
        otherwise="none are written",
    )
    device: Device = "auto"

    @property
    def places(self) -> int:
        """How many places are wanted."""
        return BUDGETS[self.unit] if self.budget is None else self.budget
