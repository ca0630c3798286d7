"""How much of a dataset is annotated: in cases, slices and voxels; noted with each training, for learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from napari_nnunet.engine.labelling.queries import drawing_axis
from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.atomic import write_json
from napari_nnunet.formats.images.files import read_header, read_labels
from napari_nnunet.schema.json_text import message

AMOUNT_FILE = "annotated.json"
_MOST = 1 << 62  # voxels of any dataset


@dataclass(frozen=True)
class Amount:
    """What is annotated.

    Parameters
    ----------
    cases : int
        That were looked at, annotated or not.
    slices : int
        Across the axis that people draw along (a picture is one), in which anything is.
    voxels, every : int
        Annotated voxels, and all.
    """

    cases: int = 0
    slices: int = 0
    voxels: int = 0
    every: int = 0

    def __add__(self, other: Amount) -> Amount:
        mine, theirs = asdict(self), asdict(other)
        return Amount(**{name: mine[name] + theirs[name] for name in mine})

    @property
    def share(self) -> float:
        """Share of the voxels that somebody looked at; 1 where there are none."""
        return self.voxels / self.every if self.every else 1.0

    def counted_in(self, unit: Literal["cases", "slices", "boxes"], box: float) -> float:
        """Return the amount in what is labelled at a time: whole cases, slices, or boxes of so many voxels."""
        if unit == "slices":
            return float(self.slices)
        return self.voxels / max(1.0, box) if unit == "boxes" else self.cases * self.share


def amount_of(path: Path, reader: str | None, ignored: int | None) -> Amount:
    """Return what is annotated in the labels of a case; where nothing may be missing, only the header is read.

    Raises
    ------
    ImageError
        If they cannot be read.
    """
    if ignored is None:
        header = read_header(path, reader=reader)
        shape = tuple(header.shape[-header.geometry.ndim :])
        slices = shape[drawing_axis(header.geometry.spacing)] if len(shape) == 3 else 1
        return Amount(1, slices, math.prod(shape), math.prod(shape))
    labels, geometry = read_labels(path, reader=reader)
    annotated = np.asarray(labels != ignored)
    axis = drawing_axis(geometry.spacing)
    others = tuple(n for n in range(annotated.ndim) if n != axis)
    slices = int(np.count_nonzero(annotated.any(axis=others))) if annotated.ndim == 3 else int(annotated.any())
    return Amount(1, slices, int(np.count_nonzero(annotated)), annotated.size)


def amount_in(paths: Sequence[Path], reader: str | None, ignored: int | None) -> Amount:
    """Return what is annotated in labels; those that cannot be read count nothing: the check of a dataset tells it."""
    total = Amount()
    for path in paths:
        with suppress(NnunetError, OSError):
            total += amount_of(path, reader, ignored)
    return total


def note_amount(folder: Path, amount: Amount) -> None:
    """Write beside a training what was annotated when it began."""
    write_json(folder / AMOUNT_FILE, asdict(amount))


def noted_amount(folder: Path) -> Amount | None:
    """Return what was annotated when a training began; None where that is not known."""
    path = folder / AMOUNT_FILE
    content: Mapping[str, object] = message(path) if path.is_file() else {}
    values = {name: content.get(name) for name in asdict(Amount())}
    numbers = {name: value for name, value in values.items() if type(value) is int and 0 <= value < _MOST}
    return Amount(**numbers) if len(numbers) == len(values) else None
