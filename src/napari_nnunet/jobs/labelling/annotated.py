"""Which classes were looked for in which cases of a raw dataset: shown, and said."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from napari_nnunet.errors import DatasetError, some
from napari_nnunet.events import Job, Note, Progress, Stage
from napari_nnunet.formats.dataset.changing import changing
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase, said, survey
from napari_nnunet.formats.dataset.raw_writer import change_json
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.dataset import (
    ANNOTATED,
    DatasetInfo,
    looked_for,
    unlooked_in_words,
    unlooked_values,
)
from napari_nnunet.schema.requests.dataset import AnnotatedClassesRequest

_ALL = "all"


def annotated_classes(workspace: Workspace, request: AnnotatedClassesRequest) -> Job[dict[str, tuple[str, ...]]]:
    """Say which classes were looked for in cases of a raw dataset; without classes, only show it.

    Returns
    -------
    dict of str to tuple of str
        The classes that were looked for, of every case.

    Raises
    ------
    DatasetError
        If there is no such case or class, or a case shows a class that is said not to have been looked for.
    SettingsError
        If another process changes the dataset.
    """
    folder = workspace.raw / workspace.dataset_name(request.dataset)
    if request.classes:
        with changing(folder):
            yield from _say(folder, request)
    dataset, _ = survey(folder)
    info = dataset.info
    return {case.name: info.annotated.get(case.name, info.labels.classes) for case in dataset.cases}


def _say(folder: Path, request: AnnotatedClassesRequest) -> Job[None]:
    dataset, _ = survey(folder)
    info, names = dataset.info, [case.name for case in dataset.cases]
    chosen = [case for case in dataset.cases if case.name in _chosen(names, request.cases)]
    looked = () if _ALL in request.classes else looked_for(request.classes, info.labels, "--classes")
    entry = said(info, names, [case.name for case in chosen], looked)
    told = DatasetInfo.parse({**info.raw, ANNOTATED: entry}, where=str(folder / "dataset.json"))
    yield from _require_none_drawn(told, chosen)
    change_json(folder, **{ANNOTATED: entry})
    yield Note(
        text=f"{folder / 'dataset.json'} says now which classes were looked for in {len(chosen)} of {len(names)} cases."
    )


def _require_none_drawn(info: DatasetInfo, cases: Sequence[TrainingCase]) -> Job[None]:
    yield Stage(name="Reading the labels", total=len(cases))
    for i, case in enumerate(cases):
        drawn = unlooked_values(info, case.name, np.unique(read_labels(case.label, reader=info.reader)[0]))
        if drawn:
            raise DatasetError(f"{case.label.name}: {unlooked_in_words(drawn, info, case.name)}. Nothing was changed.")
        yield Progress(done=i + 1, total=len(cases))


def _chosen(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Return the cases that are named; every one where none is."""
    missing = [p for p in patterns if not any(fnmatchcase(name, p) for name in names)]
    if missing:
        raise DatasetError(f"No case is called {missing[0]!r}; the {len(names)} cases are called {some(names, 3)}.")
    return [name for name in names if not patterns or any(fnmatchcase(name, p) for p in patterns)]
