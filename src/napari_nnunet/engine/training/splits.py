"""Which cases train and which validate in every fold: nnU-Net's five folds, or those of splits_final.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from napari_nnunet.errors import DatasetError, counted, some

FOLDS = 5
_SEED = 12345
_TRAIN_SHARE = 0.8


@dataclass(frozen=True)
class Split:
    """The cases of one fold.

    Parameters
    ----------
    train, val : tuple of str
        Names; as in splits_final.json.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]


def make_splits(cases: Sequence[str], folds: int = FOLDS) -> tuple[Split, ...]:
    """Return a cross-validation: every case validates once.

    Equal to scikit-learn's ``KFold(folds, shuffle=True, random_state=12345)`` over the sorted names.

    Raises
    ------
    DatasetError
        If there are fewer cases than folds.
    """
    names = np.array(sorted(cases))
    if not 2 <= folds <= len(names):
        raise DatasetError(
            f"{counted(len(names), 'case')} cannot be split into {folds} folds. Train the fold 'all', ask for "
            "fewer folds (at least 2), or add cases."
        )
    order = np.arange(len(names))
    np.random.RandomState(_SEED).shuffle(order)
    sizes = [len(names) // folds + (1 if i < len(names) % folds else 0) for i in range(folds)]
    found, start = [], 0
    for size in sizes:
        held = np.zeros(len(names), dtype=bool)
        held[order[start : start + size]] = True
        found.append(Split(tuple(names[~held].tolist()), tuple(names[held].tolist())))
        start += size
    return tuple(found)


def group_splits(groups: Mapping[str, str], folds: int) -> tuple[Split, ...]:
    """Return a cross-validation in which no group trains and validates at once.

    As many folds as groups leave one group out each, in the order of their names. Otherwise large groups are dealt out
    first, each to the fold with the fewest cases, so that folds of unequal groups come out about equally large.

    Parameters
    ----------
    groups : mapping of str to str
        The group of every case.
    folds : int
        How many, at least 2.

    Raises
    ------
    DatasetError
        If there are fewer groups than folds.
    """
    members: dict[str, list[str]] = {}
    for case in sorted(groups):
        members.setdefault(groups[case], []).append(case)
    if len(members) == 1:
        raise DatasetError(
            f"All {len(groups)} cases are in one group ('{next(iter(members))}'), so that none is left to validate. "
            "Group them otherwise, or train the fold 'all'."
        )
    if not 2 <= folds <= len(members):
        raise DatasetError(
            f"{len(groups)} cases in {len(members)} groups cannot be split into "
            f"{folds} folds; a fold needs a group of its own. Ask for fewer folds (at least 2), or group otherwise."
        )
    names = sorted(members)
    held: list[list[str]] = [[] for _ in range(folds)]
    if folds == len(names):
        held = [members[name] for name in names]
    else:
        np.random.RandomState(_SEED).shuffle(names)
        for name in sorted(names, key=lambda name: -len(members[name])):
            min(held, key=len).extend(members[name])
    everyone = sorted(groups)
    return tuple(Split(tuple(name for name in everyone if name not in set(val)), tuple(sorted(val))) for val in held)


def split_of(cases: Sequence[str], fold: int | str, splits: Sequence[Split]) -> Split:
    """Return the split of a fold.

    Parameters
    ----------
    cases : sequence of str
        All preprocessed cases.
    fold : int or "all"
        "all" trains and validates on every case. A number beyond the list is a random 80:20 split with that seed.
    splits : sequence of Split
        Content of splits_final.json.

    Raises
    ------
    DatasetError
        If the fold is negative, or names cases that are not there.
    """
    names = sorted(cases)
    if fold == "all":
        return Split(tuple(names), tuple(names))
    number = int(fold)
    if number < 0:
        raise DatasetError(f"There is no fold {fold}; folds are 0, 1, ... or 'all'.")
    if number >= len(splits):
        chosen = np.random.RandomState(_SEED + number).choice(len(names), int(len(names) * _TRAIN_SHARE), replace=False)
        train = tuple(names[i] for i in chosen)
        return Split(train, tuple(name for name in names if name not in set(train)))
    split = splits[number]
    missing = sorted({*split.train, *split.val} - set(names))
    if missing:
        listed, are = some(missing), counted(len(missing), "case is", "cases are")
        raise DatasetError(
            f"splits_final.json, fold {number}: {are} not preprocessed ({listed}).",
            shell="Preprocess them, or delete the file to make new folds.",
            window="Preprocess them, or make new folds with 'Folds…' in the Train dock.",
        )
    return split
