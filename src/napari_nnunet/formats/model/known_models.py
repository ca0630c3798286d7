"""The models this user has worked with: a list of folders, and those in the workspace."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import platformdirs

from napari_nnunet.formats.atomic import make_folder, write_json
from napari_nnunet.formats.model.folder import find_models, is_model_folder
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.json_text import message

_KEPT = 50


def _path() -> Path:
    return Path(platformdirs.user_config_dir("napari-nnunet", appauthor=False)) / "models.json"


def cache_folder() -> Path:
    """Return the folder for what is needed for a while only."""
    return Path(platformdirs.user_cache_dir("napari-nnunet", appauthor=False))


def known_models(workspace: Workspace) -> list[Path]:
    """Return the folders of all known models that still exist: last used first, then those of the workspace.

    Those on a disk that is gone or cannot be read are left out.
    """
    found = []
    for path in _read():
        with suppress(OSError):
            found += [path] if is_model_folder(path) else []
    with suppress(OSError):
        found += find_models(workspace.results, depth=2)
    return list(dict.fromkeys(found))


def remember_model(folder: Path) -> None:
    """Put a model at the head of the list."""
    entries = [folder, *(path for path in _read() if path != folder)][:_KEPT]
    make_folder(_path().parent)
    write_json(_path(), {"models": [str(path) for path in entries]})


def forget_model(folder: Path) -> None:
    """Take a model out of the list; its files stay."""
    entries = [path for path in _read() if path != folder]
    make_folder(_path().parent)
    write_json(_path(), {"models": [str(path) for path in entries]})


def _read() -> list[Path]:
    try:
        return [Path(entry) for entry in message(_path())["models"]]
    except (KeyError, TypeError):
        return []
