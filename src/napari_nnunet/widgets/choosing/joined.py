"""What combining probability layers shows: layers of its own, or those that the same made before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_nnunet.events import Job
from napari_nnunet.volume import digest_of
from napari_nnunet.widgets.choosing.ensemble_jobs import Joining, join
from napari_nnunet.widgets.files.place import place_key
from napari_nnunet.widgets.frame.layers import activate, colormap_of, features_of, placement_of
from napari_nnunet.widgets.objects.voxels import look_into
from napari_nnunet.widgets.prediction.result import Left, doubt_layer, rivals, show

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
    joined : list of dict of str to int
        Digests of what was joined: of every result, by its heads.
    """

    labels: NDArray[Any]
    doubts: dict[str, NDArray[Any]]
    digests: dict[str, int]
    joined: list[dict[str, int]]


def joined(order: Joining, before: Sequence[Any] = ()) -> Job[Joined]:
    """Join probability layers, and note on the job's thread what was joined, what comes of it and gives way to it."""
    own = [
        {str(head): digest_of(np.asarray(layer.data)) for head, layer in group.layers.items()} for group in order.groups
    ]
    labels, uncertainty = yield from join(order)
    look_into(before)
    doubts = dict(zip(("entropy", "disagreement"), uncertainty or (), strict=False))
    return Joined(labels, doubts, {name: digest_of(values) for name, values in {"": labels, **doubts}.items()}, own)


def show_joined(viewer: napari.viewer.Viewer, order: Joining, found: Joined) -> str:
    """Show a combination in the layers that the same made before, unless these were changed; says what was done."""
    group, names = order.groups[0], [group.name for group in order.groups]
    place = _place_of(order)
    layer = Labels(
        found.labels,
        name=" + ".join(names),
        colormap=colormap_of(group.scheme),
        features=features_of(group.scheme),
        metadata={"nnunet": {"joined": names, "method": order.vote.method, "weights": order.vote.weights}},
        **place,
    )
    left = Left.of(layer)
    left = replace(left, request=_key(order), images=found.joined, digest=found.digests[""])
    layer = show(viewer, layer, left)
    for name, values in found.doubts.items():
        doubt = doubt_layer(values, f"{layer.name}: {name}", place)
        about: dict[str, Any] = {"request": left.request, "images": left.images, "digest": found.digests[name]}
        show(viewer, doubt, replace(Left.of(doubt, name), **about))
    activate(viewer, layer)
    return f"Combined {len(order.groups)} results."


def begin_joining(viewer: napari.viewer.Viewer, order: Joining) -> Job[Joined]:
    """Return the job that joins; it looks at the layers that its result may take the place of."""
    return joined(order, rivals(viewer, _key(order)))


def _place_of(order: Joining) -> dict[str, Any]:
    """Return where the result lies: as the first layer does."""
    return placement_of(next(iter(order.groups[0].layers.values())))


def _key(order: Joining) -> str:
    """Return what is combined, how and where: the same for the same layers, whatever they show by now."""
    layers = [sorted(str(layer.unique_id) for layer in group.layers.values()) for group in order.groups]
    return repr((layers, order.vote, place_key(next(iter(order.groups[0].layers.values())))))
