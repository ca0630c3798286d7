"""Give models away and install them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_nnunet.api.doors import Folder, OnEvent, opened_model, workspace_at
from napari_nnunet.events import drain
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.jobs.sharing.catalogue import CatalogueEntry
from napari_nnunet.jobs.sharing.catalogue import fetch_model as fetch_by_name
from napari_nnunet.jobs.sharing.catalogue import list_models as list_catalogue
from napari_nnunet.jobs.sharing.export import export_models as export_models_job
from napari_nnunet.jobs.sharing.install import download_model, install_zip
from napari_nnunet.schema.requests.keywords import keywords
from napari_nnunet.schema.requests.sharing import (
    DownloadRequest,
    ExportSettings,
    FetchModelRequest,
    InstallRequest,
    ListModelsRequest,
)


@keywords(ExportSettings)
def export_models(
    models: Sequence[TrainedModel | Folder],
    target: Folder,
    *,
    light: bool = True,
    on_event: OnEvent | None = None,
    **changes: Any,
) -> Path:
    """Write trained models of one dataset into a zip that nnU-Net, too, installs.

    Parameters
    ----------
    models : sequence of TrainedModel, str or Path
        Models or their folders; the first stage of a cascade goes along.
    target : str or Path
        The zip.
    light : bool
        Only what inference needs; such a model cannot be trained further.
    on_event : callable, optional
        Called with every event: progress, notes.
    **changes

    Returns
    -------
    Path
        The zip.
    """
    opened = [opened_model(model) for model in models]
    return drain(export_models_job(opened, Path(target), ExportSettings.of(light=light, **changes)), on_event)


def install_models(
    source: Folder,
    *,
    workspace: Folder | None = None,
    sha256: str | None = None,
    replace: bool = False,
    on_event: OnEvent | None = None,
) -> tuple[Path, ...]:
    """Install the models of a zip, or of an address where one lies, after checking it.

    Parameters
    ----------
    source : str or Path
        A file, or an address that begins with http:// or https://.
    workspace, on_event
        As for :func:`verify_dataset`.
    sha256 : str, optional
        Checksum of what is downloaded.
    replace : bool
        Whether models of the same name are moved to the trash first.

    Returns
    -------
    tuple of Path
        The models' folders.
    """
    place = workspace_at(workspace)
    if str(source).startswith(("http://", "https://")):
        address = DownloadRequest.of(url=str(source), sha256=sha256, replace_models=replace)
        return drain(download_model(place, address), on_event).folders
    return drain(install_zip(place, InstallRequest.of(source=source, replace_models=replace)), on_event).folders


@keywords(ListModelsRequest)
def list_models(*, on_event: OnEvent | None = None, **changes: Any) -> tuple[CatalogueEntry, ...]:
    """Return the models of a catalogue that can be fetched by name.

    Parameters
    ----------
    on_event : callable, optional
        As for :func:`install_models`.
    **changes

    Returns
    -------
    tuple of CatalogueEntry
        With what each finds, in which images, licence, size and address.
    """
    return drain(list_catalogue(ListModelsRequest.of(**changes)), on_event).entries


@keywords(ListModelsRequest)
def fetch_model(
    name: str,
    *,
    workspace: Folder | None = None,
    replace: bool = False,
    on_event: OnEvent | None = None,
    **changes: Any,
) -> tuple[Path, ...]:
    """Download the models of a catalogue's entry by its name, and install them.

    Parameters
    ----------
    name : str
        As :func:`list_models` returns it.
    workspace, replace, on_event
        As for :func:`install_models`.
    **changes

    Returns
    -------
    tuple of Path
        The models' folders.
    """
    request = FetchModelRequest.of(name=name, replace_models=replace, **changes)
    return drain(fetch_by_name(workspace_at(workspace), request), on_event).folders
