"""Which files are the channels of which case, by their names: suffixes, numbers, or a folder per case."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from glob import glob
from itertools import chain, islice
from pathlib import Path

from napari_nnunet.errors import DatasetError, ImageError, some
from napari_nnunet.formats.dicom import series as dicom
from napari_nnunet.formats.images.files import ENDINGS, ending_of

_NOISE = {
    "image", "images", "img", "im", "raw", "input", "volume", "vol", "scan",
    "mask", "masks", "seg", "segm", "segmentation", "label", "labels", "lbl", "gt", "truth", "groundtruth",
    "annotation", "annotations", "manual",
}  # fmt: skip
_FEW = 6  # endings that are named
_FOLDERS = 2000  # that are searched for an image
_FOUR_DIGITS = re.compile(r"[_-](\d{4})$")
_LAST_WORD = re.compile(r"[_\-. ][^_\-. ]*[^\W\d_][^_\-. ]*$")  # with a letter
_LETTER = re.compile(r"[_-](?:channel|chan|ch|c)(\d{1,3})$", re.IGNORECASE)


def is_image(path: Path) -> bool:
    """Whether a file can be read as an image, by its name, and where it is DICOM by what it holds."""
    try:
        ending_of(path)
    except ImageError:
        return path.suffix.lower() == ".dcm" and dicom.holds_volume(path)
    return True


def image_files(folder: Path) -> list[Path]:
    """Return the images of a folder."""
    return sorted(
        path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".") and is_image(path)
    )


def given_paths(sources: Sequence[Path]) -> list[Path]:
    """Return files and folders, each once; where a shell, as that of Windows, left a ``*`` in a name, what it means.

    Raises DatasetError if there is no such file, or something that is neither a file nor a folder.
    """
    found: dict[str, Path] = {}
    for source in sources:
        paths = [source]
        if not os.path.lexists(source):
            name = os.path.expanduser(source)
            pattern = name.replace("[", "[[]")  # names have brackets; of such patterns a shell leaves none
            paths = [Path(path) for path in (sorted(glob(pattern)) if _is_pattern(name) else [name])]
        if not paths or not os.path.lexists(paths[0]):
            what = "matches no file" if _is_pattern(str(source)) else "does not exist"
            if (above := _shut_above(source)) is not None:
                what = f"cannot be looked for: {above} may not be read by you. Change its permissions"
            raise DatasetError(f"The input {source} {what}.")
        for path in paths:
            _require_file_or_folder(path)
            found[_place(path)] = path
    return list(found.values())


def _shut_above(path: Path) -> Path | None:
    """Return the folder on the way to a path, or a pattern, that one may not look into; None if there is none."""
    there = next((folder for folder in path.absolute().parents if os.path.isdir(folder)), None)
    needed = os.X_OK | (os.R_OK if _is_pattern(str(path)) else 0)  # a name is found without the list of names
    return None if there is None or os.access(there, needed) else there


def _is_pattern(name: str) -> bool:
    return "*" in name or "?" in name


def _place(path: Path) -> str:
    """Return where a path lies. Links of two names to one file are two: such are cases in git-annex and DVC."""
    if os.path.islink(path) and (os.path.isfile(path) or dicom.is_series(path)):
        return os.path.join(os.path.realpath(path.parent), path.name)
    return os.path.realpath(path)


def _require_file_or_folder(path: Path) -> None:
    """Refuse a pipe, a device, and a link that leads nowhere; raises DatasetError."""
    if os.path.isfile(path) or os.path.isdir(path):
        return
    if os.path.islink(path) and not os.path.exists(path):
        raise DatasetError(
            f"The input {path} is a link that leads nowhere (to {os.readlink(path)}). Put its file back."
        )
    raise DatasetError(f"The input {path} is neither a file nor a folder.")


def folders_below(folder: Path, shut: list[Path] | None = None) -> Iterator[Path]:
    """Yield the folders within a folder, each once however many links lead to it; hidden ones are passed over.

    Those that cannot be looked into are put into ``shut``.
    """
    seen: set[tuple[int, int]] = set()
    own, links = deque([folder]), deque[Path]()
    while own or links:
        here = own.popleft() if own else links.popleft()
        try:
            status, entries = here.stat(), sorted(here.iterdir())
        except OSError:
            status, entries = None, []
            if shut is not None:
                shut.append(here)
        if status is not None and (place := (status.st_dev, status.st_ino)) not in seen:
            seen.add(place)
            if here != folder:
                yield here
            inner = [entry for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
            for entry in inner:
                (links if entry.is_symlink() else own).append(entry)


def holds_images(folder: Path) -> bool:
    """Whether there are images in a folder, or in one within it, by their names; or series of DICOM."""
    try:
        return any(
            dicom.is_series(one) or any(path.name.lower().endswith(ENDINGS) for path in one.iterdir())
            for one in chain([folder], islice(folders_below(folder), _FOLDERS))
        )
    except OSError:  # what cannot be looked into is named rather than passed over
        return True


def what_came(folder: Path) -> str:
    """Return what to say of a folder without images: how its files end, and which endings can be read."""
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    endings = sorted({"".join(p.suffixes[-2 if p.suffix == ".gz" else -1 :]) or "no ending" for p in files})
    came = f"Its files have {some(endings, _FEW)}" if endings else "It holds no files"
    return f"{came}; images end in {', '.join(sorted(ENDINGS))}, or are DICOM."


def stem_of(path: Path) -> str:
    """Return the name of a file without its ending; that of a folder as it is."""
    if path.is_dir():
        return path.name
    return path.name[: -len(".dcm" if path.suffix.lower() == ".dcm" else ending_of(path))]


Splitter = Callable[[str], tuple[str, str]]  # a stem to (case, channel)
Cases = Mapping[str, Mapping[str, Path]]  # the files of each, by what tells its channels apart, in their order


def splitters(suffixes: Sequence[str], sources: Sequence[Path]) -> list[Splitter]:
    """Return the ways to part names into case and channel; the suffixes are the only one where they are given."""

    def by_suffixes(endings: Sequence[str]) -> Splitter:
        def split(stem: str) -> tuple[str, str]:
            suffix = _ending_in(stem, endings)
            return (stem[: -len(suffix)], suffix) if suffix else (stem, "")

        return split

    if suffixes:
        return [by_suffixes(suffixes)]

    def plain(stem: str) -> tuple[str, str]:
        return stem, ""

    def by(pattern: re.Pattern[str]) -> Splitter:
        def split(stem: str) -> tuple[str, str]:
            match = pattern.search(stem)
            return (stem[: match.start()], match[1].zfill(4)) if match else (stem, "")

        return split

    even = _even_suffixes([stem_of(path) for path in sources if not path.is_dir()])
    return [plain, by(_FOUR_DIGITS), by(_LETTER), *([by_suffixes(even)] if even else [])]


def _ending_in(stem: str, endings: Sequence[str]) -> str:
    """Return what a name ends in, the longest one; empty where it is none of the endings."""
    return max((ending for ending in endings if stem.endswith(ending)), key=len, default="")


def _even_suffixes(stems: Sequence[str]) -> tuple[str, ...]:
    """Return the last words of names, if every beginning has the same two or more of them."""
    ends: dict[str, set[str]] = defaultdict(set)
    for stem in stems:
        match = _LAST_WORD.search(stem)
        if match is None:
            return ()
        ends[stem[: match.start()]].add(match[0])
    sets = set(map(frozenset, ends.values()))
    return tuple(sorted(sets.pop())) if len(sets) == 1 and all(len(found) > 1 for found in ends.values()) else ()


def channel_word(path: Path) -> str:
    """Return the word that tells a channel's file from those of other channels; empty where it is a number."""
    stem = stem_of(path)
    match = _LAST_WORD.search(stem)
    return match[0][1:] if match and not (_FOUR_DIGITS.search(stem) or _LETTER.search(stem)) else ""


