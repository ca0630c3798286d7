"""What a training needs to know before it starts: everything is checked here, before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from napari_nnunet.engine.batches.partial import PartialLabels
from napari_nnunet.engine.batches.patches import FOREGROUND_SHARE, PatchRule, forced_foreground, patch_rule
from napari_nnunet.engine.batches.strong_augmentation import SCALE
from napari_nnunet.engine.batches.supervision import output_scales
from napari_nnunet.engine.training.splits import Split, split_of
from napari_nnunet.errors import DatasetError, counted, of_all, some
from napari_nnunet.events import Job, Note
from napari_nnunet.formats.atomic import write_json
from napari_nnunet.formats.dataset.objects import look_at_drawn
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.model.fold import FoldFolder, require_same_rules
from napari_nnunet.formats.preprocessed.cases import case_names, next_stage_file, open_case, require_undamaged, undrawn
from napari_nnunet.formats.preprocessed.journal import Journal, joined_at, usual
from napari_nnunet.formats.preprocessed.plans import read_plans
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.splits import SPLITS_FILE, repeat_warning, require_usable, twice_warning
from napari_nnunet.jobs.planning.folds import settled_splits, unused_warning
from napari_nnunet.jobs.planning.foreign_labels import look_at_labels, require_learnable
from napari_nnunet.jobs.planning.freshness import look_at_stored, look_at_unrecorded, rules_of, stale_cases
from napari_nnunet.schema.architecture import Architecture
from napari_nnunet.schema.dataset import (
    ANNOTATED,
    DatasetInfo,
    unknown_regions,
    unlooked_in_words,
    unlooked_values,
)
from napari_nnunet.schema.json_text import message
from napari_nnunet.schema.model_name import ModelName
from napari_nnunet.schema.names import Fold, typed
from napari_nnunet.schema.plans import Configuration, Plans
from napari_nnunet.schema.requests.training import TrainRequest, TrainSettings
from napari_nnunet.schema.trainers import TrainerRecipe, require_fitting


@dataclass(frozen=True, eq=False)
class Order:
    """A training, checked and ready to begin.

    Parameters
    ----------
    workspace : Workspace
        Where everything lies.
    dataset_name : str
        ``DatasetXXX_Name``.
    plans, configuration, info
        What is trained.
    fold : int or "all"
        Which cases validate.
    split : Split
        The cases.
    data : Path
        Folder of the preprocessed cases.
    previous : Path, optional
        Folder with the segmentations of the previous stage.
    settings : TrainSettings
        As the user chose.
    recipe : TrainerRecipe
        What follows from them.
    wholly : frozenset of str
        Of a training on strokes: cases in which whole slices or boxes were annotated.
    """

    workspace: Workspace
    dataset_name: str
    plans: Plans
    configuration: Configuration
    info: DatasetInfo
    fold: Fold
    split: Split
    data: Path
    previous: Path | None
    settings: TrainSettings
    recipe: TrainerRecipe
    wholly: frozenset[str] = frozenset()

    @property
    def base(self) -> Path:
        """``nnUNet_preprocessed/DATASET``."""
        return self.workspace.preprocessed / self.dataset_name

    @property
    def model(self) -> Path:
        """``nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION``."""
        name = ModelName(self.settings.trainer, self.plans.plans_name, self.configuration.name)
        return self.workspace.model(self.dataset_name, name)

    @property
    def folder(self) -> FoldFolder:
        """The fold's folder."""
        return FoldFolder.at(self.model, self.fold)

    def reference(self, case: str) -> Path:
        """Return the labels of a case as they were before preprocessing: the copy beside, else those of the dataset."""
        name = case + self.info.file_ending
        copy, raw = self.base / "gt_segmentations" / name, self.workspace.raw / self.dataset_name / "labelsTr" / name
        return raw if raw.is_file() and not copy.is_file() else copy

    @property
    def architecture(self) -> Architecture:
        """The network, with BatchNorm where the trainer asks for it."""
        own = self.configuration.architecture
        return own.replace_norm("batch") if self.recipe.batch_norm else own

    @property
    def previous_labels(self) -> tuple[int, ...]:
        """Labels of the previous stage that are inputs."""
        return self.info.labels.foreground_labels if self.configuration.previous_stage else ()

    @property
    def partial(self) -> PartialLabels | None:
        """Which classes, and voxels, nobody looked at, in which cases; None if all of them are alike."""
        return PartialLabels.in_dataset(self.info, self.wholly)

    @property
    def channels_in(self) -> int:
        """Inputs of the network."""
        return len(self.info.channel_names) + len(self.previous_labels)

    @property
    def patch(self) -> PatchRule:
        """Sizes and angles of patches."""
        strong = {"scale": SCALE[0]} if self.recipe.augmentation == "strong" else {}
        return patch_rule(self.configuration.patch_size, dummy_2d=self.recipe.dummy_2d, **strong)

    @property
    def mirror_axes(self) -> tuple[int, ...]:
        """Axes that are flipped in training, and may be in prediction."""
        if self.recipe.mirror == "none":
            return ()
        axes = self.patch.mirror_axes
        return axes if self.recipe.mirror == "all" else axes[:2] if len(axes) == 3 else axes[:1]

    @property
    def scales(self) -> tuple[tuple[float, ...], ...]:
        """Size of every output relative to the patch."""
        scales = output_scales(self.configuration.architecture.strides)
        return tuple(scales if self.recipe.deep_supervision else scales[:1])

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        """How much every head counts in the loss; None where all do alike."""
        own = self.recipe.class_weights
        return tuple(own.get(name, 1.0) for name in self.info.labels.head_names) if own else None

    def weighing(self, weights: Mapping[str, float]) -> Order:
        """Return the same training with other weights of its classes."""
        settings = self.settings.replace(class_weights=dict(weights))
        return replace(self, settings=settings, recipe=self.recipe.replace(class_weights=dict(weights)))

    def as_scribbles(self) -> Order:
        """Return the same training in which what nobody annotated counts a little as background."""
        changes = {"scribbles": True}
        return replace(self, settings=self.settings.replace(**changes), recipe=self.recipe.replace(**changes))

    @property
    def foreground(self) -> float:
        """Share of patches around foreground."""
        if self.recipe.foreground is not None:
            return self.recipe.foreground
        batch = self.configuration.batch_size
        return sum(forced_foreground(batch, FOREGROUND_SHARE)) / batch


