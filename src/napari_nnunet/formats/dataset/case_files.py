"""Cases in folders of images: CASE_0000.ext, CASE_0001.ext, one file per channel (documentation/dataset_format.md)."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_nnunet.errors import DatasetError, ImageError, some
from napari_nnunet.formats.dataset.channel_files import folders_below, given_paths, holds_images
from napari_nnunet.formats.dicom import series as dicom
from napari_nnunet.formats.images.files import ADAPTERS, ENDINGS, read_header, read_volume
from napari_nnunet.grid import WhenApart
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.names import fault_of, is_plain, shown
from napari_nnunet.volume import Volume

_VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl")
_STACKS = (".tif", ".tiff")
#: What each reader reads itself; files of other kinds are read by their own.
_OWN: dict[str, tuple[str, ...]] = {
    "NaturalImage2DIO": ADAPTERS["NaturalImage2DIO"].endings,
    "Tiff3DIO": _STACKS,
    "NibabelIO": (".nii.gz", ".nii"),
    "NibabelIOWithReorient": (".nii.gz", ".nii"),
    "SimpleITKIO": _VOLUMES,
    "SimpleITKIOWithReorient": _VOLUMES,
}
_COLOURS = (3, 4)  # channels that a picture can hold in one file
#: Endings of files that lie beside images and are none.
NO_IMAGES = (
    ".json", ".jsonl", ".txt", ".csv", ".tsv", ".md", ".pdf", ".pkl", ".npz", ".xml", ".html", ".log", ".py", ".yaml",
    ".yml", "thumbs.db", "desktop.ini",
)  # fmt: skip
_SHOWN = 20


@dataclass(frozen=True)
class Case:
    """One case: its name, with the subfolder it lies in, and one file per channel, or where its DICOM series lies.

    Parameters
    ----------
    name : str
        Of the case.
    files : tuple of Path
        One per channel; one folder or file of DICOM.
    series : str or None
        Of DICOM, which series of the folder: its UID, empty where there is one. None for other files.
    """

    name: str
    files: tuple[Path, ...]
    series: str | None = None

    @property
    def is_dicom(self) -> bool:
        """Whether it is a DICOM series."""
        return self.series is not None


@dataclass(frozen=True)
class Inputs:
    """What was found.

    Parameters
    ----------
    cases : tuple of Case
        Sorted by name.
    left_out : tuple of str
        Images that belong to no case, and subfolders that were not looked into.
    """

    cases: tuple[Case, ...]
    left_out: tuple[str, ...] = ()

    @property
    def left_out_text(self) -> str:
        """A sentence that counts and names what was left out, empty if nothing was."""
        count = len(self.left_out)
        if not count:
            return ""
        what = "1 entry of the input is" if count == 1 else f"{count} entries of the input are"
        return f"{what} left out: {some(self.left_out, _SHOWN)}."


@dataclass
class _Heap:
    """Files of one folder while they are sorted into cases."""

    folder: str = ""
    files: dict[str, dict[int, Path]] = field(default_factory=lambda: defaultdict(dict))
    left_out: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def reader_for(path: Path, reader: str) -> str | None:
    """Return the reader that reads a file for a model: the model's own, or None for the one of the file's kind."""
    own = _OWN.get(reader)
    return reader if own is None or path.name.lower().endswith(own) else None


def volume_of_case(case: Case, reader: str, *, apart: WhenApart = "refuse") -> Volume:
    """Read the image of a case as a model reads it: files by their reader, or a DICOM series.

    Raises
    ------
    ImageError
        If it cannot be read.
    """
    if case.is_dicom:
        return Volume(*dicom.read_series(case.files[0], case.series or ""))
    return read_volume(case.files, reader=reader_for(case.files[0], reader), apart=apart)


def size_of_case(case: Case, reader: str) -> tuple[tuple[int, ...], Geometry]:
    """Return shape ([Z,] Y, X) and geometry of a case; of files only their headers are read."""
    if case.is_dicom:
        volume = volume_of_case(case, reader)
        return volume.shape, volume.geometry
    shape, _, geometry = read_header(case.files[0], reader=reader_for(case.files[0], reader))
    return shape[1:], geometry


def _readable(reader: str) -> tuple[str, ...]:
    """Return the endings of files that mean the same to a model as those it was trained on."""
    if reader in ("SimpleITKIO", "NibabelIO", "Tiff3DIO"):
        return (*_VOLUMES, *_STACKS)
    return _OWN.get(reader, ())


def find_cases(
    sources: Path | Sequence[Path],
    *,
    ending: str,
    channels: int,
    reader: str = "",
    subfolders: bool = False,
    without: Path | None = None,
) -> Inputs:
    """Return the cases among files and folders, sorted by name.

    In a folder, files with the model's ending are cases, in upper or lower case; files of other kinds that the model
    can use are if they are named like channels (``CASE_0000``), or if there is nothing else. Where a model has one
    channel, its number may be missing. Files that are given one by one are always cases.

    Parameters
    ----------
    sources : Path or sequence of Path
        Folders, files, folders with the slices of a DICOM series.
    ending : str
        Of the model's files, with the leading dot.
    channels : int
        Files every case must have. A picture with several colours is one file; where every case has exactly one file,
        that is accepted and the number of channels is checked after reading.
    reader : str
        nnU-Net's name of the model's reader, which tells what other kinds of files it can use.
    subfolders : bool
        Look into folders within folders; cases are then named with the folder they lie in.
    without : Path, optional
        A folder that is not looked into, for results lie there.

    Raises
    ------
    DatasetError
        If there are no such files, names do not follow the pattern, or channel files are missing; all problems at once.
    """
    listed = given_paths([sources] if isinstance(sources, Path) else sources)
    heaps: list[_Heap] = []
    cases: list[Case] = []
    for source in listed:
        if source.is_file():
            continue
        for folder, name in _folders(source, subfolders, without, shut := _Heap("")):
            if dicom.is_series(folder):
                cases += _series_of(folder, name or source.name)
                beside = f"{folder.relative_to(source).as_posix()}/" if name else ""
                heaps.append(_Heap(beside, left_out=_beside_series(folder, subfolders)))
                continue
            heap = _sorted(folder, name, ending, _readable(reader), channels, subfolders)
            if not (subfolders or heap.files or heap.problems):
                cases += _series_within(heap, folder, without)
            heaps.append(heap)
        heaps.append(shut)
    files = [source for source in listed if source.is_file()]
    alone = [path for path in files if not path.name.lower().endswith(ENDINGS) and dicom.is_dicom_image(path)]
    _refuse_slices(alone)
    cases += [Case(path.stem if path.suffix.lower() == ".dcm" else path.name, (path,), "") for path in alone]
    heaps.append(_given([path for path in files if path not in alone]))
    _require_series_fit(cases, channels)
    problems = [f"{heap.folder}{text}" for heap in heaps for text in heap.problems]
    one_each = all(len(files) == 1 for heap in heaps for files in heap.files.values())
    for heap in heaps:
        problems += [f"{heap.folder}{text}" for text in _gaps(heap, ending, channels, one_each)]
        cases += [
            Case(f"{heap.folder}{name}", tuple(files[c] for c in sorted(files))) for name, files in heap.files.items()
        ]
    if problems:
        more = f"\n  ... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DatasetError("The input is not complete:\n  " + "\n  ".join(problems[:_SHOWN]) + more)
    left_out = tuple(f"{heap.folder}{text}" for heap in heaps for text in heap.left_out)
    if not cases:
        raise DatasetError(_nothing(listed, ending, left_out))
    return Inputs(tuple(sorted(_once(cases), key=lambda case: case.name)), left_out)


def _folders(source: Path, subfolders: bool, without: Path | None, shut: _Heap) -> Iterator[tuple[Path, str]]:
    """Yield folders and their places below the source, "a/b/" or "" for itself, but for results and closed ones."""
    yield source, ""
    results = None if without is None else without.resolve()
    if results in (own := source.resolve(), *own.parents):
        results = None  # the images lie within it
    closed: list[Path] = []
    below = sorted(folders_below(source, closed)) if subfolders else []
    shut.left_out += [f"{path.relative_to(source).as_posix()}/ (it may not be read by you)" for path in closed]
    for path in below:
        place = path.relative_to(source).as_posix()
        if results not in (found := path.resolve(), *found.parents):
            yield path, place if dicom.is_series(path) else f"{place}/"


def _series_of(folder: Path, name: str) -> list[Case]:
    """Return a case for each series of a folder, with the scanner's number where there are several."""
    try:
        series = dicom.series_in(folder)
    except ImageError:  # a damaged slice; said when its turn comes, the cases after it go on
        series = ()
    if len(series) < 2:
        return [Case(name, (folder,), "")]
    numbers = [one.number if one.number.isdigit() else "" for one in series]
    if "" in numbers or len(set(numbers)) < len(numbers):
        numbers = [str(number) for number in range(1, len(series) + 1)]
    return [Case(f"{name}_{number}", (folder,), one.uid) for one, number in zip(series, numbers, strict=True)]


