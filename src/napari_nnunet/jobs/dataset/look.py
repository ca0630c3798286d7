"""A look at images before anything runs: what would be read of each file, and how."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from napari_nnunet.errors import DatasetError, ImageError, counted, for_people, memory_told, some
from napari_nnunet.events import Job, Note, Progress, Stage
from napari_nnunet.formats.dataset.case_files import NO_IMAGES, Inputs
from napari_nnunet.formats.dataset.channel_files import what_came
from napari_nnunet.formats.dataset.raw_dataset import reader_of, survey
from napari_nnunet.formats.dicom import series as dicom
from napari_nnunet.formats.dicom.syntax import is_dicom
from napari_nnunet.formats.images.files import ENDINGS, read_volume
from napari_nnunet.formats.masks.facts import MaskFacts, facts_of
from napari_nnunet.formats.masks.kinds import recognise, to_look_at
from napari_nnunet.formats.masks.pieces import pieces_of
from napari_nnunet.formats.masks.stored import read_mask
from napari_nnunet.formats.model.folder import holds_models, is_model_folder
from napari_nnunet.jobs.dataset.import_plan import words_of
from napari_nnunet.schema.names import shown
from napari_nnunet.schema.requests.dataset import LookRequest
from napari_nnunet.volume import Volume

_MASK_WORDS = {"mask", "masks", "seg", "segmentation", "segmentations", "label", "labels", "gt", "annotations"}
_RAW = "nnUNet_raw"
_PARTS = (".raw", ".zraw")  # voxels of MetaImages
_NO_IMAGES = (  # what else people look at
    ((".pth", ".pt", ".ckpt", ".model"), "a file of weights"),
    (
        (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar"),
        "an archive that is to be unpacked first, or to be installed if it holds a model",
    ),
    ((".b2nd", ".npz", ".npy", ".pkl"), "an array of Python's or of preprocessing's"),
    ((".json", ".csv", ".txt", ".xml"), "text; look at the folder in which it lies, or at the image beside it"),
)
_FEW = 8  # values that are listed one by one
_SMALLEST, _LARGEST = 1e-7, 100.0  # mm
_THICKEST = 50.0  # ratio of the largest to the smallest side of a voxel


@dataclass(frozen=True)
class Look:
    """What is read of one file, or why it cannot be read.

    Parameters
    ----------
    path : Path
        A file, or a folder with a DICOM series.
    shape : tuple of int
        ``([Z,] Y, X)``; empty where it cannot be read.
    channels : int
        Of the file.
    kind : str
        Type of the stored values: "uint8".
    spacing : tuple of float or None
        Voxel size in mm; None if the file does not say it.
    source : str
        Where the voxel size comes from.
    orientation : str
        Where the axes x, y, z lead ("LPS"); empty if nothing is known.
    values : str
        The values, where they are few whole numbers, else their range.
    remarks : tuple of str
        What looks odd.
    way : str
        What to type behind ``import_folders`` so that a mask is taken as it seems to be meant; empty where nothing is
        asked.
    error, in_window : str
        Why it cannot be read, with what to do in a shell and in a window.
    """

    path: Path
    shape: tuple[int, ...] = ()
    channels: int = 0
    kind: str = ""
    spacing: tuple[float, ...] | None = None
    source: str = ""
    orientation: str = ""
    values: str = ""
    remarks: tuple[str, ...] = ()
    way: str = ""
    error: str = ""
    in_window: str = ""

    @property
    def cells(self) -> dict[str, str]:
        """Its line in a table, by the heads of the columns; what cannot be read has a name only."""
        size = "?" if self.spacing is None else " x ".join(f"{v:g}" for v in self.spacing)
        source = "" if self.source in ("", "header") else f" ({self.source})"
        read = {
            "voxels": " x ".join(map(str, self.shape)),
            "voxel size (mm)": size + source,
            "axes": self.orientation or "-",
            "type": self.kind,
            "channels": str(self.channels),
            "values": self.values,
        }
        return {"file": shown(self.path.name), **(dict.fromkeys(read, "") if self.error else read)}


def look(request: LookRequest) -> Job[tuple[Look, ...]]:
    """Read images one after the other and say what is in them.

    Parameters
    ----------
    request : LookRequest
        Files, folders with images, folders with a DICOM series, raw datasets.

    Returns
    -------
    tuple of Look
        In the order of the paths; a file that cannot be read does not end the others.

    Raises
    ------
    DatasetError
        If a path does not exist, or there is no image at all.
    """
    files = [entry for path in request.paths for entry in _files(path, request.subfolders)]
    lacking = [entry for path in request.paths if _is_dataset(path) for entry in _incomplete(path)]
    if not files and not lacking:
        came = _what_it_is(request.paths[0]) if len(request.paths) == 1 else ""
        raise DatasetError(f"There are no images in {', '.join(map(str, request.paths))}. {came}".rstrip())
    if unread := [name for path in request.paths for name in _unread(path, {file for file, _, _ in files})]:
        yield Note(level="warning", text=Inputs((), tuple(unread)).left_out_text)
    if not request.subfolders and (passed := [name for path in request.paths for name in _passed_over(path)]):
        listed = some(passed)
        yield Note(
            level="warning",
            text=f"Not looked into: {listed} ({len(passed)} subfolder{'s' * (len(passed) > 1)} with images). "
            "--subfolders does.",
            in_window=f"Not looked into: {listed} ({len(passed)} subfolder{'s' * (len(passed) > 1)} with images).",
        )
    for path in request.paths:
        if _is_dataset(path) and (path / "imagesTs").is_dir():
            yield Note(text=f"Not looked into: {path / 'imagesTs'}, which no training uses.")
    yield Stage(name="Looking", total=len(files))
    folders = Counter(path.parent for path, reader, _ in files if reader is None and _is_mask(path))
    masks: dict[Path, dict[str, MaskFacts]] = defaultdict(dict)
    found = []
    for done, (path, reader, series) in enumerate(files, 1):
        found.append(_look_at(path, reader, masks[path.parent] if folders[path.parent] > 1 else None, series))
        yield Progress(done=done, total=len(files))
    for folder in filter(masks.get, masks):
        text, way = _meaning(masks[folder], {name: folder / name for name in masks[folder]})
        if text:
            first = next(i for i, entry in enumerate(found) if entry.path.parent == folder and not entry.error)
            about = f"the {len(masks[folder])} masks of this folder: {text}"
            found[first] = replace(found[first], remarks=(*found[first].remarks, about), way=way)
    return (*found, *lacking)


def _is_dataset(path: Path) -> bool:
    return (path / "dataset.json").is_file() and (path / "imagesTr").is_dir()


def _incomplete(folder: Path) -> Iterator[Look]:
    """Yield what makes cases of a dataset unusable: a label that is missing, a channel too few."""
    yield from (Look(folder / p.where, error=p.text, in_window=p.text) for p in survey(folder)[1] if p.fatal)


def _what_it_is(path: Path) -> str:
    """Return what a folder without images is, in words, or how its files end."""
    if is_model_folder(path):
        return "It is a trained model."
    with suppress(OSError):
        folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if datasets := [folder.name for folder in folders if _is_dataset(folder)]:
            return f"It holds datasets: {some(datasets)}. Look at one of them."
        if (path / _RAW).is_dir():
            return f"It is a workspace; its datasets lie in {_RAW}."
        if holds_models(path):
            return "It holds trained models."
        if any(path.glob("checkpoint_*.pth")):
            return "It is a fold of a trained model."
        if any(path.glob("*.b2nd")) or any(path.glob("*/*.b2nd")):
            return "It holds preprocessed cases, which are arrays; look at the raw dataset."
        if inside := _passed_over(path):
            return f"Its subfolders {some(inside)} hold images: name one, or look into all of them (--subfolders)."
    return what_came(path)


def _files(
    path: Path, subfolders: bool, above: frozenset[Path] = frozenset()
) -> Iterator[tuple[Path, str | None, dicom.DicomSeries | None]]:
    """Yield images, the reader that a dataset has for its own, and which series of a folder with several is meant.

    A link that leads back to one of the folders ``above`` is not followed.
    """
    if path.is_file() or (os.path.lexists(path) and not path.is_dir()):
        yield path, None, None  # also a link that leads nowhere, and a pipe: reading it tells that
    elif not path.is_dir():
        raise DatasetError(f"{path} does not exist.")
    elif _is_dataset(path):
        dataset, _ = survey(path)
        reader = reader_of(dataset) if dataset.cases else None
        for case in dataset.cases:
            yield from ((file, reader, None) for file in (*case.images, case.label))
        yield from ((path / "imagesTr" / name, None, None) for name in dataset.left_out if not name.endswith("/"))
    else:
        if is_series := dicom.is_series(path):
            yield from ((path, None, series) for series in _series_in(path))
        above |= {path.resolve()}
        for entry in sorted(p for p in path.iterdir() if not p.name.startswith(".")):
            if entry.is_dir() and (subfolders or dicom.is_series(entry)):
                yield from () if entry.resolve() in above else _files(entry, subfolders, above)
            elif not entry.is_dir() and (entry.name.lower().endswith(ENDINGS) or (not is_series and _is_whole(entry))):
                yield entry, None, None  # also a link that leads nowhere, and a pipe: reading it tells that


def _passed_over(path: Path) -> list[str]:
    """Return the subfolders of a plain folder that hold images and are not looked into."""
    if not path.is_dir() or dicom.is_series(path) or _is_dataset(path):
        return []
    found = []
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        with suppress(OSError):  # one that nobody may read
            if not dicom.is_series(folder) and any(inner.name.lower().endswith(ENDINGS) for inner in folder.iterdir()):
                found.append(f"{folder.name}/")
    return found


def _unread(path: Path, read: set[Path]) -> list[str]:
    """Return the files of the folders that were looked into that are no images; those of a header do not count."""
    if not path.is_dir() or _is_dataset(path):
        return []
    found = []
    for folder in sorted({path, *(file.parent for file in read if path in file.parents)}):
        if not dicom.is_series(folder):
            beside = (*NO_IMAGES, *_PARTS) if any(folder.glob("*.mhd")) else NO_IMAGES
            others = (p for p in sorted(folder.iterdir()) if p not in read and not p.is_dir())
            names = (p for p in others if not (p.name.startswith(".") or p.name.lower().endswith(beside)))
            found += [entry.relative_to(path).as_posix() for entry in names]
    return found


def _series_in(folder: Path) -> Sequence[dicom.DicomSeries | None]:
    """Return the series of a folder where there are several; what is wrong with them is said when they are read."""
    with suppress(ImageError):
        if len(found := dicom.series_in(folder)) > 1:
            return found
    return (None,)


def _is_whole(path: Path) -> bool:
    return path.suffix.lower() == ".dcm" and (not path.is_file() or dicom.holds_volume(path))


def look_at(path: Path | str, reader: str | None = None) -> Look:
    """Return what is read of an image; whatever prevents that is in the answer.

    Parameters
    ----------
    path : Path or str
        A file, or a folder with a DICOM series.
    reader : str, optional
        nnU-Net's class name; found from the file if not given.
    """
    return _look_at(Path(path), reader, None)


def _look_at(
    path: Path, reader: str | None, masks: dict[str, MaskFacts] | None, series: dicom.DicomSeries | None = None
) -> Look:
    """Look at a file; a mask of a folder of masks is kept for what they mean together, others are judged alone."""
    other = next((said for endings, said in _NO_IMAGES if path.name.lower().endswith(endings)), "")
    if other and path.is_file():
        text = f"it is {other}, not an image."
        return Look(path, error=text, in_window=text)
    try:
        with memory_told():
            volume = (
                _dicom_volume(path, series)
                if path.is_dir() or is_dicom(path)
                else read_volume([path], reader=reader, as_stored=True)
            )
    except Exception as error:
        told = for_people(error)
        return Look(path, error=" ".join(told.message.split()), in_window=" ".join(told.in_window.split()))
    geometry, array = volume.geometry, np.asarray(volume.array)
    more, way = _mask_remarks(path, masks) if reader is None and _is_mask(path) else ((), "")
    return Look(
        path,
        shape=volume.shape,
        channels=volume.channels,
        kind=str(array.dtype.newbyteorder("=")),
        spacing=geometry.known_spacing,
        source=(geometry.spacing_source or "header") if geometry.spacing_known else "",
        orientation=geometry.axes_code or "",
        values=_values(array),
        remarks=(*_remarks(volume, array), *more),
        way=way,
    )


def _dicom_volume(path: Path, series: dicom.DicomSeries | None) -> Volume:
    """Return a series, or the segments of a DICOM-SEG or of structures, whose names are a remark."""
    if series is not None:
        array, geometry = dicom.read_series(path, series.uid)
        return Volume(array, geometry.model_copy(update={"remarks": (*geometry.remarks, f"this is {series}")}))
    if dicom.series_in(path) if path.is_dir() else not dicom.holds_segments(path):
        return Volume(*dicom.read_series(path))
    mask = read_mask(path)
    named = "its segments are " + ", ".join(f"{number} {name}" for number, name in mask.names.items())
    geometry = mask.geometry.model_copy(update={"remarks": (*mask.geometry.remarks, named)})
    return Volume(mask.array[None], geometry)


def _values(array: np.ndarray) -> str:
    if array.dtype.kind in "iub":
        low, high = int(array.min()), int(array.max())
        if high - low < 1 << 16:
            present = np.flatnonzero(np.bincount((array.astype(np.int64) - low).ravel())) + low
            if len(present) <= _FEW:
                return ", ".join(map(str, present))
        return f"{low} to {high}"
    finite = array[np.isfinite(array)]
    return f"{finite.min():g} to {finite.max():g}" if finite.size else "none"


def _remarks(volume: Volume, array: np.ndarray) -> Iterator[str]:
    yield from (*volume.notes, *volume.geometry.remarks)
    spacing = volume.geometry.spacing
    if not volume.geometry.spacing_known:
        yield "it has no voxel size" + ("; 1 mm would be assumed" if volume.geometry.ndim == 3 else "")
    elif not all(_SMALLEST <= v <= _LARGEST for v in spacing) or max(spacing) > _THICKEST * min(spacing):
        yield "its voxel size is implausible"
    if thin := [axis for axis, n in zip("zyx", volume.shape, strict=False) if n == 1 and len(volume.shape) == 3]:
        yield f"it is one voxel thick along {' and '.join(thin)}"
    if array.dtype.kind == "f" and (count := int(array.size - np.count_nonzero(np.isfinite(array)))):
        yield f"{counted(count, 'voxel is', 'voxels are')} NaN or infinite"
    if array.size > 1 and array.min() == array.max():
        yield "all its voxels are equal"


def _is_mask(path: Path) -> bool:
    """Whether a file, or its folder, is named like masks."""
    return not _MASK_WORDS.isdisjoint(re.split(r"[\W_\d]+", f"{path.parent.name} {path.name}".casefold()))


def _mask_remarks(path: Path, masks: dict[str, MaskFacts] | None) -> tuple[tuple[str, ...], str]:
    """Return what an import would ask about a mask, and what answers it; one of several is kept to be judged later."""
    try:
        mask = read_mask(path)
        facts = {path.name: facts_of(mask)}
        if masks is not None:
            masks |= facts
            return (), ""
        text, way = _meaning(facts, {path.name: path})
    except ImageError as error:
        return (f"as a mask: {error.message}",), ""
    return ((f"as a mask: {text}",) if text else ()), way


def _meaning(facts: Mapping[str, MaskFacts], paths: Mapping[str, Path]) -> tuple[str, str]:
    """Return what an import would ask about masks, and what answers it; empty where their meaning is certain."""
    found = recognise(facts, [pieces_of(read_mask(paths[name])) for name in to_look_at(facts)])
    if found.certain:
        return "", ""
    way = words_of(found)
    return found.sentence, f"--objects (all of them one class: {way})" if found.kind == "objects" else way


def look_table(found: Sequence[Look]) -> list[str]:
    """Return the lines of a table for a shell; what looks odd stands below its file."""
    head = tuple(found[0].cells)
    rows = [head, *(tuple(entry.cells.values()) for entry in found if not entry.error)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(head, widths, strict=True)).rstrip()]
    for entry in found:
        if entry.error:
            lines.append(f"{shown(entry.path.name)}: {entry.error}")
            continue
        cells = entry.cells.values()
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
        lines += [f"    ! {text}" for text in entry.remarks]
        lines += [f"    ! If that is right, import it with: {entry.way}"] if entry.way else []
    return lines
