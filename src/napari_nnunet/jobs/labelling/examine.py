"""One case is held against the network that did not see it; may run in a worker process."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.labelling.another import Sketch, agreement, is_of
from napari_nnunet.engine.labelling.doubt import ClassDoubt, Doubt, doubt_of
from napari_nnunet.engine.labelling.explain import Slip, fits_moved, slips
from napari_nnunet.engine.labelling.kept import mark_of, same_place
from napari_nnunet.errors import ImageError, NnunetError
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.formats.results.accepted import Accepted
from napari_nnunet.formats.results.probabilities import ProbabilityReader, planes_at_once
from napari_nnunet.grid import Grid, Same, Turned, relation
from napari_nnunet.jobs.choosing.evaluate import Rules, read_pair
from napari_nnunet.jobs.choosing.pairs import Pair
from napari_nnunet.jobs.choosing.validation import npz_of
from napari_nnunet.jobs.labelling.suspects import WHOLE
from napari_nnunet.schema.dataset import LabelScheme, Region
from napari_nnunet.schema.geometry import lift_shape

MOST_TWINS = 2  # cases with the same labels as another one: where there are more, they are alike by nature
_CLEARLY = 0.2  # gain of mean Dice that speaks for labels of another case


@dataclass(frozen=True)
class Looked:
    """What a worker found out about a case.

    Parameters
    ----------
    doubt : Doubt
        What the network says of its labels.
    digest, image : str
        What tells whether two cases have the same labels, or the same image; empty where nothing is drawn, or where
        there is no image.
    sketch : Sketch
        Of what is drawn.
    mark : str
        Of all that is drawn, see :func:`~napari_nnunet.engine.labelling.kept.mark_of`.
    differing : int
        Voxels that are drawn otherwise than seen.
    accepted : tuple of int
        Which parts somebody found right, by their number in ``doubt.parts``; -1 is the whole case.
    voxel : float
        Volume (area in 2-D) of a voxel in mm.
    undefined : set of int
        Values that dataset.json does not define.
    odd : tuple of str
        What is odd about the files.
    """

    doubt: Doubt
    digest: str
    image: str
    sketch: Sketch
    mark: str
    differing: int
    accepted: tuple[int, ...]
    voxel: float
    undefined: set[int]
    odd: tuple[str, ...]


@dataclass(frozen=True)
class About:
    """What is known of a case beside its labels: the files of its image, and what was found right in it."""

    images: tuple[Path, ...] = ()
    accepted: tuple[Accepted, ...] = ()


def examine_case(pair: Pair, rules: Rules, scheme: LabelScheme, with_npz: bool, about: Mapping[str, About]) -> Looked:
    """Hold one case against its prediction; may run in a worker process."""
    own = about.get(pair.name, About())
    image = _digest_of_image(own.images, rules)
    reference, seen, geometry = read_pair(pair, rules)
    unknown = rules.unknown.get(pair.name, frozenset())
    seen = without_unknown(seen, unknown)
    stored, grid = read_labels(pair.prediction, reader=rules.reader, as_stored=True)
    found = relation(Grid(reference.shape, geometry), Grid(stored.shape, grid))
    # Segmentations are turned onto their references; probabilities, and the image that is opened, are not.
    if isinstance(found, Turned) or (with_npz and not isinstance(found, Same)):
        raise ImageError(
            f"{pair.reference} stores its voxels in another orientation than {pair.prediction} and its probabilities: "
            "the labels were saved again since the validation. Validate again."
        )
    doubt = _known(_doubt(pair, reference, seen, rules, scheme, with_npz), unknown)
    counts = np.ones(reference.shape, bool) if scheme.ignore_label is None else reference != scheme.ignore_label
    differing = int(np.count_nonzero((reference != seen) & counts))
    mark = mark_of(reference, ())
    return Looked(
        doubt=doubt,
        digest=_digest(reference, scheme.ignore_label),
        image=image,
        sketch=Sketch.of(_drawn(reference, scheme)),
        mark=mark,
        differing=differing,
        accepted=_accepted(own.accepted, doubt, reference, mark, differing),
        voxel=float(np.prod(geometry.spacing)),
        undefined=_undefined(reference, rules),
        odd=geometry.remarks,
    )


def _doubt(
    pair: Pair, reference: NDArray[Any], seen: NDArray[Any], rules: Rules, scheme: LabelScheme, with_npz: bool
) -> Doubt:
    """Hold labels against a network's segmentation, and its probabilities where there are any."""
    if not with_npz:
        return doubt_of(reference, seen, None, scheme)
    with closing(ProbabilityReader(npz_of(pair.prediction, rules.ending))) as reader:
        if reader.shape != (scheme.heads, *lift_shape(reference.shape)):
            raise ImageError(
                f"{reader.path} holds {reader.shape[0]} classes of {reader.shape[1:]} voxels; {scheme.heads} of "
                f"{lift_shape(reference.shape)} were expected. The labels, or dataset.json, changed since the "
                "validation: validate again."
            )
        return doubt_of(reference, seen, _heads(reader, reference.shape), scheme)


