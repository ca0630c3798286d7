"""Requests about labels: where they are wrong."""

from __future__ import annotations

from pathlib import Path

from napari_nnunet.schema.requests.choosing import ChosenFolds
from napari_nnunet.schema.requests.option import DatasetFlag, Request, Workers, option


class FindLabelErrorsRequest(Request):
    """Hold the labels of a dataset against cross-validated predictions; lists the cases that look wrong, worst first.

    Every case was segmented by a network that did not see it. Where that network is sure of itself and the labels
    differ, the labels are suspect. Train with --npz (or validate again with --val --npz): with probabilities it is
    known how sure the network is.
    """

    dataset: DatasetFlag
    target: Path | None = option(
        "Table", "-o FILE", "CSV to write.", default=None, otherwise="suspects.csv in the model's folder"
    )
    configuration: str | None = option(
        "Configuration",
        "-c CONFIGURATION",
        "2d, 3d_fullres, ...",
        default=None,
        otherwise="the model with the most validated cases, the best of these",
    )
    trainer: str | None = option("Trainer", "-tr TRAINER", "Only models of this trainer.", default=None)
    plans: str | None = option("Plans", "-p PLANS", "Only models of these plans.", default=None)
    folds: ChosenFolds = None
    workers: Workers = 0
