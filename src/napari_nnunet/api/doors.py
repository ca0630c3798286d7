"""What the functions of the Python door have in common: how models, workspaces and keywords may be given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from napari_nnunet.events import Event
from napari_nnunet.formats.model.folder import TrainedModel, load_model
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.requests.option import Request

R = TypeVar("R", bound=Request)
OnEvent = Callable[[Event], None]
Folder = str | Path


def merged(kind: type[R], settings: Request | None, changes: dict[str, Any]) -> R:
    """Return a request of settings, and keywords that win over them."""
    given = {} if settings is None else settings.model_dump(exclude_unset=True)
    return kind.of(**{**given, **changes})


def opened_model(model: TrainedModel | Folder) -> TrainedModel:
    """Return a model, opened if it is a folder."""
    return model if isinstance(model, TrainedModel) else load_model(model)


def workspace_at(folder: Folder | None) -> Workspace:
    """Return a workspace: the given folder, else what the environment says, else the user's own."""
    return Workspace.resolve(None if folder is None else Path(folder))
