"""The folds of a dataset: which cases train and which validate, shown, made and kept in splits_final.json."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from napari_nnunet.engine.training.splits import FOLDS, Split, group_splits, make_splits
from napari_nnunet.errors import DatasetError, counted, of_all, some
from napari_nnunet.events import Job, Note
from napari_nnunet.formats.atomic import copy_file, write_json
from napari_nnunet.formats.claim import claimed, is_claimed
from napari_nnunet.formats.dataset.groups import Groups, read_groups, stored_groups
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.model.fold import folds_in_use
from napari_nnunet.formats.preprocessed.cases import case_names
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.splits import (
    SPLITS_FILE,
    apart_warning,
    five_splits,
    fold_faults,
    parted_groups,
    read_splits,
)
from napari_nnunet.schema.requests.planning import FoldSettings, FoldsRequest

_PATIENCE = 10.0  # seconds; folds are made at once
_PAUSE = 0.05


@dataclass(frozen=True)
class FoldRow:
    """A fold, as a table shows it.

    Parameters
    ----------
    fold : int
        Its number.
    train, val : int
        How many cases.
    held : tuple of str
        Groups that validate, or cases where there are no groups.
    """

    fold: int
    train: int
    val: int
    held: tuple[str, ...]


@dataclass(frozen=True)
class FoundFolds:
    """Which cases train and which validate.

    Parameters
    ----------
    splits : tuple of Split
        As in splits_final.json.
    groups : Groups, optional
        What was kept together, where that was asked for.
    stored : bool
        Whether splits_final.json says so already.
    warnings : tuple of Note
        What to look at before hours are spent.
    """

    splits: tuple[Split, ...]
    groups: Groups | None = None
    stored: bool = False
    warnings: tuple[Note, ...] = ()

    @property
    def rows(self) -> tuple[FoldRow, ...]:
        """The folds as lines of a table."""
        of = {} if self.groups is None else self.groups.of
        return tuple(
            FoldRow(i, len(split.train), len(split.val), tuple(sorted({of.get(name, name) for name in split.val})))
            for i, split in enumerate(self.splits)
        )


def look_at_folds(workspace: Workspace, dataset: str, request: FoldSettings) -> FoundFolds:
    """Return the folds that a request means, and write nothing: those asked for, else those there are or would be made.

    Parameters
    ----------
    workspace : Workspace
        Where the dataset lies.
    dataset : str
        Number or name.
    request : FoldSettings
        What is asked for.

    Raises
    ------
    DatasetError
        If there is no such dataset, or its cases cannot be split like that.
    SettingsError
        If a pattern or a table of groups cannot be read.
    """
    name = workspace.dataset_name(dataset)
    return folds_of(workspace.preprocessed / name, _cases(workspace, name), request, own_groups(workspace, name))


def fold_job(workspace: Workspace, request: FoldsRequest) -> Job[FoundFolds]:
    """Return the folds that a request means; those that are asked for are written, unless it is a dry run.

    Raises
    ------
    DatasetError, SettingsError
        As :func:`look_at_folds`, and if models were trained with other folds.
    """
    if request.asks and not request.dry_run:
        name = workspace.dataset_name(request.dataset)
        return (yield from make_folds(workspace, name, _cases(workspace, name), request))
    found = look_at_folds(workspace, request.dataset, request)
    yield from found.warnings
    return found


def own_groups(workspace: Workspace, name: str) -> str | None:
    """Return the table of groups that a dataset has, None where it has none."""
    return stored_groups(workspace.raw / name)


def folds_of(base: Path, cases: Sequence[str], request: FoldSettings, own: str | None = None) -> FoundFolds:
    """Return the folds of cases.

    Parameters
    ----------
    base : Path
        The dataset's folder in nnUNet_preprocessed, where splits_final.json may lie.
    cases : sequence of str
        All there are.
    request : FoldSettings
        What is asked for; where it is nothing, what the file says, else nnU-Net's five folds.
    own : str, optional
        The dataset's table of groups: folds that are made keep these together, unless others are asked for.
    """
    path = base / SPLITS_FILE
    there = read_splits(path) if path.is_file() else None
    if not request.asks:
        if there is not None:
            known = None if own is None else read_groups(cases, own)
            return FoundFolds(there, known, True, tuple(_warnings(there, known, cases)))
        if own is None:
            splits = five_splits(cases)
            return FoundFolds(splits, None, False, tuple(_warnings(splits, None, cases)))
    by = request.group_by or own
    groups = None if by is None else read_groups(cases, by)
    units = len(cases) if groups is None else len(set(groups.of.values()))
    count = units if request.folds == "loo" else request.folds or min(FOLDS, units)
    splits = make_splits(cases, count) if groups is None else group_splits(groups.of, count)
    return FoundFolds(splits, groups, there == splits, tuple(_warnings(splits, groups, cases)))


def make_folds(workspace: Workspace, name: str, cases: Sequence[str], request: FoldSettings) -> Job[FoundFolds]:
    """Write the folds that are asked for to splits_final.json; others that lie there are kept beside it.

    Raises
    ------
    DatasetError
        If the cases cannot be split like that, the raw dataset brings its own folds, or models were trained with
        others.
    """
    base = workspace.preprocessed / name
    with _settling(workspace, name):
        found = folds_of(base, cases, request, own_groups(workspace, name))
        yield from found.warnings
        return found if found.stored else (yield from _exchange(workspace, name, cases, found))


@contextmanager
def _settling(workspace: Workspace, name: str) -> Iterator[None]:
    """Claim the folds of a dataset: nobody makes or replaces them meanwhile, and nobody moves it."""
    base = workspace.preprocessed / name
    with claimed(base, f"The folds of {name} are already being made", part=SPLITS_FILE, patience=_PATIENCE):
        if not ((workspace.raw / name).is_dir() or (base / "dataset.json").is_file()):
            raise DatasetError(
                f"{name} was renamed or removed while its folds were made; choose from the datasets there are now."
            )
        yield


def current_splits(base: Path) -> Sequence[Split]:
    """Return the folds there are, after whoever just makes others has done so."""
    until = time.monotonic() + _PATIENCE
    while is_claimed(base, SPLITS_FILE) and time.monotonic() < until:
        time.sleep(_PAUSE)
    return read_splits(base / SPLITS_FILE)


def _exchange(workspace: Workspace, name: str, cases: Sequence[str], found: FoundFolds) -> Job[FoundFolds]:
    """Write folds in the place of others, which no training may use."""
    base = workspace.preprocessed / name
    own = workspace.raw / name / SPLITS_FILE
    if own.is_file():
        raise DatasetError(f"{own} says which folds there are, so no others can be made. Move it away first.")
    path = base / SPLITS_FILE
    if path.is_file():
        require_no_training(workspace, name)
        kept = _unused(base)
        path.rename(kept)
        yield Note(text=f"The previous folds are kept in {kept.name}.")
    write_splits(path, found.splits)
    yield Note(
        text=f"Made {counted(len(found.splits), 'fold')} of {counted(len(cases), 'case')}{_in_groups(found)}: {path}."
    )
    return FoundFolds(found.splits, found.groups, True, found.warnings)


def require_no_training(workspace: Workspace, name: str, *, more: str = "") -> None:
    """Raise DatasetError where models were trained with the folds of a dataset that others would replace."""
    trained = _trained(workspace.results / name)
    if trained:
        raise DatasetError(
            f"{workspace.preprocessed / name / SPLITS_FILE} has other folds, and {trained[0].parent.name}/"
            f"{trained[0].name} was trained with them: models of different folds cannot be compared. "
            f"{more}Train with the folds there are, or move "
            f"{'this folder' if len(trained) == 1 else f'these {len(trained)} folders'} of folds away first."
        )


def take_raw_folds(workspace: Workspace, name: str, *, dry_run: bool = False) -> None:
    """Take the folds that a raw dataset brings, unless they are there already; a dry run only looks.

    They are there as well where every fold trains with more cases that these do not know: see :func:`adopt_cases`.

    Raises
    ------
    DatasetError
        If models were trained with others.
    """
    own, path = workspace.raw / name / SPLITS_FILE, workspace.preprocessed / name / SPLITS_FILE
    if not own.is_file():
        return
    if path.is_file() and (there := read_splits(path)) != (brought := read_splits(own)):
        if _only_adopted(there, brought):
            return
        require_no_training(workspace, name, more=f"Move {own} away, which says which folds to use now. ")
    if not dry_run:
        copy_file(own, path)


def _only_adopted(there: Sequence[Split], brought: Sequence[Split]) -> bool:
    """Whether folds are others, with cases in addition that these do not know and that every fold trains with."""
    known = {case for split in brought for case in (*split.train, *split.val)}
    return len(there) == len(brought) and all(
        now.val == before.val and tuple(case for case in now.train if case in known) == before.train
        for now, before in zip(there, brought, strict=True)
    )


def settled_splits(
    workspace: Workspace, name: str, cases: Sequence[str], request: FoldSettings
) -> Job[Sequence[Split]]:
    """Return the folds a training goes by; makes those that are asked for, or nnU-Net's where there are none.

    Raises
    ------
    DatasetError
        As :func:`make_folds`, or if there is only one case.
    """
    if request.asks:
        return (yield from make_folds(workspace, name, cases, request)).splits
    path = workspace.preprocessed / name / SPLITS_FILE
    if path.is_file():
        return read_splits(path)
    with _settling(workspace, name):
        take_raw_folds(workspace, name)
        if path.is_file():
            return read_splits(path)
        found = folds_of(path.parent, cases, request, own_groups(workspace, name))
        write_splits(path, found.splits)
    yield from found.warnings
    yield Note(
        text=f"Made {counted(len(found.splits), 'fold')} of {counted(len(cases), 'case')}{_in_groups(found)}: {path}."
    )
    return found.splits


def adopt_cases(workspace: Workspace, name: str, cases: Sequence[str]) -> None:
    """Let every fold there is train with more cases; those that it has already are not doubled."""
    path = workspace.preprocessed / name / SPLITS_FILE
    with _settling(workspace, name):
        splits = read_splits(path)
        known = {case for split in splits for case in (*split.train, *split.val)}
        new = [case for case in cases if case not in known]
        write_splits(path, [Split((*split.train, *new), split.val) for split in splits])


def write_splits(path: Path, splits: Sequence[Split]) -> None:
    """Write splits_final.json."""
    write_json(path, [{"train": list(split.train), "val": list(split.val)} for split in splits])


def _in_groups(found: FoundFolds) -> str:
    return "" if found.groups is None else f" in {counted(len(set(found.groups.of.values())), 'group')}"


def _warnings(splits: Sequence[Split], groups: Groups | None, cases: Sequence[str]) -> Iterator[Note]:
    found = [f"{SPLITS_FILE}, {text}." for text in fold_faults(splits, cases)]
    if groups is None:
        yield from filter(None, [apart_warning(splits, cases)])
    else:
        found += [f"{groups.remark}."] if groups.remark else []
        if groups.alone:
            found.append(
                f"{of_all(len(groups.alone), len(cases), 'case is', 'cases are')} not named by {groups.by}: "
                f"{some(groups.alone)}. Do they belong to a group?"
            )
        found += [*parted_groups(splits, groups), *_spelt_alike(groups)]
        if max(Counter(groups.of.values()).values()) == 1:
            found.append(f"{groups.by} finds a group of its own for every case, so that nothing is kept together.")
    yield from (Note(level="warning", text=text) for text in (*found, *unused_warning(splits, cases)))


def _spelt_alike(groups: Groups) -> list[str]:
    """Return what is said of groups that are one, perhaps: "P01" and "p01", "7" and "007"."""
    spellings: dict[str, set[str]] = defaultdict(set)
    for group in groups.of.values():
        spellings[_plain(group)].add(group)
    same = [" and ".join(sorted(found)) for found in spellings.values() if len(found) > 1]
    text = f"Are these one group? {some(sorted(same))} differ in spelling only, and are kept apart. Write them alike."
    return [text] if same else []


def _plain(group: str) -> str:
    """Return a group without what spellings of one name differ in; a mark between digits stays: P1_1 is not P11."""
    whole = re.sub(r"(?<=\d)\.0+$", "", group.casefold())  # as tables write whole numbers
    marked = re.sub(r"[\W_]+", "-", re.sub(r"(?<!\d)0+(?=\d)", "", whole))
    return re.sub(r"(?<!\d)-|-(?!\d)", "", marked)


def unused_warning(splits: Sequence[Split], cases: Sequence[str]) -> tuple[str, ...]:
    """Return what is said of cases in no fold; nothing where there are none."""
    nowhere = sorted(set(cases) - {name for split in splits for name in (*split.train, *split.val)})
    if not nowhere:
        return ()
    return (f"{of_all(len(nowhere), len(cases), 'case is', 'cases are')} in no fold and never used: {some(nowhere)}.",)


def _trained(results: Path) -> list[Path]:
    """Return the folders of numbered folds that were trained, or are being trained now."""
    folders = {path.parent for path in results.glob("*/fold_*/checkpoint_*.pth")}
    folders |= {fold.path for fold in folds_in_use(results.parent, results.name)}
    return sorted(folder for folder in folders if folder.name.removeprefix("fold_").isdecimal())


def _unused(base: Path) -> Path:
    number = 1
    while (path := base / f"splits_before_{number}.json").exists():
        number += 1
    return path


def _cases(workspace: Workspace, name: str) -> list[str]:
    """Return the cases of a dataset: of the raw one, or where only preprocessed ones are left, of these."""
    raw = workspace.raw / name
    if (raw / "dataset.json").is_file():
        return [case.name for case in open_dataset(raw).cases]
    folders = [path for path in (workspace.preprocessed / name).glob("*") if path.is_dir()]
    return sorted({case for folder in folders for case in case_names(folder)})
