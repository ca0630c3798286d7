"""One colour for every label value, wherever it is shown."""

from __future__ import annotations

# Okabe and Ito's colours, which colour-blind eyes tell apart, then further ones.
_PALETTE = (
    "#009eff", "#ff8c00", "#2fbf71", "#e7298a", "#f0e442", "#8c6bff", "#00d5d5", "#d55e00", "#a6d854", "#cc79a7",
    "#7f7fff", "#c49c94", "#17becf", "#bcbd22", "#ff9896", "#98df8a", "#c5b0d5", "#ffbb78", "#1f9e89", "#b15928",
)  # fmt: skip


def class_colour(value: int) -> str:
    """Return the colour of a label value: the same value always has the same colour."""
    return _PALETTE[(value - 1) % len(_PALETTE)]
