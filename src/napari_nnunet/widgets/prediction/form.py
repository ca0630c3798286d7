"""The form of the Segment dock: model, image, quality. It edits choices and knows nothing of running."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from magicgui.widgets import ComboBox
from qtpy.QtWidgets import QFileDialog, QFormLayout, QGroupBox, QHBoxLayout, QVBoxLayout, QWidget

from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.model.folder import TrainedModel, load_model
from napari_nnunet.formats.model.known_models import known_models, remember_model
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.requests.prediction import PRESETS, PredictPrecision, PredictSettings, preset
from napari_nnunet.widgets.files.overlay import ApartError, with_remedy
from napari_nnunet.widgets.frame.forms import FieldRows, Form, let_shrink
from napari_nnunet.widgets.frame.head import Head
from napari_nnunet.widgets.frame.layers import result_shape
from napari_nnunet.widgets.frame.panel import RunPanel
from napari_nnunet.widgets.frame.parts import FolderButton, Sentence, button, folded_away
from napari_nnunet.widgets.frame.preferences import read_preferences
from napari_nnunet.widgets.frame.ready import NotReadyError, Remedy
from napari_nnunet.widgets.frame.state import state_of
from napari_nnunet.widgets.frame.words import failure_text, telling_names
from napari_nnunet.widgets.large.order import ON_DISK, LargeOrder, large_order, require_memory
from napari_nnunet.widgets.prediction import many_view
from napari_nnunet.widgets.prediction.image_form import ImageForm
from napari_nnunet.widgets.prediction.many import FolderOrder, OpenImages
from napari_nnunet.widgets.prediction.request import (
    OUTPUTS,
    Choices,
    FarError,
    SegmentRequest,
    require_confirmed,
    resolve,
)
from napari_nnunet.widgets.prediction.words import about_model, marks_of, sample_folder

if TYPE_CHECKING:
    import napari

_SAMPLE = "Sample model: nuclei and shells"
_SAMPLE_MODEL = "sample"  # in the place of a folder
_CUSTOM = "Custom"
_SEEN_FOLDS = 4  # of a list that scrolls
_TITLES = {"fast": "Fast", "balanced": "Balanced", "full": "Full (nnU-Net)"}
_EIGHT_BIT = {"fast_8bit": "Fast (8-bit)"}  # only where it was measured to be worth it


class SegmentForm(Form):
    """Edits :class:`Choices`; emits ``changed`` when any of them changed.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose layers are offered.
    choose_model : bool
        Whether the model and its folds are chosen here; otherwise :meth:`show_model` tells.
    """

    def __init__(self, viewer: napari.viewer.Viewer, *, choose_model: bool = True) -> None:
        super().__init__()
        self.viewer = viewer
        self.model: TrainedModel | None = None
        self._marks: tuple[Any, ...] = ()  # of its files, when they were read
        self.image = ImageForm(viewer)
        self._chooses_model = choose_model
        self.head = Head(state_of(viewer), page="segment.md")
        self._make_form()
        self._lay_out()
        self._connect()
        if choose_model:
            self._fill_models()
            self.head.changed.connect(self._models_changed)
            self.head.state.trained.connect(self._models_changed)

    def _make_form(self) -> None:
        preferences = read_preferences()
        self.model_box = ComboBox(label="Model", choices=[], tooltip="A trained nnU-Net model (a folder).")
        self.browse = button(
            "Browse…", "Choose the folder of a trained model: it has plans.json, dataset.json and fold_0."
        )
        self.about, self.place = Sentence(), FolderButton()
        self.preset_box = ComboBox(
            label="Quality",
            choices=[*((title, name) for name, title in _TITLES.items()), (_CUSTOM, _CUSTOM)],
            value="full" if preferences.mirroring and preferences.step == 0.5 else _CUSTOM,
            tooltip="Fast: one fold, no mirroring, wide steps. Balanced: all folds. Full: as nnU-Net does it.",
        )
        own: dict[str, dict[str, Any]] = {
            "folds": {"widget_type": "Select", "choices": []},
            "checkpoint": {"choices": ["checkpoint_final.pth"]},
            "mirroring": {"value": preferences.mirroring},
            "step": {"value": preferences.step, "min": 0.1},
            "device": {"value": preferences.device, "choices": ["auto", "cpu", "cuda", "mps"]},
        }
        self.rows = FieldRows(PredictSettings, own)
        self.precision_box = self.rows.widgets["precision"]
        self._precision_chosen = False
        self.precision_box.changed.connect(self._choose_precision)
        self.preferred = Sentence()
        self.preferred.hide()  # until a model is chosen and there is something to say
        self.folds_box, self.checkpoint_box = self.rows.widgets["folds"], self.rows.widgets["checkpoint"]
        self.mirroring_box, self.step_box = self.rows.widgets["mirroring"], self.rows.widgets["step"]
        for name in PRESETS["full"]:
            self.rows.widgets[name].changed.connect(self._becomes_custom)

    def _lay_out(self) -> None:
        for named in (self.model_box, self.preset_box):
            named.native.setAccessibleName(named.label)
            named.native.setToolTip(named.tooltip)
        chooser = QHBoxLayout()
        chooser.addWidget(self.model_box.native, 1)
        chooser.addWidget(self.browse)
        box = QGroupBox("1  Model")
        inner = QVBoxLayout(box)
        inner.addWidget(self.head)
        inner.addLayout(chooser)
        inner.addWidget(self.about)
        inner.addWidget(self.place)
        quality = QGroupBox("3  Quality")
        inner = QVBoxLayout(quality)
        inner.addWidget(self.preset_box.native)
        inner.addWidget(self.preferred)
        details = QWidget()
        form = QFormLayout(details)
        form.setContentsMargins(0, 0, 0, 0)
        self.rows.add_to(form, self._changed)
        inner.addWidget(folded_away("Advanced", details))
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (box, self.image, quality):
            column.addWidget(part)
        if not self._chooses_model:
            box.setVisible(False)
            self.image.scope.hide()
            self.image.output_box.choices = list(OUTPUTS)  # several models meet in memory only
            for name in ("folds", "checkpoint", "quality"):
                form.setRowVisible(self.rows.widgets[name].native, False)
        let_shrink(self)

    def _connect(self) -> None:
        self.browse.clicked.connect(self._browse)
        self.model_box.changed.connect(self._model_chosen)
        self.image.changed.connect(self._changed)
        self.preset_box.changed.connect(self._preset_chosen)
        self.checkpoint_box.changed.connect(self._checkpoint_chosen)

    def _fill_models(self, select: Path | str | None = None) -> None:
        self._listed = paths = known_models(self.head.workspace)
        choices: list[tuple[str, Any]] = list(zip(telling_names(paths), paths, strict=True))
        choices.append((_SAMPLE, _SAMPLE_MODEL))
        self.model_box.choices = choices
        self.model_box.value = select if select is not None else choices[0][1]
        self._model_chosen()

    def _models_changed(self) -> None:
        """Offer the models there are now, if they are others; the chosen one stays if it still exists."""
        value = self.model_box.value
        known = known_models(self.head.workspace)
        if known != self._listed:
            self._fill_models(value if value in (*known, _SAMPLE_MODEL) else None)
        elif self.model is not None and marks_of(self.model) != self._marks:
            self._look_again(self.model)

    def _look_again(self, model: TrainedModel) -> None:
        """Follow what became of the chosen model: other folds or checkpoints, or another model in its place."""
        if not model.checkpoints or marks_of(model)[:2] != self._marks[:2]:
            self._model_chosen()
            return
        self.model = model = load_model(model.folder)  # its Dice may be another, too
        chosen = self.folds_box.value if self.preset_box.value == _CUSTOM else ()
        with self._quietly():
            self._fill_checkpoints(model)
            self.folds_box.value = [fold for fold in self.folds_box.choices if fold in chosen] or self.folds_box.choices
        self._preset_chosen()

    def _fill_checkpoints(self, model: TrainedModel) -> None:
        self._marks = marks_of(model)
        self.about.setText(about_model(model))
        self.checkpoint_box.choices = list(model.checkpoints) or ["checkpoint_final.pth"]
        self._fill_folds()

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Choose the folder of a trained model")
        if folder:
            self.add_model(Path(folder))

    def add_model(self, folder: Path) -> None:
        """Choose a model by its folder and remember it; what is wrong with the folder is said in the dock."""
        try:
            model = load_model(folder)
            remember_model(model.folder)
        except (NnunetError, OSError) as error:
            with self._quietly():
                self.model_box.native.setCurrentIndex(-1)  # none is chosen, so that each can be chosen again
            self.model = None
            self._refuse_model(error)
            self._changed()
            return
        self._fill_models(model.folder)

    def choose_sample(self) -> None:
        """Choose the model that is included."""
        self.model_box.value = _SAMPLE_MODEL

    def show_model(self, model: TrainedModel | None) -> None:
        """Follow a model that was chosen elsewhere; layers that fit stay chosen."""
        before, self.model = self.model, model
        if model is None or before is None or before.dataset.channel_names != model.dataset.channel_names:
            self._fill_for_model()
        else:
            with self._quietly():
                self._fill_folds()
            self.image.show_model(model)

    def _refuse_model(self, error: NnunetError | OSError) -> None:
        self.about.setText(failure_text(error))
        self.place.follow(self.about.text())

    def _model_chosen(self) -> None:
        if self._filling:
            return
        value = self.model_box.value
        self.model = None
        try:
            if value == _SAMPLE_MODEL:
                self.model = load_model(sample_folder())
            elif value is not None:
                self.model = load_model(value)
        except (NnunetError, OSError) as error:
            self._refuse_model(error)
        self._fill_for_model()
        self._changed()

    def _fill_for_model(self) -> None:
        model = self.model
        if model is None:
            self.image.show_model(None)
            return
        self.place.follow("")
        with self._quietly():
            self._fill_checkpoints(model)
            self._fill_precisions(model)
        self.image.show_model(model)
        self._preset_chosen()

    def _choose_precision(self, _: Any) -> None:
        self._precision_chosen = self._precision_chosen or not self._filling

    def _fill_precisions(self, model: TrainedModel) -> None:
        """Offer the arithmetic that a model can be computed in; until it is chosen here, the preferences count."""
        preferred, by_preset = read_preferences().precision, self.preset_box.value in _EIGHT_BIT
        known = [p for p in get_args(PredictPrecision) if p != "int8" or by_preset or model.eight_bit_path.is_file()]
        before = self.precision_box.value
        self.precision_box.choices = known
        if by_preset:
            self.precision_box.value = "int8"
        elif not self._precision_chosen or before not in known:
            self.precision_box.value = preferred if preferred in known else "auto"
        not_here = "" if preferred in known else f"; {model.name} was not quantised and uses auto"
        self.preferred.setText(
            f"Precision {preferred}, from napari's preferences (nnU-Net > Computing){not_here}. Advanced has others."
        )
        self.preferred.setVisible(preferred != "auto")

    def _fill_folds(self) -> None:
        if self.model is None:
            return
        folds = [str(fold) for fold in self.model.folds(self.checkpoint_box.value)]
        self.folds_box.choices = folds
        self.folds_box.value = folds
        rows = max(1, min(len(folds), _SEEN_FOLDS))
        self.folds_box.native.setFixedHeight(rows * max(14, self.folds_box.native.sizeHintForRow(0)) + 8)

    def _checkpoint_chosen(self) -> None:
        if not self._filling:
            with self._quietly():
                self._fill_folds()
            self._preset_chosen()

    def choose_checkpoint(self, checkpoint: str, folds: Sequence[Fold]) -> None:
        """Choose a checkpoint and folds of the model."""
        if self.model is None:
            return
        with self._quietly():
            names = list(dict.fromkeys((*self.model.checkpoints, checkpoint)))
            self.checkpoint_box.choices = names
            self.checkpoint_box.value = checkpoint
            self._fill_folds()
            self.folds_box.value = [str(fold) for fold in folds]
            if self.preset_box.value != _CUSTOM and self._preset(self.model).folds != tuple(folds):
                self.preset_box.value = _CUSTOM
        self._changed()

    def _preset(self, model: TrainedModel) -> PredictSettings:
        """Return what the chosen preset means for a model."""
        folds = model.folds(self.checkpoint_box.value)
        return preset(self.preset_box.value, folds=folds, base=PredictSettings()) if folds else PredictSettings()

    def _preset_chosen(self) -> None:
        if self._filling or self.model is None or self.preset_box.value == _CUSTOM:
            self._changed()
            return
        chosen = self._preset(self.model)
        with self._quietly():
            self.folds_box.value = [str(fold) for fold in chosen.folds or ()]
            self.mirroring_box.value = chosen.mirroring
            self.step_box.value = chosen.step
            self._fill_precisions(self.model)
        self._changed()

    def _becomes_custom(self, _: Any) -> None:
        if not self._filling:
            with self._quietly():
                self.preset_box.value = _CUSTOM
                if self.model is not None:
                    self._fill_precisions(self.model)

    def settings(self) -> PredictSettings:
        """Return what the form says."""
        return PredictSettings(**self.rows.values(), memory_gb=read_preferences().memory_gb)

    def request(self, panel: RunPanel, *, turns: bool = False) -> SegmentRequest:
        """Return what Run would do; ``turns``: another model for the same layer turns images by their place.

        Raises
        ------
        NotReadyError
            With the first thing that is missing or does not fit, and a button by which the panel mends it, if possible.
        """
        try:
            return resolve(replace(self.choices(), turns=turns))
        except ApartError as error:
            raise with_remedy(error, self.viewer, panel, self.image.exchange) from error
        except FarError as error:
            raise self._to_confirm(error) from error

    def order(self, panel: RunPanel) -> SegmentRequest | LargeOrder | OpenImages | FolderOrder:
        """Return what Run would do: with one image, all that are open, or a folder; may raise as :meth:`request`."""
        to_disk, scope = self.image.output_box.value == ON_DISK, self.image.scope.scope
        if to_disk and scope != many_view.THIS:
            raise NotReadyError(f"Block by block, one image is segmented at a time. Choose '{many_view.THIS}'.")
        match scope:
            case many_view.OPEN:
                return self.image.open_images(self.choices())
            case many_view.FOLDER:
                return self.image.folder(self.settings())
            case _:
                return self._one(self.request(panel), to_disk=to_disk)

    def _one(self, request: SegmentRequest, *, to_disk: bool) -> SegmentRequest | LargeOrder:
        image = self.image
        if not to_disk:
            require_memory(request, result_shape(request.source, request.axes), image.to_disk)
            return request
        target = image.target
        whole = image.takes_all
        words = target.text, image.cluster.cluster()
        return large_order(request, *words, whole=whole, choose=target.browse, other=target.propose_other)

    def require_near(self, model: TrainedModel, request: SegmentRequest) -> None:
        """Check that the voxels fit another model too; raises NotReadyError with a button that confirms them."""
        try:
            require_confirmed(model, request.grid, self.image.accepted)
        except FarError as error:
            raise self._to_confirm(error) from error

    def _to_confirm(self, error: FarError) -> NotReadyError:
        far = error.spacing
        return NotReadyError(str(error), Remedy("Segment with this voxel size", lambda: self.image.accept(far)))

    def choices(self) -> Choices:
        """Return the state of the whole form."""
        return Choices(
            model=self.model,
            layers=self.image.layers(),
            axes=self.image.axes,
            spacing_text=self.image.spacing_edit.value,
            settings=self.settings(),
            region=self.image.region() if self.image.scope.scope == many_view.THIS else None,
            times=self.image.times(),
            output=self.image.output_box.value,
            accepted=self.image.accepted,
        )

    def _changed(self, _: Any = None) -> None:
        if not self._filling:
            self.changed.emit()

    def label_presets(self, titles: Mapping[Any, str]) -> None:
        """Show what each preset costs behind its name."""
        named = _TITLES | {name: title for name, title in _EIGHT_BIT.items() if name in titles}
        entries = [(f"{title} – {titles[name]}" if titles.get(name) else title, name) for name, title in named.items()]
        with self._quietly():
            value, self.preset_box.choices = self.preset_box.value, [*entries, (_CUSTOM, _CUSTOM)]
            self.preset_box.value = value if value in named else _CUSTOM
