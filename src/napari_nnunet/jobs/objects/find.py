"""Objects are found in a network's probabilities, by the rules that its validation cases chose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from napari_nnunet.engine.objects.decode import Probabilities, Rule, Window, decode_into
from napari_nnunet.engine.objects.slabs import planes_within
from napari_nnunet.errors import ModelError
from napari_nnunet.events import Job, Note
from napari_nnunet.formats.atomic import make_folder, write_json
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.results.objects import write_found
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.json_text import read_object
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.objects import RULES_FILE, ObjectRule, ObjectRules, ObjectScheme

NO_RULES = "No rules by which objects are found"
_AT_ONCE = 1 << 20  # voxels in which objects of two kinds are compared together


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
    doubt : str
        A sentence where validation cases chose the rules of some models only, or of none.
    """

    heads: Mapping[str, tuple[int, int]]
    rules: Mapping[str, Rule]
    unit: float = 1.0
    doubt: str = ""


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
    decoding = decoding_by([model.dataset for model, _ in members], known_rules(members))
    return None if decoding is None else replace(decoding, doubt=_doubt(members))


def known_rules(members: Sequence[tuple[TrainedModel, Sequence[Fold]]]) -> ObjectRules | None:
    """Return the mean of the rules that the folds of models chose; None where none was validated."""
    known = [rules for place in _places(members) if (rules := read_rules(place)) is not None]
    return ObjectRules.mean(known) if known else None


def _places(members: Sequence[tuple[TrainedModel, Sequence[Fold]]]) -> list[Path]:
    return [model.folder / f"fold_{fold}" / RULES_FILE for model, folds in members for fold in folds]


def _doubt(members: Sequence[tuple[TrainedModel, Sequence[Fold]]]) -> str:
    """Return what is to be said where folds have no rules of their own; empty where all have."""
    places = _places(members)
    lacking = [place.parent for place in places if not place.is_file()]
    if not lacking:
        return ""
    names = ", ".join(f"{folder.parent.name}/{folder.name}" for folder in lacking)
    others = "those of the others count" if len(lacking) < len(places) else "the usual thresholds of 0.5 are used"
    return (
        f"{NO_RULES} were chosen on validation cases of {names}; {others}. Objects may be missed, joined or invented "
        "more often than need be."
    )


def decoding_by(infos: Sequence[DatasetInfo], rules: ObjectRules | None) -> Decoding | None:
    """Return how objects are found in the mean probabilities of several members; None for those of classes.

    Parameters
    ----------
    infos : sequence of DatasetInfo
        Of every member; their classes are the same. Seeds grow over the widest border.
    rules : ObjectRules or None
        What their folds chose; without, and for a kind that is not in them, the default.
    """
    schemes = [scheme for info in infos if (scheme := ObjectScheme.of(info)) is not None]
    if not schemes:
        return None
    first, known = schemes[0], {} if rules is None else rules.rules
    width = max(scheme.width * scheme.unit for scheme in schemes) / first.unit
    chosen = {kind: rule_of(known.get(kind, ObjectRule()), width) for kind in first.kinds}
    return Decoding(heads_of(infos[0], first), chosen, first.unit)


def rule_of(stored: ObjectRule, width: float) -> Rule:
    """Return what a file says as what the decoder takes; the width of borders in network voxels."""
    return Rule(width, **stored.model_dump())


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


def write_rules(folder: Path, rules: ObjectRules | None) -> None:
    """Write beside probabilities by which rules objects are found in them; without any, those of before go."""
    if rules is None:
        (folder / RULES_FILE).unlink(missing_ok=True)
    else:
        write_json(make_folder(folder) / RULES_FILE, rules.model_dump(mode="json"))


def rules_beside(folders: Sequence[Path], infos: Sequence[DatasetInfo]) -> Job[ObjectRules | None]:
    """Return the mean of the rules that lie beside probabilities; says where they are missing.

    Parameters
    ----------
    folders : sequence of Path
        With probabilities.
    infos : sequence of DatasetInfo
        The dataset.json of each; of classes, nothing is missing.
    """
    known = [read_rules(folder / RULES_FILE) for folder in folders]
    there = [rules for rules in known if rules is not None]
    lacking = [str(folder) for folder, rules in zip(folders, known, strict=True) if rules is None]
    if lacking and any(ObjectScheme.of(info) is not None for info in infos):
        others = "those of the others count" if there else "the usual thresholds of 0.5 are used"
        yield Note(
            level="warning",
            text=f"{', '.join(lacking)}: {RULES_FILE}, by which objects are found, is missing; {others}. "
            "A prediction with probabilities writes it where the folds were validated.",
        )
    return ObjectRules.mean(there) if there else None


