"""Masks with one file per class: CLASS/CASE, CASE/CLASS, CASE_CLASS or CLASS_CASE, told by the names of the images."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_MOST = 250  # classes; more are objects with a file each

Words = Callable[[str], str]
Stem = Callable[[Path], str]
Inside = Callable[[Path], Sequence[Path]]


@dataclass(frozen=True)
class ClassFiles:
    """Mask files by case and class.

    Parameters
    ----------
    classes : tuple of str
        Names, sorted.
    files : dict of str to dict of str to Path
        By case, then by class.
    rest : tuple of Path
        Files that belong to no case, or to no class.
    """

    classes: tuple[str, ...]
    files: dict[str, dict[str, Path]]
    rest: tuple[Path, ...]


def find_class_files(
    cases: Iterable[str], entries: Sequence[Path], inside: Inside, words: Words, stem: Stem
) -> ClassFiles | None:
    """Return the mask files of a folder by case and class; None if they are not one file per class.

    Parameters
    ----------
    cases : iterable of str
        The names that the images give.
    entries : sequence of Path
        Files and folders of the folder with masks.
    inside : callable
        The image files of a folder.
    words, stem : callable
        The words of a name that tell, joined by underscores; a file's name without its ending.

    Notes
    -----
    A name that numbers alone tell from others is no class. Names that no two cases share are those of objects.
    """
    keys = {words(case): case for case in cases}
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    rest: list[Path] = []
    for path, case, name in _named(keys, entries, inside, words, stem):
        if case is None or not re.search(r"[^\W\d_]", name):
            rest.append(path)
        elif name in found[case]:
            return None
        else:
            found[case][name] = path
    files = {case: own for case, own in found.items() if own}
    classes = sorted({name for own in files.values() for name in own})
    shared = len(files) == 1 or any(sum(name in own for own in files.values()) > 1 for name in classes)
    if len(classes) > _MOST or not shared or not any(len(own) > 1 for own in files.values()):
        return None
    return ClassFiles(tuple(classes), files, tuple(rest))


def _named(
    keys: dict[str, str], entries: Sequence[Path], inside: Inside, words: Words, stem: Stem
) -> Iterator[tuple[Path, str | None, str]]:
    """Give every file with its case, None if it has none, and its class."""
    for entry in entries:
        if not entry.is_dir():
            yield entry, *parted(words(stem(entry)), keys)
            continue
        of_case = keys.get(words(entry.name))
        for file in inside(entry):
            case, name = parted(words(stem(file)), keys)
            if of_case is not None:
                yield file, of_case, name if case == of_case else words(stem(file))
            else:
                own = words(entry.name) or entry.name.casefold()
                yield file, case if name in ("", own) else None, own


def parted(name: str, keys: dict[str, str]) -> tuple[str | None, str]:
    """Return the case that a name begins or ends with, the longest one, and what is left of the name."""
    if name and name in keys:
        return keys[name], ""
    cuts = [i for i, letter in enumerate(name) if letter == "_"]
    ways = [(name[:i], name[i + 1 :]) for i in cuts] + [(name[i + 1 :], name[:i]) for i in cuts]
    # not case by case: there may be thousands
    for key, rest in sorted(ways, key=lambda way: len(way[0]), reverse=True):
        if key and key in keys:
            return keys[key], rest
    return None, name
