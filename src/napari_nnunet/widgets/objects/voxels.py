"""Whether somebody painted in a layer, found out on a thread: reading all voxels takes a second per gigabyte."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image, Labels, Layer

from napari_nnunet.volume import digest_of

_JUST_NOW = 5.0  # seconds, between a thread that looks and the window that acts
_HISTORIES = ("_undo_history", "_redo_history", "_staged_history")  # of Labels: strokes, and those that are being made


class Voxels:
    """What is known of the voxels of a layer, so that the window need not read all of them.

    Parameters
    ----------
    layer : Image or Labels
        Strokes, Ctrl+Z and other arrays are noticed; what a script writes into its array is not.
    """

    def __init__(self, layer: Image | Labels) -> None:
        self._strokes = self._drawn = 0
        self._lengths = _lengths(layer)
        self._found: tuple[Any, float, int, int] | None = None
        for name in ("paint", "data"):
            if name in layer.events:
                layer.events[name].connect(self._count)
        layer.events.set_data.connect(self._draw)

    def _count(self, event: Any) -> None:
        self._strokes += 1
        self._lengths = _lengths(event.source)

    def _draw(self, event: Any) -> None:
        """Note that it was drawn: as another slice is, as a script asks for that wrote into the array, and by Ctrl+Z.

        A stroke that is taken back and brought back leaves the history as it was, but not what was written meanwhile.
        """
        self._drawn += 1
        if _lengths(event.source) != self._lengths:
            self._count(event)

    def version(self, layer: Any) -> tuple[int, ...]:
        """Return numbers of which one changes with every stroke."""
        return self._strokes, id(layer.data), *_lengths(layer)

    def note(self, layer: Any, digest: int, version: tuple[int, ...] | None = None) -> None:
        """Note a digest of a version, of that which there is now where none is given."""
        self._found = version or self.version(layer), time.monotonic(), self._drawn, digest

    def digest(self, layer: Any, *, lately: bool) -> int:
        """Return the digest of a layer, as it was found on a thread where no stroke followed.

        ``lately`` reads the voxels unless that was just now: a script may have changed them. Else they are read where
        the layer was drawn since.
        """
        if self._found is not None:
            version, when, drawn, digest = self._found
            known = time.monotonic() - when < _JUST_NOW if lately else drawn == self._drawn
            if known and version == self.version(layer):
                return digest
        version = self.version(layer)
        digest = digest_of(np.asarray(layer.data))
        self.note(layer, digest, version)
        return digest


def _lengths(layer: Any) -> tuple[int, ...]:
    """Return how many strokes a layer can take back, and bring back."""
    return tuple(len(getattr(layer, name, ())) for name in _HISTORIES)


_VOXELS: WeakKeyDictionary[Layer, Voxels] = WeakKeyDictionary()


def voxels_of(layer: Any) -> Voxels:
    """Return what is known of the voxels of a layer; it is noted from the first time on."""
    if layer not in _VOXELS:
        _VOXELS[layer] = Voxels(layer)
    return _VOXELS[layer]


def look_into(layers: Sequence[Any]) -> None:
    """Find out what layers hold, on a thread: so that the window need not, when it shows what came of the job."""
    for layer in layers:
        known = voxels_of(layer)
        version = known.version(layer)
        known.note(layer, digest_of(np.asarray(layer.data)), version)