def find_and_write(
    probabilities: NDArray[np.float32],
    decoding: Decoding,
    info: DatasetInfo,
    path: Path,
    geometry: Geometry,
    writer: str | None,
) -> tuple[NDArray[np.uint32], dict[int, str]]:
    """Find the objects of an image and write them.

    Parameters
    ----------
    probabilities : ndarray of float32, shape (heads, [Z,] Y, X)
        May be a memory map.
    decoding : Decoding
        Heads and rules.
    info : DatasetInfo
        What says of objects which kinds there are.
    path : Path
        File to write; see :func:`~napari_nnunet.formats.dataset.objects.write_found`.
    geometry : Geometry
        Where the image lies.
    writer : str or None
        nnU-Net's name of what writes it.

    Returns
    -------
    tuple of (ndarray of uint32, dict of int to str)
        The objects, and the kind of each.
    """
    objects = np.zeros(probabilities.shape[1:], dtype=np.uint32)
    kinds = find_objects(probabilities, decoding, geometry.spacing, objects)
    scheme = ObjectScheme.of(info)
    if scheme is not None:
        write_found(objects, kinds, scheme, geometry, path, writer)
    return objects, kinds


@dataclass(frozen=True)
class Room:
    """What finding objects may take.

    Parameters
    ----------
    bytes : float
        Of memory, beside the arrays that are given; as much as usual if infinite.
    again : callable
        Makes another array like the one that objects are written into, for those of another kind.
    """

    bytes: float = math.inf
    again: Callable[[NDArray[np.uint32]], NDArray[np.uint32]] = np.empty_like


def find_objects(
    probabilities: Any,
    decoding: Decoding,
    spacing: Sequence[float],
    out: NDArray[np.uint32],
    room: Room | None = None,
) -> dict[int, str]:
    """Write the objects of a picture, kind after kind, and return the kind of each.

    Parameters
    ----------
    probabilities : array of float32, shape (heads, [Z,] Y, X)
        May be a memory map or another array on disk; it is read slab by slab.
    decoding : Decoding
        Heads and rules.
    spacing : sequence of float
        Size of a voxel along each axis, in mm.
    out : ndarray of uint32, shape ([Z,] Y, X)
        Written in place. Where objects of two kinds meet, the more probable one has the voxel.
    room : Room, optional
        What it may take. The result does not depend on it.
    """
    room, voxel = room or Room(), [step / decoding.unit for step in spacing]
    kinds: dict[int, str] = {}
    found = out
    for place, (kind, (core, border)) in enumerate(decoding.heads.items()):
        read = window_reader(probabilities, core, border)
        if place:
            found = room.again(out)
        rule = decoding.rules[kind]
        planes = max(1, planes_within(out.shape, rule.steps(voxel), room.bytes))
        count = decode_into(found, read, rule, voxel, planes)
        first = len(kinds)
        kinds |= dict.fromkeys(range(first + 1, first + count + 1), kind)
        if place:
            _lay_over(out, found, first, probabilities, decoding, kind)
    return _without_covered(out, kinds) if len(decoding.heads) > 1 else kinds


def _slabs(out: NDArray[np.uint32]) -> Iterator[slice]:
    step = max(1, _AT_ONCE // max(1, math.prod(out.shape[1:])))
    return (slice(lo, lo + step) for lo in range(0, out.shape[0], step))


def _without_covered(out: NDArray[np.uint32], kinds: Mapping[int, str]) -> dict[int, str]:
    """Number objects anew of which something is left, slab by slab: others may lie under those of another kind."""
    there = np.zeros(len(kinds) + 1, dtype=bool)
    for slab in _slabs(out):
        there[out[slab]] = True
    there[0] = False
    new = np.cumsum(there, dtype=np.uint32) * there
    for slab in _slabs(out):
        out[slab] = new[out[slab]]
    return {int(new[number]): kind for number, kind in kinds.items() if there[number]}


def window_reader(probabilities: Any, core: int, border: int) -> Callable[[Window], Probabilities]:
    """Return what reads a window of one kind: the probability of its core, and of being inside."""

    def read(window: Window) -> Probabilities:
        inner = np.asarray(probabilities[(core, *window)], dtype=np.float32)
        return inner, inner + probabilities[(border, *window)]

    return read


def _lay_over(
    out: NDArray[np.uint32],
    found: NDArray[np.uint32],
    first: int,
    probabilities: Any,
    decoding: Decoding,
    kind: str,
) -> None:
    """Add the objects of one more kind to those of the others, slab by slab."""
    core, border = decoding.heads[kind]
    for slab in _slabs(out):
        own = probabilities[core, slab] + probabilities[border, slab]
        others = np.zeros_like(own)
        for other, (inner, outer) in decoding.heads.items():
            if other == kind:
                break
            np.maximum(others, probabilities[inner, slab] + probabilities[outer, slab], out=others)
        wins = (found[slab] != 0) & ((out[slab] == 0) | (own > others))
        out[slab][wins] = found[slab][wins] + first
