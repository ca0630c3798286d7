"""The table of features of a layer: what is written here replaces itself, and no column of somebody else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from napari.layers import Labels

#: Columns that were written here, by their layer.
_WRITTEN: WeakKeyDictionary[Labels, frozenset[str]] = WeakKeyDictionary()


def columns_of_others(layer: Labels, own: Mapping[str, Any]) -> list[str]:
    """Return the columns of a layer's features that somebody else made, another plugin or the user."""
    ours = {"index", *own, *_WRITTEN.get(layer, ())}
    return [name for name in layer.features.columns if name not in ours]


def write_features(
    layer: Labels, own: Mapping[str, Sequence[Any]], *, renamed: Mapping[int, int] | None = None
) -> None:
    """Give a layer features, and keep what others wrote about objects that are still there or may come back.

    Parameters
    ----------
    layer : Labels
        The layer.
    own : mapping of str to sequence
        The columns, "index" among them.
    renamed : mapping of int to int, optional
        Which number an object has now; those without one are gone. All have the same where it is not given.
    """
    names = columns_of_others(layer, own)
    table = dict(own) if not names else _joined(own, layer.features[names], _numbers(layer, renamed))
    _WRITTEN[layer] = frozenset(own)
    layer.features = table


def _numbers(layer: Labels, renamed: Mapping[int, int] | None) -> list[int | None]:
    """Return which object each row is of, None where it is of none; without an index, a row's place is the number."""
    found: list[int | None] = []
    for index in layer.features["index"] if "index" in layer.features else range(len(layer.features)):
        number = None
        with suppress(TypeError, ValueError, OverflowError):
            number = int(index)
        found.append(number if renamed is None or number in (None, 0) else renamed.get(number))
    return found


def _joined(own: Mapping[str, Sequence[Any]], others: Any, numbers: Sequence[int | None]) -> dict[str, Any]:
    """Return our columns and those of others, with a row for every number that either knows."""
    known = {int(number): place for place, number in enumerate(own["index"])}
    theirs: dict[int, int] = {}
    for place, number in enumerate(numbers):
        if number is not None:
            theirs.setdefault(number, place)
    more = sorted(set(theirs) - set(known))
    if more and list(known) == list(range(len(known))) and more[-1] < 2 * len(known) + len(more):
        more = list(range(len(known), more[-1] + 1))  # napari takes the place of a row for the number
    index = [*known, *more]
    found: dict[str, Any] = {"index": index}
    for name, values in own.items():
        if name != "index":
            found[name] = [values[known[n]] if n in known else _nothing(values) for n in index]
    rows = others.take(list(theirs.values())).set_axis(list(theirs), axis=0).reindex(index)
    return {**found, **{name: rows[name].to_numpy() for name in others.columns}}


def _nothing(values: Sequence[Any]) -> Any:
    """Return what stands where nothing was measured."""
    return next(("" if isinstance(v, str) else False if isinstance(v, bool) else float("nan") for v in values), "")
