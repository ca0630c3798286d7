"""The table of features of a layer: what is written here replaces itself, and no column of somebody else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from napari.layers import Labels

#: Metadata key of a layer: the columns of its features that were written here, each with a digest of what it said.
#: A duplicate of the layer has it too, so that what was measured of the one is not taken for a person's in the other.
WRITTEN = "nnunet_columns"


def columns_of_others(layer: Labels) -> list[str]:
    """Return the columns of a layer's features that somebody else made, another plugin or the user.

    Whatever its name: those that were not written here are theirs, and so are those that were changed since.
    """
    written, features = layer.metadata.get(WRITTEN, {}), layer.features
    return [name for name in features.columns if name != "index" and not _is_written(features, name, written)]


def _is_written(features: Any, name: str, written: Mapping[str, int]) -> bool:
    return name in written and _digest(features, name) == written[name]


def _digest(features: Any, name: str) -> int:
    """Return what tells whether a column says what it said, of whatever objects there are; 0 where it cannot be told.

    The order of its rows does not count, nor do rows that say nothing.
    """
    index = features["index"] if "index" in features else range(len(features))
    with suppress(TypeError, ValueError):  # arrays in cells, NA
        told = zip(list(index), features[name].tolist(), strict=True)
        return sum(hash((number, said)) for number, said in told if said == said and said not in ("", False))
    return 0


def write_features(
    layer: Labels, own: Mapping[str, Sequence[Any]], *, renamed: Mapping[int, int | None] | None = None
) -> None:
    """Give a layer features, and keep what others wrote about objects that are still there or may come back.

    Rows of others that are of no object stay at the end, and so do several of one object, such as one per time. A
    column of others with the name of one of ours says "(before)", unless it says the same.

    Parameters
    ----------
    layer : Labels
        The layer.
    own : mapping of str to sequence
        The columns, "index" among them.
    renamed : mapping of int to int, optional
        Which number an object has now; those without one are gone, and with None nobody knows. All have the same
        where it is not given.
    """
    names = columns_of_others(layer)
    table = dict(own)
    if names:
        rows = _rows(layer, renamed)
        others = layer.features[[name for name in names if not _says_the_same(layer.features, name, own, rows)]]
        taken = {*own, *others.columns}
        others = others.rename(columns={name: _free(name, taken) for name in others.columns if name in own})
        table = _joined(own, others, rows) if len(others.columns) else table
    layer.features = table
    shown = layer.features
    layer.metadata[WRITTEN] = {name: _digest(shown, name) for name in own if name != "index"}


def renamings(layer: Labels, numbers: Sequence[Mapping[int, int]]) -> dict[int, int | None]:
    """Return which number an object of a layer's table has now, None where it is that of several objects, or of none.

    Parameters
    ----------
    layer : Labels
        The layer.
    numbers : sequence of mapping of int to int
        The new number of each, of every time point.
    """
    found: dict[int, int | None] = {}
    for _, number, _ in _rows(layer, None):
        if number:
            now = {own[number] for own in numbers if number in own}
            found[number] = next(iter(now)) if len(now) == 1 else None
    return found


def _says_the_same(
    features: Any, name: str, own: Mapping[str, Sequence[Any]], rows: Sequence[tuple[int, int | None, Any]]
) -> bool:
    """Whether a column of others has the name of one of ours, and says nothing else."""
    if name not in own:
        return False
    ours: dict[int | None, Any] = dict(zip(map(int, own["index"]), own[name], strict=True))
    nothing = _nothing(own[name])
    return all(_alike(features[name].iloc[place], ours.get(number, nothing)) for place, number, _ in rows)


def _alike(one: Any, other: Any) -> bool:
    """Whether two cells say the same; a number and its text do, and so do two that are NaN."""
    if str(one) == str(other):
        return True
    with suppress(TypeError, ValueError):  # what cannot be compared is not the same
        same = one == other
        return isinstance(same, bool | np.bool_) and bool(same)  # NA and arrays say neither
    return False


def _free(name: str, taken: set[str]) -> str:
    """Return what a column is called whose name was taken."""
    names = (f"{name} (before)", *(f"{name} (before {i})" for i in range(2, 1000)))
    return next(new for new in names if new not in taken)


def _rows(layer: Labels, renamed: Mapping[int, int | None] | None) -> list[tuple[int, int | None, Any]]:
    """Return the place of each row, the number of the object that it is of, None where it is of none, and its index.

    Rows of a number that is nobody's or several objects' now are of none; they say which it was. Without an index, a
    row's place is the number. Rows of objects that are gone are left out.
    """
    found: list[tuple[int, int | None, Any]] = []
    for place, index in enumerate(layer.features["index"] if "index" in layer.features else range(len(layer.features))):
        number = None
        with suppress(TypeError, ValueError, OverflowError):  # a name, nothing, infinity
            number = int(index)
        if number is None or not (isinstance(index, str) or number == index):  # 1.5 is not 1
            found.append((place, None, index))
            continue
        now = number if renamed is None or number == 0 else renamed.get(number)
        if now is not None:
            found.append((place, now, now))
        elif renamed is not None and number in renamed:
            found.append((place, None, f"{number} before"))
    return found


def _joined(
    own: Mapping[str, Sequence[Any]], others: Any, rows: Sequence[tuple[int, int | None, Any]]
) -> dict[str, Any]:
    """Return our columns and those of others, with at least a row for every number that either knows."""
    known = {int(number): place for place, number in enumerate(own["index"])}
    theirs: dict[int, list[int]] = {}
    for place, number, _ in rows:
        if number is not None:
            theirs.setdefault(number, []).append(place)
    more = sorted(set(theirs) - set(known))
    if more and list(known) == list(range(len(known))) and more[-1] < 2 * len(known) + len(more):
        more = list(range(len(known), more[-1] + 1))  # napari takes the place of a row for the number
    placed = [(number, place) for number in (*known, *more) for place in theirs.get(number, [-1])]
    apart = [(index, place) for place, number, index in rows if number is None]  # of no object
    index = [index for index, _ in (*placed, *apart)]
    found: dict[str, Any] = {"index": np.array(index, dtype=object) if apart else index}
    for name, values in own.items():
        if name != "index":
            told = [_nothing(values) if n not in known else values[known[n]] for n, _ in placed]
            found[name] = [*told, *[_nothing(values)] * len(apart)]
    taken = others.set_axis(range(len(others)), axis=0).reindex([place for _, place in (*placed, *apart)])
    return {**found, **{name: taken[name].to_numpy() for name in others.columns}}


def _nothing(values: Sequence[Any]) -> Any:
    """Return what stands where nothing was measured."""
    return next(("" if isinstance(v, str) else False if isinstance(v, bool) else float("nan") for v in values), "")
