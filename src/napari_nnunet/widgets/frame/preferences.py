"""napari's preferences page of this plugin, read where it exists (napari >= 0.9)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_nnunet.formats.workspace import Workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preferences:
    """What the user set for all sessions.

    Parameters
    ----------
    device : str
        "auto", "cpu", "cuda" or "mps".
    precision : str
        Of predictions: "auto", "float32", "bfloat16", "float16", or "int8" for models that were quantised.
    memory_gb : float
        Main memory a prediction may take; 0 means what is free.
    workspace : str
        Folder of datasets and models; empty means nnU-Net's variables or the per-user folder.
    catalogue : str
        Address of a catalogue of models; empty means what the environment says.
    step : float
        Tile step.
    mirroring : bool
        Average over mirrored copies.
    cluster : str
        Where trainings were submitted last; empty where none were.
    """

    device: str = "auto"
    precision: str = "auto"
    memory_gb: float = 0.0
    workspace: str = ""
    catalogue: str = ""
    step: float = 0.5
    mirroring: bool = True
    cluster: str = ""

    def folders(self) -> Workspace:
        """Return the workspace."""
        return Workspace.resolve(Path(self.workspace) if self.workspace else None)


def _settings() -> Any | None:
    try:
        from napari.settings import get_plugin_settings  # napari 0.9 has it

        return get_plugin_settings("napari-nnunet")
    except Exception:  # napari before 0.9, or a plugin that is not registered: the defaults hold
        logger.debug("no plugin settings", exc_info=True)
        return None


def read_preferences() -> Preferences:
    """Return the preferences, or their defaults."""
    settings = _settings()
    if settings is None:
        return Preferences()
    default = Preferences()
    compute = getattr(settings, "compute", None)
    folders = getattr(settings, "folders", None)
    return Preferences(
        device=str(getattr(compute, "device", default.device)),
        precision=str(getattr(compute, "precision", default.precision)),
        memory_gb=float(getattr(compute, "memory_gb", default.memory_gb)),
        workspace=str(getattr(folders, "workspace", default.workspace)),
        catalogue=str(getattr(folders, "catalogue", default.catalogue)),
        step=float(getattr(compute, "tile_step", default.step)),
        mirroring=bool(getattr(compute, "mirroring", default.mirroring)),
        cluster=str(getattr(compute, "cluster", default.cluster)),
    )


def remember_cluster(text: str) -> None:
    """Note where trainings were submitted, for the next time."""
    compute = getattr(_settings(), "compute", None)
    if compute is not None and getattr(compute, "cluster", text) != text:
        compute.cluster = text
