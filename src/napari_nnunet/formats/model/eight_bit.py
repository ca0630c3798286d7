"""What a model needs to run in 8-bit arithmetic, and what was measured of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from napari_nnunet.errors import ModelError
from napari_nnunet.schema.json_text import first_problem, read_object

_FASTER = 1.3  # times, from which on it is worth offering
MOST_LOST = 0.002  # mean Dice
_MOST_LAYERS = 10_000


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] < bounds[1]:
        raise ValueError(f"the range {bounds[0]} to {bounds[1]} is empty")
    return bounds


Bounds = Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_ordered)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EightBitFold(_Frozen):
    """One network.

    Parameters
    ----------
    checkpoint : str
        File that it was made for.
    weights : str
        Digest of its weights.
    ranges : dict of str to (float, float)
        Between which values the inputs of convolutions lie, by layer.
    """

    checkpoint: str
    weights: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    ranges: Annotated[dict[str, Bounds], Field(max_length=_MOST_LAYERS)]


class EightBitMeasured(_Frozen):
    """Mean foreground Dice and seconds per validation case, in the usual arithmetic and in 8-bit.

    Parameters
    ----------
    computer : str
        Where it was measured.
    arithmetic : str
        What 8-bit was compared with.
    cases : int
        How many.
    dice, seconds, dice_eight_bit, seconds_eight_bit : float
        The figures.
    """

    computer: str
    arithmetic: str
    cases: int
    dice: FiniteFloat
    seconds: Annotated[FiniteFloat, Field(gt=0)]
    dice_eight_bit: FiniteFloat
    seconds_eight_bit: Annotated[FiniteFloat, Field(gt=0)]

    @property
    def times_faster(self) -> float:
        """How many times faster 8-bit was."""
        return self.seconds / self.seconds_eight_bit

    @property
    def is_worth_it(self) -> bool:
        """Whether it is 1.3 times faster at least, and loses 0.002 of the Dice at most."""
        return self.times_faster >= _FASTER and self.is_accurate

    @property
    def is_accurate(self) -> bool:
        """Whether it loses 0.002 of the Dice at most."""
        return self.dice - self.dice_eight_bit <= MOST_LOST

    def __str__(self) -> str:
        return (
            f"8-bit: Dice {self.dice_eight_bit:.4f}, {self.seconds_eight_bit:.2f} s per case; {self.arithmetic}: Dice "
            f"{self.dice:.4f}, {self.seconds:.2f} s per case ({self.times_faster:.1f} times faster, {self.cases} "
            "validation cases)."
        )


class EightBit(_Frozen):
    """The content of ``eight_bit.json`` in a model folder.

    Parameters
    ----------
    folds : dict of str to EightBitFold
        By fold.
    measured : EightBitMeasured, optional
        None until it was measured.
    """

    version: Literal[1] = 1
    folds: dict[str, EightBitFold]
    measured: EightBitMeasured | None = None

    @property
    def advice(self) -> str:
        """What follows from the figures."""
        if self.measured is not None and self.measured.is_worth_it:
            return "It is worth it here: predict with --precision int8, or the preset Fast (8-bit)."
        return f"It is not worth it here: less than {_FASTER} times faster, or more than {MOST_LOST} of the Dice lost."

    @classmethod
    def read(cls, path: Path) -> EightBit:
        """Read a file.

        Raises
        ------
        ModelError
            If it is missing, damaged, or does not make sense.
        """
        try:
            return cls.model_validate(read_object(path, ModelError))
        except ValidationError as error:
            raise ModelError(f"{path} does not describe 8-bit arithmetic: {first_problem(error)}") from error
