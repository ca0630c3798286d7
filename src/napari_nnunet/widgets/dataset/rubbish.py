"""What lies in the trash of a dataset and of its workspace."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from napari_nnunet.formats.dataset.case_trash import cases_in_trash, doubts, parts_in_trash
from napari_nnunet.formats.dataset.raw_writer import bring_case_back
from napari_nnunet.formats.dataset.relabel import ALL_LABELS, bring_labels_back
from napari_nnunet.formats.trash import TRASH, trashed
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.manage import bring_dataset_back, datasets_in_trash
from napari_nnunet.widgets.files.trash import Rubbish


def rubbish_of(workspace: Workspace, folder: Path | None) -> list[Rubbish]:
    """Return the cases and labels in the trash of a dataset, then the datasets in that of the workspace."""
    cases: list[Rubbish] = []
    if folder is not None:
        whole = [entry for entry in trashed(folder / TRASH) if entry.name == ALL_LABELS]
        cases = [Rubbish(ALL_LABELS.capitalize(), e.time, partial(bring_labels_back, folder, e)) for e in whole]
        cases += [
            Rubbish(
                f"{entry.name}: {parts_in_trash(entry)}",
                entry.time,
                partial(bring_case_back, folder, entry),
                partial(doubts, folder, entry),
            )
            for entry in cases_in_trash(folder)
        ]
        cases.sort(key=lambda row: row.time, reverse=True)
    datasets = [
        Rubbish(f"Dataset {entry.name}", entry.time, partial(bring_dataset_back, workspace, entry))
        for entry in datasets_in_trash(workspace)
    ]
    return cases + datasets
