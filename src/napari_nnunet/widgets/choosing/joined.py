"""What combining probability layers shows: layers of its own, or those that the same made before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from numpy.typing import NDArray

from napari_nnunet.events import Job
from napari_nnunet.volume import digest_of
from napari_nnunet.widgets.choosing.ensemble_jobs import Joining, join
from napari_nnunet.widgets.frame.layers import activate, add_layer, colormap_of, features_of, placement_of
from napari_nnunet.widgets.prediction.request import place_key
from napari_nnunet.widgets.prediction.result import SHOWN_BESIDE, doubt_layer, unchanged_beside
from napari_nnunet.widgets.prediction.volumes import is_untouched

if TYPE_CHECKING:
    import napari


@dataclass(frozen=True, eq=False)
class Joined:
    """What came of a combination.

    Parameters
    ----------
    labels : ndarray of int, shape ([T,] [Z,] Y, X)
        The result.
    doubts : dict of str to ndarray
        Maps of uncertainty by name, where they were asked for.
    digests : dict of str to int
        Of each of them, and of the labels behind "".
    """

    labels: NDArray[Any]
    doubts: dict[str, NDArray[Any]]
    digests: dict[str, int]


def joined(order: Joining) -> Job[Joined]:
    """Join probability layers, and note on the job's thread what comes of it."""
    labels, uncertainty = yield from join(order)
    doubts = dict(zip(("entropy", "disagreement"), uncertainty or (), strict=False))
    return Joined(labels, doubts, {name: digest_of(values) for name, values in {"": labels, **doubts}.items()})


def show_joined(viewer: napari.viewer.Viewer, order: Joining, found: Joined) -> str:
    """Show a combination in the layers that the same made before, unless these were changed; says what was done."""
    group = order.groups[0]
    place = placement_of(next(iter(group.layers.values())))
    layer = Labels(
        found.labels,
        name=" + ".join(group.name for group in order.groups),
        colormap=colormap_of(group.scheme),
        features=features_of(group.scheme),
        **place,
    )
    about = {
        "joined": [group.name for group in order.groups],
        "method": order.vote.method,
        "weights": order.vote.weights,
        "request": _key(order),
        "place": place_key(layer),
        "digest": found.digests[""],
    }
    before = _unchanged(viewer.layers, about)
    if before is None:
        add_layer(viewer, layer)
    else:
        before.data, layer = found.labels, before
    layer.metadata["nnunet"] = {**about, "layer": str(layer.unique_id), "name": layer.name}
    for name, values in found.doubts.items():
        _show_doubt(viewer, name, doubt_layer(values, f"{layer.name}: {name}", place), about, found.digests[name])
    activate(viewer, layer)
    return f"Combined {len(order.groups)} results."


def _key(order: Joining) -> str:
    """Return what is combined and how, the same for the same layers, whatever they show by now."""
    return repr(
        ([sorted(str(layer.unique_id) for layer in group.layers.values()) for group in order.groups], order.vote)
    )


def _unchanged(layers: Sequence[Any], about: dict[str, Any]) -> Labels | None:
    """Return the layer that the same combination made, if it was not painted in, renamed, moved or duplicated since."""
    for layer in layers:
        own = layer.metadata.get("nnunet") if isinstance(layer, Labels) else None
        if not isinstance(own, dict) or own.get("request") != about["request"]:
            continue
        now = {"layer": str(layer.unique_id), "name": layer.name, "place": place_key(layer)}
        if own == {**own, **now} and own["place"] == about["place"] and is_untouched(layer):
            return layer
    return None


def _show_doubt(viewer: napari.viewer.Viewer, name: str, layer: Any, about: dict[str, Any], digest: int) -> None:
    layer.metadata[SHOWN_BESIDE] = {
        "request": about["request"],
        "shows": name,
        "place": place_key(layer),
        "digest": digest,
    }
    before = next((other for other in viewer.layers if unchanged_beside(other, layer)), None)
    if before is None:
        add_layer(viewer, layer)
    else:
        before.metadata.update(layer.metadata)
        before.data = layer.data
