"""What was chosen last: one state for all docks of a viewer, so that they follow each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

from qtpy.QtCore import QObject, Signal

from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.widgets.frame.preferences import read_preferences
from napari_nnunet.widgets.frame.ready import NotReadyError
from napari_nnunet.widgets.frame.worker import Latest, on_a_thread

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


_LOST = (
    "The workspace cannot be reached any more. If its disk was removed, connect it and look again; else choose another "
    "workspace."
)
_Marks: TypeAlias = tuple[frozenset[Any], frozenset[Any]]


class State(QObject):
    """Holds the :class:`Choice` of a viewer.

    Emits ``changed`` when another workspace, dataset, plans, configuration or model was chosen, ``written`` when a job
    wrote files of datasets or plans, and ``trained`` when models came or went. Connect methods of the dock: Qt ends
    those connections with it.

    What other programs change is noticed when the docks ``look``, and told in the same way; so is a workspace that is
    gone, with its disk perhaps, and one that came back.
    """

    changed = Signal()
    written = Signal()
    trained = Signal()

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.choice = Choice(workspace)
        self.lost = ""  # why the workspace cannot be used, where it could be before
        self._met: set[Workspace] = set()
        self._known: _Marks | None = None
        self._looking = Latest(self)
        for signal in (self.changed, self.written, self.trained):
            signal.connect(self._look_anew)
        self._look_anew()

    @property
    def workspace(self) -> Workspace:
        """The workspace of all docks."""
        return self.choice.workspace

    def choose(self, **changes: Any) -> None:
        """Change fields of the choice and tell the docks, if anything is new."""
        before, self.choice = self.choice, self.choice.with_changes(**changes)
        if self.workspace != before.workspace:
            self.lost = ""
        if self.choice != before:
            self.changed.emit()

    def go_on(self, since: Choice, **changes: Any) -> None:
        """Choose what a job made, unless somebody chose something else since it was asked for."""
        if all(getattr(since, name) == getattr(self.choice, name) for name in ("workspace", *changes)):
            self.choose(**changes)

    def open_folder(self, folder: Path) -> None:
        """Go to the workspace at or around a folder; choose the dataset if the folder is one."""
        own = self.workspace
        workspace = own if own.dataset_of(folder) is not None else Workspace.around(folder)
        self.choose(workspace=workspace, dataset=workspace.dataset_of(folder))

    # --- what others do to the files ---

    def look(self) -> None:
        """Look on a thread whether somebody else changed the workspace, and tell the docks if so."""
        self._tell_lost(self.workspace.is_there())
        if not self._looking.running:
            self._start()

    def require_workspace(self) -> None:
        """Raise NotReadyError where the workspace is gone, so that nothing is written where its disk was."""
        self._tell_lost(self.workspace.is_there())
        if self.lost:
            raise NotReadyError("The workspace cannot be reached.")

    def _look_anew(self) -> None:
        """Take what is there now for known: a dock that wrote it tells the others itself."""
        self._known = None
        self._start()

    def _start(self) -> None:
        choice = self.choice
        job = on_a_thread(lambda: choice.workspace.marks(choice.dataset))
        self._looking.start(job, returned=self._looked, errored=lambda _: None)  # the next look may see it

    def _looked(self, marks: _Marks) -> None:
        before, self._known = self._known, marks
        self._tell_lost(self.workspace.is_there())
        if before is not None and before[0] != marks[0]:
            self.written.emit()
        if before is not None and before[1] != marks[1]:
            self.trained.emit()

    def _tell_lost(self, there: bool) -> None:
        if there:
            self._met.add(self.workspace)
        before, self.lost = self.lost, _LOST if not there and self.workspace in self._met else ""
        if self.lost != before:
            self.written.emit()
            self.trained.emit()


_states: WeakKeyDictionary[Any, State] = WeakKeyDictionary()


def state_of(viewer: napari.viewer.Viewer) -> State:
    """Return the state that the docks of a viewer share; it begins with the workspace of the preferences."""
    if viewer not in _states:
        _states[viewer] = State(read_preferences().folders())
    return _states[viewer]
