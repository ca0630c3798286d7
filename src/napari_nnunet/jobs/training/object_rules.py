"""How well a fold finds objects, and by which rules: chosen on its first validation cases, kept beside the weights."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.objects.choose import KnownObjects, best_rule
from napari_nnunet.engine.objects.decode import Rule
from napari_nnunet.engine.objects.match import Matching, annotated_part
from napari_nnunet.errors import NnunetError, ResourceError, some
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import copy_file, make_folder, remove_leftovers, write_json
from napari_nnunet.formats.dataset.case_trash import OBJECTS
from napari_nnunet.formats.dataset.objects import kinds_of, object_files, read_objects
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.results.probabilities import scratch
from napari_nnunet.grid import Grid, onto
from napari_nnunet.jobs.choosing.evaluate_objects import OBJECTS_FILE, ObjectEvaluation, matched_by_kind
from napari_nnunet.jobs.choosing.validation import FOUND_OBJECTS
from napari_nnunet.jobs.objects.find import Decoding, find_and_write, heads_of, rule_of, write_rules
from napari_nnunet.jobs.training.order import Order
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.objects import RULES_FILE, ObjectRule, ObjectRules, ObjectScheme

_MOST = 24  # cases that the rules are chosen on
_VOXELS = 1 << 21  # of each, at most: the middle of what is larger
_ROOM = 8 << 30  # bytes of probabilities that wait on the disk until the rules are chosen


@dataclass(frozen=True, eq=False)
class _Truth:
    """A validation case as it is known.

    Parameters
    ----------
    objects : ndarray of int, shape ([Z,] Y, X)
        Numbered.
    kinds : dict of int to str
        Kind of each.
    ignored : ndarray of bool or None, same shape
        What nobody annotated.
    geometry : Geometry
        Where it lies.
    """

    objects: NDArray[Any]
    kinds: Mapping[int, str]
    ignored: NDArray[np.bool_] | None
    geometry: Geometry


@dataclass(eq=False)
class ObjectJudge:
    """Finds the objects of validation cases whole, by rules that it chooses on the first of them.

    Parameters
    ----------
    order : Order
        What was trained.
    scheme : ObjectScheme
        Kinds, and the width of their borders.
    references : dict of str to Path
        Case to its numbered objects.
    chosen : frozenset of str
        Cases on which the rules are chosen; they come first.
    waiting : ExitStack
        Owns the files in which probabilities wait until the rules are chosen.
    """

    order: Order
    scheme: ObjectScheme
    references: Mapping[str, Path]
    chosen: frozenset[str]
    waiting: ExitStack
    _seen: list[dict[str, KnownObjects]] = field(default_factory=list)
    _stored: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    _decoding: Decoding | None = None
    _matched: dict[str, dict[str, Matching]] = field(default_factory=dict)

    @classmethod
    def of(cls, order: Order, waiting: ExitStack) -> Job[ObjectJudge | None]:
        """Return the judge of a fold; None for a dataset of classes, or whose objects are not here, which is said."""
        scheme = ObjectScheme.of(order.info)
        if scheme is None:
            return None
        try:
            files = object_files(order.workspace.raw / order.dataset_name)
            why = ""
        except NnunetError as error:
            files, why = {}, error.message
        cases = [name for name in sorted(order.split.val) if name in files]
        lacking = [name for name in sorted(order.split.val) if name not in files]
        if lacking:
            yield _without_objects(order, lacking, why)
        if not cases:
            shutil.rmtree(order.folder.validation / FOUND_OBJECTS, ignore_errors=True)  # of other weights
            (order.folder.validation / OBJECTS_FILE).unlink(missing_ok=True)
            return None
        chosen = frozenset(cases[:: max(1, -(-len(cases) // _MOST))])
        target = make_folder(order.folder.validation / FOUND_OBJECTS)
        remove_leftovers(target)
        copy_file(order.model / "dataset.json", target / "dataset.json")
        return cls(order, scheme, {name: files[name] for name in cases}, chosen, waiting)

    def first(self, names: list[str]) -> list[str]:
        """Return names of cases in the order in which they are segmented: those of the choice first."""
        return sorted(names, key=lambda name: name not in self.chosen)

    def wants(self, case: str) -> bool:
        """Whether the objects of a case are known."""
        return case in self.references

    def take(self, case: str, probabilities: NDArray[np.float32]) -> Job[None]:
        """Find the objects of a case, at once or when the rules are chosen.

        Parameters
        ----------
        case : str
            One that is wanted.
        probabilities : ndarray of float32, shape (heads, [Z,] Y, X)
            The network's; not needed afterwards.

        Raises
        ------
        DatasetError, ImageError
            If its objects do not fit its labels.
        ResourceError
            If the objects cannot be written.
        """
        truth = self._truth(case)
        probabilities = probabilities.reshape(len(probabilities), *truth.objects.shape)
        if self._decoding is None:
            if case in self.chosen:
                self._look_at(probabilities, truth)
                if self._keep(case, probabilities):
                    return
            yield from self._choose()
        if self._decoding is not None:
            self._find(case, truth, probabilities, self._decoding)

    def finish(self) -> Job[None]:
        """Write ``objects.json`` with the figures of every case into the validation, and say them."""
        if self._decoding is None:
            yield from self._choose()
        if not self._matched:
            return
        evaluation = ObjectEvaluation(dict(sorted(self._matched.items())))
        write_json(self.order.folder.validation / OBJECTS_FILE, evaluation.content())
        found = evaluation.all
        hits, invented, missed = found.counts()
        yield Note(
            text=f"Objects in {len(self._matched)} validation cases: {hits} found, {missed} missed, {invented} "
            f"invented; average precision {found.precision(0.5):.3f} at an IoU of 0.5, {found.precision(0.75):.3f} at "
            "0.75."
        )

    def _truth(self, case: str) -> _Truth:
        reader = self.order.plans.reader
        objects, geometry = read_objects(self.references[case], reader)
        labels, own = read_labels(self.order.reference(case), reader=reader, as_stored=True)
        objects = onto(objects, geometry, Grid(labels.shape, own), what=f"the objects of {case} and its labels")
        names = {value: kind for kind, values in self.scheme.kinds.items() for value in values}
        ignore = self.order.info.labels.ignore_label
        ignored = None if ignore is None else labels == ignore
        return _Truth(objects, kinds_of(objects, labels, names, case), ignored, own)

    def _look_at(self, probabilities: NDArray[np.float32], truth: _Truth) -> None:
        """Keep what the choice needs of a case in memory."""
        voxel = [step / self.scheme.unit for step in truth.geometry.spacing]
        part = _middle(truth.objects.shape)
        objects = truth.objects[part]
        seen = {}
        for kind, (core, border) in heads_of(self.order.info, self.scheme).items():
            own = np.isin(objects, [number for number, name in truth.kinds.items() if name == kind])
            inner = np.array(probabilities[core][part], dtype=np.float32)
            inside = inner + probabilities[border][part]
            if truth.ignored is not None:  # nobody knows whether there are objects
                inner[truth.ignored[part]] = inside[truth.ignored[part]] = 0
            seen[kind] = KnownObjects(inner, inside, np.where(own, objects, 0), voxel)
        self._seen.append(seen)

    def _keep(self, case: str, probabilities: NDArray[np.float32]) -> bool:
        """Let the probabilities of cores and borders wait on the disk; False where there is no room for them."""
        heads = [head for pair in heads_of(self.order.info, self.scheme).values() for head in pair]
        shape = (len(heads), *probabilities.shape[1:])
        if 4 * math.prod(shape) + sum(array.nbytes for array in self._stored.values()) > _ROOM:
            return False
        try:
            store = self.waiting.enter_context(scratch(shape, self.order.folder.validation))
        except ResourceError:
            return False
        for place, head in enumerate(heads):
            store[place] = probabilities[head]
        self._stored[case] = store
        return True

    def _choose(self) -> Job[None]:
        """Choose the rules, write them into the fold's folder, and find the objects of the cases that wait."""
        if not self._seen:
            return
        yield Stage(name="Choosing how objects are found")
        rules: dict[str, ObjectRule] = {}
        heights = []
        for kind in self.scheme.kinds:
            rule, height = best_rule([seen[kind] for seen in self._seen], Rule(self.scheme.width))
            heights.append(height)
            rules[kind] = ObjectRule.model_validate(asdict(rule))
        stored = ObjectRules(rules=rules, score=sum(heights) / len(heights), cases=len(self._seen))
        write_rules(self.order.folder.path, stored)
        chosen = {kind: rule_of(rule, self.scheme.width) for kind, rule in rules.items()}
        self._decoding = Decoding(heads_of(self.order.info, self.scheme), chosen, self.scheme.unit)
        kept = Decoding({kind: (2 * i, 2 * i + 1) for i, kind in enumerate(chosen)}, chosen, self.scheme.unit)
        self._seen.clear()
        while self._stored:
            case, probabilities = self._stored.popitem()
            try:
                self._find(case, self._truth(case), probabilities, kept)
            except NnunetError as error:
                yield Note.about(f"The objects of {case} could not be found:", error)
        self.waiting.close()

    def _find(self, case: str, truth: _Truth, probabilities: NDArray[np.float32], decoding: Decoding) -> None:
        """Find the objects of a case, write and compare them."""
        path = self.order.folder.validation / FOUND_OBJECTS / (case + self.order.info.file_ending)
        where = path, truth.geometry, self.order.plans.reader
        objects, kinds = find_and_write(probabilities, decoding, self.order.info, *where)
        annotated = objects if truth.ignored is None else annotated_part(objects, truth.ignored, truth.objects)
        self._matched[case] = matched_by_kind(Matching.of(truth.objects, annotated), truth.kinds, kinds)


