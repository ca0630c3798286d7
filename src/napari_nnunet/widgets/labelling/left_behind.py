"""Proposals that somebody corrected and that no Next dock holds any more: their layers stay, and are asked about."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_nnunet.widgets.files.unsaved import Unsaved

if TYPE_CHECKING:
    import napari

_HOW = "Then select the layer and press File > Save Selected Layers: no Next dock holds it any more."
_LEFT: WeakKeyDictionary[Labels, str] = WeakKeyDictionary()


def leave_behind(layer: Labels, digest: str) -> None:
    """Note a layer whose place is not open any more, and the digest of its labels as they were opened or taken."""
    _LEFT[layer] = digest


def left_behind(viewer: napari.viewer.Viewer) -> list[Unsaved]:
    """Return the layers of a viewer that were left behind and differ from what was opened or taken."""
    layers = [layer for layer in viewer.layers if isinstance(layer, Labels) and layer in _LEFT]
    return [Unsaved(one.name, None, _HOW) for one in layers if labels_digest(one.data) != _LEFT[one]]


def labels_digest(labels: NDArray[Any]) -> str:
    """Return a checksum that tells labels from others."""
    return hashlib.sha1(np.ascontiguousarray(labels).data, usedforsecurity=False).hexdigest()
