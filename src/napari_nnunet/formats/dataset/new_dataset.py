"""A new raw dataset gets its number and its folder: complete, or not at all."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from napari_nnunet.errors import DatasetError, SettingsError
from napari_nnunet.formats.atomic import make_folder, partial_name, remove_leftovers, write_error
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.names import require_dataset_name

_NUMBERED = re.compile(r"Dataset([0-9]+)_(.+)", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]*")
_IMAGE_FOLDERS = {
    "images", "image", "imgs", "img", "imagestr", "pictures", "raw", "data", "tif", "tiff", "png", "nifti"
}  # fmt: skip
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss"})


def telling_name(folder: Path) -> str:
    """Return the name of a folder of images; that of the folder around it where it only says that these are images."""
    says_nothing = folder.name.lower().rstrip("0123456789_-") in _IMAGE_FOLDERS and bool(folder.parent.name)
    return folder.parent.name if says_nothing else folder.name


def folder_name(text: str) -> str:
    """Return a text as a dataset can be called: letters, digits, '-' and '_'."""
    plain = unicodedata.normalize("NFKD", text.translate(_UMLAUTS)).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_-]+", "_", plain).lstrip("_-")


def next_dataset_name(workspace: Workspace, name: str) -> str:
    """Return ``DatasetXXX_Name`` with the first free number; a number that is in front already is kept.

    Raises
    ------
    DatasetError
        If the name has characters that cannot be part of a folder's name, or its number is another dataset's.
    """
    found = next(_names(workspace, name))
    _require_free(workspace, found, own=False)
    return found


def name_to_be(workspace: Workspace, name: str) -> tuple[str, str | None]:
    """Return the name that a new dataset would get, and one there is of the same name with another number.

    Raises
    ------
    DatasetError
        If the name cannot be a dataset's, or it or its number is taken.
    """
    found = next_dataset_name(workspace, name)
    _require_new(workspace.raw / found)
    plain = _parts(found)[1].lower()
    others = (path.name for path in workspace.raw_datasets())
    return found, next((other for other in others if other.partition("_")[2].lower() == plain), None)


def _require_new(target: Path) -> None:
    if target.exists():
        raise DatasetError(
            f"{target} already exists.",
            shell="Choose another name, or remove it first.",
            window="Add to it, or choose another name.",
        )


def free_dataset_name(workspace: Workspace, name: str) -> str:
    """Return the same for a copy: with the next free number where its own is taken."""
    found = next(_names(workspace, name))
    number, plain = _parts(found)
    taken = any(child.name != found for child in _numbered(workspace).get(number, ()))
    return next(_names(workspace, plain)) if taken or (workspace.raw / found).exists() else found


def _require_free(workspace: Workspace, name: str, *, own: bool) -> None:
    """Raise a DatasetError where a number is taken: by another dataset, or, with ``own``, by models of this one."""
    number = _parts(name)[0]
    for child in _numbered(workspace).get(number, ()):
        if child.name != name or own:
            raise DatasetError(
                f"The number {number} is taken by {child}.",
                shell=f"Choose another{' (-overwrite_id)' if own else ''}, or remove it.",
                window="Choose another number, or remove it.",
            )


def _names(workspace: Workspace, name: str) -> Iterator[str]:
    """Yield the names that a new dataset may get, the first number first."""
    plain = name.strip().replace(" ", "_")
    if numbered := _NUMBERED.fullmatch(plain):
        yield require_dataset_name(f"Dataset{numbered[1].zfill(3)}_{numbered[2]}")
        return
    if not _PLAIN.fullmatch(plain):
        raise DatasetError(f"{name!r} is not a valid dataset name; use letters, digits, '-' and '_'.")
    require_dataset_name(f"Dataset001_{plain}")
    taken = _numbered(workspace)
    yield from (f"Dataset{n:03d}_{plain}" for n in itertools.count(1) if n not in taken)


def _roots(workspace: Workspace) -> list[Path]:
    return [root for root in (workspace.raw, workspace.preprocessed, workspace.results) if root.is_dir()]


def _numbered(workspace: Workspace) -> dict[int, list[Path]]:
    """Return the folders of datasets by their number; with other zeros in front it is the same."""
    found: dict[int, list[Path]] = {}
    for root in _roots(workspace):
        for child in sorted(root.iterdir()):
            if (match := _NUMBERED.match(child.name)) and child.is_dir():
                found.setdefault(int(match[1]), []).append(child)
    return found


def _parts(name: str) -> tuple[int, str]:
    """Return the number of a complete name, and what follows it."""
    number, _, plain = name.partition("_")
    return int(number.removeprefix("Dataset")), plain


@contextmanager
def new_dataset(workspace: Workspace, name: str, *, own_number: bool = False) -> Iterator[tuple[Path, Path]]:
    """Give a folder to build a raw dataset in; when the block ends well, it gets the dataset's name.

    What a killed process left is removed. Nobody else gets the number meanwhile.

    Parameters
    ----------
    workspace : Workspace
        Where it goes.
    name : str
        ``DatasetXXX_Name``, or only a name: then the next free number is put in front.
    own_number : bool
        Whether the number of a complete name must be free in results, too; datasets never share one.

    Yields
    ------
    tuple of Path
        The folder to write into, and what it will be called.

    Raises
    ------
    DatasetError
        If the name cannot be that of a folder, or there is such a folder already.
    SettingsError
        If another process makes a dataset of that number.
    ResourceError
        If it cannot be written.
    """
    make_folder(workspace.raw)
    with ExitStack() as stack:
        target = _reserve(workspace, name, own_number, stack)
        remove_leftovers(workspace.raw)
        beside = make_folder(workspace.raw / partial_name(target.name))
        try:
            yield beside, target
            os.rename(beside, target)
        except OSError as error:
            raise write_error(target, error) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _reserve(workspace: Workspace, name: str, own_number: bool, stack: ExitStack) -> Path:
    """Claim the number of a dataset, the next free one if the name has none."""
    complete = _NUMBERED.fullmatch(name.strip().replace(" ", "_")) is not None
    for found in _names(workspace, name):
        number = _parts(found)[0]
        try:
            claim = claimed(workspace.raw, f"{found} is already being made", part=f"Dataset{number:03d}")
            stack.enter_context(claim)
        except SettingsError:
            if complete:
                raise
            continue
        target = workspace.raw / found
        if complete:
            _require_free(workspace, found, own=own_number)
            _require_new(target)
        if complete or number not in _numbered(workspace):
            return target
        stack.close()  # another process finished its dataset between the look and the claim
    raise DatasetError(f"No number is free for {name!r}.")