def plans_to_train(workspace: Workspace, dataset_name: str, name: str) -> Plans:
    """Return plans of a dataset; raises DatasetError or PlanError where it is not planned, or has no such ones."""
    base = workspace.preprocessed / dataset_name
    if not base.is_dir():
        raise DatasetError(
            f"{dataset_name} is not planned and preprocessed: {base} does not exist.",
            shell="Run 'plan_and_preprocess' first.",
            window="Plan and preprocess it in the Plan dock.",
        )
    return read_plans(base, name)


def make_order(
    workspace: Workspace, request: TrainRequest, *, later: bool = False, anew: Sequence[Fold] = ()
) -> Job[Order]:
    """Read and check everything a training needs; new folds are written to splits_final.json.

    Trainings that begin ``later`` may lack a previous stage still. Folds that are trained ``anew`` are not compared.

    Raises
    ------
    DatasetError
        If cases are not preprocessed, changed since, too few for the fold, or lack their previous stage.
    PlanError, SettingsError
        If plans, configuration or trainer do not exist.
    """
    dataset_name = workspace.dataset_name(request.dataset)
    settings = request.settings
    recipe = settings.recipe()
    base = workspace.preprocessed / dataset_name
    plans = plans_to_train(workspace, dataset_name, request.plans)
    configuration = plans.configuration(request.configuration)
    plans.require_stages(configuration)
    info = yield from _dataset_info(base, workspace.raw / dataset_name)
    require_learnable(info.labels)
    data = base / configuration.data_identifier
    names = case_names(data) if data.is_dir() else []
    if not names:
        words = typed("-d", dataset_name, "-plans_name", request.plans, "-c", configuration.name)
        raise DatasetError(
            f"{configuration.name} is not preprocessed: there are no cases in {data}.",
            shell=f"Run 'preprocess {words}' first.",
            window=f"Tick {configuration.name} in the Plan dock and press Preprocess.",
        )
    yield from _require_alike(workspace, plans, info, request, anew)
    yield from _refuse_stale(workspace, plans, configuration, data, names)
    require_undamaged(data, names)
    yield from look_at_labels(data, names, plans.reader, info)
    require_fitting(recipe, info.labels, f"The dataset {dataset_name}")
    split = yield from _split(workspace, dataset_name, names, request)
    yield from _looked_for(info, split, data)
    yield from _never_seen(info, split, data)
    previous = None
    if configuration.previous_stage is not None:
        before = ModelName(settings.trainer, request.plans, configuration.previous_stage)
        previous = workspace.model(dataset_name, before) / "predicted_next_stage" / configuration.name
        if not later:
            _require_previous(previous, split, configuration)
    where = (workspace, dataset_name, plans, configuration, info, request.fold, split, data, previous)
    order = Order(*where, settings, recipe)
    yield from _look_at_references(order, again=request.resume or request.validate_only)
    return order


