"""What looks wrong in labels and was found right is kept beside the dataset, until something changes there."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from pathlib import Path

from napari_nnunet.errors import SettingsError, counted, some
from napari_nnunet.events import Job, Note
from napari_nnunet.formats.results.accepted import ACCEPTED_FILE, Accepted, accept, read_accepted, take_back
from napari_nnunet.jobs.labelling.suspects import WHOLE, Examined
from napari_nnunet.schema.dataset import LabelScheme


def accept_label(folder: Path, case: Examined, part: int | None, scheme: LabelScheme) -> Job[Path]:
    """Keep that labels are right where they look wrong: they are not suspected again while nothing changes there.

    Parameters
    ----------
    folder : Path
        The dataset: what is kept lies in its ``accepted_labels.csv``.
    case : Examined
        A case that looks wrong.
    part : int, optional
        Which of its parts; the whole case, of which no part stands out, if not given.
    scheme : LabelScheme
        What the labels mean, for the words in the file.

    Returns
    -------
    Path
        The file.
    """
    yield Note(text=f"{case.name}: the label is right.", level="detail")
    return accept(folder, [_entry(case, part, scheme)])


def doubt_label(folder: Path, case: Examined, part: int | None, scheme: LabelScheme) -> Job[Path]:
    """Take back that labels are right: they are suspected again. See :func:`accept_label`."""
    yield Note(text=f"{case.name}: the label is doubted again.", level="detail")
    mine = _entry(case, part, scheme)
    wanted = [
        entry for entry in read_accepted(folder) if entry.case == case.name and (entry.is_whole or _near(entry, mine))
    ]
    return take_back(folder, wanted)


def _near(entry: Accepted, mine: Accepted) -> bool:
    """Return whether an entry is about the part that is meant; another network may have seen it a little otherwise."""
    apart = [(b <= c or d <= a) for (a, b), (c, d) in zip(entry.box, mine.box, strict=False)]
    return (entry.drawn, entry.seen) == (mine.drawn, mine.seen) and not any(apart)


def _entry(case: Examined, part: int | None, scheme: LabelScheme) -> Accepted:
    if part is None:
        return Accepted(case.name, None, None, case.differing, (), case.mark, "the whole case")
    own, names = case.parts[part], scheme.names
    drawn, seen = (names.get(value, str(value)) for value in (own.label, own.seen))
    return Accepted(case.name, own.label, own.seen, own.voxels, own.box, own.mark, f"{drawn}, seen as {seen}")


def accept_cases(
    folder: Path, judged: MutableMapping[str, Examined], wanted: Sequence[str], scheme: LabelScheme
) -> Job[None]:
    """Accept cases, or parts of them as "CASE:PART", and note it in ``judged``.

    Raises
    ------
    SettingsError
        If there is no such case or part; nothing is accepted then.
    """
    numbers: dict[str, set[int]] = {}
    for text in wanted:
        name, _, part = text.rpartition(":") if text not in judged else (text, "", "")
        case = judged.get(name)
        if case is None:
            raise SettingsError(
                f"No case {text} was examined. Name a case of suspects.csv, or one of its parts as CASE:2."
            )
        if part and part not in map(str, range(1, len(case.parts) + 1)):
            raise SettingsError(
                f"{name} has {counted(len(case.parts), 'part')} that may be accepted; {text} is none of them."
            )
        numbers[name] = numbers.get(name, set()) | ({int(part) - 1} if part else _all_of(case))
    if numbers:
        parts = [(judged[name], own) for name, found in numbers.items() for own in sorted(found)]
        path = accept(folder, [_entry(case, None if own == WHOLE else own, scheme) for case, own in parts])
        for name, found in numbers.items():
            judged[name] = judged[name].with_accepted({*judged[name].accepted, *found})
        yield Note(text=f"{some(list(numbers))}: the labels are right. {path} keeps it.")


def _all_of(case: Examined) -> set[int]:
    """Return the numbers of all parts of a case: others, that are seen there later, are not accepted by that."""
    return set(range(len(case.parts))) or {WHOLE}


def take_back_cases(folder: Path, wanted: Sequence[str]) -> None:
    """Doubt cases again.

    Raises
    ------
    SettingsError
        If nothing of a case was accepted.
    """
    entries = read_accepted(folder) if wanted else ()
    known = {entry.case for entry in entries}
    if missing := [name for name in wanted if name not in known]:
        raise SettingsError(
            f"Nothing of {some(missing)} was accepted, so that it cannot be doubted again. "
            f"{folder / ACCEPTED_FILE} has {some(sorted(known)) or 'no case'}."
        )
    if wanted:
        take_back(folder, [entry for entry in entries if entry.case in wanted])