def numbered_channel(path: Path) -> tuple[str, str] | None:
    """Return the case and the channel of a file whose name ends in the channel's number; None if it does not."""
    stem = stem_of(path)
    match = _FOUR_DIGITS.search(stem) or _LETTER.search(stem)
    return (stem[: match.start()], match[1].zfill(4)) if match else None


def grouped_channels(
    sources: Sequence[Path], split: Splitter, suffixes: Sequence[str]
) -> tuple[Cases, tuple[Path, ...]]:
    """Return the channel files of each case, and those that are no channel, or one that another file is already.

    Raises
    ------
    DatasetError
        If two files of a case's folder have the same suffix.
    """
    grouped: dict[str, dict[str, Path]] = defaultdict(dict)
    folders: dict[str, list[Path]] = {}
    spare: list[Path] = []
    for path in sources:
        if path.is_dir() and not dicom.is_series(path):
            folders[path.name] = image_files(path)
        else:
            case, channel = split(stem_of(path))
            if channel in grouped[case]:  # _c1 and _ch1 are the same channel
                spare.append(path)
            grouped[case].setdefault(channel, path)
    grouped |= _in_folders(folders, suffixes)
    taken = {path for files in grouped.values() for path in files.values()}
    spare += (path for files in folders.values() for path in files if path not in taken)

    def order(channel: str) -> tuple[int, list[str | int]]:
        parts: list[str | int] = [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", channel)]
        return suffixes.index(channel) if channel in suffixes else len(suffixes), parts

    return {case: {key: files[key] for key in sorted(files, key=order)} for case, files in grouped.items()}, tuple(
        spare
    )


def _in_folders(folders: Mapping[str, Sequence[Path]], suffixes: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Return the files of folders with a case each, by what most folders have in common in their names."""

    def with_suffix(stem: str, case: str) -> str:
        return _ending_in(f"_{stem}", suffixes)

    def beyond_case(stem: str, case: str) -> str:
        return "_".join(word for word in words_of_name(stem).split("_") if word not in words_of_name(case).split("_"))

    def last(stem: str, case: str) -> str:
        match = _LETTER.search(stem) or _FOUR_DIGITS.search(stem)
        return match[1].zfill(4) if match else re.split(r"[_\-. ]", stem)[-1].casefold()

    found: list[tuple[int, dict[str, dict[str, Path]]]] = []
    for key in (with_suffix,) if suffixes else (lambda stem, case: stem, beyond_case, last):
        named = {case: {key(stem_of(path), case): path for path in files} for case, files in folders.items()}
        whole = {case for case, files in folders.items() if suffixes or len(named[case]) == len(files)}
        alike = Counter(frozenset(files) for case, files in named.items() if case in whole)
        if len(whole) == len(folders):
            found.append((max(alike.values(), default=0), named))
    if not found:  # two files of one name
        named = {case: {path.name: path for path in files} for case, files in folders.items()}
        found = [(0, named)]
    named = max(found, key=lambda way: way[0])[1]
    if suffixes:
        for files in folders.values():
            _require_a_suffix_each(files, suffixes)
        named = {case: {key: path for key, path in files.items() if key} for case, files in named.items()}
    return {case: files for case, files in named.items() if files}


def _require_a_suffix_each(files: Sequence[Path], suffixes: Sequence[str]) -> None:
    """Refuse two files of a case's folder that end in the same suffix: none of them is chosen."""
    first: dict[str, Path] = {}
    for path in files:
        suffix = _ending_in(f"_{stem_of(path)}", suffixes)
        if suffix and first.setdefault(suffix, path) != path:
            raise DatasetError(
                f"{first[suffix].name} and {path.name} in {path.parent} both end in {suffix}; a channel is one file. "
                "Give longer suffixes that tell them apart, or move one of the files elsewhere."
            )


def words_of_name(name: str) -> str:
    """Return the words of a name that tell, joined by underscores."""
    words = re.split(r"[_\-. ]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name))
    kept = [word.casefold() for word in words if word and word.casefold() not in _NOISE]
    return "_".join(kept)


def words_with_plain_numbers(name: str) -> str:
    """Return the words of a name, with 7 for 007."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", words_of_name(name))


def digits_of_name(name: str) -> str:
    """Return the numbers of a name."""
    return "-".join(str(int(number)) for number in re.findall(r"\d+", name))
