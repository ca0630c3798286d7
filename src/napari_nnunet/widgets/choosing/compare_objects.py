"""The Compare dock on numbered objects: what became of each, in colours, and a jump to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_nnunet.engine.objects.verdict import Verdict
from napari_nnunet.errors import counted
from napari_nnunet.events import Job, Stage
from napari_nnunet.formats.tables import text_of
from napari_nnunet.jobs.choosing.compare_objects import (
    ObjectComparison,
    compare_object_folders,
    compare_object_pair,
    compare_objects,
)
from napari_nnunet.jobs.choosing.evaluate_objects import scores, worst_first
from napari_nnunet.jobs.choosing.pairs import Pair
from napari_nnunet.schema.requests.choosing import CompareRequest
from napari_nnunet.volume import digest_of
from napari_nnunet.widgets.choosing.compare_form import Compared, is_idle, layers_of_files, pair_of
from napari_nnunet.widgets.frame.layers import KIND, add_layer, full_resolution, kinds_of_features, placement_of
from napari_nnunet.widgets.frame.panel import RunPanel
from napari_nnunet.widgets.frame.parts import CopyButton, Sentence, Table, html_label
from napari_nnunet.widgets.objects.look import go_to
from napari_nnunet.widgets.objects.verdicts import COLOURS, legend, verdict_options
from napari_nnunet.widgets.objects.voxels import look_into
from napari_nnunet.widgets.prediction.result import rivals, show_instead

if TYPE_CHECKING:
    import napari

_FIGURES = ("AP@0.5", "AP@0.75", "F1@0.5", "PQ", "SEG")
_CASE_HEADS = ("Case", "AP@0.5", "PQ", "Found", "Missed", "Invented", "Split", "Merged")


@dataclass(frozen=True, eq=False)
class OpenedObjects:
    """Two maps of objects of a case, as layers, and what became of each object.

    Parameters
    ----------
    name : str
        Of the case.
    layers : list of (ndarray, dict)
        Arrays and keywords of two Labels layers.
    kinds : sequence of dict of int to str
        The kind of each object of both, where these are known.
    found : ObjectComparison
        What became of them.
    digest : int
        Of the picture of that.
    """

    name: str
    layers: list[tuple[NDArray[Any], dict[str, Any]]]
    kinds: Sequence[Mapping[int, str]]
    found: ObjectComparison
    digest: int


class ObjectsCompared(QWidget):
    """Scores, a list of objects or cases, and the layer that shows what became of each.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Gets the layers.
    panel : RunPanel
        Runs what reads a case, and says how that ended.
    """

    def __init__(self, viewer: napari.viewer.Viewer, panel: RunPanel) -> None:
        super().__init__()
        self.viewer, self._panel = viewer, panel
        self.filled: Callable[[], object] = lambda: None
        self._verdicts: tuple[Verdict, ...] = ()
        self._pairs: list[Any] = []
        self._layer: Labels | None = None
        self._csv = ""
        self.title, self.legend = Sentence(), html_label()
        self.table = Table("Objects", most=12)
        self.copy = CopyButton("Copy as CSV", lambda: self._csv)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.title, self.legend, self.table, self.copy):
            column.addWidget(part)
        self.table.itemSelectionChanged.connect(self._selected)
        self.table.itemDoubleClicked.connect(lambda item: self._open_case(item.row()))
        self.setVisible(False)

    def clear(self) -> None:
        """Forget what was compared."""
        self._verdicts, self._pairs, self._layer, self._csv = (), [], None, ""
        self.table.setRowCount(0)
        self.title.setText("")
        self.legend.setText("")

    def job(self, request: Compared) -> tuple[Job[Any], Callable[[Any], None]]:
        """Return what compares, and what shows its result."""
        if isinstance(request, CompareRequest):
            return compare_object_folders(request.first, request.second), lambda found: self._show_cases(*found)
        place, name = placement_of(request.first), f"{request.first.name} ≠ {request.second.name}"
        arrays, pair = (
            (full_resolution(request.first), full_resolution(request.second)),
            pair_of(request.first, request.second),
        )
        kinds = kinds_of_features(request.first.features), kinds_of_features(request.second.features)
        job = _with_digest(compare_objects(*arrays, series=request.series, kinds=kinds), rivals(self.viewer, pair))
        return job, lambda found: self._show(found[0], found[1], name, place, pair)

    def _show(self, found: ObjectComparison, digest: int, name: str, place: dict[str, Any], pair: str) -> None:
        values = scores(found.matching)
        figures = ", ".join(f"{figure} {_text(values[figure])}" for figure in _FIGURES)
        self.title.setText(f"{figures}. {found.said}" if found.said else figures)
        self.legend.setText(legend(found.matching))
        self._verdicts = found.verdicts
        rows = [
            [verdict.fate, _numbers(verdict.references), _numbers(verdict.predictions), f"{verdict.iou:.2f}"]
            for verdict in found.verdicts
        ]
        self.table.set_heads(["Object", "First", "Second", "IoU"])
        self.table.fill(rows, colours=[COLOURS[verdict.fate] for verdict in found.verdicts])
        self.table.setToolTip("Select an object to go to it.")
        self._csv = text_of(
            [
                {"fate": v.fate, "first": _all(v.references), "second": _all(v.predictions), "IoU": f"{v.iou:.2f}"}
                for v in found.verdicts
            ]
        )
        self._layer = Labels(found.painted, **verdict_options(name, place))
        show_instead(self.viewer, self._layer, pair, digest)
        self.filled()

    def _selected(self) -> None:
        """Go to the selected object."""
        row = self.table.currentRow()
        layer = self._layer
        if not self._verdicts or layer is None or layer not in self.viewer.layers or not self.table.selectedItems():
            return
        go_to(self.viewer, layer, self._verdicts[row].place)

    def _show_cases(self, pairs: list[Any], evaluation: Any) -> None:
        found = {name: scores(matching) for name, matching in evaluation.cases.items()}
        named = {pair.name: pair for pair in pairs}
        order = self._pairs = [named[name] for name, _ in worst_first(found)]
        rows = [
            [
                pair.name,
                *(_text(found[pair.name][key]) for key in ("AP@0.5", "PQ")),
                *(str(found[pair.name][key]) for key in ("found", "missed", "invented", "split", "merged")),
            ]
            for pair in order
        ]
        self.table.set_heads(list(_CASE_HEADS))
        self.table.fill(rows)
        self.table.setToolTip("Double-click a case to open it.")
        everything = scores(evaluation.all)
        self.title.setText(
            f"{counted(len(order), 'case')}: "
            + ", ".join(f"{figure} {_text(everything[figure])}" for figure in _FIGURES)
            + ". "
            "The worst first; double-click one to open it."
        )
        self._csv = evaluation.csv()
        self.filled()

    def _open_case(self, row: int) -> None:
        """Open both segmentations of a case, and what became of its objects."""
        if not self._pairs:
            return
        if is_idle(self._panel, self._pairs[row].name):
            self._panel.run(_read_case(self._pairs[row]), done=self._show_case)

    def _show_case(self, case: OpenedObjects) -> str:
        for layer in self.viewer.layers:
            layer.visible = False
        plain = ("colormap", "features")  # those of classes
        layers = []
        for (data, place), own_kinds, what in zip(case.layers, case.kinds, ("first", "second"), strict=True):
            own = {key: value for key, value in place.items() if key not in plain}
            if own_kinds:
                own["features"] = {"index": list(own_kinds), "kind": list(own_kinds.values())}
            metadata = {**own.pop("metadata", {}), KIND: "object"}
            layers.append(Labels(data, **{**own, "name": f"{case.name} ({what})", "metadata": metadata}))
            add_layer(self.viewer, layers[-1])
        self.legend.setText(legend(case.found.matching))
        name, place = f"{layers[0].name} ≠ {layers[1].name}", placement_of(layers[0])
        self._layer = Labels(case.found.painted, **verdict_options(name, place))
        show_instead(self.viewer, self._layer, pair_of(*layers), case.digest)
        return f"Opened {case.name}."


def _read_case(pair: Pair) -> Job[OpenedObjects]:
    """Read both segmentations of a case, and compare them; on a thread, for they may be large, or far away."""
    yield Stage(name=f"Reading {pair.name}")
    layers = layers_of_files(pair.reference, pair.prediction)
    found, kinds = yield from compare_object_pair(pair)
    return OpenedObjects(pair.name, layers, kinds, found, digest_of(found.painted))


def _with_digest(job: Job[ObjectComparison], before: Sequence[Any]) -> Job[tuple[ObjectComparison, int]]:
    """Return what was found, with a digest of the layer to come; looks at those before it, on the job's thread."""
    found = yield from job
    look_into(before)
    return found, digest_of(found.painted)


def _all(numbers: tuple[int, ...]) -> str:
    return " + ".join(map(str, numbers)) or "–"


def _numbers(numbers: tuple[int, ...]) -> str:
    return _all(numbers[:3]) + (" + …" if len(numbers) > 3 else "")


def _text(value: float | int | None) -> str:
    return "–" if value is None else f"{value:.3f}"
