"""From open layers to a training case: what was chosen, checked and worked out by pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from napari.layers import Image, Labels

from napari_nnunet.errors import NnunetError, counted
from napari_nnunet.formats.dataset.case_trash import raw_case_files
from napari_nnunet.formats.dataset.new_dataset import next_dataset_name
from napari_nnunet.formats.dataset.objects import reference_file
from napari_nnunet.formats.dataset.raw_writer import check_case_name
from napari_nnunet.formats.workspace import Workspace, stamp
from napari_nnunet.jobs.dataset.cases import NewCase
from napari_nnunet.schema.dataset import BACKGROUND, IGNORE, DatasetInfo
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.widgets.dataset.object_case import kinds_of_layer
from napari_nnunet.widgets.files.origins import changed_since
from napari_nnunet.widgets.files.overlay import in_units_of, named_as_open, require_over
from napari_nnunet.widgets.files.place import STORED, axes_of, geometry_to_save
from napari_nnunet.widgets.frame.layers import (
    ORIGIN,
    full_resolution,
    place_seen,
    placement_of,
    voxel_size_mm,
)
from napari_nnunet.widgets.frame.ready import NotReadyError, typed_spacing
from napari_nnunet.widgets.frame.words import size_text, times_text

MOST_CLASSES = 256  # more values than that are no classes but objects
WHOLE, SLICE = "Whole volume", "Current slice"
_PICTURE_TYPES = ("uint8", "bool")
Replaced = Literal["nothing", "itself", "changed", "another"]


@dataclass(frozen=True)
class PaintedClass:
    """A value of the Labels layer and the class it stands for.

    Parameters
    ----------
    value : int
        In the layer.
    name : str
        Of the class; "background" and "ignore" have their fixed meaning.
    """

    value: int
    name: str


@dataclass(frozen=True, eq=False)
class CaseChoices:
    """The state of the form.

    Parameters
    ----------
    workspace : Workspace
        Where datasets lie.
    dataset : Path or None
        An existing dataset, or None for a new one.
    info : DatasetInfo or None
        Its dataset.json.
    new_name : str
        Name of a new dataset.
    case : str
        Name of the case.
    layers : tuple of Image or None
        One per channel; a colour layer stands for its colours.
    channel_names : tuple of str
        For a new dataset.
    labels : Labels or None
        The painted layer.
    extent : str
        :data:`WHOLE` or :data:`SLICE`.
    step : tuple of int or None
        Which slice of the labels is seen; None along axes on the screen.
    spacing_text : str
        Voxel size that was typed; empty takes the layer's.
    painted : tuple of PaintedClass
        What the values of the layer mean.
    kind : str or None
        Of the objects that the layer numbers, for a new dataset; None for classes.
    """

    workspace: Workspace
    dataset: Path | None
    info: DatasetInfo | None
    new_name: str
    case: str
    layers: tuple[Image | None, ...]
    channel_names: tuple[str, ...]
    labels: Labels | None
    extent: str
    step: tuple[int | None, ...]
    spacing_text: str
    painted: tuple[PaintedClass, ...]
    kind: str | None = None

    @property
    def scheme(self) -> ObjectScheme | None:
        """What the dataset says of objects; None for a dataset of classes, and for a new one."""
        return None if self.info is None else ObjectScheme.of(self.info)


def resolve_case(choices: CaseChoices) -> NewCase:
    """Check the form and work out the case that would be saved; nothing is read but shapes.

    Raises
    ------
    NotReadyError
        With the first thing that is missing or does not fit; an ApartError for layers that can be laid over the image.
    """
    first, labels = _chosen_layers(choices)
    if not _same_case(labels, first):
        raise NotReadyError(
            f"'{labels.name}' holds the labels of the case '{labels.metadata[ORIGIN]['name']}', and '{first.name}' is "
            "another image. Choose the labels of this image, or add a Labels layer."
        )
    index = cut_of(labels, choices.extent, choices.step)
    for axis in (axis for axis, part in enumerate(index) if not isinstance(part, slice)):
        place_seen(labels, axis, choices.step[axis], "slice" if choices.extent == SLICE else "time point")
    channels = [part for layer in choices.layers if layer is not None for part in _channels(layer, index)]
    try:
        name = check_case_name(choices.case)
        geometry = _geometry(choices, first, labels, index)
        folder = choices.dataset or choices.workspace.raw / next_dataset_name(choices.workspace, choices.new_name)
    except NnunetError as error:
        raise NotReadyError(error.in_window) from error
    names = choices.info.channel_names if choices.info is not None else _named(choices, first, len(channels))
    if len(channels) != len(names):
        listed = ", ".join(names)
        raise NotReadyError(
            f"The dataset has {counted(len(names), 'channel')} ({listed}), but {len(channels)} are chosen. "
            "Choose a layer for each."
        )
    kinds = kinds_of_layer(labels, [entry.value for entry in choices.painted], choices.scheme, choices.kind)
    classes, mapping = _classes(choices) if kinds is None else ({}, {})
    ending = choices.info.file_ending if choices.info is not None else _ending(channels, geometry)
    known = choices.dataset is not None
    data = full_resolution(labels)[index]
    return NewCase(folder, name, channels, data, geometry, mapping, classes, names, ending, kinds, known=known)


def _chosen_layers(choices: CaseChoices) -> tuple[Image, Labels]:
    first = next((layer for layer in choices.layers if layer is not None), None)
    if first is None:
        more = "" if choices.dataset else " For folders of images and masks, press 'From folders…'."
        raise NotReadyError(f"Open an image first (File > Open, or File > Open Sample > nnU-Net).{more}")
    if choices.labels is None:
        raise NotReadyError("Add a Labels layer and paint the classes in it: New labels layer, above the layer list.")
    if choices.dataset is None and not choices.new_name.strip():
        raise NotReadyError("Give the new dataset a name.")
    for layer in choices.layers:
        if layer is not None:
            _require_size(layer, choices.labels)
            _require_place(first, layer)
    _require_place(first, choices.labels)
    return first, choices.labels


def _require_size(image: Image, labels: Labels) -> None:
    """Check that an image has as many voxels as the labels, of the same size."""
    expected, shape = tuple(full_resolution(labels).shape), tuple(full_resolution(image).shape)[: image.ndim]
    if shape != expected:
        raise NotReadyError(
            f"'{image.name}' has {times_text(shape)} voxels, '{labels.name}' has {times_text(expected)}. Image and "
            "labels must lie on the same grid: make the Labels layer while the image is selected."
        )
    (known, own), (labels_known, size) = voxel_size_mm(image), voxel_size_mm(labels)
    own, size = (known, labels_known) if known and labels_known else (own, size)
    size = in_units_of(image, labels, size)
    if not np.allclose(own, size, rtol=1e-3, atol=0):
        raise NotReadyError(
            f"'{image.name}' and '{labels.name}' differ in their voxel size ({times_text(own)} and "
            f"{times_text(size)}). They must lie on the same grid."
        )


def _require_place(first: Image, other: Image | Labels) -> None:
    """Check that a layer is seen where the image is: Labels that napari makes over several layers lie as none does."""
    if other is first:
        return
    axes = "T" * (first.ndim - 3) + "ZYX"  # of layers with more axes than a file can have
    if first.ndim <= len("TZYX"):
        axes = axes_of(first.ndim, placement_of(first))
    require_over(first, other, axes, units=False)


def plain_name(image: Image) -> str:
    """Return a case's name for an image: that of the case it was opened from, else the layer's."""
    name = str(image.metadata.get(ORIGIN, {}).get("name") or image.name)
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name).strip("._-")


def belongs(labels: Labels, image: Image) -> bool:
    """Whether labels lie on an image's voxels and are not those of another case."""
    shape = tuple(full_resolution(image).shape)[: image.ndim]
    return tuple(full_resolution(labels).shape) == shape and _same_case(labels, image)


