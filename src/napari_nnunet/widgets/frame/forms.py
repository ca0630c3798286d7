"""What forms share: labelled rows, combo boxes that may shrink, names that differ, docks that scroll."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from weakref import WeakKeyDictionary, ref

from magicgui.widgets import CheckBox, FileEdit, LineEdit, create_widget
from napari.layers import Image
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from qtpy.QtCore import QEvent, QObject, QSize, Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.schema.requests.option import flag_of, rows_of
from napari_nnunet.widgets.frame.parts import leave_out_middle
from napari_nnunet.widgets.frame.ready import typed_spacing
from napari_nnunet.widgets.frame.words import as_text

if TYPE_CHECKING:
    import napari


#: Metadata key of image layers that are results (probabilities, uncertainty), which nobody segments.
DERIVED = "nnunet_derived"
_WIDTH = 360  # of a dock, at least

_FAR = 10**6  # spin boxes want an end


class Form(QWidget):
    """A form; emits ``changed`` when what it says changed."""

    changed = Signal()
    _filling = False

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        """Fill boxes without being told of every change."""
        before, self._filling = self._filling, True
        try:
            yield
        finally:
            self._filling = before


class LayersLine(LineEdit):
    """A line whose text belongs to a layer: another layer shows what was typed for it, or nothing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._typed: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._layer: ref[Any] | None = None
        self.changed.connect(self._keep)

    def turn_to(self, layer: Any) -> None:
        """Show the text of a layer; what was typed before there was any is the first one's."""
        first, before = self._layer is None, None if self._layer is None else self._layer()
        if layer is None or layer is before:
            return
        self._layer = ref(layer)
        if first:
            self._keep(self.native.text())
        else:
            self.value = self._typed.get(layer, "")

    def _keep(self, text: str) -> None:
        layer = None if self._layer is None else self._layer()
        if layer is not None:
            self._typed[layer] = text


