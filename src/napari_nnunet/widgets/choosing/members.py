"""Who is in an ensemble: trained models, folds of one, what cross-validation found best, or probability layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.errors import NnunetError, SettingsError
from napari_nnunet.formats.model.folder import TrainedModel, load_model
from napari_nnunet.formats.model.known_models import known_models
from napari_nnunet.formats.results.inference_information import INFORMATION, Best, read_best
from napari_nnunet.formats.results.postprocessing import read_cleaning
from napari_nnunet.formats.workspace import entries, stamp
from napari_nnunet.jobs.choosing.ensemble import check_models
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.schema.model_name import ModelName
from napari_nnunet.schema.names import Fold
from napari_nnunet.widgets.choosing.complete import models_of_best, unfinished, whole_models
from napari_nnunet.widgets.choosing.layer_groups import layer_groups
from napari_nnunet.widgets.choosing.scores import (
    DICE,
    NONE,
    best_score_text,
    fold_scores,
    mean_score_text,
    measure_of,
    score_text,
    unscored,
)
from napari_nnunet.widgets.frame.forms import distinct, let_shrink, offered
from napari_nnunet.widgets.frame.head import Head
from napari_nnunet.widgets.frame.parts import Sentence, Table, button, refresh_button
from napari_nnunet.widgets.frame.state import state_of
from napari_nnunet.widgets.frame.words import failure_text, telling_names

if TYPE_CHECKING:
    import napari

BEST, MODELS, FOLDS, LAYERS = "The best of a dataset", "Trained models", "Folds of one model", "Probability layers"


_NONE = "No trained model is known. Train a model, or install one in the Models dock."
_NOT_COMPARED = (
    "Its models have not been compared yet. 'Compare all its models' does it with the folds that are trained and "
    "validated."
)


@dataclass(frozen=True, eq=False)
class MemberChoice:
    """One row that is switched on.

    Parameters
    ----------
    model : TrainedModel
        The model.
    folds : tuple or None
        Its folds, None for all.
    """

    model: TrainedModel
    folds: tuple[Fold, ...] | None


class MembersForm(QGroupBox):
    """A table of members with weights; emits ``changed`` when it says something else.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose probability layers are offered.
    """

    changed = Signal()
    comparison_wanted = Signal(object)

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__("1  Members")
        self.viewer = viewer
        self._filling = False
        self._rows: list[Any] = []
        self.best: Best | None = None
        self.source_box = ComboBox(label="Take", choices=[MODELS, FOLDS, BEST, LAYERS], value=MODELS)
        self.source_box.tooltip = "What to combine."
        self.of_box = ComboBox(label="Of", choices=offered([]), tooltip="The dataset or model.")
        self.table = Table("Members of the ensemble", ["Member", "Dice", "Weight"])
        self.table.setEditTriggers(Table.EditTrigger.DoubleClicked | Table.EditTrigger.EditKeyPressed)
        self.table.setSelectionMode(Table.SelectionMode.NoSelection)
        self.note = Sentence()
        again = refresh_button("models")
        form = QFormLayout()
        form.addRow(self.source_box.label, self.source_box.native)
        self._of_row = QWidget()
        row = QHBoxLayout(self._of_row)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.of_box.native, 1)
        row.addWidget(again)
        form.addRow(self.of_box.label, self._of_row)
        self._form = form
        self.head = Head(state_of(viewer), page="ensemble.md")
        for box in (self.source_box, self.of_box):
            box.native.setAccessibleName(box.label)
            box.native.setToolTip(box.tooltip)
        column = QVBoxLayout(self)
        column.addWidget(self.head)
        column.addLayout(form)
        self.compare = button(
            "Compare all its models",
            "Find the best model, or pair of models, in cross-validation, and its postprocessing.",
        )
        for part in (self.table, self.note, self.compare):
            column.addWidget(part)
        let_shrink(self)
        self.source_box.changed.connect(self._source_chosen)
        self.of_box.changed.connect(self._fill_rows)
        self.table.itemChanged.connect(self._edited)
        again.clicked.connect(self._source_chosen)
        self.head.changed.connect(self._source_chosen)
        self.head.state.trained.connect(self._source_chosen)
        self.compare.clicked.connect(lambda: self.comparison_wanted.emit(self.of_box.value))
        events = viewer.layers.events
        for signal in (events.inserted, events.removed):
            signal.connect(self._layers_changed)
        self._source_chosen()

    @property
    def takes_layers(self) -> bool:
        """Whether probability layers are joined, so that no model runs."""
        return bool(self.source_box.value == LAYERS)

    def _layers_changed(self, _: Any = None) -> None:
        if self.takes_layers:
            self._fill_rows()

    def _source_chosen(self) -> None:
        workspace, before = self.head.workspace, self.of_box.value
        source = self.source_box.value
        self._filling = True
        if source == BEST:
            found = sorted({path.parents[1] for path in entries(workspace.results, "Dataset*/*__*__*/fold_*")})
            found.sort(key=lambda path: stamp(path / INFORMATION) is None)  # those that were compared come first
            choices: list[tuple[str, Any]] = [(path.name, path) for path in found]
        elif source == FOLDS:
            known = known_models(workspace)
            choices = list(zip(telling_names(known), known, strict=True))
        elif source == MODELS:
            choices = _families(known_models(workspace))
        else:
            choices = []
        self.of_box.choices = offered(distinct(choices))
        there = [value for _, value in choices]
        self.of_box.value = before if before in there else next(iter(there), None)
        self._form.setRowVisible(self._of_row, source != LAYERS)
        self.compare.setVisible(source == BEST and bool(choices))
        self._filling = False
        self._fill_rows()

    def refresh(self) -> None:
        """Read again what is chosen."""
        self._fill_rows()

    def _fill_rows(self) -> None:
        if self._filling:
            return
        self.best = None
        self._rows = []
        text = ""
        try:
            rows, text = self._entries()
        except (NnunetError, OSError) as error:
            rows, text = [], failure_text(error)
        self._show(rows)
        self.note.setText(text)
        self.note.setVisible(bool(text))
        self.changed.emit()

    def _entries(self) -> tuple[list[tuple[str, str, Any]], str]:
        """Return (name, score, what it is) of every row, and a sentence below."""
        source, of = self.source_box.value, self.of_box.value
        if source == LAYERS:
            groups = layer_groups(self.viewer)
            text = "" if groups else "Segment with 'Output: probabilities' to get layers to combine."
            return [(group.name, "", group) for group in groups], text
        if of is None:
            empty = {
                BEST: "No dataset of the workspace has a trained model.",
                FOLDS: _NONE,
                MODELS: _NONE,
            }
            return [], empty[source]
        if source == FOLDS:
            model = load_model(of)
            scores = fold_scores(model)
            folds = model.folds()
            rows = [
                (f"fold {fold}", score_text(scores.get(f"fold_{fold}")), MemberChoice(model, (fold,))) for fold in folds
            ]
            alone = "" if len(folds) > 1 else "This model has only one fold, so nothing can disagree."
            lack = unfinished(model)
            told = (alone, lack[:1].upper() + lack[1:], unscored(model, folds))
            return rows, " ".join(part for part in told if part)
        if source == BEST:
            return self._best_entries(of)
        models, odd = whole_models(of, telling_names(of))
        rows = [
            (name, mean_score_text(model), MemberChoice(model, None))
            for name, model in zip(_row_names(models), models, strict=True)
        ]
        only = [] if len(of) > 1 else ["Only one model of this dataset is known."]
        return rows, "<br>".join((*only, *odd))

    def _best_entries(self, results: Path) -> tuple[list[tuple[str, str, Any]], str]:
        if not (results / INFORMATION).is_file():
            return [], _NOT_COMPARED
        self.best = best = read_best(results)
        models = models_of_best(results, best)
        rows = [
            (name.configuration, best_score_text(best, model, name.folder), MemberChoice(model, best.folds))
            for name, model in zip(best.models, models, strict=True)
        ]
        after = f", {best.dice_cleaned:.3f} with its postprocessing" if best.dice_cleaned != best.dice else ""
        folds = ", ".join(str(fold) for fold in best.folds)
        if best.precision is not None:
            return rows, f"Average precision {best.precision:.3f} of its objects in cross-validation (fold {folds})."
        return rows, f"Dice {best.dice:.3f} in cross-validation (fold {folds}){after}."

    def _show(self, rows: Sequence[tuple[str, str, Any]]) -> None:
        self._filling = True
        models = [what.model for _, _, what in rows if isinstance(what, MemberChoice)]
        measure = measure_of(models[0]) if models else DICE
        self.table.set_heads(["Member", measure.name, "Weight"])
        self.table.setRowCount(len(rows))
        fixed = self.source_box.value == BEST
        for r, (name, known, what) in enumerate(rows):
            item = QTableWidgetItem(name)
            item.setFlags(Qt.ItemFlag.ItemIsEnabled | (Qt.ItemFlag(0) if fixed else Qt.ItemFlag.ItemIsUserCheckable))
            item.setCheckState(Qt.CheckState.Checked)
            item.setToolTip(name)
            score = QTableWidgetItem(known)
            score.setFlags(Qt.ItemFlag.ItemIsEnabled)
            without = isinstance(what, MemberChoice) and known == NONE
            score.setToolTip(unscored(what.model, what.folds or what.model.folds()) if without else measure.meaning)
            weight = QTableWidgetItem("1")
            weight.setFlags(Qt.ItemFlag.ItemIsEnabled | (Qt.ItemFlag(0) if fixed else Qt.ItemFlag.ItemIsEditable))
            weight.setToolTip("How much this member counts. Double-click to change it.")
            for column, cell in enumerate((item, score, weight)):
                self.table.setItem(r, column, cell)
            self._rows.append(what)
        self.table.fit()
        self.table.setVisible(bool(rows))
        self._filling = False

    def _edited(self, item: QTableWidgetItem) -> None:
        if not self._filling:
            self.changed.emit()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to switch on."""
        return not self._rows

    def chosen(self) -> list[Any]:
        """Return the members that are switched on."""
        return [what for r, what in enumerate(self._rows) if self._on(r)]

    def weights(self) -> tuple[float, ...] | None:
        """Return their weights, None where all are equal; raises SettingsError for what is no number."""
        values = []
        for r in range(len(self._rows)):
            if self._on(r):
                cell = self.table.item(r, 2)
                text = cell.text() if cell is not None else "1"
                try:
                    values.append(float(text.replace(",", ".")))
                except ValueError as error:
                    raise SettingsError(f"The weight '{text}' is not a number; type 0, 0.5, 2, ...") from error
        equal = len(set(values)) < 2 and (not values or 0 < values[0] < float("inf"))
        return None if equal else tuple(values)

    def _on(self, row: int) -> bool:
        item = self.table.item(row, 0)
        return item is not None and item.checkState() == Qt.CheckState.Checked

    def cleaning(self) -> Cleaning | None:
        """Return the postprocessing that goes with the best of a dataset; None where none is known."""
        if self.best is None:
            return None
        try:
            return read_cleaning(self.best.postprocessing)
        except (NnunetError, OSError):
            return None


