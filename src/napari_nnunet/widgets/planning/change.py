"""Change patch, batch or voxel size of a configuration, with the consequences shown before it is saved."""

from __future__ import annotations

from typing import Any

from magicgui.widgets import ComboBox, LineEdit, SpinBox
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QPushButton, QVBoxLayout, QWidget

from napari_nnunet.engine.planning.derive import Derived, derive, entries_of
from napari_nnunet.errors import NnunetError
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.plans import Plans
from napari_nnunet.widgets.frame.forms import add_row, let_shrink, offered
from napari_nnunet.widgets.frame.parts import Sentence
from napari_nnunet.widgets.frame.ready import NotReadyError, typed_spacing


class ChangeForm(QWidget):
    """Makes a configuration that inherits from another; emits ``saved`` with its name and the new plans."""

    saved = Signal(str, object)

    def __init__(self) -> None:
        super().__init__()
        self.plans: Plans | None = None
        self.info: DatasetInfo | None = None
        self.base_box = ComboBox(
            label="Start from", choices=offered([]), tooltip="Everything you do not change is inherited."
        )
        self.patch_edit = LineEdit(label="Patch (voxels)", tooltip="What the network sees at once, in its axis order.")
        self.batch_box = SpinBox(label="Batch", value=2, min=1, max=10_000, tooltip="Patches per training step.")
        self.spacing_edit = LineEdit(label="Voxel size (mm)", tooltip="The images are resampled to this size.")
        self.name_edit = LineEdit(label="Save as", tooltip="Name of the new configuration, such as 3d_small.")
        self.consequences = Sentence()
        self.button = QPushButton("Add configuration")
        form = QFormLayout()
        for widget in (self.base_box, self.patch_edit, self.batch_box, self.spacing_edit, self.name_edit):
            add_row(form, widget)
        column = QVBoxLayout(self)
        column.addLayout(form)
        column.addWidget(self.consequences)  # a form would cut its second line
        column.addWidget(self.button)
        let_shrink(self)
        self.base_box.changed.connect(self._base_chosen)
        for edit in (self.patch_edit, self.batch_box, self.spacing_edit, self.name_edit):
            edit.changed.connect(self._update)
        self.button.clicked.connect(self._save)

    def show_plans(self, plans: Plans, info: DatasetInfo) -> None:
        """Offer the configurations of other plans."""
        self.plans, self.info = plans, info
        names = [name for name in plans.configurations if name != "3d_cascade_fullres"]
        with self.base_box.changed.blocked():
            self.base_box.choices = names
            self.base_box.value = "3d_fullres" if "3d_fullres" in names else names[0]
        self._base_chosen()

    def _base_chosen(self) -> None:
        if self.plans is None or not self.base_box.value:
            return
        base = self.plans.configuration(self.base_box.value)
        for edit, values in ((self.patch_edit, base.patch_size), (self.spacing_edit, base.spacing)):
            edit.value = " ".join(f"{v:.6g}" for v in values)
        self.batch_box.value = base.batch_size
        number = next(n for n in range(2, 1000) if f"{base.name}_{n}" not in self.plans.configurations)
        self.name_edit.value = f"{base.name}_{number}"
        self._update()

    def derived(self) -> Derived:
        """Return the configuration the form describes.

        Raises
        ------
        NnunetError or NotReadyError
            If it cannot be, or nothing is changed.
        """
        if self.plans is None or self.info is None:
            raise NnunetError("There are no plans yet.")
        base = self.plans.configuration(self.base_box.value)
        patch, spacing = _numbers(self.patch_edit), typed_spacing(self.spacing_edit.value, "ZYX"[-base.ndim :])
        same_spacing = all(abs(a - b) <= 1e-5 * b for a, b in zip(spacing, base.spacing, strict=True))
        return derive(
            self.plans,
            base.name,
            self.name_edit.value.strip(),
            labels=len(self.info.labels.labels),
            patch=[round(v) for v in patch],
            batch=self.batch_box.value,
            spacing=None if same_spacing else spacing,
        )

    def _update(self, _: Any = None) -> None:
        try:
            found = self.derived()
        except (NnunetError, NotReadyError) as reason:
            self.consequences.setText(reason.in_window if isinstance(reason, NnunetError) else str(reason))
            self.button.setEnabled(False)
            return
        self.consequences.setText("<br>".join(f"{text}." for text in found.consequences))
        self.button.setEnabled(True)

    def _save(self) -> None:
        if self.plans is not None:
            name = self.name_edit.value.strip()
            self.saved.emit(name, entries_of(self.plans.raw, name, self.derived()))


def _numbers(edit: LineEdit) -> list[float]:
    try:
        return [float(word) for word in edit.value.replace("×", " ").replace("x", " ").replace(",", " ").split()]
    except ValueError as error:
        raise NnunetError(f"{edit.label}: '{edit.value}' cannot be read; type numbers separated by spaces.") from error