def _accepted(
    entries: Sequence[Accepted], doubt: Doubt, reference: NDArray[Any], mark: str, differing: int
) -> tuple[int, ...]:
    """Return which parts were found right and are as they were then: what is drawn there, and about what is seen."""
    found = []
    for entry in entries:
        if entry.is_whole:
            everything = tuple((0, n) for n in reference.shape)
            if entry.mark == mark and same_place(everything, entry.voxels, everything, differing):
                found.append(WHOLE)
        elif len(entry.box) == reference.ndim and mark_of(reference, entry.box) == entry.mark:
            found += [
                number
                for number, part in enumerate(doubt.parts)
                if (part.label, part.seen) == (entry.drawn, entry.seen)
                and same_place(entry.box, entry.voxels, part.box, part.voxels)
            ]
    return tuple(dict.fromkeys(found))


def _digest_of_image(files: Sequence[Path], rules: Rules) -> str:
    """Return what tells whether two cases have the same image, channel after channel; empty where it is not read."""
    digest = hashlib.sha256()
    try:
        for path in files:
            array = np.ascontiguousarray(read_volume((path,), reader=rules.reader).array)
            digest.update(repr(array.shape).encode() + array.tobytes())
    except (NnunetError, OSError):  # who opens the case is told why
        return ""
    return digest.hexdigest() if files else ""


def _drawn(labels: NDArray[Any], scheme: LabelScheme) -> NDArray[Any]:
    """Return labels without what nobody annotated."""
    return labels if scheme.ignore_label is None else np.where(labels == scheme.ignore_label, 0, labels)


def _undefined(labels: NDArray[Any], rules: Rules) -> set[int]:
    """Return the values that dataset.json does not define; all are looked for only where the range tells of some."""
    defined = rules.defined or frozenset({0})
    if labels.size and labels.min() >= 0 and set(range(int(labels.max()) + 1)) <= defined:
        return set()
    return set(np.unique(labels).tolist()) - defined


def without_unknown(seen: NDArray[Any], unknown: Collection[Region]) -> NDArray[Any]:
    """Return a segmentation without the classes that nobody looked for: nothing is wrong where they are seen."""
    return np.where(np.isin(seen, list(unknown)), 0, seen) if unknown else seen


def _known(found: Doubt, unknown: Collection[Region]) -> Doubt:
    """Return what is said of the classes that were looked for."""
    nothing = ClassDoubt(math.nan, math.nan, 0, 0)
    return replace(found, classes={t: nothing if t in unknown else doubt for t, doubt in found.classes.items()})


def _heads(reader: ProbabilityReader, shape: tuple[int, ...]) -> Iterator[NDArray[np.float32]]:
    count, z, _, _ = reader.shape
    step = planes_at_once(reader.shape)
    for _ in range(count):
        yield np.concatenate([reader.read(min(step, z - lo)) for lo in range(0, z, step)]).reshape(shape)


