"""A layer that fills while its image is segmented block by block."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Labels

from napari_nnunet.errors import NnunetError, counted
from napari_nnunet.events import Event, Painted
from napari_nnunet.formats.large.pyramid import open_levels
from napari_nnunet.jobs.large.view import View
from napari_nnunet.widgets.files.label_image_layer import RESULT
from napari_nnunet.widgets.frame.layers import (
    activate,
    add_layer,
    colormap_of,
    features_of,
    geometry_of,
    position_in,
    remove_layer,
    seen_axes,
)
from napari_nnunet.widgets.frame.words import plain_time
from napari_nnunet.widgets.large.order import LargeOrder

if TYPE_CHECKING:
    import napari

    from napari_nnunet.jobs.large.predict_image import LargeResult

_REFRESH_SECONDS = 1.0
_SHARE = 20  # drawing takes at most so small a part of the time
#: Layers that runs made: where their result lies, the levels that they were given, and their name. A duplicate is none.
_SHOWN: WeakKeyDictionary[Labels, tuple[str, Any, str]] = WeakKeyDictionary()


class LargeRun:
    """Follows a run: its layer shows what is on disk, never more than is looked at.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the layer goes.
    order : LargeOrder
        What is run.
    """

    def __init__(self, viewer: napari.viewer.Viewer, order: LargeOrder) -> None:
        self.viewer, self.order = viewer, order
        self.view = View()
        self.name = f"{order.source.name} – {order.model.configuration.name}"
        self.layer: Labels | None = next((layer for layer in viewer.layers if self._shows(layer)), None)
        self._shown, self._next, self._objects = False, 0.0, False
        self.look()

    def _shows(self, layer: Any) -> bool:
        """Whether a run made a layer for this result, and nobody gave it other data since."""
        target, levels, _ = _SHOWN.get(layer, ("", None, ""))
        return target == str(self.order.target) and layer.data is levels

    def look(self) -> None:
        """Note what is seen of the image now; blocks in it are computed next."""
        layer, dims = self.order.source, self.viewer.dims
        if layer not in self.viewer.layers:
            return
        seen, places = seen_axes(layer, dims), position_in(layer, dims)
        factor = layer.downsample_factors[layer.data_level] if layer.multiscale else np.ones(layer.ndim)
        box, now = {}, 0
        for axis, letter in enumerate(self.order.axes):
            place = places[axis]
            if axis in seen or place is None:
                low, high = (float(layer.corner_pixels[k][axis] * factor[axis]) for k in (0, 1))
                box[letter] = (low, high + 1)
            else:
                box[letter] = (place, place + 1)
                now = round(place) if letter == "T" else now
        self.view.time = now
        self.view.box = tuple(box.get(letter, (0.0, 1.0)) for letter in "ZYX")

    def happened(self, event: Event) -> None:
        """Show the layer when the first block is finished, and draw it again where others were; not too often."""
        if not isinstance(event, Painted) or not event.final:
            return
        if not self._shown:
            self._shown = True
            with contextlib.suppress(NnunetError):  # what is wrong with it ends the job, which says so
                self._show()
        began = time.monotonic()
        if self.layer is not None and began >= self._next and self.layer in self.viewer.layers:
            self.layer.refresh()
            now = time.monotonic()
            self._next = now + max(_REFRESH_SECONDS, _SHARE * (now - began))

    def _show(self) -> None:
        """Put the levels that are on disk into the layer, and the layer into the viewer."""
        order, place = self.order, self.order.place
        levels = open_levels(place.path if place.path.exists() else place.unfinished)
        several = len(levels) > 1  # napari takes a list of one array for its slices
        if self.layer is not None and self.layer in self.viewer.layers and self._shows(self.layer):
            if self.layer.multiscale == several:
                self.layer.data = levels if several else levels[0]
                self.layer.editable = False  # its files are opened for reading; napari unlocks a layer with other data
                self._note(self.layer, _SHOWN[self.layer][2])
                return
            remove_layer(self.viewer, self.layer)
        single = order.image().times == 1
        scheme = order.model.dataset.labels
        # Numbered objects have napari's own colours, which tell neighbours apart.
        known = {} if self._objects else {"colormap": colormap_of(scheme), "features": features_of(scheme)}
        self.layer = Labels(
            levels if several else levels[0],
            multiscale=several,
            name=self.name,
            **known,
            metadata={RESULT: str(order.target), "nnunet": {"partial": True, "model": str(order.model.folder)}},
            # A result has no axis for a single time point.
            **geometry_of(order.source, order.axes.replace("T", "C") if single else order.axes),
        )
        add_layer(self.viewer, self.layer)
        self.layer.editable = False
        self._note(self.layer, self.layer.name)

    def _note(self, layer: Labels, name: str) -> None:
        _SHOWN[layer] = str(self.order.target), layer.data, name

    def _call(self, more: str) -> None:
        if self.layer is not None and self.layer.name == _SHOWN[self.layer][2]:  # else somebody gave it another name
            self.layer.name = f"{self.name}{more}"
            self._note(self.layer, self.layer.name)

    def done(self, result: LargeResult) -> str:
        """Show the complete result; returns a sentence about it."""
        if result.objects is not None:  # its layer showed classes so far
            self._objects = True
            if self.layer is not None and self._shows(self.layer):
                remove_layer(self.viewer, self.layer)
            self.layer = None
        self._show()
        if self.layer is not None:
            self._call("")
            self.layer.metadata["nnunet"] = {**self.layer.metadata["nnunet"], "partial": False}
            activate(self.viewer, self.layer)
        earlier = f"; {counted(result.kept, 'block was', 'blocks were')} finished before" if result.kept else ""
        text = f"Done in {plain_time(result.seconds)}{earlier}. The labels are in {result.path}."
        there = not result.counts or any(result.counts[1:])
        if result.objects is not None:
            there = any(result.objects.values())
            text += f" Found {', '.join(f'{number} x {kind}' for kind, number in result.objects.items())}."
        return text if there else f"{text} Nothing was found in this image."

    def cancelled(self, fraction: float) -> str:
        """Say what is kept."""
        return f"Cancelled at {round(100 * fraction)} %. {self._kept(fraction)}"

    def failed(self, _: BaseException) -> None:
        """Keep the layer as it is."""
        self._kept(0)

    def _kept(self, fraction: float) -> str:
        if self.layer is not None and self.layer in self.viewer.layers:
            with contextlib.suppress(NnunetError):
                self._show()
            self._call(f" (partial {round(100 * fraction)} %)" if fraction else " (partial)")
        return (
            f"The blocks that are finished are kept in {self.order.place.unfinished}. Press Continue to resume, in "
            "this session or another one."
        )
