"""What a plan looks like: a sentence, a table of configurations, a drawing of the network, plots of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyqtgraph
from qtpy.QtCore import QPointF, QRectF, QSignalBlocker, Qt
from qtpy.QtGui import QColor, QFontMetricsF, QPainter, QPen, QResizeEvent
from qtpy.QtWidgets import (
    QComboBox,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.engine.machine import has_gpu
from napari_nnunet.errors import NnunetError, counted
from napari_nnunet.schema.architecture import Architecture
from napari_nnunet.schema.colours import class_colour
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.fingerprint import Fingerprint
from napari_nnunet.schema.plans import Configuration, Plans
from napari_nnunet.widgets.frame.parts import Sentence, Table, Tabs
from napari_nnunet.widgets.frame.words import as_text, failure_text, size_text, times_text

_ROWS = (
    "Based on",
    "Patch",
    "Voxel size",
    "Batch",
    "Median image",
    "Network",
    "Stages",
    "Features",
    "Normalisation",
    "Time per fold",
    "Memory",
    "Disk",
)
SENSIBLE_START = "Small, 2d, 2 h"  # without a GPU
_LONG = 12.0  # hours, from which on a shorter start is advised
_REAL = "as the last training here took, waiting for data included"
_TRIED = "from a trial of a few steps"
_BUSY = f"{_TRIED} on one core, for other programs keep this computer busy; press Measure again when it is not"
_AXES = ("z", "y", "x")
_BOX = 124  # width of a stage in the drawing
_COLOURS = tuple(class_colour(value) for value in (1, 2, 3))


def plan_sentence(plans: Plans, info: DatasetInfo, cases: int | None, costs: Mapping[str, Any]) -> str:
    """Return one plain sentence about the plan: cases, classes, dimensions, patch, time."""
    name = advised_configuration(plans)
    configuration = plans.configuration(name)
    classes = len(info.labels.regions if info.labels.has_regions else info.labels.foreground_labels)
    when = ""
    if name in costs:
        hours = costs[name].hours_per_fold
        when = f", about {hours_text(hours)} per fold here"
        when += " (measured on one core: the computer is busy)" if costs[name].busy else ""
        if hours > _LONG and not has_gpu():
            when += f". That is nnU-Net's whole training; {SENSIBLE_START} is a sensible start here"
    count = "" if cases is None else f"{counted(cases, 'case')}, "
    return (
        f"{count}{classes} class{'es' if classes != 1 else ''}, "
        f"{configuration.ndim}D, patch {times_text(configuration.patch_size)}{when}"
    )


def main_configuration(plans: Plans) -> str:
    """Return the configuration most people train: 3d_fullres where there is one, else 2d."""
    return next(
        (name for name in ("3d_fullres", "2d") if name in plans.configurations), next(iter(plans.configurations))
    )


def advised_configuration(plans: Plans) -> str:
    """Return the configuration to begin with on this computer: without a GPU that is 2d, where there is one."""
    return "2d" if "2d" in plans.configurations and not has_gpu() else main_configuration(plans)


def readable_configurations(plans: Plans) -> dict[str, Configuration]:
    """Return the configurations that can be built, in the order of the file."""
    found = {}
    for name in plans.configurations:
        try:
            found[name] = plans.configuration(name)
        except NnunetError:
            continue
    return found


class ConfigurationTable(Table):
    """The configurations of a plan side by side."""

    def __init__(self) -> None:
        super().__init__("Configurations", most=len(_ROWS))
        self.setRowCount(len(_ROWS))
        self.setVerticalHeaderLabels(list(_ROWS))
        self.verticalHeader().setVisible(True)
        self.horizontalHeader().setStretchLastSection(True)
        self.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectColumns)
        self.setWordWrap(True)

    def selected(self) -> str | None:
        """Return the configuration of the selected column."""
        columns = {index.column() for index in self.selectedIndexes()}
        item = self.horizontalHeaderItem(min(columns)) if columns else None
        return None if item is None else item.text()

    def show_plans(self, plans: Plans, costs: Mapping[str, Any], *, measuring: bool) -> None:
        """Fill the table; costs that are not measured yet are announced or left open."""
        configurations = readable_configurations(plans)
        self.setColumnCount(len(configurations))
        self.setHorizontalHeaderLabels(list(configurations))
        for column, (name, configuration) in enumerate(configurations.items()):
            median = plans.resolved(name).get("median_image_size_in_voxels") or ()
            parent = str(plans.configurations[name].get("inherits_from") or "–")
            cost = costs.get(name)
            unknown = "measuring…" if measuring else "–"
            texts = [parent, *_column(configuration, median, cost, unknown, pictures=plans.of_pictures)]
            for row, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setToolTip(
                    f"{text}, {_REAL if cost.real else _BUSY if cost.busy else _TRIED}"
                    if cost is not None and _ROWS[row] == "Time per fold"
                    else as_text(text)
                )
                self.setItem(row, column, item)
        self.resizeRowsToContents()
        self.fit()


def _column(
    configuration: Configuration, median: Sequence[float], cost: Any, unknown: str, *, pictures: bool
) -> list[str]:
    architecture = configuration.architecture
    schemes = {scheme.removesuffix("Normalization") for scheme in configuration.normalization_schemes}
    spacing = configuration.spacing
    pixels = pictures and set(spacing) == {1.0}
    return [
        times_text(configuration.patch_size),
        "pixels" if pixels else size_text(spacing),
        str(configuration.batch_size),
        times_text([round(n) for n in median]) if median else "–",
        "residual U-Net" if architecture.name == "ResidualEncoderUNet" else "U-Net",
        str(architecture.stages),
        f"{architecture.features[0]} to {architecture.features[-1]}",
        ", ".join(sorted(schemes)),
        unknown if cost is None else hours_text(cost.hours_per_fold),
        unknown if cost is None else f"{bytes_text(cost.memory_gb)} ({cost.device})",
        unknown if cost is None else bytes_text(cost.disk_gb),
    ]


def hours_text(hours: float) -> str:
    """Return a training time in hours, or days where they are many."""
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} days"


def bytes_text(gigabytes: float) -> str:
    """Return a size in GB, or MB where it is small."""
    if gigabytes >= 1:
        return f"{gigabytes:.1f} GB"
    return f"{1000 * gigabytes:.0f} MB" if gigabytes >= 0.001 else "under 1 MB"


class PlanViews(Tabs):
    """Three looks at plans: the table of configurations, the network of one of them, the data."""

    def __init__(self) -> None:
        super().__init__()
        self.plans: Plans | None = None
        self.table = ConfigurationTable()
        self.network_box = QComboBox()
        self.network_box.setAccessibleName("Configuration")
        self.drawing = NetworkDrawing()
        self.plots = DataPlots()
        for title, parts in (
            ("Configurations", (self.table,)),
            ("Network", (self.network_box, self.drawing)),
            ("Data", (self.plots,)),
        ):
            page = QWidget()
            column = QVBoxLayout(page)
            for part in parts:
                column.addWidget(part)
            column.addStretch(1)
            self.addTab(page, title)
        self.network_box.currentTextChanged.connect(self._draw)
        self.fit()

    def show_plans(self, plans: Plans, info: DatasetInfo, base: Path) -> None:
        """Draw other plans and the fingerprint they were made from."""
        self.plans = plans
        with QSignalBlocker(self.network_box):
            self.network_box.clear()
            self.network_box.addItems(list(readable_configurations(plans)))
            self.network_box.setCurrentText(main_configuration(plans))
        self._draw(self.network_box.currentText())
        try:
            self.plots.show_fingerprint(Fingerprint.read(base / "dataset_fingerprint.json"), info.channel_names)
        except (NnunetError, OSError) as error:
            self.plots.show_nothing(f"What was measured of the data cannot be shown. {failure_text(error)}")

    def show_costs(self, plans: Plans, costs: Mapping[str, Any], *, measuring: bool) -> None:
        """Fill the table of configurations."""
        self.table.show_plans(plans, costs, measuring=measuring)
        self.fit()

    def _draw(self, name: str) -> None:
        if self.plans is not None and name:
            self.drawing.show_configuration(self.plans.configuration(name))


class NetworkDrawing(QWidget):
    """A U-Net as boxes: one per stage, as high as its maps, with strides between."""

    def __init__(self) -> None:
        super().__init__()
        self.architecture: Architecture | None = None
        self.patch: tuple[int, ...] = ()
        self.setMinimumHeight(260)
        self.setAccessibleName("Drawing of the network")

    def show_configuration(self, configuration: Configuration) -> None:
        """Draw another network."""
        self.architecture, self.patch = configuration.architecture, configuration.patch_size
        sizes = " – ".join(times_text(size) for size in self.sizes())
        self.setAccessibleDescription(f"{configuration.name}: {sizes}")
        self.setMinimumHeight(52 * self.architecture.stages + 10)
        self.update()

    def sizes(self) -> list[tuple[int, ...]]:
        """Return the size of the feature maps of every stage."""
        if self.architecture is None:
            return []
        found, size = [], self.patch
        for stride in self.architecture.strides:
            size = tuple(n // s for n, s in zip(size, stride, strict=True))
            found.append(size)
        return found

    def paintEvent(self, event: Any) -> None:
        """Draw encoder and decoder, the deepest stage at the bottom."""
        if self.architecture is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().text().color()
        sizes, stages = self.sizes(), self.architecture.stages
        high = self.height() / stages
        middle, inner = self.width() / 2, _BOX / 2 + 4
        for stage, size in enumerate(sizes):
            y = stage * high + 4
            shift = inner + (stages - 2 - stage) / max(stages - 2, 1) * (max(middle - _BOX / 2 - 6, inner) - inner)
            label = f"{times_text(size)}\n{self.architecture.features[stage]} features"
            last = stage == stages - 1
            for side in (0,) if last else (-1, 1):
                box = QRectF(middle + side * shift - _BOX / 2, y, _BOX, high - 16)
                self._box(painter, box, label, text, deep=stage / max(stages - 1, 1))
            if not last:
                pen = QPen(text, 1, Qt.PenStyle.DotLine)
                painter.setPen(pen)
                if 2 * shift > 130:
                    painter.drawLine(
                        QPointF(middle - shift + _BOX / 2, y + high / 2 - 8),
                        QPointF(middle + shift - _BOX / 2, y + high / 2 - 8),
                    )
                stride = " · ".join(str(s) for s in self.architecture.strides[stage + 1])
                painter.setPen(text)
                metrics = QFontMetricsF(painter.font())
                painter.drawText(QPointF(middle - shift - _BOX / 2, y + high - 5), f"↓ {stride}")
                right = f"↑ {stride}"
                painter.drawText(
                    QPointF(middle + shift + _BOX / 2 - metrics.horizontalAdvance(right), y + high - 5), right
                )
        painter.end()

    @staticmethod
    def _box(painter: QPainter, box: QRectF, label: str, text: QColor, *, deep: float) -> None:
        fill = QColor(_COLOURS[0])
        fill.setAlphaF(0.15 + 0.35 * deep)
        painter.setPen(QPen(QColor(_COLOURS[0]), 1.2))
        painter.setBrush(fill)
        painter.drawRoundedRect(box, 4, 4)
        painter.setPen(text)
        painter.drawText(box, Qt.AlignmentFlag.AlignCenter, label)


class DataPlots(QWidget):
    """Spacings and shapes of all cases, and the intensities of every channel."""

    def __init__(self) -> None:
        super().__init__()
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self.plots: list[pyqtgraph.PlotWidget] = []
        self.reason = Sentence()
        self._layout.addWidget(self.reason)

    def show_nothing(self, reason: str) -> None:
        """Say why there is nothing to see."""
        while self.plots:
            plot = self.plots.pop()
            self._layout.removeWidget(plot)
            plot.deleteLater()
        self.reason.setText(reason)
        self.reason.setVisible(bool(reason))
        self._fit_reason()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Keep the whole reason in sight."""
        super().resizeEvent(event)
        self._fit_reason()

    def _fit_reason(self) -> None:
        # a tab asks nobody how high a text is that wraps
        self.reason.setMinimumHeight(self.reason.heightForWidth(self.width()) if self.reason.text() else 0)

    def show_fingerprint(self, fingerprint: Fingerprint, channels: Sequence[str]) -> None:
        """Draw the plots anew."""
        self.show_nothing("")
        pictures = all(spacing[0] >= 999 for spacing in fingerprint.spacings)
        axes = range(1, 3) if pictures else range(3)
        small = max(max(spacing) for spacing in fingerprint.spacings) < 0.05
        title, factor = ("Voxel size (µm)", 1000) if small else ("Voxel size (mm)", 1)
        self._strips(title, [[factor * s[a] for s in fingerprint.spacings] for a in axes], [_AXES[a] for a in axes])
        self._strips("Voxels", [[s[a] for s in fingerprint.shapes_after_crop] for a in axes], [_AXES[a] for a in axes])
        self._intensities(fingerprint, channels)

    def _plot(self, title: str, ticks: Sequence[str]) -> Any:
        plot = pyqtgraph.PlotWidget(background=None)
        plot.setTitle(title, size="9pt")
        plot.setFixedHeight(50 + 26 * len(ticks) + 16)
        plot.setMouseEnabled(x=False, y=False)
        plot.hideButtons()
        plot.setMenuEnabled(False)
        plot.getAxis("left").setTicks([list(enumerate(reversed(ticks)))])
        plot.setYRange(-0.5, len(ticks) - 0.5)
        plot.setAccessibleName(title)
        self._layout.addWidget(plot)
        self.plots.append(plot)
        return plot

    def _strips(self, title: str, values: Sequence[Sequence[float]], names: Sequence[str]) -> None:
        plot = self._plot(title, names)
        for row, column in enumerate(values):
            colour = QColor(_COLOURS[row % 3])
            colour.setAlpha(110)
            y = len(names) - 1 - row
            # A little apart, so that equal values show how many they are.
            offsets = [y + 0.25 * ((i * 0.618) % 1 - 0.5) for i in range(len(column))]
            plot.plot(list(column), offsets, pen=None, symbol="o", symbolSize=6, symbolBrush=colour, symbolPen=None)

    def _intensities(self, fingerprint: Fingerprint, channels: Sequence[str]) -> None:
        """Draw per channel the range, the 0.5 to 99.5 percentiles and the median of the foreground."""
        properties = list(fingerprint.foreground_intensity_properties_per_channel.values())
        names = [channels[i] if i < len(channels) else f"channel {i}" for i in range(len(properties))]
        plot = self._plot("Foreground intensities", names)
        for row, found in enumerate(properties):
            y = len(names) - 1 - row
            colour = _COLOURS[row % 3]
            plot.plot([found.min, found.max], [y, y], pen=pyqtgraph.mkPen(colour, width=1))
            low, high = found.percentile_00_5, found.percentile_99_5
            plot.plot([low, high], [y, y], pen=pyqtgraph.mkPen(colour, width=8))
            plot.plot([found.median], [y], pen=None, symbol="d", symbolSize=11, symbolBrush="w", symbolPen=colour)