def _families(known: Sequence[Path]) -> list[tuple[str, tuple[Path, ...]]]:
    """Return the models of each dataset, and those of several datasets with the same channels and classes."""
    datasets: dict[Path, list[Path]] = {}
    for path in known:
        datasets.setdefault(path.parent, []).append(path)
    alike: list[tuple[TrainedModel, list[Path]]] = []
    for folder, paths in datasets.items():
        try:
            model = load_model(paths[0])
        except (NnunetError, OSError):
            continue  # chosen by itself, it says what is wrong
        group = next((group for first, group in alike if _joinable(first, model)), None)
        if group is None:
            alike.append((model, [folder]))
        else:
            group.append(folder)
    told = dict(zip(datasets, telling_names(list(datasets), lambda folder: folder.name), strict=True))
    families = [(told[folder], tuple(paths)) for folder, paths in datasets.items()]
    for _, folders in alike:
        if len(folders) > 1:
            others = told[folders[1]] if len(folders) == 2 else f"{len(folders) - 1} datasets with the same classes"
            families.append(
                (f"{told[folders[0]]} + {others}", tuple(path for folder in folders for path in datasets[folder]))
            )
    return families


def _row_names(models: Sequence[TrainedModel]) -> list[str]:
    """Return the configurations, and what else tells the models apart, as short as can be."""
    parts = []
    datasets = telling_names(list(dict.fromkeys(model.folder.parent for model in models)), lambda folder: folder.name)
    named = dict(zip(dict.fromkeys(model.folder.parent for model in models), datasets, strict=True))
    for model in models:
        name = ModelName.of(model.folder.name)  # None: people rename folders
        own = (model.folder.name, "") if name is None else (name.trainer, name.plans)
        parts.append((named[model.folder.parent], *own))
    told = [column for column in range(3) if len({part[column] for part in parts}) > 1]
    more = [", ".join(part[column] for column in told if part[column]) for part in parts]
    names = [model.configuration.name for model in models]
    return [name + (f" ({text})" if text else "") for name, text in zip(names, more, strict=True)]


def _joinable(one: TrainedModel, other: TrainedModel) -> bool:
    try:
        check_models([one, other])
    except NnunetError:
        return False
    return True
