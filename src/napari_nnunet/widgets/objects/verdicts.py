"""What became of every object, in colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari.utils.colormaps import DirectLabelColormap

from napari_nnunet.engine.objects.match import Matching
from napari_nnunet.engine.objects.verdict import FATES
from napari_nnunet.widgets.frame.forms import DERIVED

#: Colours that people with any colour vision tell apart (Okabe and Ito 2008).
COLOURS = {"found": "#009e73", "missed": "#d55e00", "invented": "#e69f00", "split": "#56b4e9", "merged": "#cc79a7"}
_AMONG = "among these"


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


def legend(matching: Matching) -> str:
    """Return how many objects became what, in the colours of the layer, as the tables of scores count them (rich text).

    Objects that are split or merged are also among those that are found, missed or invented.
    """
    found, invented, missed = matching.counts()
    counts = {"found": found, "missed": missed, "invented": invented}
    within = {"split": len(matching.split), "merged": len(matching.merged)}
    return f"{_counted(counts)}   {_AMONG}&nbsp;{_counted(within)}"


def _counted(counts: Mapping[str, int]) -> str:
    return "   ".join(f"<font color='{COLOURS[fate]}'>■</font>&nbsp;{count} {fate}" for fate, count in counts.items())