def _case(layer: Any) -> tuple[Any, Any]:
    origin = layer.metadata.get(ORIGIN, {})
    return origin.get("folder"), origin.get("name")


def _same_case(labels: Labels, image: Image) -> bool:
    return ORIGIN not in labels.metadata or _case(labels) == _case(image)


def replaces(case: NewCase, choices: CaseChoices) -> Replaced:
    """Return what saving a case would replace.

    Nothing; the case its layers were opened from ("itself"), which somebody else may have "changed" since; or "another"
    image's case.
    """
    if choices.info is None or not raw_case_files(case.folder, case.name, choices.info):
        return "nothing"
    layers = [layer for layer in (*choices.layers, choices.labels) if layer is not None]
    origins = [layer.metadata.get(ORIGIN, {}) for layer in layers if isinstance(layer, Image)]
    whole = all(len(case.labels.shape) == layer.ndim for layer in layers)
    own = (str(case.folder), case.name)
    if not whole or any((origin.get("folder"), origin.get("name")) != own for origin in origins):
        return "another"
    label = reference_file(case.folder, case.name, choices.info)
    drawn = choices.labels.metadata.get(ORIGIN, {}) if choices.labels is not None else {}
    if (drawn.get("folder"), drawn.get("name")) == own:  # of a case that is open twice, each copy has a state
        origins.append(drawn)
    return "changed" if any(changed_since(origin, label) for origin in origins) else "itself"


