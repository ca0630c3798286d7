"""Probability layers by the result that they belong to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image

from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.widgets.frame.forms import distinct
from napari_nnunet.widgets.frame.words import telling_names
from napari_nnunet.widgets.prediction.result import PROBABILITY, left_in

if TYPE_CHECKING:
    import napari


@dataclass(frozen=True, eq=False)
class LayerGroup:
    """The probability layers of one result.

    Parameters
    ----------
    name : str
        Of the result.
    scheme : LabelScheme
        Its classes.
    layers : dict of int to Image
        By head; the background has none.
    """

    name: str
    scheme: LabelScheme
    layers: dict[int, Image]

    @property
    def missing(self) -> list[str]:
        """The classes whose probabilities are not there; those of the background are what the others leave."""
        first = 0 if self.scheme.has_regions else 1
        return [name for head, name in enumerate(self.scheme.head_names) if head >= first and head not in self.layers]

    def arrays(self) -> list[Any]:
        """Return one array per head; the background is what the others leave."""
        found = {head: layer.data for head, layer in self.layers.items()}
        if not self.scheme.has_regions:
            found[0] = 1 - sum(found[head] for head in range(1, self.scheme.heads))
        return [found[head] for head in range(self.scheme.heads)]


def layer_groups(viewer: napari.viewer.Viewer) -> list[LayerGroup]:
    """Return the probability layers of a viewer by the run they came from; without one, by the result's name.

    Duplicates stand in for layers that were removed, and are no further result beside those of their request, be these
    duplicates too.
    """
    found: dict[str, LayerGroup] = {}
    models: list[str] = []
    layers = [layer for layer in viewer.layers if isinstance(layer, Image)]
    made = [layer for layer in layers if left_in(layer) is not None]
    there = {str(layer.metadata[PROBABILITY].get("request")) for layer in made if PROBABILITY in layer.metadata}
    for layer in [*made, *(layer for layer in layers if layer not in made)]:
        entry = layer.metadata.get(PROBABILITY)
        if isinstance(entry, dict):
            name = str(entry["result"])
            run, request = str(entry.get("run", name)), entry.get("request")
            if run not in found:
                if layer not in made and request is not None and str(request) in there:
                    continue
                there.add(str(request))
                found[run] = LayerGroup(name, LabelScheme(**entry["scheme"]), {})
                models.append(str(entry.get("model", "")))
            found[run].layers.setdefault(int(entry["head"]), layer)
    times = Counter(group.name for group in found.values())
    known = [Path(model) for model in dict.fromkeys(models) if model]
    told = dict(zip(map(str, known), telling_names(known), strict=True))
    titles = [
        (f"{group.name} ({told[str(Path(model))]})" if times[group.name] > 1 and model else group.name, group)
        for group, model in zip(found.values(), models, strict=True)
    ]
    return [replace(group, name=title) for title, group in distinct(titles)]