def _beside_series(folder: Path, subfolders: bool) -> list[str]:
    """Return the images that lie in the folder of a series, which is taken for what it holds."""
    left_out = []
    for path in sorted(p for p in folder.iterdir() if not p.name.startswith(".")):
        if path.is_dir():
            left_out += [f"{path.name}/ (a subfolder)"] if not subfolders and holds_images(path) else []
        elif path.name.lower().endswith(ENDINGS):
            left_out.append(f"{path.name} (in the folder of a DICOM series)")
    return left_out


def _series_within(heap: _Heap, folder: Path, without: Path | None) -> list[Case]:
    """Return the series in the subfolders of a folder without images: series are folders as images are files."""
    found: list[Case] = []
    for path in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if (without is None or path.absolute() != without.absolute()) and dicom.is_series(path):
            found += _series_of(path, path.name)
            heap.left_out.remove(f"{path.name}/ (a subfolder)")
    return found


def _sorted(folder: Path, name: str, ending: str, readable: tuple[str, ...], channels: int, subfolders: bool) -> _Heap:
    heap = _Heap(name)
    taken = _taken(folder, ending, readable, subfolders, heap.left_out)
    bare = []
    for path in taken:
        case, channel = _split(path)
        if channel is None:
            bare.append((path, case))
        elif heap.files[case].setdefault(channel, path) is not path:
            heap.left_out.append(f"{path.name} ({heap.files[case][channel].name} is the same case)")
    colours = channels in _COLOURS and not heap.files and all(_is_picture(path) for path, _ in bare)
    for path, case in bare:
        if channels > 1 and not colours:
            heap.problems.append(f"{shown(path.name)}: the name must end in _0000{_ending(path)} (the channel number)")
        elif case in heap.files:
            heap.left_out.append(f"{path.name} ({next(iter(heap.files[case].values())).name} is the same case)")
        else:
            heap.files[case][0] = path
    return heap


