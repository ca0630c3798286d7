"""How a fold's objects are best found: chosen on its validation cases, and written beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.objects.choose import KnownObjects, best_rule, score
from napari_nnunet.engine.objects.decode import Rule, decode
from napari_nnunet.engine.objects.match import Matching
from napari_nnunet.errors import DatasetError, NnunetError
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import write_json
from napari_nnunet.formats.dataset.objects import kinds_of, object_files, read_objects
from napari_nnunet.jobs.objects.evaluate import OBJECTS_FILE, ObjectEvaluation
from napari_nnunet.jobs.objects.find import heads_of
from napari_nnunet.jobs.training.order import Order
from napari_nnunet.schema.objects import RULES_FILE, ObjectRule, ObjectRules, ObjectScheme

_MOST = 24  # cases that are looked at
_VOXELS = 1 << 21  # of each, at most: the middle of what is larger


@dataclass(eq=False)
class ObjectJudge:
    """Collects probabilities of validation cases, and chooses the rules when all are there.

    Parameters
    ----------
    scheme : ObjectScheme
        Kinds, and the width of their borders.
    heads : dict of str to (int, int)
        Places of cores and borders among the outputs.
    references : dict of str to Path
        Case to its numbered objects.
    reader : str
        nnU-Net's name of what reads images and labels; it may turn them.
    """

    scheme: ObjectScheme
    heads: Mapping[str, tuple[int, int]]
    references: Mapping[str, Path]
    reader: str
    known: dict[str, dict[str, KnownObjects]] = field(default_factory=dict)

    @classmethod
    def of(cls, order: Order) -> ObjectJudge | None:
        """Return the judge of a fold; None for a dataset of classes, or whose objects are not here."""
        scheme = ObjectScheme.of(order.info)
        raw = order.workspace.raw / order.dataset_name
        if scheme is None or not raw.is_dir():
            return None
        try:
            files = object_files(raw)
        except NnunetError:
            return None
        cases = [name for name in sorted(order.split.val) if name in files]
        chosen = cases[:: max(1, -(-len(cases) // _MOST))]
        return cls(scheme, heads_of(order.info, scheme), {name: files[name] for name in chosen}, order.plans.reader)

    def wants(self, case: str) -> bool:
        """Whether the probabilities of a case are looked at."""
        return case in self.references

    def take(self, case: str, probabilities: NDArray[Any], labels: NDArray[Any]) -> None:
        """Keep what counts of a case.

        Parameters
        ----------
        case : str
            One that is wanted.
        probabilities : ndarray of float32, shape (heads, [Z,] Y, X)
            The network's.
        labels : ndarray of int, shape ([Z,] Y, X)
            Its reference: cores and borders, which also say of which kind an object is.
        """
        objects, geometry = read_objects(self.references[case], self.reader)
        if objects.shape != labels.shape:
            raise DatasetError(f"The objects of {case} have {objects.shape} voxels, its labels have {labels.shape}.")
        voxel = [step / self.scheme.unit for step in geometry.spacing]
        probabilities = probabilities.reshape(len(probabilities), *objects.shape)
        part = _middle(objects.shape)
        objects = objects[part]
        names = {value: kind for kind, values in self.scheme.kinds.items() for value in values}
        kinds = kinds_of(objects, labels[part], names, case)
        self.known[case] = {}
        for kind, (core, border) in self.heads.items():
            own = np.isin(objects, [number for number, name in kinds.items() if name == kind])
            inner = np.array(probabilities[core][part], dtype=np.float32)
            inside = inner + probabilities[border][part]
            self.known[case][kind] = KnownObjects(inner, inside, np.where(own, objects, 0), voxel)

    def decide(self, folder: Path, validation: Path) -> Job[None]:
        """Choose the rules and write them into the fold's folder, and how well objects are found with them.

        Parameters
        ----------
        folder : Path
            Of the fold; gets object_rules.json.
        validation : Path
            Gets objects.json, with the figures of each case (of the middle of large ones).
        """
        if not self.known:
            return
        yield Stage(name="Choosing how objects are found")
        rules: dict[str, ObjectRule] = {}
        cases = {case: Matching.none() for case in self.known}
        for kind in self.scheme.kinds:
            pictures = {case: known[kind] for case, known in self.known.items()}
            rule, _ = best_rule(list(pictures.values()), Rule(self.scheme.width))
            rules[kind] = ObjectRule(
                seed=rule.seed,
                inside=rule.inside,
                smallest=rule.smallest,
                smallest_seed=rule.smallest_seed,
                split=rule.split,
            )
            for case, known in pictures.items():
                cases[case] += Matching.of(known.objects, decode(known.core, known.inside, rule, known.voxel))
        evaluation = ObjectEvaluation(cases)
        found = evaluation.all
        write_json(validation / OBJECTS_FILE, evaluation.content())
        write_json(
            folder / RULES_FILE,
            ObjectRules(rules=rules, score=score(found), cases=len(cases)).model_dump(mode="json"),
        )
        hits, invented, missed = found.counts()
        yield Note(
            text=f"Objects in {len(cases)} validation cases: {hits} found, {missed} missed, {invented} invented; "
            f"average precision {found.precision(0.5):.3f} at an IoU of 0.5, {found.precision(0.75):.3f} at 0.75."
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
