"""What shows only when cases, classes and folds are held against each other; said before hours are spent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from napari_nnunet.engine.image.intensities import FAR_RANGE
from napari_nnunet.engine.image.likeness import alike
from napari_nnunet.engine.training.splits import Split
from napari_nnunet.errors import NnunetError, counted, some
from napari_nnunet.formats.dataset.case_trash import OBJECTS
from napari_nnunet.formats.dataset.groups import Groups
from napari_nnunet.formats.dataset.objects import look_at_drawn
from napari_nnunet.jobs.dataset.case_checks import CaseFacts, Problem, empty_problems
from napari_nnunet.jobs.dataset.splits import apart_warning, never_see, parted_groups
from napari_nnunet.schema.dataset import DatasetInfo, LabelScheme
from napari_nnunet.volume import by_text

_LEAST_OF_CT = 10.0  # Hounsfield units between the darkest and the brightest voxels; 0 to 1 is no CT any more
_TOLD = 8  # warnings of one kind that planning gives
_PAIRS = 100  # of like images after which planning looks no further
_SEVERAL = 4  # cases, from which on most of them tell what is usual


def intensity_problems(channels: Sequence[str], facts: Mapping[str, CaseFacts]) -> Iterable[Problem]:
    """Name cases whose intensities are far from those of most: scaled, of other bits, without CT's offset.

    Parameters
    ----------
    channels : sequence of str
        Names; CT has units of its own, in which an offset counts.
    facts : mapping
        Of all cases that could be read.
    """
    if len(facts) < _SEVERAL:
        return
    for c, channel in enumerate(channels):
        ranges = {name: ends for name, f in facts.items() if c < len(f.intensities) and (ends := f.intensities[c])}
        ranges = {name: (low, high) for name, (low, high) in ranges.items() if high > low}
        if len(ranges) < _SEVERAL:
            continue
        low, high = np.median(list(ranges.values()), axis=0)
        usual = max(high - low, np.finfo(float).tiny)
        if channel.casefold() == "ct" and usual < _LEAST_OF_CT:
            text = f"the intensities of {channel} run from {low:.4g} to {high:.4g} in most cases, not in Hounsfield "
            text += "units. Were the images scaled? What is segmented later must be scaled alike"
            yield Problem("warning", "dataset.json", text)
        moved = 0.5 if channel.casefold() == "ct" else FAR_RANGE
        for name, (first, last) in sorted(ranges.items()):
            ratio, shift = (last - first) / usual, min(abs(first - low), abs(last - high)) / usual
            if not 1 / FAR_RANGE <= ratio <= FAR_RANGE or shift > moved:
                text = f"the intensities of {channel}, {first:.4g} to {last:.4g}, are far from the usual"
                text += f" {low:.4g} to {high:.4g}. Was the image scaled, or is it in other units?"
                yield Problem("warning", name, text)


def object_problems(folder: Path) -> Iterable[Problem]:
    """Name cases whose labels are not what was drawn from their numbered objects; none of a dataset of classes."""
    try:
        drawn = look_at_drawn(folder)
    except NnunetError as error:
        yield Problem.of(folder.name, error)
        return
    if drawn.stale:
        text = "the objects changed since cores and borders were drawn from them; planning draws them again"
        yield Problem("warning", some(drawn.stale), text, "draw_again")
    if drawn.changed:
        text = f"the labels are not those that were drawn from the objects in {OBJECTS}. Correct the objects instead"
        shell = f"{text}; derive_objects draws the labels again"
        yield Problem("error", some(drawn.changed), shell, "draw_again", text)
    for case in drawn.without:
        text = f"it has labels, but no file in {OBJECTS}; in a dataset of objects every case needs one"
        yield Problem("error", case, text, "drop_case")


def name_problems(scheme: LabelScheme) -> Iterable[Problem]:
    """Name classes without a name, and names that nobody tells apart."""
    plain: dict[str, list[str]] = {}
    for name in scheme.labels:
        plain.setdefault(" ".join(name.split()).casefold(), []).append(name)
    for key, names in plain.items():
        values = [scheme.labels[name] for name in names]
        if not key:
            text = (
                f"the class with the value {some([str(value) for value in values])} has no name; write one in 'labels'"
            )
            yield Problem("warning", "dataset.json", text)
        elif len(names) > 1:
            text = f"the classes {' and '.join(map(repr, names))} differ in capitals and blanks only; are they one?"
            yield Problem("warning", "dataset.json", text)


def fold_problems(
    scheme: LabelScheme, facts: Mapping[str, CaseFacts], splits: Sequence[Split], groups: Groups | None = None
) -> Iterable[Problem]:
    """Name classes that only one case has, or that the training of a fold never sees, and patients that folds part."""
    for value in scheme.foreground_labels:
        holders = sorted(name for name, fact in facts.items() if value in fact.labels)
        label = next((name for name, own in scheme.labels.items() if own == value), str(value))
        if len(holders) == 1 and len(facts) > 1:
            text = f"only this case has the class '{label}' ({value}): the fold that validates on it never learns it"
            yield Problem("warning", holders[0], text)
            continue
        for fold in never_see(splits, holders):
            text = (
                f"the training of fold {fold} never sees the class '{label}' ({value}), which only {some(holders)} "
                "have."
            )
            shell = f"{text} Move one of them in splits_final.json, or group the cases otherwise"
            window = f"{text} Make other folds with 'Folds…' in the Train dock"
            yield Problem("warning", "splits_final.json", shell, in_window=window)
    for text in parted_groups(splits, groups) if groups else ():
        yield Problem("warning", "splits_final.json", text.rstrip("."))
    note = None if groups else apart_warning(splits, sorted(facts))
    if note is not None:
        yield Problem("warning", "splits_final.json", note.text.rstrip("."), in_window=note.in_window.rstrip("."))


def thin_problems(facts: Mapping[str, CaseFacts]) -> Iterable[Problem]:
    """Name volumes that are one voxel thick."""
    thin = {
        name: [axis for axis, n in zip("zyx", fact.shape, strict=True) if n == 1]
        for name, fact in sorted(facts.items())
        if len(fact.shape) == 3 and 1 in fact.shape
    }
    if not thin:
        return
    axes = sorted({axis for found in thin.values() for axis in found}, reverse=True)
    where = some(list(thin))
    if len(thin) == len(facts) and axes == ["z"]:
        yield Problem("warning", where, "every volume is one slice: only a 2d network can be trained")
        return
    text = f"{'this volume is' if len(thin) == 1 else 'these volumes are'} one voxel thick along {' and '.join(axes)}"
    yield Problem("warning", where, f"{text}. Was a slice saved as a volume, or the axes mixed up?", "drop_case")


def twin_problems(facts: Mapping[str, CaseFacts], most: int = 1000) -> Iterable[Problem]:
    """Name cases whose images are the same, and about the first ``most`` pairs whose images are nearly so."""
    same: dict[str, list[str]] = defaultdict(list)
    for name, fact in sorted(facts.items()):
        same[fact.digest].append(name)
    for names in same.values():
        if len(names) > 1:
            text = "these cases have the same image; copies in both training and validation inflate the scores"
            yield Problem("warning", some(names), text, "drop_case")
    known = {name: fact.likeness for name, fact in facts.items() if fact.likeness is not None}
    for (first, second), how in sorted(alike(known, most).items()):
        if facts[first].digest != facts[second].digest:
            text = (
                f"the images of these cases{f', {how},' if how else ''} are nearly the same; where one is a copy of "
                "the other, they must not be in training and validation at once"
            )
            yield Problem(
                "warning",
                f"{first}, {second}",
                f"{text} (--group_by)",
                in_window=f"{text}: give them one group in 'Groups' of the Training cases dock, or remove one of them",
            )


def measured_problems(info: DatasetInfo, facts: Mapping[str, CaseFacts]) -> Iterable[Problem]:
    """Name what is odd about cases that were measured and not checked: few sentences, however many cases there are.

    Parameters
    ----------
    info : DatasetInfo
        What dataset.json says.
    facts : mapping
        Of all cases; ``digest``, ``labels``, ``likeness`` and ``intensities`` are looked at.
    """
    found = [p for name, fact in facts.items() for p in empty_problems(name, fact.labels, info.labels)]
    for listed, text in by_text({problem.where: [problem.text] for problem in found}):
        yield Problem("warning", listed, text)
    for problems in (list(intensity_problems(info.channel_names, facts)), list(twin_problems(facts, _PAIRS))):
        yield from problems[:_TOLD]
        if len(problems) > _TOLD:
            least = "at least " if len(problems) >= _PAIRS else ""
            text = f"{least}{counted(len(problems) - _TOLD, 'more warning')} like this"
            shell = f"{text}; verify_dataset_integrity lists all"
            yield Problem("warning", "other cases", shell, in_window=f"{text}; the check of the dataset lists all")
