"""Labels on disk are corrected: the region in view is painted in as an ordinary layer, and saved into all levels."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Labels
from napari.utils.transforms import Affine
from numpy.typing import NDArray
from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from napari_nnunet.errors import NnunetError, counted
from napari_nnunet.events import drain
from napari_nnunet.formats.large.corrections import MOST_VOXELS
from napari_nnunet.formats.large.label_image import CLOCK
from napari_nnunet.jobs.large.correct import open_region, save_region
from napari_nnunet.widgets.files.label_image_layer import RESULT, lock_what_is_on_disk
from napari_nnunet.widgets.files.unsaved import Unsaved, ask_before_closing
from napari_nnunet.widgets.frame.layers import (
    activate,
    add_layer,
    class_names_of,
    full_resolution,
    placement_of,
    position_in,
    seen_axes,
    units_per_world,
)
from napari_nnunet.widgets.frame.parts import Sentence, button
from napari_nnunet.widgets.frame.ready import NotReadyError
from napari_nnunet.widgets.frame.words import failure_text, times_text
from napari_nnunet.widgets.frame.worker import follow

if TYPE_CHECKING:
    import napari

_AROUND = 16  # slices that are opened on either side of the one on the screen
_TIME = ("t", "time")


@dataclass(frozen=True, eq=False)
class OpenRegion:
    """A region of labels on disk, as it was when it was read or saved last.

    Parameters
    ----------
    path : Path
        The result.
    corner : tuple of int
        Of the region, all axes.
    before : ndarray
        Its voxels.
    """

    path: Path
    corner: tuple[int, ...]
    before: NDArray[Any]


_REGIONS: WeakKeyDictionary[Labels, OpenRegion] = WeakKeyDictionary()


class CorrectRow(QWidget):
    """Two buttons that are there while labels on disk are open.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose layers are corrected.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer, self.busy = viewer, False
        self._saving: Path | None = None
        #: Told of a result that may have been corrected; returns whether a table of it is in step now.
        self.recount: Callable[[Path], bool] = lambda path: False
        self.open = button("Correct what is in view", "Open this part of the labels on disk as a layer to paint in.")
        self.save = button("Save corrections", "Write what you painted into the labels on disk, at every zoom.")
        self.said = Sentence()
        self.said.hide()
        row = QHBoxLayout()
        row.addWidget(self.open)
        row.addWidget(self.save)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(row)
        column.addWidget(self.said)
        self.open.clicked.connect(lambda _=False: self._trying(self._open))
        self.save.clicked.connect(lambda _=False: self._trying(self._save))
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self.look)
        viewer.layers.events.inserted.connect(self._came)
        lock_what_is_on_disk(viewer)
        self.look()

    def look(self, _: Any = None) -> None:
        """Show the buttons that can do something."""
        whole, regions = self._results(), self._regions()
        self.setVisible(bool(whole or regions))
        self.open.setEnabled(bool(whole) and not self.busy)
        self.save.setEnabled(bool(regions) and not self.busy)

    def _came(self, event: Any) -> None:
        """Follow a correction that was finished when a result was opened."""
        if RESULT in event.value.metadata:
            self.recount(Path(event.value.metadata[RESULT]))

    def _results(self) -> list[Any]:
        """Return the layers of complete results on disk."""
        found = [layer for layer in self.viewer.layers if isinstance(layer, Labels) and RESULT in layer.metadata]
        return [layer for layer in found if not layer.metadata.get("nnunet", {}).get("partial")]

    def _regions(self) -> list[Any]:
        return [layer for layer in self.viewer.layers if layer in _REGIONS]

    def _chosen(self, layers: list[Any], what: str) -> Any:
        """Return the layer that is selected, or the only one."""
        active = self.viewer.layers.selection.active
        if active in layers:
            return active
        if len(layers) != 1:
            raise NotReadyError(f"Select {what} in the layer list first: {len(layers)} are open.")
        return layers[0]

    def _trying(self, act: Any) -> None:
        try:
            act()
        except NotReadyError as reason:
            self._say(str(reason))
        except (NnunetError, OSError) as error:
            self._say(failure_text(error))

    def _say(self, text: str) -> None:
        self.said.setText(text)
        self.said.setVisible(bool(text))

    def _run(self, job: Any, returned: Any, text: str, failing: Callable[[], object] = lambda: None) -> None:
        def ended() -> None:
            self.busy, self._saving = False, None
            self.look()

        def done(found: Any) -> None:
            ended()
            returned(found)

        def failed(error: BaseException) -> None:
            ended()
            failing()
            self._say(failure_text(error))

        self.busy = True
        self._say(text)
        self.look()
        follow(self, job, returned=done, errored=failed, cancelled=ended)

    def _open(self) -> None:
        layer = self._chosen(self._results(), "the labels on disk")
        box = region_in_view(layer, self.viewer.dims)
        path = Path(layer.metadata[RESULT])
        self._run(open_region(path, box), lambda found: self._show(layer, path, box, found), "Reading the region…")

    def _show(self, layer: Any, path: Path, box: list[tuple[int, int]], found: NDArray[Any]) -> None:
        corner = tuple(lo for lo, _ in box)
        place = placed_at(layer, corner)
        self.recount(path)  # a correction that was kept is finished now
        region = Labels(found.copy(), name=f"{layer.name} – corrections", colormap=layer.colormap, **place)
        region.features = layer.features
        region.events.paint.connect(_keep)
        region.events.set_data.connect(_keep_what_differs)  # undo and redo tell no stroke
        _REGIONS[region] = OpenRegion(path, corner, found)
        ask_before_closing(self, "corrections of labels on disk", self._unsaved)
        add_layer(self.viewer, region)
        activate(self.viewer, region)
        region.mode = "paint"
        around = in_words(layer, box)
        self._say(
            f"Paint in '{region.name}' ({around}), then press Save corrections. Labels beyond it stay as they are."
        )
        self.look()

    def _save(self) -> None:
        layer = self._chosen(self._regions(), "the layer with your corrections")
        region, after = _REGIONS[layer], _corrected(layer)
        job = save_region(region.path, region.corner, region.before, after)

        def failed() -> None:
            layer.locked = True

        self._saving = region.path
        self._run(job, lambda voxels: self._saved(layer, region, after, voxels), "Saving…", failed)

    def _unsaved(self) -> list[Unsaved]:
        """Return the open regions that differ from what was read or saved last."""
        layers = [one for one in self._regions() if _differs(one)]
        return [
            Unsaved(one.name, partial(self._save_at_once, one), "Then press Save corrections in Segment.")
            for one in layers
        ]

    def _save_at_once(self, layer: Labels) -> str:
        """Save a region without a thread; returns why that failed."""
        region = _REGIONS[layer]
        if region.path == self._saving:
            return f"Corrections of {region.path.name} are being saved now. Close the window when that is done."
        try:
            after = _corrected(layer)
            voxels = drain(save_region(region.path, region.corner, region.before, after))
        except NotReadyError as reason:
            return str(reason)
        except Exception as error:  # whatever it is, the window stays open and says so
            return failure_text(error)
        with contextlib.suppress(RuntimeError):  # the dock was closed: no table is left to be in step
            self._saved(layer, region, after, voxels)
        return ""

    def _saved(self, layer: Any, region: OpenRegion, after: NDArray[Any], voxels: int) -> None:
        _REGIONS[layer] = replace(region, before=after)
        layer.locked = _differs(layer)  # from what was painted while the job ran
        for other in self.viewer.layers:
            if other.metadata.get(RESULT) == str(region.path):
                other.refresh()
        if not voxels:
            self._say("Nothing was changed in this layer since it was opened or saved.")
            return
        counted_again = self.recount(region.path)
        more = " The table has the volumes as they are now." if counted_again else ""
        self._say(f"Corrected {counted(voxels, 'voxel')} in {region.path}.{more}")


