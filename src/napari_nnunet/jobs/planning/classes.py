"""Which cases have which classes, and what that means for the folds, said before hours are spent on training."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from napari_nnunet.engine.training.splits import Split
from napari_nnunet.errors import NnunetError, some
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.splits import never_see
from napari_nnunet.jobs.planning.folds import folds_of, own_groups
from napari_nnunet.jobs.planning.freshness import files_digest
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.json_text import NOTED, message
from napari_nnunet.schema.requests.planning import FoldSettings

MEASURED_FROM = "dataset_fingerprint_sources.json"  # ours alone: what the fingerprint was measured from
VALUES_MEASURED = "dataset_fingerprint_values.json"  # ours alone: the label values of every case
VALUES_OF_CASES = "classes"  # their key


def measured_values(base: Path, cases: Sequence[TrainingCase]) -> dict[str, Collection[int]]:
    """Return the label values of every case, as they were measured; nothing where cases or files are others now.

    Parameters
    ----------
    base : Path
        The dataset's folder in nnUNet_preprocessed.
    cases : sequence of TrainingCase
        All there are.
    """
    sources, measured = (message(base / name, largest=NOTED) for name in (MEASURED_FROM, VALUES_MEASURED))
    found = measured.get(VALUES_OF_CASES)
    if not isinstance(found, dict) or set(found) != {case.name for case in cases}:
        return {}
    try:
        same = sources.get("content") == measured.get("content") and sources.get("files") == files_digest(cases)
    except OSError:  # a file that is gone is named elsewhere
        return {}
    if not same:
        return {}
    known: dict[str, Collection[int]] = {name: values for name, values in found.items() if isinstance(values, list)}
    return known if len(known) == len(found) else {}


def class_warning(workspace: Workspace, name: str, scheme: LabelScheme, cases: Sequence[TrainingCase]) -> str:
    """Return what to know of a measured dataset's classes before any training; empty if there is nothing.

    Parameters
    ----------
    workspace : Workspace
        Where the dataset lies.
    name : str
        ``DatasetXXX_Name``.
    scheme : LabelScheme
        Its classes.
    cases : sequence of TrainingCase
        All there are.
    """
    base = workspace.preprocessed / name
    values = measured_values(base, cases)
    splits: tuple[Split, ...] = ()
    with suppress(NnunetError, OSError):  # what is wrong with the folds is said where they are made
        splits = folds_of(base, [case.name for case in cases], FoldSettings(), own_groups(workspace, name)).splits
    return " ".join(class_sentences(scheme, values, splits)) if values else ""


def class_sentences(
    scheme: LabelScheme, values: Mapping[str, Collection[int]], splits: Sequence[Split]
) -> Iterable[str]:
    """Name the classes that no case has, that the training of a fold never sees, or that a fold does not validate."""
    absent, few = [], []
    for value in scheme.foreground_labels:
        label = f"'{next((name for name, own in scheme.labels.items() if own == value), value)}'"
        holders = sorted(name for name, found in values.items() if value in found)
        blind = [str(fold) for fold in never_see(splits, holders)]
        if not holders:
            absent.append(label)
        elif blind:
            one = len(holders) == 1
            remedy = "Add cases that have it." if one else "Make other folds with 'Folds…' in the Train dock."
            yield (
                f"The training of fold {', '.join(blind)} never sees {label}, which only {some(holders)} "
                f"{'has' if one else 'have'}. {remedy}"
            )
        elif any(not set(holders) & set(split.val) for split in splits):
            few.append(f"{label} ({len(holders)} of {len(values)})")
    if absent:
        yield f"No case has {some(absent)}, so {'it' if len(absent) == 1 else 'they'} cannot be learnt."
    if few:
        yield f"Few cases have {some(few)}: not every fold can validate {'it' if len(few) == 1 else 'them'}."
