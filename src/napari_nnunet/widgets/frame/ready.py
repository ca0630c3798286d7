"""What is missing before a dock can start its job."""

from __future__ import annotations


class NotReadyError(Exception):
    """Run cannot start yet; the message says why and what to do."""


def typed_spacing(text: str, spatial: str) -> tuple[float, ...]:
    """Read a typed voxel size, one number per letter of ``spatial``; raises NotReadyError where it is none."""
    words = text.replace("×", " ").replace("x", " ").replace(",", " ").replace(";", " ").split()
    try:
        values = tuple(float(word) for word in words)
    except ValueError:
        values = ()
    if len(values) != len(spatial) or not all(0 < value < float("inf") for value in values):
        raise NotReadyError(
            f"The voxel size '{text}' cannot be read: type {len(spatial)} positive numbers in mm, such as "
            f"{' '.join(['1.0'] * len(spatial))}."
        )
    return values
