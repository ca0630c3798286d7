"""dataset_fingerprint.json: what was measured of a dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, ValidationError

from napari_nnunet.errors import DatasetError
from napari_nnunet.schema.json_text import Real, Whole, first_problem, json_object, read_text

_Side = Annotated[Whole, Ge(1), Le(10_000_000)]  # voxels
_Spacing = Annotated[Real, Gt(0), Lt(math.inf)]


class IntensityProperties(BaseModel):
    """Foreground intensities of one channel over all training cases, each case with the same weight."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max: Real
    mean: Real
    median: Real
    min: Real
    percentile_00_5: Real
    percentile_99_5: Real
    std: Real


class Fingerprint(BaseModel):
    """Facts of a dataset, in case order and in the reader's axis order.

    Parameters
    ----------
    foreground_intensity_properties_per_channel : dict
        Channel number (as text) to its intensities.
    median_relative_size_after_cropping : float
        Share of a case's voxels that is left after cropping to nonzero.
    shapes_after_crop : tuple of (int, int, int)
        One per case.
    spacings : tuple of (float, float, float)
        In mm, one per case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    foreground_intensity_properties_per_channel: dict[str, IntensityProperties]
    median_relative_size_after_cropping: Real
    shapes_after_crop: tuple[tuple[_Side, _Side, _Side], ...]
    spacings: tuple[tuple[_Spacing, _Spacing, _Spacing], ...]

    @classmethod
    def parse_json(cls, text: str, *, where: str = "dataset_fingerprint.json") -> Fingerprint:
        """Read the text of a fingerprint.

        Raises
        ------
        DatasetError
            If it is damaged or empty.
        """
        content = json_object(text, where, DatasetError)
        try:
            found = cls.model_validate(content)
        except ValidationError as error:
            raise DatasetError(f"{where} is damaged: {first_problem(error)} Extract the fingerprint again.") from error
        if not found.spacings or len(found.spacings) != len(found.shapes_after_crop):
            raise DatasetError(f"{where} has no cases, or not a shape for every spacing; extract it again.")
        return found

    @classmethod
    def read(cls, path: Path) -> Fingerprint:
        """Read a dataset_fingerprint.json; raises DatasetError where it is not there or damaged."""
        return cls.parse_json(read_text(path, DatasetError), where=str(path))

    def to_json(self) -> Mapping[str, Any]:
        """Return the dictionary as nnU-Net writes it."""
        content: Mapping[str, Any] = self.model_dump(mode="json")
        return content