def questions(case: NewCase, choices: CaseChoices, replaced: Replaced) -> str:
    """Return what is to be asked before a case is saved; empty where nothing is doubtful."""
    asked = []
    if replaced == "another":
        asked.append(
            f"{case.folder.name} has a case '{case.name}' already, of another image. Replace it? The old "
            "files go to the dataset's trash folder."
        )
    elif replaced == "changed":
        asked.append(
            f"The labels of '{case.name}', or what their values mean, were changed elsewhere since they were opened "
            "here. Replace them? They go to the dataset's trash folder."
        )
    if (labels := choices.labels) is not None:  # how a volume lies may be doubtful
        for first in [layer for layer in choices.layers if layer is not None][:1]:
            _geometry(choices, first, labels, cut_of(labels, choices.extent, choices.step), asked.append)
    return "\n\n".join(asked)


_VERBS = {
    "nothing": "Will add",
    "itself": "Will save changes to",
    "changed": "Will replace",
    "another": "Will replace",
}


def describe_case(case: NewCase, replaced: Replaced) -> str:
    """Return what saving a case will do (rich text, without its full stop)."""
    names = {value: name for name, value in case.classes.items() if isinstance(value, int)}
    olds: dict[int, list[int]] = {}
    for old, value in sorted(case.mapping.items()):
        if old or value:
            olds.setdefault(value, []).append(old)
    becomes = ", ".join(f"{_from(old, new)}{new} {names.get(new, '')}".rstrip() for new, old in olds.items())
    size = f" of {size_text(case.geometry.spacing)}" if case.geometry.spacing_known else ""
    verb = _VERBS[replaced]
    new = "" if stamp(case.folder / "dataset.json") is not None else " (new)"
    sparse = IGNORE in case.classes and names.get(case.mapping.get(0, 0)) == IGNORE
    head = (
        f"<b>{verb}</b> '{case.name}' in {case.folder.name}{new}: {counted(len(case.channels), 'channel')} of "
        f"{times_text(case.labels.shape)} voxels{size}.<br>"
    )
    if case.kinds is not None:
        each = Counter(case.kinds.values())
        return head + "Numbered objects: " + ", ".join(f"{count} x {kind}" for kind, count in each.items())
    left = ".<br>Unlabelled voxels are left out in training" if sparse else ".<br>Unlabelled voxels count as background"
    if not sparse and any(old and not value for old, value in case.mapping.items()):
        left += (
            ", as those painted as background do. If nobody looked at them, tick 'Unlabelled voxels are not annotated'"
        )
    return f"{head}Labels: {becomes or 'as they are'}{left if 0 in case.mapping else ''}"


def _from(values: Sequence[int], value: int) -> str:
    """Return which values become one, the first three and how many there are; nothing where it is the same."""
    listed = " + ".join(map(str, values[:3])) + (f" + … ({len(values)} values)" if len(values) > 3 else "")
    return "" if list(values) == [value] else f"{listed} → "


def cut_of(labels: Labels, extent: str, step: Sequence[int | None]) -> tuple[Any, ...]:
    """Return the index of the part that becomes a case: a volume, or the slice on the screen, whichever axes it has."""
    keep = 2 if extent == SLICE or labels.ndim == 2 else 3
    own = [axis for axis, place in enumerate(step) if place is not None] if keep == 2 else []
    cut = [*own, *(axis for axis in range(labels.ndim) if axis not in own)][: labels.ndim - keep]
    shape = full_resolution(labels).shape
    return tuple(min(max(0, step[i] or 0), shape[i] - 1) if i in cut else slice(None) for i in range(labels.ndim))


def _channels(layer: Image, index: tuple[Any, ...]) -> list[Any]:
    data = full_resolution(layer)[index]
    return [data[..., c] for c in range(3)] if layer.rgb else [data]


