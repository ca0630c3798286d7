"""Cases in which not every class was looked for, as batches and the loss know them."""

from __future__ import annotations

from collections.abc import Mapping
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
    """

    base: int
    patterns: tuple[tuple[bool, ...], ...]
    of: Mapping[str, int]

    @classmethod
    def in_dataset(cls, info: DatasetInfo) -> PartialLabels | None:
        """Return the patterns of a dataset; None if everything was looked for in every case."""
        scheme = info.labels
        heads = scheme.head_names
        patterns = [(False,) * len(heads)]
        of = {}
        for case, looked in info.annotated.items():
            pattern = tuple(name not in (*looked, BACKGROUND, IGNORE) for name in heads)
            if pattern not in patterns:
                patterns.append(pattern)
            if patterns.index(pattern):
                of[case] = patterns.index(pattern)
        if not of:
            return None
        return cls(max(*scheme.all_labels, scheme.ignore_label or 0) + 1, tuple(patterns), of)
