"""What was chosen last: one state for all docks of a viewer, so that they follow each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from qtpy.QtCore import QObject, Signal

from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.widgets.frame.preferences import read_preferences

if TYPE_CHECKING:
    import napari


@dataclass(frozen=True)
class Choice:
    """What the docks work on.

    Parameters
    ----------
    workspace : Workspace
        Where datasets, plans and models lie.
    dataset : str, optional
        ``DatasetXXX_Name``; None for none, or one that is about to be made.
    plans, configuration : str, optional
        Of the dataset.
    model : Path, optional
        Folder of the model that was used or made last.
    """

    workspace: Workspace
    dataset: str | None = None
    plans: str | None = None
    configuration: str | None = None
    model: Path | None = None

    def with_changes(self, **changes: Any) -> Choice:
        """Return another choice; what belonged to the former workspace, dataset or plans is forgotten with it."""
        forgotten: dict[str, None] = {}
        for name, below in _BELOW.items():
            if name in changes and changes[name] != getattr(self, name):
                forgotten |= dict.fromkeys(below)
        return replace(self, **{**forgotten, **changes})


_BELOW = {
    "workspace": ("dataset", "plans", "configuration", "model"),
    "dataset": ("plans", "configuration"),
    "plans": ("configuration",),
}


class State(QObject):
    """Holds the :class:`Choice` of a viewer.

    Emits ``changed`` when another workspace, dataset, plans, configuration or model was chosen, ``written`` when a job
    wrote files of datasets or plans, and ``trained`` when models came or went. Connect methods of the dock: Qt ends
    those connections with it.
    """

    changed = Signal()
    written = Signal()
    trained = Signal()

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.choice = Choice(workspace)

    @property
    def workspace(self) -> Workspace:
        """The workspace of all docks."""
        return self.choice.workspace

    def choose(self, **changes: Any) -> None:
        """Change fields of the choice and tell the docks, if anything is new."""
        before, self.choice = self.choice, self.choice.with_changes(**changes)
        if self.choice != before:
            self.changed.emit()

    def open_folder(self, folder: Path) -> None:
        """Go to the workspace at or around a folder; choose the dataset if the folder is one."""
        own = self.workspace
        workspace = own if own.dataset_of(folder) is not None else Workspace.around(folder)
        self.choose(workspace=workspace, dataset=workspace.dataset_of(folder))


_states: WeakKeyDictionary[Any, State] = WeakKeyDictionary()


def state_of(viewer: napari.viewer.Viewer) -> State:
    """Return the state that the docks of a viewer share; it begins with the workspace of the preferences."""
    if viewer not in _states:
        _states[viewer] = State(read_preferences().folders())
    return _states[viewer]