def _dataset_info(base: Path, raw: Path) -> Job[DatasetInfo]:
    """Return what is known of a dataset; which classes were looked for may be said after preprocessing, too."""
    path = base / "dataset.json"
    if not path.is_file():
        raise DatasetError(
            f"{path} is missing.", shell="Run 'plan_and_preprocess' first.", window="Plan the dataset in the Plan dock."
        )
    info = DatasetInfo.read(path)
    if not (raw / path.name).is_file():
        return info
    said = message(raw / path.name).get(ANNOTATED, {})
    if said != info.raw.get(ANNOTATED, {}):
        info = DatasetInfo.parse({**info.raw, ANNOTATED: said}, where=str(raw / path.name))
        write_json(path, info.raw)
        yield Note(text=f"{path} says now which classes were looked for in which cases, as {raw / path.name} does.")
    return info


def changed_cases(
    workspace: Workspace, plans: Plans, configuration: Configuration, data: Path
) -> tuple[list[str], int]:
    """Compare preprocessed cases with the raw dataset, if it exists and was preprocessed here.

    Returns
    -------
    list of str, int
        Cases that are new, changed or were planned otherwise since; and the number of all cases.
    """
    journal = Journal.of(data)
    raw = workspace.raw / data.parent.name
    if not journal.read() or not (raw / "dataset.json").is_file():
        return [], 0
    dataset = open_dataset(raw)
    rules = rules_of(plans, configuration, dataset)
    stale = {case.name for case in stale_cases(dataset.cases, rules, journal)} | {*look_at_drawn(raw).stale}
    return [case.name for case in dataset.cases if case.name in stale], len(dataset.cases)


_FLAGS = {"refuse": "", "resample": " --resample_channels", "ignore": " --ignore_geometry"}


def _refuse_stale(
    workspace: Workspace, plans: Plans, configuration: Configuration, data: Path, names: Sequence[str]
) -> Job[None]:
    stale, count = changed_cases(workspace, plans, configuration, data)
    if stale:
        words = typed("-d", data.parent.name, "-plans_name", plans.plans_name, "-c", configuration.name)
        raise DatasetError(
            f"{of_all(len(stale), count, 'case was', 'cases were')} added, changed or planned otherwise since "
            f"preprocessing ({some(stale)}).",
            shell=f"Run 'preprocess {words}{_FLAGS[usual(joined_at(data.parent))]}'; only these are made again.",
            window="Press Preprocess in the Plan dock; only these are made again.",
        )
    yield from look_at_unrecorded(workspace.raw / data.parent.name, data, names)
    yield from look_at_stored(data, names)


def _require_alike(
    workspace: Workspace, plans: Plans, info: DatasetInfo, request: TrainRequest, anew: Sequence[Fold]
) -> Job[None]:
    """Refuse to go on with, or to train beside, what was trained with other rules."""
    name = ModelName(request.trainer, plans.plans_name, request.configuration)
    model = workspace.model(workspace.dataset_name(request.dataset), name)
    if request.resume:
        FoldFolder.at(model, request.fold).require_begun()
    own, others = request.resume or request.validate_only, not request.validate_only
    rules = plans, info, name.configuration
    doubts = require_same_rules(model, *rules, fold=request.fold, own=own, others=others, anew=anew)
    yield from (Note(level="warning", text=text) for text in doubts)


