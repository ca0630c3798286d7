"""Which training case open layers are, whether it is another by now, and which layers are its channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari.layers import Image, Labels

from napari_nnunet.schema.dataset import BACKGROUND, IGNORE
from napari_nnunet.schema.json_text import message
from napari_nnunet.widgets.frame.layers import ORIGIN, SPARSE, VALUES


def case_origin(folder: Path, name: str, label: Path) -> dict[str, Any]:
    """Return what layers of a training case remember: where it lies, the state of its labels, what values mean."""
    state = label.stat()
    about = {"folder": str(folder), "name": name, "state": (state.st_size, state.st_mtime_ns)}
    return {**about, "classes": _classes(folder)}


def _classes(folder: Path) -> dict[str, Any]:
    found = message(folder / "dataset.json").get("labels")
    return dict(found) if isinstance(found, dict) else {}


def changed_since(origin: Mapping[str, Any], label: Path) -> bool:
    """Whether the labels of a case, or what their values mean, are others than those a layer was opened with."""
    if not label.is_file():
        return True
    folder = Path(origin.get("folder", label.parent.parent))
    now, before = case_origin(folder, "", label), origin.get("classes", {})
    others = any(now["classes"].get(name) != value for name, value in before.items() if name != IGNORE)
    return others or now["state"] != tuple(origin.get("state", ()))


@dataclass(frozen=True)
class Edited:
    """What was changed in a dataset.

    Parameters
    ----------
    before, folder : Path
        Where it lay, and lies now.
    names : mapping of str to str
        Classes, or kinds of objects, that have another name; an empty one is for the background.
    values : mapping of int to int
        Old value of a class to its new one; empty where no values were changed.
    ignore : int or None
        The value of what nobody annotated, before.
    """

    before: Path
    folder: Path
    names: Mapping[str, str]
    values: Mapping[int, int]
    ignore: int | None = None


def follow_edit(layers: Iterable[Any], edited: Edited) -> None:
    """Let open layers of a dataset's cases mean what they meant before it was edited here."""
    for layer in layers:
        origin = layer.metadata.get(ORIGIN, {})
        if origin.get("folder") != str(edited.before):
            continue
        layer.metadata[ORIGIN] = {**origin, "folder": str(edited.folder), "classes": _classes(edited.folder)}
        if not isinstance(layer, Labels):
            continue
        features = layer.features.copy()
        for column in {"name", "kind"} & set(features.columns):
            features[column] = [edited.names.get(name, name) or BACKGROUND for name in features[column]]
        layer.features = features
        if any(old != new for old, new in edited.values.items()):
            swapped = {0: edited.ignore, edited.ignore: 0} if layer.metadata.get(SPARSE) else {}
            own = {value: swapped.get(value, value) for value in edited.values}
            known = {**own, **layer.metadata.get(VALUES, {})}  # what was saved before had some of the classes only
            layer.metadata[VALUES] = {painted: edited.values.get(value, value) for painted, value in known.items()}


def channels_with(new: Any, images: Sequence[Image], names: Sequence[str]) -> tuple[Image, ...]:
    """Return the layers that are the channels of one image with a layer, if all are among the images; else none.

    They are called the same but for the channel's name or number at the end: "B_T1" and "B_T2", "B_0000" and "B_0001".
    """
    if new not in images:
        return ()
    if len(names) == 1 or (new.rgb and len(names) == len("RGB")):
        return (new,)
    endings = [{name.casefold(), str(i), f"{i:04d}"} for i, name in enumerate(names)]
    found: dict[int, Image] = {}
    for layer in images:
        before, last = _parted(layer)
        channel = next((i for i, words in enumerate(endings) if last in words), None)
        if channel is not None and before == _parted(new)[0]:
            found[channel] = layer
    return tuple(found[i] for i in range(len(names))) if len(found) == len(names) and new in found.values() else ()


def _parted(layer: Any) -> tuple[str, str]:
    before, _, last = layer.name.replace("_", " ").rpartition(" ")
    return before, last.casefold()
