"""Which cases have which classes, and what that means for the folds, said before hours are spent on training."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from napari_nnunet.engine.training.splits import Split
from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.splits import some
from napari_nnunet.jobs.planning.folds import folds_of, own_groups
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.json_text import message
from napari_nnunet.schema.requests.planning import FoldSettings

MEASURED_FROM = "dataset_fingerprint_sources.json"  # ours alone: what the fingerprint was measured from
VALUES_MEASURED = "classes"  # its key: the label values of every case


def measured_values(base: Path, cases: Collection[str]) -> dict[str, Collection[int]]:
    """Return the label values of every case, as they were measured; nothing where these are others than the cases.

    Parameters
    ----------
    base : Path
        The dataset's folder in nnUNet_preprocessed.
    cases : collection of str
        All there are.
    """
    found = message(base / MEASURED_FROM).get(VALUES_MEASURED)
    if not isinstance(found, dict) or set(found) != set(cases):
        return {}
    known: dict[str, Collection[int]] = {name: values for name, values in found.items() if isinstance(values, list)}
    return known if len(known) == len(found) else {}


def class_warning(workspace: Workspace, name: str, scheme: LabelScheme, cases: Sequence[str]) -> str:
    """Return what to know of a measured dataset's classes before any training; empty if there is nothing.

    Parameters
    ----------
    workspace : Workspace
        Where the dataset lies.
    name : str
        ``DatasetXXX_Name``.
    scheme : LabelScheme
        Its classes.
    cases : sequence of str
        All there are.
    """
    base = workspace.preprocessed / name
    values = measured_values(base, cases)
    splits: tuple[Split, ...] = ()
    with suppress(NnunetError, OSError):  # what is wrong with the folds is said where they are made
        splits = folds_of(base, cases, FoldSettings(), own_groups(workspace, name)).splits
    return " ".join(class_sentences(scheme, values, splits)) if values else ""


def class_sentences(
    scheme: LabelScheme, values: Mapping[str, Collection[int]], splits: Sequence[Split]
) -> Iterable[str]:
    """Name the classes that no case has, that the training of a fold never sees, or that a fold does not validate."""
    absent, few = [], []
    for value in scheme.foreground_labels:
        label = f"'{next((name for name, own in scheme.labels.items() if own == value), value)}'"
        holders = sorted(name for name, found in values.items() if value in found)
        blind = [str(i) for i, split in enumerate(splits) if holders and not set(holders) & set(split.train)]
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
        yield f"No case has {some(absent)}, so {'it' if len(absent) == 1 else 'they'} cannot be learned."
    if few:
        yield f"Few cases have {some(few)}: not every fold can validate {'it' if len(few) == 1 else 'them'}."
