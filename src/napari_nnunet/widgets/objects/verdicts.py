"""What became of every object, in colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from napari.utils.colormaps import DirectLabelColormap

from napari_nnunet.engine.objects.verdict import FATES, Verdict
from napari_nnunet.widgets.frame.forms import DERIVED

#: Colours that people with any colour vision tell apart (Okabe and Ito 2008).
COLOURS = {"found": "#009e73", "missed": "#d55e00", "invented": "#e69f00", "split": "#56b4e9", "merged": "#cc79a7"}


def verdict_options(name: str, place: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a Labels layer that shows what became of every object.

    Parameters
    ----------
    name : str
        Of the layer.
    place : mapping
        Where it lies: scale, units and so on.
    """
    colours: dict[int | None, str] = {None: "transparent", 0: "transparent"}
    return {
        "name": name,
        "colormap": DirectLabelColormap(color_dict=colours | {FATES[fate]: COLOURS[fate] for fate in FATES}),
        "features": {"index": [0, *FATES.values()], "name": ["nothing", *FATES]},
        "metadata": {DERIVED: True},
        **place,
    }


def legend(verdicts: Sequence[Verdict]) -> str:
    """Return how many objects became what, in the colours of the layer (rich text)."""
    fates = [verdict.fate for verdict in verdicts]
    return "   ".join(f"<font color='{COLOURS[fate]}'>■</font>&nbsp;{fates.count(fate)} {fate}" for fate in FATES)
