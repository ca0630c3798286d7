"""Sizes, times, counts and failures in the units and words people use."""

from __future__ import annotations

import os
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
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


def times_text(numbers: Sequence[float]) -> str:
    """Return a shape, or a voxel size, with multiplication signs."""
    return " × ".join(str(n) if isinstance(n, int) else f"{n:g}" for n in numbers)


def telling_parts(names: Sequence[str], fits: Callable[[str], bool]) -> dict[str, str]:
    """Return what is shown of names: where one is too long, without what all names that begin alike share.

    First goes their beginning, and where that is not enough, what they end with; numbers stay whole. What would be
    seen of two names has the word with which they begin as well, else where they differ; no two are shown alike.
    """
    families: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        families.setdefault(_first_word(name), []).append(name)
    shown = {name: text for family in families.values() for name, text in _of_family(family, fits).items()}
    doubtful = {_first_word(name) for group in _alike(shown, fits) for name in group}
    for word in doubtful:
        worded = {name: word + shown[name] for name in families[word] if shown[name] != name}
        shown.update({name: text for name, text in worded.items() if fits(text)})
    for group in _alike(shown, fits):
        shown.update(_where_they_differ(group, fits))
    while groups := _alike(shown, lambda _: True):
        shown.update({name: name for group in groups for name in group})
    return {name: shown[name] for name in names}


def _first_word(name: str) -> str:
    return "".join(_WORD.findall(name)[:1])


def _of_family(family: Sequence[str], fits: Callable[[str], bool]) -> dict[str, str]:
    """Return what tells names apart that begin alike."""
    front = _shared(family).rstrip("0123456789") if len(family) > 1 else ""
    rests = {name: name.removeprefix(front) for name in family}
    back = _shared([rest[::-1] for rest in rests.values()])[::-1].lstrip("0123456789") if front else ""
    shown = {}
    for name, rest in rests.items():
        middle, ways = rest.removesuffix(back), [name]
        if front and rest:
            ways += [f"…{rest}", f"…{middle}…"] if back and middle else [f"…{rest}"]
        shown[name] = _longest(ways, fits) or ways[-1]
    return shown


def _alike(shown: Mapping[str, str], fits: Callable[[str], bool]) -> list[list[str]]:
    """Return the names that would not be told apart: those together of which the same is seen."""
    groups: dict[str, list[str]] = {}
    for name, text in shown.items():
        ends = (f"…{text[-count:]}" for count in range(len(text), 0, -1))  # what has no room is cut
        groups.setdefault(text if fits(text) else _longest(ends, fits), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _where_they_differ(group: Sequence[str], fits: Callable[[str], bool]) -> dict[str, str]:
    """Return, of names that are alike, where they differ and as much of their ends as has room."""
    start, longest = len(_shared(group)), max(map(len, group))
    telling = (n for n in range(1, longest) if len({name[start : start + n] for name in group}) == len(group))
    needed, lead, texts = next(telling, longest), "…" if start else "", {}
    for name in group:
        counts = (max(len(_first_word(name)) - start, needed), needed)
        pieces = [piece for count in counts if fits(piece := f"{lead}{name[start : start + count]}…")]
        ways = (f"{piece}{name[len(name) - count :]}" for piece in pieces for count in range(len(name) // 2, -1, -1))
        texts[name] = _longest(ways, fits) or name
    return texts


def _longest(ways: Iterable[str], fits: Callable[[str], bool]) -> str:
    """Return the first of texts that has room, an empty one where none has."""
    return next(filter(fits, ways), "")


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
