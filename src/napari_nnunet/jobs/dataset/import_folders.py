"""Two folders of images and masks become a raw dataset."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import DatasetError, of_cases
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import make_folder, write_json, written_beside
from napari_nnunet.formats.dataset.new_dataset import new_dataset
from napari_nnunet.formats.dataset.pairs import ImagePair, pair_folders
from napari_nnunet.formats.dataset.raw_dataset import dataset_json
from napari_nnunet.formats.dataset.relabel import compact_values, remap
from napari_nnunet.formats.images import dicom
from napari_nnunet.formats.images.files import (
    ending_of,
    read_header,
    read_labels,
    read_volume,
    write_image,
    write_labels,
)
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.grid import Grid, Turned, WhenApart, channels_together, onto, relation
from napari_nnunet.processes.pool import Task, results_of, run_cases
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest
from napari_nnunet.volume import Volume

_PLAIN = (".png", ".bmp", ".tif", ".tiff", ".nii.gz", ".nii", ".nrrd", ".mha", ".gipl")  # what nnU-Net knows as well


@dataclass(frozen=True)
class _Seen:
    """What a pair holds."""

    values: tuple[int, ...]
    channels: int
    ndim: int
    eight_bit: bool
    spacing_known: bool
    turned: bool
    notes: tuple[str, ...]


def import_folders(workspace: Workspace, request: ImportFoldersRequest) -> Job[Path]:
    """Make a raw dataset of a folder of images and a folder of masks.

    Files are copied where nnU-Net can read them as they are, and rewritten otherwise: volumes and whatever knows its
    voxel size as .nii.gz, pictures as .png or .tif. Mask values become 0, 1, 2, ...

    Returns
    -------
    Path
        ``nnUNet_raw/DatasetXXX_Name``.

    Raises
    ------
    DatasetError
        If nothing matches, files cannot be read, or cases differ in channels or dimensions; all of them are named.
    """
    pairing = pair_folders(request.images, request.masks, suffixes=request.suffixes)
    for what, rest in (("image", pairing.images), ("mask", pairing.masks)):
        if rest:
            listed = ", ".join(path.name for path in rest[:5]) + (", ..." if len(rest) > 5 else "")
            yield Note(level="warning", text=f"{len(rest)} {what} files have no counterpart and are skipped: {listed}.")
    with new_dataset(workspace, request.name) as (beside, folder):
        yield from _import(pairing.pairs, beside, folder.name, request)
    return folder


def _import(pairs: Sequence[ImagePair], folder: Path, name: str, request: ImportFoldersRequest) -> Job[None]:
    """Fill a folder that will be a dataset of that name."""
    yield Stage(name="Reading masks", total=len(pairs))
    seen = yield from _look(pairs, request)
    mapping = compact_values([value for facts in seen.values() for value in facts.values], request.ignore)
    if len(mapping) < 2:
        raise DatasetError("The masks contain only 0: there is no class to learn.")
    labels = _labels(mapping, request)
    changed = {old: new for old, new in mapping.items() if old != new}
    if changed:
        text = ", ".join(f"{old} -> {new}" for old, new in changed.items())
        yield Note(text=f"Mask values are renumbered: {text}.")
    turned = [name for name, facts in seen.items() if facts.turned]
    if turned:
        text = (
            f"The masks of {len(turned)} of {len(seen)} cases are stored in another order and turned onto their images"
        )
        yield Note(level="warning", text=f"{text}: {', '.join(turned[:5])}{', ...' if len(turned) > 5 else ''}.")
    for name_of_case, facts in seen.items():
        yield from (Note(level="warning", text=f"{name_of_case}: {text}") for text in facts.notes)
    moved = any(facts.notes for facts in seen.values())
    ending, copied = _ending(pairs, seen, unchanged=not changed and not turned and not moved)
    first = next(iter(seen.values()))
    names = request.channel_names or _channel_names(first, pairs[0])
    if len(names) != first.channels:
        raise DatasetError(f"{len(names)} channel names were given, but the images have {first.channels} channels.")
    content = dataset_json(names, labels, len(pairs), ending)
    for part in ("imagesTr", "labelsTr"):
        make_folder(folder / part)
    yield Stage(name=f"Writing {name}", total=len(pairs))
    tasks = [
        Task(pair.name, (pair, folder, ending, mapping, copied, request.apart), partial(_bytes, pair)) for pair in pairs
    ]
    outcomes = yield from run_cases(write_pair, tasks, workers=request.workers)
    results_of(outcomes, "imported")
    write_json(folder / "dataset.json", content)


def _look(pairs: Sequence[ImagePair], request: ImportFoldersRequest) -> Job[dict[str, _Seen]]:
    tasks = [Task(pair.name, (pair, request.apart), partial(_bytes, pair)) for pair in pairs]
    outcomes = yield from run_cases(look_at_pair, tasks, workers=request.workers)
    problems = {name: outcome.error for name, outcome in outcomes.items() if outcome.error is not None}
    seen = {pair.name: outcomes[pair.name].result for pair in pairs if pair.name not in problems}
    for attribute, what in (("channels", "channels"), ("ndim", "dimensions")):
        found = {name: getattr(facts, attribute) for name, facts in seen.items()}
        usual = max(set(found.values()), key=list(found.values()).count) if found else None
        for name, value in found.items():
            if value != usual:
                problems[name] = DatasetError(f"it has {value} {what}, the others have {usual}")
    if problems:
        raise of_cases(problems, len(pairs), "imported")
    return seen


def _bytes(pair: ImagePair) -> float:
    """Return what reading a pair takes; folders of DICOM slices are judged by their size on disk."""
    total = 0.0
    for path in (*pair.images, pair.mask):
        if path.is_dir():
            total += 4.0 * sum(file.stat().st_size for file in path.iterdir())
        else:
            shape, itemsize, _ = read_header(path)
            total += float(np.prod(shape)) * (2 * itemsize + 12)
    return total


def look_at_pair(pair: ImagePair, apart: WhenApart) -> _Seen:
    """Read a pair and say what it holds; runs in a worker process."""
    volume = _volume(pair, apart)
    mask, turned = _mask(pair, volume, apart)
    integers = bool((np.asarray(volume.array) == np.rint(volume.array)).all())
    low, high = float(np.min(volume.array)), float(np.max(volume.array))
    return _Seen(
        values=tuple(int(v) for v in np.unique(mask)),
        channels=volume.channels,
        ndim=len(volume.shape),
        eight_bit=integers and low >= 0 and high <= 255,
        spacing_known=volume.geometry.spacing_known,
        turned=turned,
        notes=volume.notes,
    )


def _volume(pair: ImagePair, apart: WhenApart) -> Volume:
    if not pair.images[0].is_dir():
        return read_volume(pair.images, apart=apart)
    parts = [dicom.read_series(path) for path in pair.images]
    grids = [Grid(array.shape[1:], geometry) for array, geometry in parts]
    names = [path.name for path in pair.images]
    arrays, notes = channels_together([array for array, _ in parts], grids, names, apart=apart)
    return Volume(np.concatenate(arrays).astype(np.float32), parts[0][1], notes)


def _mask(pair: ImagePair, volume: Volume, apart: WhenApart) -> tuple[NDArray[np.int32], bool]:
    """Return the mask on its image's grid, and whether it had to be turned.

    Raises
    ------
    ImageError
        If it lies elsewhere, or on another grid.
    """
    if pair.mask.is_dir():
        array, geometry = dicom.read_series(pair.mask)
        mask = array[0].astype(np.int32)
    else:
        mask, geometry = read_labels(pair.mask)
    if apart == "ignore" and mask.shape == volume.shape:
        return mask, False
    grid = Grid(volume.shape, volume.geometry)
    placed = onto(mask, geometry, grid, what="the image and its mask")
    return placed, isinstance(relation(grid, Grid(mask.shape, geometry)), Turned)


def _labels(mapping: Mapping[int, int], request: ImportFoldersRequest) -> dict[str, int | Sequence[int]]:
    given = dict(request.class_names)
    unknown = sorted(set(given) - set(mapping))
    if unknown:
        raise DatasetError(f"The values {', '.join(map(str, unknown))} are named, but occur in no mask.")
    names = {0: "background", **({} if request.ignore is None else {request.ignore: "ignore"})}
    return {
        given.get(old, names.get(old, f"class_{new}")) if old else "background": new for old, new in mapping.items()
    }


def _channel_names(facts: _Seen, pair: ImagePair) -> tuple[str, ...]:
    if len(pair.images) == 1 and facts.channels in (3, 4) and facts.ndim == 2:
        return ("R", "G", "B", "A")[: facts.channels]
    return tuple(f"channel_{c}" for c in range(facts.channels))


def _ending(pairs: Sequence[ImagePair], seen: Mapping[str, _Seen], *, unchanged: bool) -> tuple[str, bool]:
    """Return the ending of the dataset's files, and whether the given files can be copied as they are."""
    files = [path for pair in pairs for path in (*pair.images, pair.mask)]
    if not any(path.is_dir() for path in files):
        endings = {ending_of(path) for path in files}
        if len(endings) == 1 and unchanged and endings <= set(_PLAIN):
            return endings.pop(), True
    facts = list(seen.values())
    if facts[0].ndim == 3 or all(f.spacing_known for f in facts):
        return ".nii.gz", False
    return (".png" if all(f.eight_bit for f in facts) else ".tif"), False