def _keep(event: Any) -> None:
    """Lock a region that somebody painted in: what is not saved does not go with the key that deletes layers."""
    event.source.locked = True


def _keep_what_differs(event: Any) -> None:
    if not event.source.locked and _differs(event.source):
        event.source.locked = True


def _differs(layer: Any) -> bool:
    """Whether a region is not as it was read or saved last."""
    return layer in _REGIONS and not np.array_equal(np.asarray(layer.data), _REGIONS[layer].before)


def _corrected(layer: Any) -> NDArray[Any]:
    """Return a copy of a region as it is to be saved; raises NotReadyError where it cannot be."""
    region, after = _REGIONS[layer], np.asarray(layer.data).copy()
    if after.shape != region.before.shape:
        raise NotReadyError(f"'{layer.name}' has another shape than the region it was opened with. Open it again.")
    _require_known(layer, after[after != region.before], region.before.dtype)
    return after.astype(region.before.dtype)


def _require_known(layer: Any, values: NDArray[Any], dtype: Any) -> None:
    """Raise NotReadyError if values were painted that are no class, or that the file cannot hold."""
    names, found = class_names_of(layer.features), [int(value) for value in np.unique(values)]
    unknown = [value for value in found if value and names and value not in names]
    if unknown:
        listed = ", ".join(f"{value} = {name}" for value, name in sorted(names.items()))
        raise NotReadyError(
            f"'{layer.name}' holds the value {unknown[0]}, which is not a class here ({listed}). Repaint it."
        )
    if any(not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max for value in found):
        raise NotReadyError(f"'{layer.name}' holds values that labels of type {dtype} cannot hold. Repaint them.")


