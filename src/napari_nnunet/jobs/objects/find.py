"""Objects are found in a network's probabilities, by the rules that its validation cases chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from napari_nnunet.engine.objects.decode import Probabilities, Rule, Window, decode_into
from napari_nnunet.errors import ModelError
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.json_text import read_object
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.objects import RULES_FILE, ObjectRule, ObjectRules, ObjectScheme


@dataclass(frozen=True)
class Decoding:
    """Everything that turns the probabilities of a model into objects.

    Parameters
    ----------
    heads : dict of str to (int, int)
        Kind to the places of its core and its border among the network's outputs.
    rules : dict of str to Rule
        By kind.
    unit : float
        Edge of the network's finest voxel in mm, of which lengths in the rules are multiples.
    """

    heads: Mapping[str, tuple[int, int]]
    rules: Mapping[str, Rule]
    unit: float = 1.0


def heads_of(info: DatasetInfo, scheme: ObjectScheme) -> dict[str, tuple[int, int]]:
    """Return the places of cores and borders among the network's outputs."""
    values = info.labels.all_labels
    return {kind: (values.index(core), values.index(border)) for kind, (core, border) in scheme.kinds.items()}


def decoding_of(members: Sequence[tuple[TrainedModel, Sequence[Fold]]]) -> Decoding | None:
    """Return how the objects of models are found in their mean probabilities; None for models of classes.

    Parameters
    ----------
    members : sequence of (TrainedModel, sequence of Fold)
        Models with the same classes, and the folds of each. Rules are the mean of what all these folds chose, and seeds
        grow over the widest border.

    Raises
    ------
    ModelError
        If the rules beside a fold cannot be read.
    """
    schemes = [scheme for model, _ in members if (scheme := ObjectScheme.of(model.dataset)) is not None]
    if not schemes:
        return None
    first, info = schemes[0], members[0][0].dataset
    places = [model.folder / f"fold_{fold}" / RULES_FILE for model, folds in members for fold in folds]
    known = [rules for place in places if (rules := read_rules(place)) is not None]
    width = max(scheme.width * scheme.unit for scheme in schemes) / first.unit
    chosen = {}
    for kind in first.kinds:
        own = ObjectRule.mean([found.rules[kind] for found in known if kind in found.rules])
        chosen[kind] = Rule(width, own.seed, own.inside, own.smallest, own.smallest_seed, own.split)
    return Decoding(heads_of(info, first), chosen, first.unit)


def read_rules(path: Path) -> ObjectRules | None:
    """Read the rules of a fold; None where it was not validated."""
    if not path.is_file():
        return None
    try:
        return ObjectRules.model_validate(read_object(path, ModelError))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelError(f"{path}: '{where}' cannot be read: {first['msg']}. Validate the fold again.") from error


def find_objects(
    probabilities: NDArray[np.float32], decoding: Decoding, spacing: Sequence[float], out: NDArray[np.uint32]
) -> dict[int, str]:
    """Write the objects of a picture, kind after kind, and return the kind of each.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (heads, [Z,] Y, X)
        May be a memory map; it is read slab by slab.
    decoding : Decoding
        Heads and rules.
    spacing : sequence of float
        Size of a voxel along each axis, in mm.
    out : ndarray of uint32, shape ([Z,] Y, X)
        Written in place. Where objects of two kinds meet, the more probable one has the voxel.
    """
    kinds: dict[int, str] = {}
    found = out
    for place, (kind, (core, border)) in enumerate(decoding.heads.items()):
        read = window_reader(probabilities, core, border)
        if place:
            found = np.empty_like(out)
        count = decode_into(found, read, decoding.rules[kind], [step / decoding.unit for step in spacing])
        first = len(kinds)
        kinds |= dict.fromkeys(range(first + 1, first + count + 1), kind)
        if place:
            _lay_over(out, found, first, probabilities, decoding, kind)
    return kinds


def window_reader(probabilities: NDArray[Any], core: int, border: int) -> Callable[[Window], Probabilities]:
    """Return what reads a window of one kind: the probability of its core, and of being inside."""

    def read(window: Window) -> Probabilities:
        inner = np.asarray(probabilities[core][window], dtype=np.float32)
        return inner, inner + probabilities[border][window]

    return read


def _lay_over(
    out: NDArray[np.uint32],
    found: NDArray[np.uint32],
    first: int,
    probabilities: NDArray[np.float32],
    decoding: Decoding,
    kind: str,
) -> None:
    """Add the objects of one more kind to those of the others, plane by plane."""
    core, border = decoding.heads[kind]
    for plane in range(out.shape[0]):
        own = probabilities[core, plane] + probabilities[border, plane]
        others = np.zeros_like(own)
        for other, (inner, outer) in decoding.heads.items():
            if other == kind:
                break
            np.maximum(others, probabilities[inner, plane] + probabilities[outer, plane], out=others)
        wins = (found[plane] != 0) & ((out[plane] == 0) | (own > others))
        out[plane][wins] = found[plane][wins] + first
