"""Which image belongs to which mask, by their names: two folders, channels by suffix, DICOM series as folders."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Literal

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.dataset.channel_files import (
    Cases,
    digits_of_name,
    folders_below,
    grouped_channels,
    image_files,
    is_image,
    numbered_channel,
    splitters,
    stem_of,
    what_came,
    words_of_name,
    words_with_plain_numbers,
)
from napari_nnunet.formats.dicom import series as dicom
from napari_nnunet.formats.masks.class_files import ClassFiles, find_class_files, parted
from napari_nnunet.formats.regular import no_folder
from napari_nnunet.formats.workspace import is_folder

_MASKS = ("masks", "mask", "labels", "label", "segmentations", "segmentation", "annotations", "ground_truth",
          "groundtruth", "gt")  # fmt: skip


def masks_beside(images: Path) -> Path | None:
    """Return the folder beside a folder of images that can only be its masks: the only one that is called like them.

    ``imagesTr`` has ``labelsTr``, whatever else lies there.
    """
    if images.name == "imagesTr":
        return images.with_name("labelsTr") if is_folder(images.parent / "labelsTr") else None
    spelled = (name for word in _MASKS for name in (word, word.capitalize(), word.upper()))
    found = {path.resolve(): path for name in spelled if is_folder(path := images.parent / name)}
    found.pop(images.resolve(), None)
    return next(iter(found.values())) if len(found) == 1 else None


@dataclass(frozen=True)
class ImagePair:
    """A future case: its channel files (or DICOM folders) and its mask.

    Parameters
    ----------
    name : str
        Of the case.
    images : tuple of Path
        In the order of the channels.
    mask : Path
        One file, or a folder with a DICOM series; with ``parts``, the first of them.
    parts : tuple of (int, Path)
        Where every class is a file of its own: its number, from 1 on, and its file.
    classes : tuple of str
        Then the names of all classes, 1 first, whether the case has them or not.
    spacing : tuple of float, optional
        Voxel size in mm, array order, that counts whatever the image says.
    colours : {"", "grey", "rgb"}
        What becomes of the colours of a picture, or of a grey one; empty where it stays as it is.
    channels : tuple of str
        What tells the channel files apart, in their order ("0000", "_SE"); empty where there is one file alone.
    """

    name: str
    images: tuple[Path, ...]
    mask: Path
    parts: tuple[tuple[int, Path], ...] = ()
    classes: tuple[str, ...] = ()
    spacing: tuple[float, ...] | None = None
    colours: Literal["", "grey", "rgb"] = ""
    channels: tuple[str, ...] = ()

    @property
    def masks(self) -> tuple[Path, ...]:
        """All files of the mask."""
        return tuple(path for _, path in self.parts) or (self.mask,)

    @property
    def mask_words(self) -> str:
        """The mask as people name it: its file, or its classes."""
        names = ", ".join(self.classes[number - 1] for number, _ in self.parts)
        return f"files of {names}" if self.parts else self.mask.name


@dataclass(frozen=True)
class Pairing:
    """What was matched and what was not.

    Parameters
    ----------
    pairs : tuple of ImagePair
        Sorted by name.
    images, masks : tuple of Path
        Left over.
    """

    pairs: tuple[ImagePair, ...]
    images: tuple[Path, ...]
    masks: tuple[Path, ...]


def pair_folders(images: Path, masks: Path, *, suffixes: Sequence[str] = (), skip: Container[str] = ()) -> Pairing:
    """Match the images and masks of two folders.

    Names are compared without their ending, without words such as "image", "mask", "gt", and without channel suffixes;
    where no two are alike then, or hardly any, by their numbers if these are unambiguous.

    Parameters
    ----------
    images : Path
        Image files, DICOM series as folders, or folders with one file per channel.
    masks : Path
        One mask per case, or one file per case and class (see :func:`find_class_files`).
    suffixes : sequence of str
        What the names of the channel files end in before the ending, in channel order ("_red", "_green"). Found from
        the names where empty ("_0000", "_ch1", and whatever all names have in the same number: "_SE", "_BSE").
    skip : container of str
        Names of files that are left out.

    Raises
    ------
    DatasetError
        If a folder is missing or empty, both are the same, two of its files have the same name but for the ending, or
        nothing matches.
    """
    if images.is_dir() and masks.is_dir() and images.samefile(masks):
        raise DatasetError(f"Images and masks are the same folder, {images}. Put the masks into a folder of their own.")
    sources, targets = _entries(images, skip), _entries(masks, skip)
    best = _best(sources, targets, suffixes)
    if not best.pairs:
        _require_told_apart(best, images, masks)
        examples = f"{sources[0].name} and {targets[0].name}"
        raise DatasetError(
            f"No image in {images} has a mask of the same name in {masks} (e.g. {examples}). Rename them to match."
        )
    return best


def why_left(pairing: Pairing) -> dict[Path, str]:
    """Return why files were left over though their names are those of others; nothing of files without a partner."""
    found = {path: "several files have its name" for sides in _alike(pairing) for path in (*sides[0], *sides[1])}
    channels = {numbered_channel(path) for pair in pairing.pairs for path in pair.images} - {None}
    found |= {path: "another file is its channel" for path in pairing.images if numbered_channel(path) in channels}
    joined = {words_of_name(pair.name): pair.name for pair in pairing.pairs if pair.parts}
    for path in pairing.masks:
        case, rest = parted("" if path.is_dir() else words_of_name(stem_of(path)), joined)
        if case is not None and not re.search(r"[^\W\d_]", rest):
            found[path] = "its name tells no class" if rest else "its case has a file for each class"
    return found


def _alike(left: Pairing) -> list[tuple[list[Path], list[Path]]]:
    """Return images and masks that were left over because several have one name, as far as its words tell."""
    sides: tuple[dict[str, list[Path]], dict[str, list[Path]]] = (defaultdict(list), defaultdict(list))
    for path in left.images:
        sides[0][words_of_name(_case_of(path))].append(path)
    for path in left.masks:
        if not path.is_dir():
            sides[1][words_of_name(stem_of(path))].append(path)
    both = [(sides[0][key], sides[1][key]) for key in sides[0] if key and key in sides[1]]
    return [(images, masks) for images, masks in both if len(masks) > 1 or len(set(map(_case_of, images))) > 1]


def _case_of(path: Path) -> str:
    """Return the name of an image's file without its ending and nnU-Net's number of a channel."""
    return re.sub(r"[_-][0-9]{4}$", "", stem_of(path))


def _require_told_apart(left: Pairing, images: Path, masks: Path) -> None:
    """Refuse files of which the names do not tell which belong together."""
    for files in _alike(left):
        for paths, folder in zip(files, (images, masks), strict=True):
            if len(paths) > 1:
                raise DatasetError(
                    f"{' and '.join(path.name for path in paths[:4])} in {folder} have the same name but for upper and "
                    "lower case, or words such as 'mask': which belongs to which is not certain. Rename them.",
                    shell="Or leave the others out (--skip FILE ...).",
                )


def pair_subfolders(images: Path, masks: Path, *, suffixes: Sequence[str] = (), skip: Container[str] = ()) -> Pairing:
    """Match the images and masks of two folders that have the same subfolders, each as :func:`pair_folders` does.

    A subfolder with one image and one mask needs no like names. Names of cases begin with those of their folders.

    Raises
    ------
    DatasetError
        As there, if nothing matches anywhere.
    """
    for folder in (images, masks):
        if not folder.is_dir():
            raise DatasetError(no_folder(folder))
    pairs: dict[str, ImagePair] = {}
    left: tuple[list[Path], list[Path]] = ([], [])
    for place in sorted({*_places(images), *_places(masks)}):
        sources, targets = ([] if not (f := root / place).is_dir() else _images(f, skip) for root in (images, masks))
        found = _best(sources, targets, suffixes)
        if not found.pairs and len(sources) == len(targets) == 1:
            found = Pairing((ImagePair(_clean(stem_of(sources[0])), (sources[0],), targets[0]),), (), ())
        for pair in found.pairs:
            parts = (*place.parts, pair.name) if words_of_name(pair.name) else place.parts or (pair.name,)
            name = _free("_".join(map(_clean, parts)), pairs)
            pairs[name] = replace(pair, name=name)
        left[0].extend(found.images)
        left[1].extend(found.masks)
    if not pairs:
        raise DatasetError(
            f"No image in {images} or its subfolders has a mask of the same name in the same subfolder of {masks}. "
            "Rename them to match."
        )
    return Pairing(tuple(pairs[name] for name in sorted(pairs)), tuple(left[0]), tuple(left[1]))


def _places(folder: Path) -> Iterator[Path]:
    """Yield where images lie within a folder; series of DICOM slices are images."""
    yield Path()
    for entry in folders_below(folder):
        if not dicom.is_series(entry):
            yield entry.relative_to(folder)


def _images(folder: Path, skip: Container[str]) -> list[Path]:
    """Return the images of a folder without those of its subfolders."""
    entries = (path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and path.name not in skip)
    return [path for path in entries if (dicom.is_series(path) if path.is_dir() else is_image(path))]


def _best(sources: Sequence[Path], targets: Sequence[Path], suffixes: Sequence[str]) -> Pairing:
    """Return the way to match images and masks that leaves the fewest over.

    Numbers alone count only where no words match, or where they leave nothing over and words match fewer than half of
    it: then it is the words that are alike by chance.
    """
    grouped = [grouped_channels(sources, split, suffixes) for split in splitters(suffixes, sources)]
    masks = {stem_of(path): path for path in targets}
    found: list[Pairing] = []
    for keys in ((words_of_name, words_with_plain_numbers), (digits_of_name,)):
        best = max((_match(cases, spare, masks, keys) for cases, spare in grouped), key=_matched)
        for cases, spare in grouped:
            by_class = find_class_files(cases, targets, image_files, words_of_name, stem_of)
            way = best if by_class is None else _joined(cases, spare, by_class)
            best = way if len(way.pairs) > len(best.pairs) else best
        found.append(best)
    words, numbers = found
    if not words.pairs or (not (numbers.images or numbers.masks) and 2 * len(words.pairs) < len(numbers.pairs)):
        words = numbers
    return words if words.pairs else Pairing((), tuple(sources), tuple(targets))


def _matched(found: Pairing) -> tuple[int, int]:
    return len(found.pairs), -len(found.images) - len(found.masks)


def _without_folders(found: Pairing) -> Pairing:
    """Leave out pairs whose mask is a folder of files: a subfolder, which is not looked into."""
    folders = [pair for pair in found.pairs if pair.mask.is_dir() and not dicom.is_series(pair.mask)]
    return Pairing(
        tuple(pair for pair in found.pairs if pair not in folders),
        (*found.images, *(path for pair in folders for path in pair.images)),
        (*found.masks, *(pair.mask for pair in folders)),
    )


def _joined(cases: Cases, spare: Sequence[Path], masks: ClassFiles) -> Pairing:
    """Return the cases that have a file for one class or more."""
    number = {name: i for i, name in enumerate(masks.classes, start=1)}
    pairs: dict[str, ImagePair] = {}
    for case, own in sorted(masks.files.items()):
        parts = tuple((number[name], own[name]) for name in sorted(own))
        name = _free(_clean(case), pairs)
        pair = ImagePair(name, tuple(cases[case].values()), parts[0][1], parts, masks.classes)
        pairs[name] = replace(pair, channels=_told_apart(cases[case]))
    rest = [path for case, files in cases.items() if case not in masks.files for path in files.values()]
    return Pairing(tuple(pairs[name] for name in sorted(pairs)), (*rest, *spare), masks.rest)


def _entries(folder: Path, skip: Container[str]) -> list[Path]:
    if not folder.is_dir():
        raise DatasetError(no_folder(folder))
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in skip:
            continue
        if path.is_dir():
            if dicom.is_series(path) or image_files(path):
                found.append(path)
        elif is_image(path):
            found.append(path)
    if not found:
        raise DatasetError(f"{folder} contains no images that can be read. {what_came(folder)}")
    by_stem: dict[str, list[str]] = defaultdict(list)
    for path in found:
        by_stem[stem_of(path)].append(path.name)
    twice = [" and ".join(names) for names in by_stem.values() if len(names) > 1]
    if twice:
        listed = "; ".join(twice[:10]) + ("; ..." if len(twice) > 10 else "")
        raise DatasetError(
            f"{listed} in {folder} have the same name but for the ending. Keep one of them.",
            shell="Or leave the others out (--skip FILE ...).",
        )
    return found


def _told_apart(files: Mapping[str, Path]) -> tuple[str, ...]:
    return tuple(files) if len(files) > 1 else ()


def _match(
    cases: Cases, spare: Sequence[Path], masks: Mapping[str, Path], keys: Sequence[Callable[[str], str]]
) -> Pairing:
    """Match by what the names say, one way after the other; a folder of mask files is no mask."""
    left, right = dict(cases), dict(masks)
    pairs: dict[str, ImagePair] = {}
    for key in keys:
        mine, theirs = _unique(left, key), _unique(right, key)
        for common in sorted(set(mine) & set(theirs)):
            case, mask = mine[common], theirs[common]
            name = _free(_clean(case), pairs)
            files = left.pop(case)
            pairs[name] = ImagePair(name, tuple(files.values()), right.pop(mask), channels=_told_apart(files))
    rest = [path for files in left.values() for path in files.values()]
    found = Pairing(tuple(pairs[name] for name in sorted(pairs)), (*rest, *spare), tuple(right.values()))
    return _without_folders(found)


def _unique(names: Mapping[str, object], key: Callable[[str], str]) -> dict[str, str]:
    """Return key to name for keys that belong to one name only."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[key(name)].append(name)
    return {k: listed[0] for k, listed in found.items() if k and len(listed) == 1}


def _clean(name: str) -> str:
    """Return a case name without characters that make trouble in file names."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-") or "case"
    return f"{plain}x" if plain.endswith("_seg") else plain


def _free(name: str, taken: Container[str]) -> str:
    """Return a name that is not taken: names that differ only in letters a file name lacks here get numbers."""
    return next(free for n in count(1) if (free := f"{name}_{n}" if n > 1 else name) not in taken)
