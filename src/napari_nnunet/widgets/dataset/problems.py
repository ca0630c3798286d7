"""The check of a dataset: what is wrong with it, and the remedies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QInputDialog, QMessageBox, QTreeWidget, QTreeWidgetItem, QVBoxLayout, QWidget

from napari_nnunet.errors import counted, some
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.dataset.raw_dataset import survey
from napari_nnunet.formats.dataset.raw_writer import drop_case, place_labels, set_count, set_spacing
from napari_nnunet.formats.dataset.relabel import remap_dataset
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.splits import SPLITS_FILE
from napari_nnunet.schema.requests.dataset import VerifyRequest
from napari_nnunet.widgets.files.look_dialog import look_button
from napari_nnunet.widgets.frame.panel import RunPanel
from napari_nnunet.widgets.frame.parts import Sentence, button
from napari_nnunet.widgets.frame.ready import NotReadyError, typed_spacing
from napari_nnunet.widgets.frame.worker import lazy

if TYPE_CHECKING:
    from napari_nnunet.jobs.dataset.verify import verify
    from napari_nnunet.jobs.objects.draw import draw_again
else:
    draw_again = lazy("napari_nnunet.jobs.objects.draw:draw_again")
    verify = lazy("napari_nnunet.jobs.dataset.verify:verify")

_TOLD = 4  # warnings of the check that the Plan dock repeats
_FIX_TEXTS = {
    "set_count": "Count again",
    "drop_case": "Remove case",
    "remap_labels": "Renumber labels",
    "set_spacing": "Set voxel size…",
    "turn_labels": "Reorient onto image",
    "place_labels": "Place on image",
    "draw_again": "Draw labels again",
}


class ProblemList(QWidget):
    """Checks a dataset; selecting a problem offers its remedy. Emits ``mended`` when one was applied."""

    mended = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._place: tuple[Workspace, Path] | None = None
        self._again = False
        self.panel = RunPanel("Check dataset")
        self.look = look_button(lambda: () if self._place is None else (self._place[1],))
        self.title, self.text = Sentence(), Sentence()
        self.tree = QTreeWidget()
        self.tree.setHeaderLabels(["Where", "What"])
        self.tree.setAccessibleName("Problems of the dataset")
        self.tree.setRootIsDecorated(False)
        self.tree.setWordWrap(True)
        self.tree.setColumnWidth(0, 120)
        self.tree.setMinimumHeight(140)
        self.button = button("")
        self.report = QWidget()
        inner = QVBoxLayout(self.report)
        for part in (self.title, self.tree, self.text, self.button):
            inner.addWidget(part)
        layout = QVBoxLayout(self)
        for part in (self.panel, self.look, self.report):
            layout.addWidget(part)
        for column in (layout, inner):
            column.setContentsMargins(0, 0, 0, 0)
        self.report.setVisible(False)
        self.panel.start = lambda: self.check()
        self.tree.currentItemChanged.connect(self._selected)
        self.button.clicked.connect(self._fix)

    def show_dataset(self, workspace: Workspace, folder: Path | None) -> None:
        """Get ready for another dataset, or the same after its files changed."""
        self._place = None if folder is None else (workspace, folder)
        self.report.setVisible(False)
        self.panel.say("")
        if self._again:
            self._again = False
            self.check()

    def check(self, then: Callable[[Any], object] | None = None) -> None:
        """Look for everything that is wrong with the dataset; if there are no errors, do something with the report."""

        def done(report: Any) -> str:
            said = self.show_report(report)
            if then is not None and not report.errors:
                then(report)
            return said

        if self._place is not None:
            workspace, folder = self._place
            self.panel.run(verify(workspace, VerifyRequest(dataset=folder.name)), done=done)

    def show_report(self, report: Any) -> str:
        """Show a report of the check, errors first."""
        self.tree.clear()
        errors, warnings = len(report.errors), len(report.problems) - len(report.errors)
        found = f"{counted(errors, 'error')}, {counted(warnings, 'warning')}" if report.problems else "No problems"
        self.title.setText(f"<b>{found}</b> in {counted(report.cases, 'case')}")
        for problem in report.problems:
            text = problem.in_window or problem.text
            item = QTreeWidgetItem([problem.where, text])
            item.setData(0, Qt.ItemDataRole.UserRole, problem)
            icon = "SP_MessageBoxCritical" if problem.level == "error" else "SP_MessageBoxWarning"
            style = self.style()
            item.setIcon(0, style.standardIcon(getattr(style.StandardPixmap, icon)))
            item.setToolTip(1, text)
            self.tree.addTopLevelItem(item)
        self.tree.setVisible(bool(report.problems))
        self._selected()
        self.report.setVisible(True)
        return ""

    def _current(self) -> Any:
        item = self.tree.currentItem()
        return None if item is None else item.data(0, Qt.ItemDataRole.UserRole)

    def _selected(self, *_: Any) -> None:
        problem = self._current()
        text = "" if problem is None else problem.in_window or problem.text
        self.text.setText("" if problem is None else f"{problem.where}: {text.rstrip('.')}.")
        self.text.setVisible(problem is not None)
        self.button.setVisible(problem is not None and problem.fix is not None)
        if problem is not None and problem.fix is not None:
            self.button.setText(_FIX_TEXTS[problem.fix])

    # --- remedies ---

    def _fix(self) -> None:
        """Apply the remedy of the selected problem, then check again."""
        problem = self._current()
        if problem is None or self._place is None:
            return
        if problem.fix == "draw_again":
            self.panel.run(draw_again(self._place[1]), done=self._mended)
            return
        try:
            remedy = self._remedy(self._place[1], problem)
        except NotReadyError as reason:
            self.panel.say(str(reason))
            return
        if remedy is not None:
            self.panel.run(_mend(problem.where, remedy), done=self._mended)

    def _mended(self, _: object) -> None:
        self._again = True
        self.mended.emit()

    def _remedy(self, folder: Path, problem: Any) -> Callable[[], object] | None:
        """Return what fixes a problem, None where the user does not want it."""
        names = names_of(problem, [case.name for case in survey(folder)[0].cases])
        match problem.fix:
            case "set_count":
                return lambda: set_count(folder)
            case "drop_case":
                name = names[0] if names else problem.where
                question = f"Remove the case '{name}'? Its files go to {folder.name}/trash."
                return (lambda: drop_case(folder, name)) if self._confirmed(question) else None
            case "remap_labels":
                question = (
                    "Renumber the labels of all cases to 0, 1, 2, ...? The label files and dataset.json are rewritten; "
                    "values without a name are named label_VALUE."
                )
                return (lambda: remap_dataset(folder)) if self._confirmed(question) else None
            case "turn_labels" | "place_labels":
                name = names[0] if names else problem.where
                how = (
                    f"Turn the labels of '{name}' onto the grid of its image, as their file says?"
                    if problem.fix == "turn_labels"
                    else f"Keep the voxels of the labels of '{name}' and place them where the image lies? Do that only "
                    "where the file's place is wrong."
                )
                question = f"{how} The old file goes to {folder.name}/trash."
                return (lambda: place_labels(folder, name)) if self._confirmed(question) else None
        return self._spacing_remedy(folder, names)

    def _confirmed(self, question: str) -> bool:
        return QMessageBox.question(self, "nnU-Net", question) == QMessageBox.StandardButton.Yes

    def _spacing_remedy(self, folder: Path, names: list[str]) -> Callable[[], object] | None:
        whose = some(names, 3) if names else "all cases"
        text, ok = QInputDialog.getText(
            self, "Voxel size", f"Voxel size of {whose} in mm (z y x, or y x for pictures):"
        )
        if not ok:
            return None
        count = len(text.replace("x", " ").replace("×", " ").replace(",", " ").split())
        spacing = typed_spacing(text, "zyx"[-count:] if count in (2, 3) else "zyx")
        return lambda: set_spacing(folder, spacing, names)


def _mend(where: str, remedy: Callable[[], object]) -> Job[None]:
    yield Stage(name=f"Fixing {where}")
    remedy()


def told_by(report: Any) -> tuple[Note, ...]:
    """Return the warnings of a check, but for those of folds, which planning says itself, as one note for its dock."""
    told = [problem for problem in report.problems if problem.where != SPLITS_FILE]
    texts = [problem.sentence for problem in told]
    rest = len(texts) - _TOLD
    more = [f"{counted(rest, 'more warning')} in the Training cases dock."] if rest > 0 else []
    said = " ".join(["The check warns.", *texts[:_TOLD], *more])
    return (Note(level="warning", text=said),) if texts else ()


def names_of(problem: Any, known: Sequence[str]) -> list[str]:
    """Return the cases a problem is about, the second of several that are the same."""
    found = [name for name in known if name in {part.strip() for part in problem.where.split(",")}]
    return found[1:2] if len(found) > 1 else found