def _taken(folder: Path, ending: str, readable: tuple[str, ...], subfolders: bool, left_out: list[str]) -> list[Path]:
    """Return the files of a folder that are taken for images of cases; the others are noted in ``left_out``."""
    own: list[Path] = []
    others: list[Path] = []
    for path in sorted(p for p in folder.iterdir() if not p.name.startswith(".")):
        lowered = path.name.lower()
        if lowered.endswith(".zarr"):
            left_out.append(f"{path.name} (OME-Zarr, one image at a time)")
        elif path.is_dir():
            left_out += [f"{path.name}/ (a subfolder)"] if not subfolders and holds_images(path) else []
        elif lowered.endswith(ending.lower()):
            own.append(path)
        elif lowered.endswith(readable):
            others.append(path)
        elif not lowered.endswith(NO_IMAGES):
            left_out.append(path.name)
    own.sort(key=lambda path: not path.name.endswith(ending))  # as the model was trained, before upper case
    taken = [*own, *(path for path in others if _split(path)[1] is not None)] or others
    left_out += [path.name for path in others if path not in taken]
    return taken


def _given(paths: Sequence[Path]) -> _Heap:
    heap = _Heap()
    beside = [path for path in paths if path.name.startswith("._") or path.name.lower().endswith(NO_IMAGES)]
    if len(beside) < len(paths):  # as FOLDER/* gives them
        heap.left_out += [path.name for path in beside]
        paths = [path for path in paths if path not in beside]
    for path in paths:
        if not path.name.lower().endswith(ENDINGS):
            heap.problems.append(
                f"{shown(path.name)}: unknown kind of image; known endings: {', '.join(sorted(ENDINGS))}"
            )
            continue
        case, channel = _split(path)
        if heap.files[case].setdefault(channel or 0, path) is not path:
            heap.problems.append(f"{path} and {heap.files[case][channel or 0]} would both be the case {shown(case)}")
    return heap


