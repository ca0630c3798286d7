"""Cases in which not every class, or not every voxel, was looked at, as batches and the loss know them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from napari_nnunet.schema.dataset import BACKGROUND, IGNORE, DatasetInfo


@dataclass(frozen=True)
class PartialLabels:
    """How a batch tells the loss which classes nobody looked for: ``label + base * number of the pattern``.

    Parameters
    ----------
    base : int
        One above the highest label.
    patterns : tuple of tuple of bool
        For each network head whether it is unknown; the first pattern is that of cases where everything was looked for.
    of : mapping of str to int
        The pattern of every other case.
    wholly : tuple of bool
        For each pattern whether whole slices or boxes were annotated in its cases: what nobody annotated there teaches
        nothing, also in a training on strokes.
    """

    base: int
    patterns: tuple[tuple[bool, ...], ...]
    of: Mapping[str, int]
    wholly: tuple[bool, ...] = ()

    @classmethod
    def in_dataset(cls, info: DatasetInfo, wholly: Collection[str] = ()) -> PartialLabels | None:
        """Return the patterns of a dataset; None if everything was looked for in every case.

        Parameters
        ----------
        info : DatasetInfo
            Which classes were looked for in which cases.
        wholly : collection of str
            Cases of a training on strokes in which whole slices or boxes were annotated.
        """
        scheme = info.labels
        heads = scheme.head_names
        patterns = [((False,) * len(heads), False)]
        of = {}
        for case in dict.fromkeys((*info.annotated, *sorted(wholly))):
            looked = info.annotated.get(case, heads)
            unknown = tuple(name not in (*looked, BACKGROUND, IGNORE) for name in heads)
            pattern = (unknown, case in wholly)
            if pattern not in patterns:
                patterns.append(pattern)
            if patterns.index(pattern):
                of[case] = patterns.index(pattern)
        if not of:
            return None
        base = max(*scheme.all_labels, scheme.ignore_label or 0) + 1
        return cls(base, tuple(unknown for unknown, _ in patterns), of, tuple(whole for _, whole in patterns))
