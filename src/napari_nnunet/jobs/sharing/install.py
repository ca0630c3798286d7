"""Take in models that somebody sent, from a zip or an address."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from napari_nnunet.errors import ModelError
from napari_nnunet.events import Job, Progress, Stage
from napari_nnunet.formats.atomic import partial_name, remove_leftovers, write_error
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.model.bundle import Bundle, extract, inspect
from napari_nnunet.formats.model.card import CARD_FILE, ModelCard
from napari_nnunet.formats.model.checkpoint import read_checkpoint
from napari_nnunet.formats.model.download import download, forget_old
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.model.known_models import cache_folder
from napari_nnunet.formats.model.model_trash import trash_model
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.requests.sharing import DownloadRequest, InstallRequest


@dataclass(frozen=True)
class Installed:
    """Models that were installed.

    Parameters
    ----------
    folders : tuple of Path
        Where they are.
    card : ModelCard or None
        Where the zip had one.
    """

    folders: tuple[Path, ...]
    card: ModelCard | None


def install_zip(workspace: Workspace, request: InstallRequest) -> Job[Installed]:
    """Unpack models into ``nnUNet_results``; they appear when all of them were read and checked.

    Parameters
    ----------
    workspace : Workspace
        Which receives them.
    request : InstallRequest
        A zip of ours or nnU-Net's; models of the same name are an error unless they are to be replaced.

    Returns
    -------
    Installed
        The models.

    Raises
    ------
    ModelError, ResourceError
        If the zip is damaged, holds something else or is not safe, a model exists, or the disk is full. Nothing is left
        behind then.
    SettingsError
        If models of the dataset are being installed already, or it is being renamed.
    """
    bundle, results = inspect(request.source), workspace.results
    # the claim lies in the dataset's own folder, where whoever renames or removes that looks for claims
    with claimed(results / bundle.dataset, f"Models of {bundle.dataset} are already being installed"):
        return (yield from _install(bundle, results, replace=request.replace_models))


def _install(bundle: Bundle, results: Path, *, replace: bool) -> Job[Installed]:
    target = results / bundle.dataset
    remove_leftovers(results)
    there = [name for name in bundle.models if (target / name).exists()]
    if there and not replace:
        raise ModelError(
            f"{', '.join(there)} of {bundle.dataset} exist{'s' if len(there) == 1 else ''} in {results} already.",
            shell="Use --replace to move what is there to the trash first.",
            window="Move what is there to the trash first: choose it in the Models dock and press Remove.",
        )
    beside = results / partial_name(bundle.dataset)
    yield Stage(name=f"Unpacking {bundle.path.name}", total=100)
    try:
        for done in extract(bundle, beside):
            yield Progress(done=round(100 * done / max(bundle.size, 1)), total=100)
        yield Stage(name="Checking the models")
        for name in bundle.models:
            _check(beside / name)
            yield Progress(done=1, total=1)
        for name in there:
            trash_model(target / name)
        _move(beside, target, bundle)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Installed(tuple(target / name for name in bundle.models), bundle.card)


def download_model(workspace: Workspace, request: DownloadRequest, *, most: int | None = None) -> Job[Installed]:
    """Download a zip with models and install them; an interrupted download is continued by the same request.

    Parameters
    ----------
    workspace : Workspace
        Which receives them.
    request : DownloadRequest
        Which zip.
    most : int, optional
        Bytes it may have.

    Raises
    ------
    ModelError, ResourceError, SettingsError
        As :func:`install_zip`, and if the address cannot be read or returned another file than expected.
    """
    folder = cache_folder() / "downloads"
    forget_old(folder)
    yield Stage(name="Downloading", total=1000)
    path: Path | None = None
    with closing(download(request.url, folder, sha256=request.sha256, most=most)) as pieces:  # type: ignore[type-var]
        for piece in pieces:
            if isinstance(piece, Path):
                path = piece
                continue
            done, total = piece
            yield Progress(done=round(1000 * done / total) if total else 0, total=1000)
    if path is None:
        raise ModelError(f"{request.url} returned no file.")
    install = InstallRequest(source=path, replace_models=request.replace_models)
    try:
        return (yield from install_zip(workspace, install))
    finally:  # one that cannot be installed is of no use either, and the next request fetches it anew
        path.unlink(missing_ok=True)


def _check(folder: Path) -> None:
    """Make sure a model can be loaded, its weights included."""
    model = load_model(folder)
    for path in sorted(folder.glob("fold_*/checkpoint_*.pth")):
        read_checkpoint(path)
    if not model.checkpoints:
        raise ModelError(f"{folder.name} has no usable checkpoint.")


def _move(beside: Path, target: Path, bundle: Bundle) -> None:
    """Bring unpacked models into place; what the dataset's folder has already stays, but for what was in the trash."""
    late = [name for name in bundle.models if (target / name).exists()]
    if late:
        raise ModelError(
            f"{', '.join(late)} of {bundle.dataset} were installed into {target.parent} meanwhile. Install again."
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
        for child in sorted(beside.iterdir()):
            if not (target / child.name).exists():
                os.rename(child, target / child.name)
            elif child.name == "ensembles":
                for folder in child.iterdir():
                    if not (target / "ensembles" / folder.name).exists():
                        os.rename(folder, target / "ensembles" / folder.name)
            elif child.name == CARD_FILE and bundle.card is not None:
                os.replace(child, target / child.name)
    except OSError as error:
        raise write_error(target, error) from error
