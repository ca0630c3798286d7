"""Sizes, times, counts and failures in the units and words people use."""

from __future__ import annotations

import os
import re
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from itertools import takewhile
from pathlib import Path

from napari_nnunet.errors import InternalError, counted, for_people
from napari_nnunet.formats.results.summary import Summary
from napari_nnunet.schema.dataset import BACKGROUND, DatasetInfo
from napari_nnunet.schema.model_name import label_of

_ROOT = re.compile(r"(?<![\w/\\.:-])(?:/|[A-Za-z]:[\\/])(?=[^\s/])")  # where a whole path may begin
_ENDS = re.compile(r"[\s.,;:)'\"]")  # and where it may end; names may hold all of these as well
_WORD = re.compile(r"[^\W\d_]*")  # with which a name begins
_USUAL = {"results", "nnUNet_results"}  # names of folders that tell less than that of the one around them
_TRIED = 40  # ends of one path: every look asks the disk


def path_in(text: str) -> Path | None:
    """Return the first file or folder of this computer that a sentence names, None where it names none that exists."""
    for begin in _ROOT.finditer(text):
        rest = text[begin.start() :].partition("\n")[0]
        ends = [found.start() for found in _ENDS.finditer(rest) if found.start() > len(begin.group())]
        for end in sorted([*ends, len(rest)], reverse=True)[-_TRIED:]:
            if os.path.exists(rest[:end]):
                return Path(rest[:end])
    return None


def plain_time(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 1:
        return "under a second"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def about_time(seconds: float) -> str:
    """Return an estimated duration as the beginning of a sentence."""
    return "Under a second" if seconds < 1 else f"About {plain_time(seconds)}"


def size_text(spacing: Sequence[float]) -> str:
    """Return a voxel size in the unit people use at that scale."""
    if max(spacing) < 0.05:
        return " × ".join(f"{s * 1000:.3g}" for s in spacing) + " µm"
    return " × ".join(f"{s:.3g}" for s in spacing) + " mm"


def times_text(shape: Sequence[int]) -> str:
    """Return a shape with multiplication signs."""
    return " × ".join(str(n) for n in shape)


def telling_parts(names: Sequence[str], fits: Callable[[str], bool]) -> dict[str, str]:
    """Return what is shown of names: where one is too long, without what all names that begin alike share.

    First goes their beginning, and where that is not enough, what they end with; numbers stay whole.
    """
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault("".join(_WORD.findall(name)[:1]), []).append(name)
    shown: dict[str, str] = {}
    for family in families.values():
        front = _shared(family).rstrip("0123456789") if len(family) > 1 else ""
        rests = [name.removeprefix(front) for name in family]
        back = _shared([rest[::-1] for rest in rests])[::-1].lstrip("0123456789") if front else ""
        for name, rest in zip(family, rests, strict=True):
            middle = rest.removesuffix(back)
            if fits(name) or not front or not rest:
                shown[name] = name
            else:
                shown[name] = f"…{rest}" if fits(f"…{rest}") or not back or not middle else f"…{middle}…"
    return {name: shown[name] for name in names}


def _shared(texts: Sequence[str]) -> str:
    """Return with which letters all texts begin."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    return "".join(letters[0] for letters in alike)


def failure_text(error: BaseException) -> str:
    """Return one or two sentences about an error.

    Parameters
    ----------
    error : BaseException
        What a job raised: an error of this package carries its own sentences, and what to do in a window; what a
        system says of files, disks and memory is told as in a shell; an unforeseen one is named.
    """
    if isinstance(error, BrokenProcessPool):
        return "The system ended a worker process, probably because memory ran out. Use fewer workers, or free memory."
    told = for_people(error) if isinstance(error, Exception) else None
    if told is not None and (told is error or not isinstance(told, InternalError)):
        return told.in_window
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename}."
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"Something went wrong inside the plugin ({reason})."


def report_text(error: BaseException) -> str:
    """Return where an error came from, for those who can fix it; with the traceback of the process it came from."""
    return "".join(traceback.format_exception(error))


def as_text(text: str) -> str:
    """Return a text that Qt shows as it is in tool tips, notifications and questions.

    There it looks itself whether a text is HTML, which names of files, classes and channels may be: what begins a tag
    is kept apart from what follows by a character that is not seen.
    """
    return text.replace("<", "<\u2060").replace("&lt;", "&\u2060lt;")


def dataset_text(info: DatasetInfo) -> str:
    """Return channels and classes of a dataset (rich text)."""
    classes = [name for name in info.labels.labels if name != BACKGROUND]
    return f"Channels: {', '.join(info.channel_names)}.<br>Classes: {', '.join(classes)}."


def label_names(info: DatasetInfo) -> dict[str, str]:
    """Return names by what summary.json calls labels and regions."""
    scheme = info.labels
    values = scheme.regions if scheme.has_regions else scheme.foreground_labels
    names = scheme.head_names if scheme.has_regions else tuple(scheme.names[v] for v in scheme.foreground_labels)
    return {str(value): name for value, name in zip(values, names, strict=True)}


def noted(warnings: Sequence[str], most: int, others: str) -> list[str]:
    """Return warnings as notes, as many as may be; ``others`` says what became of the rest."""
    notes = [f"Note: {text}" for text in warnings[:most]]
    more = len(warnings) - len(notes)
    return [*notes, f"{counted(more, 'more note')} {others}."] if more else notes


def no_mean(summary: Summary, names: Mapping[str, str]) -> str:
    """Return why there is no mean Dice."""
    absent = ", ".join(names.get(label, label) for label in summary.absent)
    return f"no mean Dice, as {absent or 'a class'} occurs in no validation case"


def split_words(text: str) -> tuple[str, ...]:
    """Return the words of a list: what stands between commas, or where there are none, between blanks."""
    return tuple(word for part in (text.split(",") if "," in text else text.split()) if (word := part.strip()))


def short_name(model: Path) -> str:
    """Return a name for people of a model's folder, with its dataset."""
    return f"{model.parent.name} / {label_of(model.name)}"


def telling_names(folders: Sequence[Path], short: Callable[[Path], str] = short_name) -> list[str]:
    """Return short names of folders; those that are alike say the shortest part of their paths that tells them apart.

    Parameters
    ----------
    folders : sequence of Path
        No two are the same.
    short : callable
        Returns a name, which several may have.
    """
    names = [short(folder) for folder in folders]
    times = Counter(names)
    alike = {name: [own for own, its in zip(folders, names, strict=True) if its == name] for name in names}
    return [
        f"{name} ({_told(folder, alike[name])})" if times[name] > 1 else name
        for folder, name in zip(folders, names, strict=True)
    ]


def _told(folder: Path, alike: Sequence[Path]) -> str:
    """Return what of a path only this one of several has: a folder's name, else its end."""
    most, names = max(len(own.parts) for own in alike), []
    for place in range(1, most + 1):
        parts = [own.parts[-place] if place <= len(own.parts) else "" for own in alike]
        if all(parts) and len(set(parts)) == len(set(alike)):
            names.append(folder.parts[-place])
            if not set(parts) & _USUAL:
                return names[-1]
    ends = (count for count in range(2, most + 1) if len({own.parts[-count:] for own in alike}) == len(set(alike)))
    return names[0] if names else str(Path(*folder.parts[-next(ends, most) :]))