def _geometry(
    choices: CaseChoices, first: Image, labels: Labels, index: tuple[Any, ...], warn: Any = lambda _: None
) -> Geometry:
    axes = [axis for axis, part in enumerate(index) if isinstance(part, slice)]
    keep = len(axes)
    typed = choices.spacing_text.strip()
    if typed:
        return Geometry(spacing=typed_spacing(typed, "zyx"[-keep:]))
    kept = first.metadata.get(STORED) or labels.metadata.get(STORED)
    known, _ = voxel_size_mm(first, axes)
    if known is not None or kept:
        placed = {**first.as_layer_data_tuple()[1], "metadata": {STORED: kept}}
        space = iter("ZYX"[-keep:])
        letters = "".join(next(space) if isinstance(part, slice) else "T" for part in index)
        shape = full_resolution(first).shape[: len(index)]
        return geometry_to_save(shape, named_as_open(placed, shape, letters, warn=warn), letters)
    if keep == 3:
        raise NotReadyError(
            f"'{first.name}' has no voxel size: it is in pixels{_along(first, axes)}. Type the "
            "voxel size in mm as z, y, x; if it is not known, 1 1 1."
        )
    return Geometry(spacing=(1.0,) * keep, spacing_known=False)


def _along(layer: Image, axes: Sequence[int]) -> str:
    """Return along which of three axes a layer is in pixels; empty where it is along all."""
    found = [letter for axis, letter in zip(axes, "zyx", strict=True) if voxel_size_mm(layer, [axis])[0] is None]
    return f" along {' and '.join(found)}" if len(found) < len(axes) else ""


def _named(choices: CaseChoices, first: Image, count: int) -> tuple[str, ...]:
    if first.rgb and count == 3:
        return "R", "G", "B"
    names = tuple(name.strip() for name in choices.channel_names)
    if len(names) != count or not all(names):
        raise NotReadyError("Give every channel a name, such as CT, T1 or DAPI.")
    if len(set(names)) < count:
        raise NotReadyError(f"The channels {', '.join(names)} must have different names.")
    return names


def _classes(choices: CaseChoices) -> tuple[dict[str, Any], dict[int, int]]:
    """Return the classes of the dataset with this case, and which value each painted value becomes."""
    painted = [entry for entry in choices.painted if entry.name.strip()]
    unnamed = [entry.value for entry in choices.painted if not entry.name.strip()]
    if unnamed and len(choices.painted) > MOST_CLASSES:
        raise NotReadyError(
            f"The labels have {len(choices.painted)} values, more than there can be classes: they look like numbers of "
            "objects. Press 'One class for all…', or import them from folders as objects."
        )
    if unnamed:
        raise NotReadyError(f"Give the value {unnamed[0]} of the labels the name of a class.")
    if not any(entry.name not in (BACKGROUND, IGNORE) for entry in painted):
        raise NotReadyError("The labels hold no class yet. Paint at least one.")
    sparse = any(entry.name == IGNORE for entry in painted)
    if sparse and not any(entry.name == BACKGROUND for entry in painted):
        raise NotReadyError(
            "Unlabelled voxels count as not annotated, so some background must be painted too: paint it with a value "
            "of its own and name that value 'background'."
        )
    before: Mapping[str, Any] = choices.info.labels.labels if choices.info is not None else {BACKGROUND: 0}
    classes: dict[str, Any] = {name: value for name, value in before.items() if name != IGNORE}
    new = [entry.name for entry in painted if entry.name not in before and entry.name != IGNORE]
    if new and IGNORE in before:
        raise NotReadyError(
            f"The class '{new[0]}' is new, but this dataset has an ignore label, which must stay the highest value. "
            "Start a new dataset with all classes, or use the classes there are."
        )
    for name in dict.fromkeys(new):
        classes[name] = _highest(classes) + 1
    if sparse or IGNORE in before:
        classes[IGNORE] = _highest(classes) + 1
    regions = [entry.name for entry in painted if not isinstance(classes[entry.name], int)]
    if regions:
        raise NotReadyError(f"'{regions[0]}' is a region of several values and cannot be painted; choose its parts.")
    return classes, {entry.value: classes[entry.name] for entry in painted}


def _highest(classes: Mapping[str, Any]) -> int:
    return max(value if isinstance(value, int) else max(value) for value in classes.values())


def _ending(channels: Sequence[Any], geometry: Geometry) -> str:
    """Return the file format of a new dataset: pictures without a voxel size stay pictures."""
    if geometry.ndim == 3 or geometry.spacing_known:
        return ".nii.gz"
    return ".png" if all(str(np.dtype(channel.dtype)) in _PICTURE_TYPES for channel in channels) else ".tif"