def _digest(labels: NDArray[Any], ignored: int | None) -> str:
    """Return what tells whether two cases have the same labels, wherever on their grids; empty if nothing is drawn."""
    drawn = labels > 0 if ignored is None else (labels > 0) & (labels != ignored)
    if not drawn.any():
        return ""
    box = tuple(
        slice(int(there[0]), int(there[-1]) + 1)
        for axis in range(drawn.ndim)
        for there in [np.flatnonzero(drawn.any(axis=tuple(a for a in range(drawn.ndim) if a != axis)))]
    )
    inside = np.ascontiguousarray(labels[box].astype(np.uint32))
    return hashlib.sha256(repr(inside.shape).encode() + inside.tobytes()).hexdigest()


@dataclass(frozen=True)
class Suspicion:
    """What is looked at to explain a suspect.

    Parameters
    ----------
    classes : dict of Region to ClassDoubt
        Of its classes.
    dice : float
        Of its labels with what the network sees.
    same : tuple of str
        Other cases with the very same labels, where these are few, and another image.
    alike : tuple of Pair
        Cases whose labels may be the same but for their edges.
    others : tuple of Pair
        The other suspects: their labels may have been exchanged.
    """

    classes: Mapping[Region, ClassDoubt]
    dice: float
    same: tuple[str, ...]
    alike: tuple[Pair, ...]
    others: tuple[Pair, ...]


def explain(pair: Pair, rules: Rules, scheme: LabelScheme, suspicions: Mapping[str, Suspicion]) -> tuple[Slip, ...]:
    """Look for what went wrong in one case; may run in a worker process."""
    own = suspicions[pair.name]
    reference, seen = _counted(pair, rules, scheme)
    another = _same_as_another(own, reference, rules, scheme) or _exchanged(own, reference, seen, rules, scheme)
    if another is not None:
        return (another,)
    return slips(reference, seen, own.classes, scheme.names)


def _counted(pair: Pair, rules: Rules, scheme: LabelScheme) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return what is drawn in a case, and what is seen; 0 in both where nothing counts."""
    reference, seen, _ = read_pair(pair, rules)
    seen = without_unknown(seen, rules.unknown.get(pair.name, frozenset()))
    if scheme.ignore_label is not None:
        counts = reference != scheme.ignore_label
        reference, seen = np.where(counts, reference, 0), np.where(counts, seen, 0)
    return reference, seen


def _same_as_another(own: Suspicion, reference: NDArray[Any], rules: Rules, scheme: LabelScheme) -> Slip | None:
    """Return that labels are those of other cases, None if they are not."""
    found = list(own.same)
    for other in own.alike:
        try:
            labels = _drawn(read_labels(other.reference, reader=rules.reader, as_stored=True)[0], scheme)
        except NnunetError:  # said when that case is examined
            continue
        if is_of(reference, labels) and agreement(reference, labels) > own.dice:
            found.append(other.name)
    if not 0 < len(found) <= MOST_TWINS:
        return None
    return Slip("another case's", f"another case's mask: the labels are those of {', '.join(found)}")


def _exchanged(
    own: Suspicion, reference: NDArray[Any], seen: NDArray[Any], rules: Rules, scheme: LabelScheme
) -> Slip | None:
    """Return with which other suspect labels were exchanged: each fits what is seen in the other better."""
    best, at_least = None, max(own.dice + _CLEARLY, fits_moved(reference, seen)) if own.others else 0.0
    for other in own.others:
        try:
            labels, found = _counted(other, rules, scheme)
        except NnunetError:
            continue
        if labels.ndim == reference.ndim and (fit := agreement(reference, found)) > at_least:
            theirs = agreement(labels, found)
            if agreement(labels, seen) > theirs + _CLEARLY:
                best, at_least = other.name, fit
    if best is None:
        return None
    return Slip("another case's", f"another case's mask: exchanged with {best}, where each fits what the network sees")
