"""Files of training cases go into the trash of their dataset, and come back."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from napari_nnunet.formats.atomic import make_folder, write_error, write_json
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.trash import TRASH, Trashed, trash_path, trashed
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.json_text import message

OBJECTS = "objectsTr"  # numbered objects ...
KINDS = "kindsTr"  # ... and of which kind each is
_LABELS = ("labelsTr", OBJECTS, KINDS)
_CLASSES = "classes.json"  # what the values meant when files were put into the trash


def raw_case_files(folder: Path, name: str, info: DatasetInfo) -> list[Path]:
    """Return the files of a case: images, labels, numbered objects, and what lies next to them."""
    plain, ending = re.escape(name), re.escape(info.file_ending)
    patterns = {
        "imagesTr": rf"{plain}_\d{{4}}({ending}|\.json)|{plain}\.json",
        **dict.fromkeys(_LABELS, rf"{plain}({ending}|\.json)"),
    }
    return [
        path
        for where, pattern in patterns.items()
        if (folder / where).is_dir()
        for path in sorted((folder / where).iterdir())
        if re.fullmatch(pattern, path.name)
    ]


def masks_of(folder: Path, name: str, info: DatasetInfo) -> list[Path]:
    """Return the masks of a case that its labels are drawn from: its numbered objects and their kinds."""
    found = raw_case_files(folder, name, info)
    return [p for p in found if p.parent.name in (OBJECTS, KINDS) and p.name.endswith(info.file_ending)]


@contextmanager
def in_trash(folder: Path, name: str, files: Sequence[Path], *, copied: bool = False) -> Iterator[Path]:
    """Move files of a case to the dataset's trash folder; back again if what should replace them fails.

    Parameters
    ----------
    folder : Path
        The dataset.
    name : str
        Of the case.
    files : sequence of Path
        In its imagesTr and labelsTr.
    copied : bool
        Whether they stay until others take their place at once.
    """
    if not files:
        yield folder / TRASH
        return
    trash = trash_path(folder / TRASH, name)
    try:
        write_json(make_folder(trash) / _CLASSES, dict(read_info(folder).labels.labels))
        homes = {path: trash / path.parent.name / path.name for path in files}
        if copied:
            for path, target in homes.items():
                shutil.copy2(path, make_folder(target.parent) / target.name)
            yield trash
            return
        with moved(homes):
            yield trash
    except BaseException as error:
        shutil.rmtree(trash, ignore_errors=True)
        raise write_error(trash, error) if isinstance(error, OSError) else error from None


@contextmanager
def moved(files: dict[Path, Path]) -> Iterator[None]:
    """Move files; back again if what follows fails."""
    moved: dict[Path, Path] = {}
    try:
        for path, target in files.items():
            make_folder(target.parent)
            shutil.move(path, target)
            moved[path] = target
        yield
    except BaseException:
        for path, target in moved.items():
            shutil.move(target, path)
        raise


def cases_in_trash(folder: Path) -> list[Trashed]:
    """Return the images and labels in the trash of a dataset, the latest first."""
    entries = trashed(folder / TRASH)
    return [e for e in entries if homes_of(folder, e) and not (e.path / "dataset.json").is_file()]


def homes_of(folder: Path, entry: Trashed) -> dict[Path, Path]:
    """Return the files of an entry and where each belongs; labels may lie in it without a folder."""
    found = {}
    for path in sorted(entry.path.rglob("*")):
        if path.is_file() and path.name != _CLASSES:
            where = path.parent.name if path.parent != entry.path else "labelsTr"
            found[path] = folder / where / path.name
    return found


def parts_in_trash(entry: Trashed) -> str:
    """Return what an entry holds: images, labels and objects, or some of them."""
    words = {"images": "imagesTr", "labels": "labelsTr", "objects": "objectsTr"}
    there = [word for word, part in words.items() if (entry.path / part).is_dir()]
    return " and ".join((*([", ".join(there[:-1])] if there[1:] else []), *there[-1:])) or "labels"


def doubts(folder: Path, entry: Trashed) -> str:
    """Return why files may not fit the dataset any more, in sentences; empty where nothing speaks against them."""
    info = read_info(folder)
    said = []
    homes = set(homes_of(folder, entry).values())
    images = [path for path in raw_case_files(folder, entry.name, info) if path.parent.name == "imagesTr"]
    newer = [path for path in images if path.stat().st_mtime_ns > entry.path.stat().st_mtime_ns]
    if newer and not homes & set(newer):
        said.append(f"{newer[0].name} was replaced after these labels were put into the trash.")
    before = message(entry.path / _CLASSES)
    now = dict(info.labels.labels)
    changed = [name for name, value in before.items() if now.get(name) != _value(value)]
    if changed:
        said.append(f"The class '{changed[0]}' had the value {before[changed[0]]} then.")
    return " ".join(said)


def _value(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