class LayerForm(Form):
    """A form that offers the viewer's layers.

    Subclasses follow the layers in ``_layers_changed`` and ``_watch``.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose layers are offered.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = viewer

    def _follow_layers(self) -> None:
        events = self.viewer.layers.events
        for signal in (events.inserted, events.removed, events.reordered):
            signal.connect(self._layers_changed)
        for layer in self.viewer.layers:
            self._watch(layer)

    def _layers_changed(self, event: Any = None) -> None:
        raise NotImplementedError

    def _watch(self, layer: Any) -> None:
        raise NotImplementedError

    def _images(self) -> list[Image]:
        return [layer for layer in self.viewer.layers if isinstance(layer, Image) and DERIVED not in layer.metadata]


class PathRow(QObject):
    """A row of a form for a path, with a button that asks for one; emits ``changed``.

    Parameters
    ----------
    form : QFormLayout
        Gets the row.
    title : str
        Of the row.
    edit_name : str
        Of the line for screen readers.
    tip : str
        About the line; a path is wider than a dock, so its tool tip says the path first.
    browse : QPushButton
        The button.
    """

    changed = Signal()

    def __init__(self, form: QFormLayout, title: str, edit_name: str, tip: str, browse: QPushButton) -> None:
        super().__init__()
        self._form, self._tip = form, tip
        self.edit = QLineEdit()
        self.edit.setAccessibleName(edit_name)
        self.edit.setToolTip(tip)
        browse.clicked.connect(lambda _=False: self.browse())
        self.line = side_by_side(self.edit, browse)
        form.addRow(title, self.line)
        self.edit.textChanged.connect(self._changed)

    def _changed(self, text: str) -> None:
        self.edit.setToolTip(f"{as_text(text)}\n{self._tip}" if text else self._tip)
        self.changed.emit()

    @property
    def text(self) -> str:
        """What was typed or chosen."""
        return self.edit.text().strip()

    def show(self, *, visible: bool) -> None:
        """Show or hide the row."""
        self._form.setRowVisible(self.line, visible)

    def browse(self) -> None:
        """Ask for a path."""
        raise NotImplementedError


def side_by_side(*parts: QWidget) -> QWidget:
    """Return parts beside each other; the first one is as wide as it can be."""
    line = QWidget()
    row = QHBoxLayout(line)
    row.setContentsMargins(0, 0, 0, 0)
    for i, part in enumerate(parts):
        row.addWidget(part, 0 if i else 1)
    return line


def field_widget(model: type[BaseModel], name: str, **own: Any) -> Any:
    """Return the magicgui widget of a setting: its title, tool tip, limits, choices and default are the field's.

    Parameters
    ----------
    model : type of BaseModel
        Whose field it is: settings, or a request.
    name : str
        Of the field.
    **own
        What the form says otherwise, or the field does not say: ``label``, ``value``, ``choices`` (a combo box takes
        the place of a line then), ``step``, ``min``, ``max``, ``nullable``, ``widget_type``.

    Returns
    -------
    magicgui widget
        For a field that may stay open, where the form gives no value, a line; empty, it shows what counts then.
    """
    field = model.model_fields[name]
    kinds = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    optional = len(kinds) < len(get_args(field.annotation))
    annotation = kinds[0] if optional and len(kinds) == 1 else field.annotation
    options: dict[str, Any] = {"tooltip": field.description or ""}
    if "choices" in own:
        options["widget_type"] = "ComboBox"
    elif optional and annotation is Path:
        options["nullable"] = True
    elif optional and "value" not in own:
        annotation = str
    elif annotation in (int, float):
        options |= _limits(field.metadata, whole=annotation is int, step=own.get("step"))
    value = own.pop("value", field.get_default(call_default_factory=True))
    wanted = {} if value is None or value is PydanticUndefined else {"value": value}
    label = own.pop("label", field.title)
    widget = create_widget(annotation=annotation, label=label, options={**options, **own}, **wanted)
    flag = flag_of(field)
    if isinstance(widget, LineEdit) and flag is not None and flag.otherwise:
        widget.native.setPlaceholderText(flag.otherwise)
    if isinstance(widget, FileEdit):
        widget.choose_btn.text = "Browse…"  # what magicgui writes leaves the path no room
    return widget


class FieldRows:
    """Rows for all fields of a request that say they have one, and what is typed into them.

    Parameters
    ----------
    kind : type of BaseModel
        The request.
    own : mapping of str to mapping, optional
        Of a field: what the form says otherwise, as for :func:`field_widget`.
    """

    def __init__(self, kind: type[BaseModel], own: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.kind = kind
        self.widgets = {name: field_widget(kind, name, **(own or {}).get(name, {})) for name in rows_of(kind)}

    def add_to(
        self, form: QFormLayout, changed: Callable[[Any], object], *, only: Collection[str] | None = None
    ) -> None:
        """Add the rows, or ``only`` some, to a form; ``changed`` is called with the new value of any of them."""
        for name, widget in self.widgets.items():
            if only is None or name in only:
                add_row(form, widget)
                widget.changed.connect(changed)

    def values(self) -> dict[str, Any]:
        """Return the fields as the request takes them.

        Raises
        ------
        NotReadyError or SettingsError
            If what was typed cannot be read; what is not allowed is found by the request itself.
        """
        return {name: self._value(name, widget) for name, widget in self.widgets.items()}

    def _value(self, name: str, widget: Any) -> Any:
        field, value = self.kind.model_fields[name], widget.value
        flag = flag_of(field)
        if isinstance(widget, FileEdit):
            return chosen_file(widget)
        if isinstance(value, list) and flag is not None and flag.reads is not None:  # entries that are chosen
            return flag.reads(value) or field.get_default(call_default_factory=True)
        if not isinstance(value, str):
            return value
        text = value.strip()
        if not text and not field.is_required():
            return field.get_default(call_default_factory=True)
        if flag is not None and flag.axes:
            return typed_spacing(text, "".join(flag.axes))
        return flag.reads(text) if flag is not None and flag.reads is not None else text


def offered(choices: Sequence[Any], nothing: str = "(nothing yet)") -> list[Any]:
    """Return what a combo box offers: the choices, or where there are none an entry in words that stands for None."""
    return list(choices) or [(nothing, None)]


def chosen_file(widget: FileEdit) -> Path | None:
    """Return the file that was chosen, if one was."""
    return None if widget.value is None or str(widget.value) == "." else Path(widget.value)


def _limits(metadata: Sequence[Any], *, whole: bool, step: float | None) -> dict[str, float]:
    """Return the limits of a spin box; a limit that is itself not allowed is left by one step."""
    step = step or (1 if whole else 0.05)
    said = {
        name: getattr(limit, name) for limit in metadata for name in ("ge", "gt", "le", "lt") if hasattr(limit, name)
    }
    low = said.get("ge", said["gt"] + step if "gt" in said else -_FAR)
    high = said.get("le", said["lt"] - step if "lt" in said else _FAR)
    return {"min": low, "max": high, "step": step}


def add_row(form: QFormLayout, widget: Any, at: int | None = None) -> None:
    """Add a magicgui widget with its label to a form, where screen readers find its name."""
    parts = (widget, widget.line_edit) if isinstance(widget, FileEdit) else (widget,)
    for part in parts:  # of a file, the line within is what the keyboard reaches
        part.native.setAccessibleName(widget.label)
    widget.native.setToolTip(widget.tooltip or "")
    row = form.rowCount() if at is None else at
    if isinstance(widget, CheckBox):
        form.insertRow(row, widget.native)  # over both columns: its text is its label
    else:
        form.insertRow(row, widget.label, widget.native)


def let_shrink(content: QWidget) -> None:
    """Let combo boxes be narrower than their longest entry, so that the dock fits beside the canvas."""
    own = [content] if isinstance(content, QComboBox) else []
    for box in (*own, *content.findChildren(QComboBox)):
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(6)
        leave_out_middle(box)


def distinct(choices: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Number equal names, so that none hides another in a combo box."""
    seen: dict[str, int] = {}
    out = []
    for name, value in choices:
        seen[name] = seen.get(name, 0) + 1
        out.append((name if seen[name] == 1 else f"{name} ({seen[name]})", value))
    return out


def scrolling(dock: QWidget, parts: Sequence[QWidget], last: QWidget | None = None) -> None:
    """Fill a dock with parts below each other; those but the last scroll where it is low."""
    content = QWidget()
    column = QVBoxLayout(content)
    for part in parts:
        column.addWidget(part)
    column.addStretch(1)
    layout = QVBoxLayout(dock)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(_Scroll(content), 1)
    if last is not None:
        below = QVBoxLayout()
        below.setContentsMargins(10, 0, 10, 6)
        below.addWidget(last)
        layout.addLayout(below)


class _Scroll(QScrollArea):
    """Scrolls up and down only: it is always as wide as its content needs."""

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(content)

    def minimumSizeHint(self) -> QSize:
        """Return the width of the content and the bar beside it."""
        content, bar = self.widget(), self.verticalScrollBar()
        if content is None or bar is None:
            return super().minimumSizeHint()
        needed = content.minimumSizeHint().width() + bar.sizeHint().width() + 2 * self.frameWidth()
        return QSize(max(needed, _WIDTH), super().minimumSizeHint().height())

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Notice that the content needs another width."""
        if event is not None and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)
