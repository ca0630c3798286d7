"""The Compare dock: two segmentations of the same image, or two folders of them, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtWidgets import QGroupBox, QVBoxLayout

from napari_nnunet.errors import counted
from napari_nnunet.events import Job, Progress, Stage
from napari_nnunet.formats.tables import text_of_rows
from napari_nnunet.jobs.choosing.compare import Comparison, compare_arrays, compare_folders, difference
from napari_nnunet.jobs.choosing.pairs import Pair
from napari_nnunet.schema.dataset import Region
from napari_nnunet.schema.requests.choosing import CompareRequest
from napari_nnunet.volume import digest_of
from napari_nnunet.widgets.choosing.compare_form import (
    Compared,
    CompareForm,
    is_idle,
    layers_of_files,
    names_apart,
    names_of_both,
    pair_of,
)
from napari_nnunet.widgets.choosing.compare_objects import ObjectsCompared
from napari_nnunet.widgets.files.overlay import ApartError, with_remedy
from napari_nnunet.widgets.frame.dock import RequestDock
from napari_nnunet.widgets.frame.forms import DERIVED
from napari_nnunet.widgets.frame.layers import (
    add_layer,
    differences_colormap,
    full_resolution,
    placement_of,
)
from napari_nnunet.widgets.frame.parts import CopyButton, Sentence, Table
from napari_nnunet.widgets.objects.look import show_fullest_slice
from napari_nnunet.widgets.objects.voxels import look_into
from napari_nnunet.widgets.prediction.result import rivals, show_instead, take_away

if TYPE_CHECKING:
    import napari

_DIFFERENCES = {1: "only in the first", 2: "only in the second", 3: "another class"}


@dataclass(frozen=True, eq=False)
class OpenedCase:
    """Two segmentations of a case, as layers, and where they differ.

    Parameters
    ----------
    name : str
        Of the case.
    layers : list of (ndarray, dict)
        Arrays and keywords of two Labels layers.
    differences : ndarray of uint8
        In the shape of these.
    digest : int
        Of that.
    """

    name: str
    layers: list[tuple[NDArray[Any], dict[str, Any]]]
    differences: NDArray[Any]
    digest: int


class CompareWidget(RequestDock[Compared, None]):
    """Compare two Labels layers, or two folders of segmentations.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer, "Compare", stops="Stop comparing.")
        self._comparison: Comparison | None = None
        self.form = CompareForm(viewer)
        self.title = Sentence()
        self.table = Table("Agreement", most=12)
        self.copy = CopyButton("Copy as CSV", self.csv)
        self.result = QGroupBox("Agreement")
        column = QVBoxLayout(self.result)
        for part in (self.title, self.table, self.copy):
            column.addWidget(part)
        self.result.setVisible(False)
        self.lay_out(self.form, self.summary, self.panel, self.result)
        self.objects = ObjectsCompared(viewer, self.panel)
        self.objects.filled = lambda: self.result.setVisible(True)
        column.addWidget(self.objects)
        self.form.changed.connect(self.check_soon)
        self.table.itemDoubleClicked.connect(lambda item: self._open_case(item.row()))
        self.check()

    def request(self) -> Compared:
        """Return what the form asks for."""
        try:
            return self.form.compared()
        except ApartError as error:
            raise with_remedy(error, self.viewer, self.panel, self.form.exchange) from error

    def describe(self, request: Compared) -> str:
        """Return what will be compared."""
        if isinstance(request, CompareRequest):
            return f"<b>Will compare</b> the files of '{request.first.name}' and '{request.second.name}'"
        text = f"<b>Will compare</b> '{request.first.name}' and '{request.second.name}'"
        odd = "" if self.form.objects else names_apart(request.first, request.second)
        return f"{text}.<br><b>Note:</b> {odd}" if odd else text

    def begin(self, request: Compared) -> None:
        """Compare."""
        self._comparison = None
        self.result.setVisible(False)  # of before; nothing comes of what fails or is cancelled
        self._show_objects(self.form.objects)
        if self.form.objects:
            job, done = self.objects.job(request)
            self.panel.run(job, done=done)
            return
        if isinstance(request, CompareRequest):
            names_of_folders = (request.first.name, request.second.name)
            self.panel.run(compare_folders(request), done=lambda found: self._show_cases(found, names_of_folders))
            return
        names, odd = names_of_both(request.first, request.second), names_apart(request.first, request.second)
        titles, place = (request.first.name, request.second.name), placement_of(request.first)  # people go on editing
        arrays, pair = (
            (full_resolution(request.first), full_resolution(request.second)),
            pair_of(request.first, request.second),
        )
        self.panel.run(
            _compare_layers(*arrays, rivals(self.viewer, pair)),
            done=lambda found: self._show_layers(found, names, titles, place, odd, pair),
        )

    def _show_objects(self, objects: bool) -> None:
        """Show the results of objects or those of classes."""
        for part in (self.title, self.table, self.copy):
            part.setVisible(not objects)
        self.objects.setVisible(objects)
        if objects:
            self.objects.clear()

    def _show_layers(
        self,
        found: tuple[Mapping[Region, Any], Any, int],
        names: Mapping[Region, str],
        titles: tuple[str, str],
        place: dict[str, Any],
        odd: str,
        pair: str,
    ) -> None:
        metrics, differences, digest = found
        rows = [
            [names.get(label, f"label {label}"), *map(_cell, (own["Dice"], own["n_ref"], own["n_pred"]))]
            for label, own in metrics.items()
        ]
        self._fill(["Class", "Dice", "First", "Second"], rows)
        same = not differences.any()
        said = "Both have the same values." if odd else "Both are identical."
        said = said if same else f"'{titles[0]}' and '{titles[1]}', in voxels."
        self.title.setText(f"{said} {odd}." if odd else said)
        if same:
            take_away(self.viewer, pair)  # what is no longer so
        else:
            self._add_differences(differences, digest, " ≠ ".join(titles), place, pair)

    def _add_differences(self, differences: Any, digest: int, name: str, place: dict[str, Any], pair: str) -> None:
        layer = Labels(
            differences,
            name=name,
            colormap=differences_colormap(),
            features={"index": [0, *_DIFFERENCES], "name": ["same", *_DIFFERENCES.values()]},
            metadata={DERIVED: True},
            **place,
        )
        show_instead(self.viewer, layer, pair, digest)
        show_fullest_slice(self.viewer, layer)  # where they differ most

    def _show_cases(self, comparison: Comparison, folders: tuple[str, str]) -> None:
        labels = comparison.evaluation.labels
        rows = [[name, *(_cell(values[label]["Dice"]) for label in labels)] for name, values in comparison.cases]
        self._fill(["Case", *(comparison.names.get(label, str(label)) for label in labels)], rows)
        self._comparison = comparison
        what = f"{counted(len(rows), 'case')} of '{folders[0]}' and '{folders[1]}'"
        mean = comparison.evaluation.dice
        self.title.setText(f"{what}, mean Dice {mean:.3f}, the most different first. Double-click one to open it.")

    def _fill(self, heads: list[str], rows: list[list[str]]) -> None:
        self.table.set_heads(heads)
        self.table.fill(rows)
        self.result.setVisible(True)

    def _open_case(self, row: int) -> None:
        """Open both segmentations of a case, and where they differ."""
        if self._comparison is None:
            return
        name = self._comparison.cases[row][0]
        pair = next(pair for pair in self._comparison.evaluation.pairs if pair.name == name)
        if is_idle(self.panel, name):
            self.panel.run(_read_case(pair), done=self._show_case)

    def _show_case(self, case: OpenedCase) -> str:
        for layer in self.viewer.layers:
            layer.visible = False
        layers = [
            add_layer(self.viewer, Labels(data, **{**place, "name": f"{case.name} ({what})"}))
            for (data, place), what in zip(case.layers, ("first", "second"), strict=True)
        ]
        name, place = f"{layers[0].name} ≠ {layers[1].name}", placement_of(layers[0])
        self._add_differences(case.differences, case.digest, name, place, pair_of(*layers))
        return f"Opened {case.name}."

    def csv(self) -> str:
        """Return the table as CSV; of folders with all metrics."""
        if self._comparison is not None:
            return self._comparison.csv()
        return text_of_rows(self.table.texts())


def _read_case(pair: Pair) -> Job[OpenedCase]:
    """Read both segmentations of a case; on a thread, for they may be large, or far away."""
    yield Stage(name=f"Reading {pair.name}")
    layers = layers_of_files(pair.reference, pair.prediction)
    yield Progress(done=1, total=2)
    found = difference(layers[0][0], layers[1][0])
    return OpenedCase(pair.name, layers, found, digest_of(found))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4f}"
    return str(value)


def _compare_layers(first: Any, second: Any, before: Sequence[Any]) -> Job[tuple[Mapping[Region, Any], Any, int]]:
    yield Stage(name="Comparing")
    one, other = np.array(first), np.array(second)  # people go on editing
    yield Progress(done=1, total=3)
    three = [array if array.ndim > 2 else array[None] for array in (one, other)]
    metrics = compare_arrays(three[0], three[1])
    yield Progress(done=2, total=3)
    differences = difference(one, other)
    look_into(before)
    return metrics, differences, digest_of(differences)
