"""Models in a zip: nnU-Net's layout, checked before anything is unpacked.

A zip from somebody else is not trusted: names that lead elsewhere, links, and contents far larger than the file are
refused, and nothing appears in the models' folder before all of it was read and checked.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from napari_nnunet.errors import ModelError, ResourceError, some
from napari_nnunet.formats.atomic import make_folder, write_error
from napari_nnunet.formats.model.card import CARD_FILE, ModelCard
from napari_nnunet.formats.model.checkpoint import facts_in
from napari_nnunet.formats.model.folder import V1_PLANS, V1_WAY
from napari_nnunet.formats.regular import regular
from napari_nnunet.schema.json_text import LARGEST, decoded, json_object
from napari_nnunet.schema.model_name import DEFAULT_PLANS, DEFAULT_TRAINER, ModelName
from napari_nnunet.schema.names import fault_of, is_dataset_name
from napari_nnunet.schema.plans import Plans

_CHUNK = 4 << 20
_MOST_ENTRIES = 10_000  # a model has some ten files; with all its validation cases, thousands
_LONGEST_PLACE, _LONGEST_NAME = 1000, 255  # characters; bytes
_RATIO = 200  # of the content to the file; weights shrink by a tenth, empty label maps by a few hundred at most
_FREE = 64 << 20  # bytes that any zip may hold, whatever the ratio
_OF_PROCESSES = ("running.json", "control.json", "tracking.json")  # who trained it elsewhere, and who was told
_CHECKPOINT = r"checkpoint_.+\.pth"
_BROKEN = (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
_LOOKED_AT = 262  # bytes
_OTHERS = {b"\x1f\x8b": "packed with gzip (.gz, .tar.gz)", b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a RAR archive",
           b"BZh": "packed with bzip2", b"\xfd7zXZ": "packed with xz", b"{": "a text file"}  # fmt: skip
_NO_COPY = r"(?!.*( \(\d+\)| - Copy.*| copy( \d+)?| \d+)$).*"  # what file managers put behind the names of copies
_PACKED = (".zip", ".gz", ".tgz", ".tar", ".7z", ".rar")


@dataclass(frozen=True)
class Bundle:
    """A zip with models, checked.

    Parameters
    ----------
    path : Path
        The zip.
    dataset : str
        Name of the folder the models go to.
    models : tuple of str
        Their folders, TRAINER__PLANS__CONFIGURATION; of a model that was packed without one, what it has to be.
    files : dict of str to PurePosixPath
        Name in the zip to path below the dataset's folder.
    size : int
        Bytes of all of them.
    card : ModelCard or None
        Where there is one.
    """

    path: Path
    dataset: str
    models: tuple[str, ...]
    files: dict[str, PurePosixPath]
    size: int
    card: ModelCard | None


_TAIL = (1 << 16) + 22  # bytes at the end of a zip in which its list of contents ends
_LIST = 1 << 24  # bytes of a list that is searched


def is_model_zip(path: Path) -> bool:
    """True if a zip holds models; only its list of contents is read."""
    try:
        if not _lists_plans(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return bool(_model_roots(_plain_names(archive)))
    except (OSError, RuntimeError, zipfile.BadZipFile, ModelError):
        return False


def _lists_plans(path: Path) -> bool:
    """False if the list of contents of a zip names no plans: its bytes are searched, which takes a moment.

    True where the list is not where it should be, or very long: that is judged by reading it.
    """
    size = regular(path).stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _TAIL))
        tail = file.read()
        mark = tail.rfind(b"PK\x05\x06")  # the end of the list (APPNOTE 4.3.16)
        if mark < 0 or len(tail) < mark + 20:
            return True
        (length,) = struct.unpack("<I", tail[mark + 12 : mark + 16])
        begin = size - len(tail) + mark - length
        if length > _LIST or begin < 0:
            return True
        file.seek(begin)
        return b"plans." in file.read(length)


def inspect(path: Path) -> Bundle:
    """Check a zip without unpacking it.

    Raises
    ------
    ModelError
        If it is no zip, damaged, holds no model, or is not safe to unpack.
    """
    with _opened(path) as archive:
        names = _plain_names(archive)
        roots = _model_roots(names)
        if not roots:
            shown = some(list(names.values()), 4)
            if any(place.name == V1_PLANS for place in names.values()):
                raise ModelError(f"{path} contains a model of nnU-Net v1. Unpack it first. {V1_WAY}")
            inner = next((name for name, place in names.items() if place.suffix.lower() in _PACKED), None)
            raise ModelError(
                f"{path} contains no trained model: no folder in it has plans.json, dataset.json and "
                f"fold_X/checkpoint_...pth. It contains {shown or 'nothing'}."
                + (f" Unpack it, and install {inner} if that holds the model." if inner else "")
            )
        _check_size(path, archive)
        parents = {root.parent for root in roots}
        if len(parents) > 1:
            raise ModelError(
                f"{path} contains models of several datasets ({some(sorted(map(str, parents)))}). "
                "Unpack it yourself and choose one."
            )
        parent = parents.pop()
        entries = {place: name for name, place in names.items()}
        folders = {root: _model_folder(path, archive, root, entries) for root in roots}
        files = {name: to for name, place in names.items() if (to := _target(place, parent, folders)) is not None}
        dataset = _dataset_name(path, archive, parent, entries[roots[0] / "plans.json"])
        size = sum(archive.getinfo(name).file_size for name in files)
        card = _card(archive, entries.get(parent / CARD_FILE))
    if len(set(folders.values())) < len(roots):
        raise ModelError(f"{path} contains {sorted(folders.values())[0]} more than once. Unpack it and choose one.")
    return Bundle(path, dataset, tuple(sorted(folders.values())), files, size, card)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    if path.is_dir():
        text = (
            f"{path} is a folder; a zip with a model is expected. The folder of a model, with plans.json in it, is used"
        )
        raise ModelError(
            f"{text} as it is.", shell="Give it to predict_from_modelfolder -m.", window="Choose it in Segment."
        )
    if not path.is_file():
        raise ModelError(f"{path} does not exist.")
    try:
        with path.open("rb") as file:
            begin = file.read(_LOOKED_AT)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from error
    kind = next((kind for start, kind in _OTHERS.items() if begin.startswith(start)), "")
    if kind or begin[257:262] == b"ustar":
        kind = kind or "a tar archive"
        raise ModelError(f"{path} is {kind}, not a zip. Unpack it and use the folder, or pack it as a zip.")
    try:
        with zipfile.ZipFile(path) as archive:
            if min((entry.header_offset for entry in archive.infolist()), default=0) > 0:
                # Checkpoints are zips themselves: of a file that was cut off, one within is found instead.
                raise zipfile.BadZipFile("its list of contents is missing")
            yield archive
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ModelError(
            f"{path} is not a complete zip ({error}). Was the download interrupted? Get it again."
        ) from error


def _plain_names(archive: zipfile.ZipFile) -> dict[str, PurePosixPath]:
    """Return the files of a zip by name; refuses names that could leave the folder they are unpacked to."""
    entries = archive.infolist()
    if len(entries) > _MOST_ENTRIES:
        raise ModelError(
            f"{archive.filename} was refused: it has {len(entries):,} entries, at most {_MOST_ENTRIES:,} are allowed. "
            "Export the models without their validation cases, or unpack the file yourself."
        )
    found: dict[str, PurePosixPath] = {}
    places: set[PurePosixPath] = set()
    folded: dict[str, PurePosixPath] = {}
    for entry in entries:
        text = entry.filename.replace("\\", "/")
        place = PurePosixPath(text[:_LONGEST_PLACE])
        outside = (
            not text.strip("/")
            or text.startswith("/")
            or len(text) > _LONGEST_PLACE
            or ".." in place.parts
            or re.match("[A-Za-z]:", text)
        )
        if outside or (entry.external_attr >> 16 and stat.S_ISLNK(entry.external_attr >> 16)):
            raise ModelError(
                f"{archive.filename} was refused: its entry {entry.filename!r:.200} could write outside of the models' "
                "folder. Do not trust this file."
            )
        fault = next((fault for part in place.parts if (fault := fault_of(part, _LONGEST_NAME))), None)
        if fault is not None:
            raise ModelError(
                f"{archive.filename} was refused: its entry {entry.filename!r:.200} cannot be a file on every system: "
                f"{fault}. Ask for a copy in which it has another name."
            )
        if entry.flag_bits & 1:
            raise ModelError(f"{archive.filename} is encrypted. Ask for a copy without a password.")
        if not text.endswith("/") and not any(part.startswith(("__MACOSX", ".")) for part in place.parts):
            if place in places:
                raise ModelError(f"{archive.filename} was refused: it holds {place} twice.")
            other = folded.setdefault(str(place).casefold(), place)
            if other != place:
                raise ModelError(
                    f"{archive.filename} was refused: it holds {other} and {place}, which are one file on Windows and "
                    "macOS. Ask for a copy without one of them."
                )
            places.add(place)
            found[entry.filename] = place
    both = next((parent for place in places for parent in place.parents if parent in places), None)
    if both is not None:
        raise ModelError(f"{archive.filename} was refused: it holds {both} both as a file and as a folder.")
    return found


def _model_roots(names: dict[str, PurePosixPath]) -> list[PurePosixPath]:
    places = set(names.values())
    checkpoints = {place.parent.parent for place in places if re.fullmatch(_CHECKPOINT, place.name)}
    return sorted(root for root in checkpoints if {root / "plans.json", root / "dataset.json"} <= places)


def _check_size(path: Path, archive: zipfile.ZipFile) -> None:
    total = sum(entry.file_size for entry in archive.infolist())
    if total > _FREE and total > _RATIO * path.stat().st_size:
        raise ModelError(
            f"{path} was refused: it would unpack to {total / 1e9:.1f} GB, over {_RATIO} times its size; no model "
            "shrinks that much."
        )


def _target(place: PurePosixPath, parent: PurePosixPath, folders: Mapping[PurePosixPath, str]) -> PurePosixPath | None:
    """Return where a file goes below the dataset's folder; None for what is neither a model's nor that folder's own."""
    if place.name in _OF_PROCESSES:
        return None
    for root in (PurePosixPath("."), PurePosixPath(*place.parts[: len(parent.parts) + 1])):
        if root in folders:  # all of them lie in one folder
            return PurePosixPath(folders[root]) / place.relative_to(root)
    if not place.is_relative_to(parent) or parent == PurePosixPath("."):
        return None
    own = place.relative_to(parent)
    return own if len(own.parts) == 1 or own.parts[0] == "ensembles" else None