def write_pair(
    pair: ImagePair, folder: Path, ending: str, mapping: Mapping[int, int], copied: bool, apart: WhenApart
) -> None:
    """Write one case of the new dataset; runs in a worker process."""
    targets = [folder / "imagesTr" / f"{pair.name}_{c:04d}{ending}" for c in range(len(pair.images))]
    label = folder / "labelsTr" / f"{pair.name}{ending}"
    if copied:
        for source, target in zip((*pair.images, pair.mask), (*targets, label), strict=True):
            with written_beside(target) as temporary:
                shutil.copyfile(source, temporary)
            sidecar = source.with_suffix(".json")
            if ending in (".tif", ".tiff") and sidecar.is_file():
                shutil.copyfile(sidecar, target.parent / f"{pair.name}.json")
        return
    volume = _volume(pair, apart)
    mask, _ = _mask(pair, volume, apart)
    for c, channel in enumerate(np.asarray(volume.array)):
        small = channel.astype(np.uint8) if ending == ".png" else _narrow(channel)
        write_image(small, volume.geometry, folder / "imagesTr" / f"{pair.name}_{c:04d}{ending}")
    write_labels(remap(mask, mapping), volume.geometry, label)


def _narrow(channel: NDArray[np.float32]) -> NDArray[np.generic]:
    """Return integers as int16 or uint16 where they fit, for smaller files."""
    if not (channel == np.rint(channel)).all():
        return channel
    low, high = float(channel.min()), float(channel.max())
    for kind in (np.uint8, np.int16, np.uint16):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return channel.astype(kind)
    return channel