def _is_picture(path: Path) -> bool:
    """Whether a file can hold all colours of a case."""
    return path.name.lower().endswith(ADAPTERS["NaturalImage2DIO"].endings)


def _split(path: Path) -> tuple[str, int | None]:
    """Return the case and the channel that a file's name says."""
    stem = path.name[: -len(_ending(path))] if _ending(path) else path.name
    match = re.fullmatch(r"(.+)_(\d{4})", stem, re.DOTALL)
    return (match[1], int(match[2])) if match else (stem, None)


def _ending(path: Path) -> str:
    lowered = path.name.lower()
    known = next((ending for ending in ENDINGS if lowered.endswith(ending)), path.suffix)
    return path.name[len(path.name) - len(known) :] if known else ""


def _gaps(heap: _Heap, ending: str, channels: int, one_each: bool) -> Iterator[str]:
    for case, files in heap.files.items():
        if not is_plain(case):
            yield f"{shown(case)} cannot name a case: {fault_of(case)}; rename the file"
        missing = sorted(set(range(channels)) - set(files))
        if missing and not (one_each and 0 in files):
            listed = ", ".join(f"{case}_{c:04d}{ending}" for c in missing)
            have = f"{channels} channels" if channels > 1 else "1 channel, _0000"
            text = f"{case}: missing {listed} (the model has {have})"
            if channels == 1:  # many count their cases so
                name = files[max(files)].name
                own = name[: len(name) - len(ending)]
                text += f"; if {own} is the name of a case, rename {name} to {own}_0000{ending}"
            yield text


def _require_series_fit(cases: Sequence[Case], channels: int) -> None:
    if cases and channels > 1:
        raise DatasetError(
            f"{cases[0].files[0]} is a DICOM series, one channel, but the model has {channels}. Save every channel as "
            "CASE_0000.nii.gz, CASE_0001.nii.gz, ... first."
        )


def _refuse_slices(files: Sequence[Path]) -> None:
    """Refuse the slices of a series one by one, as ``FOLDER/*.dcm`` gives them: each would be an image by itself."""
    slices = dicom.slices_of_one(files)
    if slices:
        folders = sorted({str(path.parent) for path in slices})
        raise DatasetError(
            f"{len(slices)} of the files ({some([path.name for path in slices], 3)}) "
            "are slices of one DICOM series, and each would be segmented as an "
            f"image by itself. Give the folder of the series instead ({some(folders, 3)})."
        )


def _once(cases: Sequence[Case]) -> Iterator[Case]:
    """Yield the cases, each once; raises DatasetError if two have one name."""
    first: dict[str, Case] = {}
    for case in cases:
        other = first.setdefault(case.name, case)
        if other is case:
            yield case
        elif list(map(os.path.realpath, case.files)) != list(map(os.path.realpath, other.files)):
            raise DatasetError(
                f"{case.files[0]} and {other.files[0]} would both be the case {shown(case.name)}. Rename one of them, "
                "or segment the folders one after the other."
            )


def _nothing(sources: Sequence[Path], ending: str, left_out: Sequence[str]) -> str:
    where = ", ".join(map(str, sources))
    files = [path for source in sources if source.is_dir() for path in source.iterdir() if path.is_file()]
    others = sorted({"".join(path.suffixes[-2:]) for path in files if not path.name.startswith(".")} - {""})[:6]
    text = f"{where} has no files ending in {ending}, which is what the model was trained on"
    text += f"; it has {', '.join(others)}." if others else "."
    if any(path.name.startswith(".") and path.name.lower().endswith(ENDINGS) for path in files):
        text += " Files whose names begin with a dot are hidden ones, and are ignored."
    shut = [entry for entry in left_out if entry.endswith("(it may not be read by you)")]
    text += f" Left out: {some(shut, 3)}. Change the permissions." if shut else ""
    folders = sum(entry.endswith("(a subfolder)") for entry in left_out)
    return text + (f" {folders} of its subfolders hold images (--subfolders)." if folders else "")
