"""splits_final.json, and what is said of folds before any training: patients that they part."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from napari_nnunet.engine.training.splits import FOLDS, Split, group_splits, make_splits
from napari_nnunet.errors import DatasetError, counted, some
from napari_nnunet.events import Note
from napari_nnunet.formats.dataset.groups import Groups, likely_pattern, read_groups
from napari_nnunet.schema.json_text import read_json, shortened

SPLITS_FILE = "splits_final.json"
_TOGETHER = "fill in 'Groups' in the Training cases dock, or make folds of groups with 'Folds…' in the Train dock."
NEW_FOLDS = "Make new folds with 'Folds…' in the Train dock, or train the fold 'all'."


def read_splits(path: Path) -> tuple[Split, ...]:
    """Read splits_final.json.

    Raises
    ------
    DatasetError
        If it is none.
    """
    content = read_json(path, DatasetError)
    try:
        if not isinstance(content, list):
            raise TypeError(f"it holds {type(content).__name__}")
        return tuple(Split(_names(entry["train"]), _names(entry["val"])) for entry in content)
    except (ValueError, KeyError, TypeError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else error
        raise DatasetError(
            f'{path} cannot be read ({why}). It must be a list of {{"train": [names], "val": [names]}}; delete it to '
            "make new folds."
        ) from error


def _names(found: Any) -> tuple[str, ...]:
    """Return the names in a list; a text would be taken for its letters, and a table for its keys."""
    if not isinstance(found, list) or not all(isinstance(name, str | int) for name in found):
        raise TypeError(f"{shortened(found)} is not a list of names")
    return tuple(map(str, found))


def five_splits(cases: Sequence[str]) -> tuple[Split, ...]:
    """Return nnU-Net's five folds, fewer of fewer cases; raises DatasetError for a single case."""
    if len(cases) < 2:
        raise DatasetError(
            "There is only one case, so none is left for validation. Train the fold 'all', or add cases."
        )
    return make_splits(cases, min(FOLDS, len(cases)))


def usual_splits(cases: Sequence[str], groups: Groups | None) -> tuple[Split, ...]:
    """Return the folds that are made where nobody asks for others: nnU-Net's, or such that keep groups together."""
    if groups is None:
        return five_splits(cases)
    return group_splits(groups.of, min(FOLDS, len(set(groups.of.values()))))


def in_both(split: Split) -> list[str]:
    """Return the cases of a fold that train and validate."""
    return sorted(set(split.train) & set(split.val))


def never_see(splits: Sequence[Split], holders: Collection[str]) -> list[int]:
    """Return the folds that train with none of the cases that have a class, where any case has it."""
    return [i for i, split in enumerate(splits) if holders and not set(holders) & set(split.train)]


def repeated(split: Split) -> list[str]:
    """Return the cases that a fold lists several times for training, or for validation."""
    return sorted({name for part in (split.train, split.val) for name, count in Counter(part).items() if count > 1})


def fold_faults(splits: Sequence[Split], cases: Sequence[str]) -> list[str]:
    """Return what contradicts the cases there are, or itself; the same fault of several folds is one sentence."""
    there, folds = set(cases), defaultdict[str, list[str]](list)
    for number, split in enumerate(splits):
        for names, fault in (
            (sorted({*split.train, *split.val} - there), "not in the dataset: this fold cannot be trained"),
            (in_both(split), "in training and validation at once: this fold cannot be trained"),
            (repeated(split), "listed more than once; each time counts"),
        ):
            if names:
                folds[f"{_counted(names)} {fault}"].append(str(number))
        if not split.train or not split.val:
            text = (
                f"{counted(len(split.train), 'case')} for training and {len(split.val)} for validation; both need some"
            )
            folds[text].append(str(number))
    for numbers, names in validated_twice(splits).items():
        folds[f"{_counted(names)} {_TWICE}"] = list(map(str, numbers))
    return [f"fold {', '.join(numbers)}: {text}" for text, numbers in folds.items()]


_TWICE = "in the validation of each; what is compared over all folds counts each time"


def validated_twice(splits: Sequence[Split]) -> dict[tuple[int, ...], list[str]]:
    """Return the cases that several folds validate, by the numbers of these folds."""
    numbers, found = defaultdict[str, list[int]](list), defaultdict[tuple[int, ...], list[str]](list)
    for number, split in enumerate(splits):
        for name in dict.fromkeys(split.val):
            numbers[name].append(number)
    for name, folds in sorted(numbers.items()):
        if len(folds) > 1:
            found[tuple(folds)].append(name)
    return found


def twice_warning(splits: Sequence[Split]) -> tuple[str, ...]:
    """Return what is said of cases that several folds validate; nothing where there are none."""
    found = validated_twice(splits)
    names = sorted({name for listed in found.values() for name in listed})
    text = (
        f"{SPLITS_FILE}: {_counted(names)} in the validation of several folds; what is compared over all folds counts"
    )
    return (f"{text} each time.",) if names else ()


def repeat_warning(split: Split, fold: int | str) -> tuple[str, ...]:
    """Return what is said of cases that a fold lists several times; nothing where there are none."""
    names = repeated(split)
    text = f"{SPLITS_FILE}, fold {fold}: {_counted(names)} listed more than once; each time counts."
    return (text,) if names else ()


def require_usable(split: Split, fold: int | str, path: Path) -> None:
    """Raise DatasetError where a fold of a file trains and validates with the same cases, or lacks either."""
    both = in_both(split)
    if both:
        raise DatasetError(
            f"Fold {fold} in {path} has {len(both)} of its cases in both training and validation: "
            f"{some(both)}. Its scores would mean nothing.",
            shell="Correct the file, or train the fold 'all'.",
            window=NEW_FOLDS,
        )
    if not split.train or not split.val:
        raise DatasetError(
            f"Fold {fold} has {len(split.train)} training and {len(split.val)} validation cases; both need some.",
            shell="Correct splits_final.json, or train the fold 'all'.",
            window=NEW_FOLDS,
        )


def _counted(names: Sequence[str]) -> str:
    return f"the case {names[0]} is" if len(names) == 1 else f"{len(names)} cases ({some(names)}) are"


def apart_warning(splits: Sequence[Split], cases: Sequence[str]) -> Note | None:
    """Return what to say where names look like several images of a patient, and folds part these; None if not."""
    pattern = likely_pattern(cases)
    if pattern is None:
        return None
    of = read_groups(cases, pattern).of
    parted: set[str] = set()
    for split in splits:
        parted |= {of[name] for name in split.train if name in of} & {of[name] for name in split.val if name in of}
    if not parted:
        return None
    group = min(parted)
    members = sorted(name for name in cases if of[name] == group)
    text = (
        f"{some(members)} look like images of one patient, but would be in training and validation at once, as those "
        f"of {len(parted)} patients are: the scores come out too high. Where that is so,"
    )
    return Note(
        level="warning", text=f"{text} keep them together with --group_by '{pattern}'.", in_window=f"{text} {_TOGETHER}"
    )


def parted_groups(splits: Sequence[Split], groups: Groups) -> list[str]:
    """Return what is said of groups that folds part; nothing where they keep them together."""
    of = groups.of
    parted: set[str] = set()
    for split in splits:
        parted |= {of[name] for name in split.train if name in of} & {of[name] for name in split.val if name in of}
    if not parted:
        return []
    what = counted(len(parted), "group has", "groups have")
    return [
        f"{what} cases in training and validation at once ({some(sorted(parted))}): the scores come out too high. Make "
        "folds that keep them together."
    ]