def _model_folder(
    path: Path, archive: zipfile.ZipFile, root: PurePosixPath, entries: Mapping[PurePosixPath, str]
) -> str:
    """Return the name of a model's folder, or where it was packed without it, what it was called by nnU-Net."""
    own = ModelName.of(root.name)
    if own is not None and re.fullmatch(_NO_COPY, own.configuration):
        return root.name
    checkpoints = sorted(p for p in entries if p.parent.parent == root and re.fullmatch(_CHECKPOINT, p.name))
    try:
        with archive.open(entries[checkpoints[0]]) as file:
            facts = facts_in(file)  # type: ignore[arg-type]
        plans = Plans.parse(_json(archive, entries[root / "plans.json"]), where=f"plans.json in {path.name}")
        if facts is not None and facts[1] in plans.configurations:
            return ModelName(facts[0], plans.plans_name, facts[1]).folder
    except (*_BROKEN, ValueError):
        pass
    if own is not None:
        return root.name
    raise ModelError(
        f"{path} contains a model without its folder, and its name could not be read from its plans.json and "
        f"{checkpoints[0].name}. Pack the folder itself, such as {DEFAULT_TRAINER}__{DEFAULT_PLANS}__3d_fullres."
    )


def _dataset_name(path: Path, archive: zipfile.ZipFile, parent: PurePosixPath, plans: str) -> str:
    own = parent.name if is_dataset_name(parent.name) else ""
    if own and re.fullmatch(_NO_COPY, own):
        return own
    try:
        name = str(_json(archive, plans)["dataset_name"])
    except (ValueError, KeyError):
        name = ""
    if is_dataset_name(name) and (not own or own.startswith(name)):
        return name
    if own:
        return own
    raise ModelError(
        f"Could not determine the dataset of the models in {path}. Put them in a folder such as Dataset004_Hippocampus."
    )