def _without_objects(order: Order, lacking: Sequence[str], why: str) -> Note:
    """Return the warning that the objects of validation cases are not known, and by which rules they are found then."""
    listed = some(lacking)
    reason = why.rstrip(".") or f"{OBJECTS} has no file of {listed}"
    text = f"The objects of {len(lacking)} of {len(order.split.val)} validation cases are not known: {reason}"
    if len(lacking) < len(order.split.val):
        return Note(level="warning", text=f"{text}. The rules by which objects are found are chosen on the others.")
    before = (order.folder.path / RULES_FILE).is_file()
    rules = "those of the validation before count" if before else "predictions use the usual thresholds of 0.5"
    text += f". The rules by which objects are found cannot be chosen; {rules}"
    return Note(
        level="warning",
        text=f"{text}. Bring the raw dataset back, and validate again (train ... --val).",
        in_window=f"{text}. Bring the raw dataset back, and train the fold again.",
    )


def _middle(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the middle of a picture, as large as can be looked at."""
    part = [slice(0, size) for size in shape]
    sizes = list(shape)
    while np.prod(sizes) > _VOXELS:
        axis = int(np.argmax(sizes))
        sizes[axis] //= 2
        low = (shape[axis] - sizes[axis]) // 2
        part[axis] = slice(low, low + sizes[axis])
    return tuple(part)
