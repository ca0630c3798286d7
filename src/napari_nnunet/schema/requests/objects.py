"""Requests about numbered objects: derive classes from them, compare them, measure them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_nnunet.schema.requests.dataset import read_class_names
from napari_nnunet.schema.requests.option import DatasetPosition, Request, Workers, option


def read_values(words: Sequence[str]) -> dict[str, int]:
    """Return values of classes by name, written as 3=membrane."""
    return {name: value for value, name in read_class_names(words).items()}


class DeriveObjectsRequest(Request):
    """Derive the classes that nnU-Net learns (core and border) from the numbered objects in objectsTr of a dataset."""

    dataset: DatasetPosition
    kinds: dict[int, str] = option(
        "Kinds of object",
        "--kinds VALUE=NAME",
        "Names of kinds by their values in kindsTr, such as 1=nucleus 2=debris; one kind needs no kindsTr.",
        default={},
        otherwise="all are of one kind, 'object'",
        reads=read_class_names,
    )
    classes: dict[str, int] = option(
        "Ordinary classes",
        "--classes VALUE=NAME",
        "Classes in kindsTr that are no objects, such as 3=membrane.",
        default={},
        reads=read_values,
    )
    ignore: int | None = option(
        "Ignore value", "--ignore VALUE", "Value in kindsTr of voxels that nobody annotated.", default=None
    )
    width: float | None = option(
        "Border width",
        "--width VOXELS",
        "Width of borders in network voxels.",
        default=None,
        gt=0,
        le=20,
        otherwise="measured",
    )
    workers: Workers = 0


class EvaluateObjectsRequest(Request):
    """Compare numbered objects with those of references: average precision, F1, PQ, SEG, missed, split and merged."""

    reference: Path = option("References", "gt_folder", "Folder with the references.")
    prediction: Path = option("Segmentations", "pred_folder", "Folder with the segmentations.")
    summary: Path | None = option(
        "Summary", "-o FILE", "File to write.", default=None, otherwise="objects.json next to the segmentations"
    )
    csv: Path | None = option("CSV", "--csv FILE", "Also write one line per case, worst first.", default=None)
    missing_ok: bool = option("Leave out", "--chill", "Leave out references without a prediction.", default=False)
    workers: Workers = 0


class MeasureObjectsRequest(Request):
    """Measure every object: size, place, shape, and brightness where images are given; one line per object (CSV)."""

    objects: Path = option("Objects", "-i PATH", "A file with numbered objects, or a folder of such files.")
    images: Path | None = option(
        "Images", "--images PATH", "Images (CASE_0000, CASE_0001, ...), for brightness.", default=None
    )
    target: Path = option("Table", "-o FILE", "CSV to write.")
    workers: Workers = 0
