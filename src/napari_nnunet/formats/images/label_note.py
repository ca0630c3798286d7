"""What a file of labels says of itself beside its voxels: classes, colours, axes and place."""

from __future__ import annotations

import json
from typing import Self

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from napari_nnunet.errors import NnunetError
from napari_nnunet.schema.geometry import Geometry

#: Under which name files hold a note.
NOTE_KEY = "napari-nnunet"


class LabelNote(BaseModel):
    """Kept in a file's own metadata, so that labels that are opened again are what they were.

    Parameters
    ----------
    axes : str
        Of the array as it was saved: "YX", "ZYX", "TYX" or "TZYX".
    shape : tuple of int
        Of that array; a file whose size has changed since is read without its note.
    geometry : Geometry
        Of the spatial axes. Formats with a place of their own (NIfTI, NRRD, MetaImage) are believed before it.
    time_step : float
        Distance of two time points, in ``time_unit``.
    time_start : float
        When the first one is.
    time_unit : str
        "pixel" where it is not known.
    names : dict of int to str
        Class names by label value.
    colours : dict of int to str
        As #rrggbb, by label value; values without an entry have the colours of every class.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    axes: str
    shape: tuple[int, ...]
    geometry: Geometry
    time_step: float = 1.0
    time_start: FiniteFloat = 0.0
    time_unit: str = "pixel"
    names: dict[int, str] = {}
    colours: dict[int, str] = {}

    def text(self) -> str:
        """Return the note in ASCII, which every format holds."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True))

    @classmethod
    def of_text(cls, text: str | None) -> Self | None:
        """Return the note that :meth:`text` wrote; None for anything else."""
        try:
            return None if text is None else cls.model_validate_json(text)
        except (ValidationError, NnunetError):  # the latter says what a geometry cannot be
            return None