def _look_at_references(order: Order, *, again: bool) -> Job[None]:
    """Say which validation cases cannot be compared after a training; refuse those that the fold was trained with."""
    if again and order.fold != "all":
        order.folder.require_unseen(order.split.val, order.base / SPLITS_FILE)
    missing = [name for name in order.split.val if not order.reference(name).is_file()]
    if missing:
        listed = some(missing)
        yield Note(
            level="warning",
            text=f"{len(missing)} of {len(order.split.val)} validation cases have no reference ({listed}), so that "
            "they cannot be segmented and compared after the training. Put their labels, as they were before "
            f"preprocessing, into {order.base / 'gt_segmentations'}.",
        )


def _split(workspace: Workspace, name: str, cases: Sequence[str], request: TrainRequest) -> Job[Split]:
    fold = request.fold
    if fold == "all":
        return split_of(cases, fold, ())
    splits = yield from settled_splits(workspace, name, cases, request)
    if int(fold) >= len(splits):
        if request.asks:
            raise DatasetError(f"There is no fold {fold}: the folds are 0 to {len(splits) - 1}, or 'all'.")
        yield Note(
            level="warning",
            text=f"splits_final.json has {counted(len(splits), 'fold')}; fold {fold} uses a random 80:20 split "
            "instead, which "
            "keeps no groups together.",
        )
    elif not request.asks:  # whoever makes folds is told there
        for text in unused_warning(splits, cases):
            yield Note(
                level="warning", text=f"{text} Add them to {SPLITS_FILE}, or make new folds (napari-nnunet folds)."
            )
        yield from (Note(level="warning", text=text) for text in twice_warning(splits))
    split = split_of(cases, fold, splits)
    require_usable(split, fold, workspace.preprocessed / name / SPLITS_FILE)
    for text in repeat_warning(split, fold):
        yield Note(level="warning", text=text)
    return split


def _looked_for(info: DatasetInfo, split: Split, data: Path) -> Job[None]:
    """Say in how many training cases a class is unknown, and refuse to learn one that nobody looked for.

    Raises
    ------
    DatasetError
        If a class was looked for in no training case, or a case has one that was not.
    """
    for case in sorted({*split.train, *split.val} & set(info.annotated)):
        drawn = open_case(data, case).read_properties().get("class_locations") or {}
        wrong = unlooked_values(info, case, [key for key, rows in drawn.items() if isinstance(key, int) and len(rows)])
        if wrong:
            raise DatasetError(f"{case}: {unlooked_in_words(wrong, info, case)}. Correct one of the two.")
    count = len(split.train)
    for name, value in info.labels.labels.items():
        unknown = sum(value in unknown_regions(info, case) for case in split.train)
        if unknown == count:
            raise DatasetError(
                f"'{name}' was looked for in none of the {count} training cases of this fold, so that it cannot be "
                f"learnt. Correct '{ANNOTATED}' in dataset.json, or make folds that spread these cases."
            )
        if unknown:
            yield Note(
                text=f"'{name}' was looked for in {count - unknown} of {count} training cases; it is learnt there."
            )


def _never_seen(info: DatasetInfo, split: Split, data: Path) -> Job[None]:
    """Warn of classes that no training case has: where a validation case has one, its Dice is 0."""
    scheme = info.labels
    missed = undrawn(data, split.train, scheme.regions if scheme.has_regions else scheme.foreground_labels)
    found = {name: value if isinstance(value, tuple) else (value,) for name, value in scheme.labels.items()}
    names = [f"'{name}'" for name, values in found.items() if values in missed or missed.issuperset(values)]
    if names:
        text = f"None of the {len(split.train)} training cases of this fold has {', '.join(names)}"
        remedy = "Label it in more cases, or make folds that spread those that have it."
        yield Note(level="warning", text=f"{text}: it cannot be learnt. {remedy}")


def _require_previous(folder: Path, split: Split, configuration: Configuration) -> None:
    missing = [name for name in (*split.train, *split.val) if next_stage_file(folder, name) is None]
    if missing:
        raise DatasetError(
            f"{configuration.name} needs the segmentations that all folds of {configuration.previous_stage} made of "
            f"their validation cases; {len(missing)} are missing in {folder} ({some(missing)}). Train the folds of "
            f"{configuration.previous_stage} to their end first."
        )