def placed_at(layer: Any, corner: Sequence[int]) -> dict[str, Any]:
    """Return the keywords that place a part of a layer where it lies in it."""
    place, ndim = placement_of(layer), layer.ndim
    own = {name: place[name] for name in ("scale", "rotate", "shear")}
    shift = Affine(ndim=ndim, **own).affine_matrix[:ndim, :ndim] @ np.array(corner, dtype=float)
    return {**place, "translate": np.asarray(layer.translate) + shift}


def in_words(layer: Any, box: Sequence[tuple[int, int]]) -> str:
    """Return a box as words, such as "z 4 to 36, y 0 to 39"; axes without names of their own get the usual ones."""
    return ", ".join(f"{name} {lo} to {hi - 1}" for name, (lo, hi) in zip(_names_of_axes(layer), box, strict=True))


def _names_of_axes(layer: Any) -> list[str]:
    named = [str(name) for name in layer.axis_labels]
    if named == [str(axis) for axis in range(-layer.ndim, 0)]:
        named = list("tzyx"[-layer.ndim :].rjust(layer.ndim, "-"))
    return named


def _is_time(layer: Any, axis: int) -> bool:
    """Whether an axis is one of time points, by its name or its unit."""
    return _names_of_axes(layer)[axis].lower() in _TIME or str(layer.units[axis]) in CLOCK


def region_in_view(layer: Any, dims: Any) -> list[tuple[int, int]]:
    """Return the part of a layer that is on the screen, half-open, all axes; along others, slices around it.

    Raises
    ------
    NotReadyError
        If it is outside, too large, or napari does not know it: it passes over the units of layers that differ.
    """
    shape, seen = full_resolution(layer).shape[: layer.ndim], seen_axes(layer, dims)
    if np.any(units_per_world(layer, dims)[seen] != 1):
        raise NotReadyError(
            f"What is visible of '{layer.name}' could not be determined, as layers in other units are open. Give all "
            "layers the same units, or hide those with others."
        )
    factor = layer.downsample_factors[layer.data_level] if layer.multiscale else np.ones(layer.ndim)
    places = position_in(layer, dims)
    box: list[tuple[int, int]] = []
    for axis, size in enumerate(shape):
        if axis in seen:
            low, high = (float(layer.corner_pixels[k][axis]) * factor[axis] for k in (0, 1))
            box.append((max(0, math.floor(low)), min(size, math.ceil(high + factor[axis]))))
        else:
            around = 0 if _is_time(layer, axis) else _AROUND
            place = round(places[axis] or 0)
            box.append((max(0, place - around), min(size, place + around + 1)))
    if any(lo >= hi for lo, hi in box):
        raise NotReadyError(f"Nothing of '{layer.name}' is in view. Move the view, or the slider, over it.")
    voxels = math.prod(hi - lo for lo, hi in box)
    if voxels > MOST_VOXELS:
        raise NotReadyError(
            f"{times_text([hi - lo for lo, hi in box])} voxels are in view, more than can be painted in at once "
            f"({MOST_VOXELS:,}). Zoom in{', in 2-D' if dims.ndisplay == 3 else ''}."
        )
    return box