def _json(archive: zipfile.ZipFile, entry: str) -> dict[str, Any]:
    """Return the object in a JSON file of a zip; raises ValueError if it is damaged."""
    try:
        with archive.open(entry) as file:
            return json_object(decoded(file.read(LARGEST))[0], entry, ModelError)
    except (*_BROKEN, ModelError) as error:
        raise ValueError(str(error)) from error


def _card(archive: zipfile.ZipFile, entry: str | None) -> ModelCard | None:
    try:
        return None if entry is None else ModelCard.parse(_json(archive, entry), where=CARD_FILE)
    except (ValueError, ModelError):
        return None  # a card is for people; a model without one works as well


def extract(bundle: Bundle, target: Path) -> Iterator[int]:
    """Unpack into a folder that is empty or new; yields the bytes written so far.

    Raises
    ------
    ResourceError
        If the disk has no room; that is known before anything is written.
    ModelError
        If the zip is damaged, or a checkpoint is not what the card says.
    """
    make_folder(target)
    free = shutil.disk_usage(target).free
    if bundle.size > free:
        raise ResourceError(
            f"The models of {bundle.path.name} take {bundle.size / 1e9:.2f} GB, but {target.parent} has only "
            f"{free / 1e9:.2f} GB free. Free some disk space, or choose another workspace."
        )
    expected = _expected_hashes(bundle)
    done = 0
    with _opened(bundle.path) as archive:
        for name, place in bundle.files.items():
            path = target.joinpath(*place.parts)
            make_folder(path.parent)
            digest = hashlib.sha256()
            for chunk in _copy(archive, name, path):
                digest.update(chunk)
                done += len(chunk)
                yield done
            if expected.get(str(place), digest.hexdigest()) != digest.hexdigest():
                raise ModelError(
                    f"{place} in {bundle.path} does not match the checksum in its model card. Get the zip again."
                )


def _copy(archive: zipfile.ZipFile, name: str, path: Path) -> Iterator[bytes]:
    content = _content(archive, name)
    try:
        with path.open("wb") as file:
            for chunk in content:
                file.write(chunk)
                yield chunk
    except OSError as error:
        raise write_error(path, error) from error


def _content(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """Yield a file of a zip; whatever goes wrong while it is read lies with the zip, not with where it goes."""
    try:
        with archive.open(name) as source:
            while chunk := source.read(_CHUNK):
                yield chunk
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(
            f"{archive.filename} is damaged at {name} ({error}). Was the download interrupted? Get it again."
        ) from error


def _expected_hashes(bundle: Bundle) -> dict[str, str]:
    if bundle.card is None:
        return {}
    return {f"{model.folder}/{name}": digest for model in bundle.card.models for name, digest in model.sha256.items()}
