"""The head of a dock: the workspace and the dataset that all docks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from qtpy.QtCore import QEvent, QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QFileDialog, QFormLayout, QSizePolicy, QVBoxLayout, QWidget

from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.widgets.frame.forms import let_shrink, side_by_side
from napari_nnunet.widgets.frame.parts import ElidingLabel, NameBox, Sentence, button, refresh_button
from napari_nnunet.widgets.frame.state import State
from napari_nnunet.widgets.frame.words import as_text
from napari_nnunet.widgets.pages.browser import HelpButton

_DATASET = "The dataset that all docks work on."


class Head(QWidget):
    """Shows the shared workspace and, where the dock works on one, the shared dataset; both can be changed here.

    Emits ``changed`` when another workspace or dataset was chosen in any dock, or files of datasets were written.

    Parameters
    ----------
    state : State
        What the docks share.
    datasets : callable, optional
        Lists the datasets this dock can work on, by name; without it the head is only the workspace.
    page : str
        What "?" opens: "segment.md".
    new : str, optional
        An entry for a dataset that is still to be made; it stands for None.
    """

    changed = Signal()

    def __init__(
        self,
        state: State,
        datasets: Callable[[Workspace], Sequence[str]] | None = None,
        *,
        page: str,
        new: str | None = None,
    ) -> None:
        super().__init__()
        self.state = state
        self._datasets, self._new = datasets, new
        self.place = ElidingLabel()
        self.place.setElideMode(Qt.TextElideMode.ElideLeft)
        self.place.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.other = button("Change…", "Open another workspace, or the one of a dataset, in all docks.")
        self.help = HelpButton(page)
        self.box = NameBox()
        self.box.setAccessibleName("Dataset")
        let_shrink(self.box)
        self.refresh = refresh_button("datasets")
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Workspace", side_by_side(self.place, self.other, self.help))
        self.lost, self.again = Sentence(), button("Look again", "Look whether the workspace is there again.")
        self.trouble = _column(self.lost, self.again)
        form.addRow(self.trouble)
        if datasets is not None:
            form.addRow("Dataset", side_by_side(self.box, self.refresh))
        self.other.clicked.connect(self._browse)
        self.refresh.clicked.connect(self.look_again)
        self.again.clicked.connect(state.look)
        self.box.activated.connect(self._chosen)
        state.changed.connect(self._follow)
        state.written.connect(self.look_again)
        self._fill()

    @property
    def workspace(self) -> Workspace:
        """The workspace of all docks."""
        return self.state.workspace

    @property
    def dataset(self) -> str | None:
        """The chosen dataset; None for a new one, or where there is none."""
        name = self.box.currentData()
        return name if isinstance(name, str) else None

    @property
    def raw(self) -> Path | None:
        """The folder of its images and labels."""
        return None if self.dataset is None else self.workspace.raw / self.dataset

    @property
    def preprocessed(self) -> Path | None:
        """The folder of its plans and preprocessed cases."""
        return None if self.dataset is None else self.workspace.preprocessed / self.dataset

    def event(self, event: QEvent | None) -> bool:
        """Look for what other programs changed when the dock, or its window, comes to the front."""
        if event is not None and event.type() in (QEvent.Type.Show, QEvent.Type.WindowActivate):
            self.state.look()
        return bool(super().event(event))

    def look_again(self) -> None:
        """List the datasets again, for files may have changed."""
        self._fill()
        self.changed.emit()

    def _fill(self) -> None:
        """Show the shared choice; without one, a dock that needs a dataset shows the first."""
        self._shown = self.state.choice
        self.lost.setText(self.state.lost)
        self.trouble.setVisible(bool(self.state.lost))
        workspace, wanted = self._shown.workspace, self._shown.dataset
        self.place.setText(str(workspace.folder or workspace.raw.parent))
        self.place.setToolTip(as_text("\n".join(map(str, (workspace.raw, workspace.preprocessed, workspace.results)))))
        listed = self._datasets is not None and not self.state.lost
        names = list(self._datasets(workspace)) if listed and self._datasets is not None else []
        if wanted not in names:
            wanted = (
                None if self._new is not None else self.dataset if self.dataset in names else next(iter(names), None)
            )
        with QSignalBlocker(self.box):
            self.box.clear()
            for name in names:
                self.box.addItem(name, name)
            if self._new is not None or not names:
                self.box.addItem(self._new or "(no dataset yet)", None)
            self.box.setCurrentIndex(self.box.count() - 1 if wanted is None else names.index(wanted))
        self.box.setToolTip(as_text("\n".join(filter(None, (wanted, _DATASET)))))

    def _follow(self) -> None:
        now = self.state.choice
        if (self._shown.workspace, self._shown.dataset) != (now.workspace, now.dataset):
            self.look_again()

    def _chosen(self) -> None:
        if self.dataset == self.state.choice.dataset:
            self.changed.emit()
        else:
            self.state.choose(dataset=self.dataset)

    def _browse(self) -> None:
        found = QFileDialog.getExistingDirectory(self, "Workspace or dataset", self.place.text())
        if found:
            self.state.open_folder(Path(found))


def _column(*parts: QWidget) -> QWidget:
    column = QWidget()
    layout = QVBoxLayout(column)
    layout.setContentsMargins(0, 0, 0, 0)
    for part in parts:
        layout.addWidget(part)
    return column
