"""What is missing before a dock can start its job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Remedy:
    """What a dock offers to do about it.

    Parameters
    ----------
    text : str
        Of the button.
    act : callable
        Does it.
    """

    text: str
    act: Callable[[], object]


class NotReadyError(Exception):
    """Run cannot start yet; the message says why and what to do.

    Parameters
    ----------
    reason : str
        The message.
    remedy : Remedy, optional
        A button that mends it.
    """

    def __init__(self, reason: str, remedy: Remedy | None = None) -> None:
        super().__init__(reason)
        self.remedy = remedy


def typed_spacing(text: str, spatial: str) -> tuple[float, ...]:
    """Read a typed voxel size, one number per letter of ``spatial`` or one for all; may raise NotReadyError."""
    found = [values for values in sizes_in(text) if len(values) in (1, len(spatial))]
    values = next((values for values in found if len(values) == len(spatial)), found[0] if found else ())
    if len(values) == 1:
        values *= len(spatial)  # cubes
    if len(values) != len(spatial):
        raise NotReadyError(
            f"The voxel size '{text}' cannot be read: type {len(spatial)} positive numbers in mm, such as "
            f"{' '.join(['0.5'] * len(spatial))}, or one for all axes."
        )
    return values


def sizes_in(text: str) -> list[tuple[float, ...]]:
    """Return the ways to read a text as positive numbers: a comma separates them, or is a decimal one."""
    parts = text.replace("×", " ").replace("x", " ").replace(";", " ")
    found = map(_numbers, (parts.replace(",", " "), parts.replace(",", ".")))
    return [values for values in found if values and all(0 < value < float("inf") for value in values)]


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split())
    except ValueError:
        return ()
