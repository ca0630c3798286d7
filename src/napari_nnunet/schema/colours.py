"""One colour for every label value, wherever it is shown."""

from __future__ import annotations

# Okabe and Ito's colours, which colour-blind eyes tell apart, then further ones.
_PALETTE = (
    "#009eff", "#ff8c00", "#2fbf71", "#e7298a", "#f0e442", "#8c6bff", "#00d5d5", "#d55e00", "#a6d854", "#cc79a7",
    "#7f7fff", "#c49c94", "#17becf", "#bcbd22", "#ff9896", "#98df8a", "#c5b0d5", "#ffbb78", "#1f9e89", "#b15928",
)  # fmt: skip


#: What two segmentations differ by: only in the first, only in the second, in both but not the same.
DIFFERENCES: dict[int | None, str] = {1: _PALETTE[6], 2: _PALETTE[3], 3: _PALETTE[4]}


def class_colour(value: int) -> str:
    """Return the colour of a label value: the same value always has the same colour."""
    return _PALETTE[(value - 1) % len(_PALETTE)]


def class_rgb(value: int) -> tuple[int, int, int]:
    """Return the same colour as red, green and blue, 0 to 255."""
    red, green, blue = bytes.fromhex(class_colour(value).removeprefix("#"))
    return red, green, blue
