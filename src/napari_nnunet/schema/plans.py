"""plans.json: what nnU-Net decided for a dataset.

Names in a plans file are looked up in literal tables; nothing is imported because a file says so.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_nnunet.errors import PlanError
from napari_nnunet.schema.architecture import Architecture
from napari_nnunet.schema.geometry import lift_shape
from napari_nnunet.schema.json_text import Real, Switch, Whole, first_problem, json_object, read_text, shortened
from napari_nnunet.schema.model_name import DEFAULT_PLANS
from napari_nnunet.schema.names import fault_of

NormalizationScheme = Literal[
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
]
NORMALIZATIONS: tuple[str, ...] = get_args(NormalizationScheme)
#: nnU-Net's threshold: voxels over three times as thick as wide are not interpolated across slices.
ANISOTROPY = 3.0
#: Configurations that are preprocessed if none are named; small datasets lack some of them.
STANDARD: tuple[str, ...] = ("2d", "3d_fullres", "3d_lowres")
#: Those, and the cascade, which needs no preprocessing of its own.
TRAINABLE: tuple[str, ...] = (*STANDARD, "3d_cascade_fullres")
RESAMPLERS: tuple[str, ...] = ("resample_data_or_seg_to_shape", "resample_torch_fornnunet", "no_resampling_hack")
_Positive = Annotated[Real, Gt(0), Lt(math.inf)]
_Order = Annotated[Whole, Ge(0), Le(5)]  # of a spline
_Side = Annotated[Whole, Ge(1), Le(1 << 16)]
_Batch = Annotated[Whole, Ge(1), Le(1 << 16)]
_LONGEST_CHAIN = 20  # configurations that inherit from each other
_PICTURE_SPACING = 999.0  # that nnU-Net gives the third axis of pictures
_MEDIAN = "original_median_spacing_after_transp"
_KEYS = {"intensities": "foreground_intensity_properties_per_channel", "reader": "image_reader_writer"}  # in the file


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Resampling(_Frozen):
    """Which rule resamples, and its arguments."""

    function: Literal["resample_data_or_seg_to_shape", "resample_torch_fornnunet", "no_resampling_hack"]
    is_seg: Switch = False
    order: _Order = 3
    order_z: _Order = 0
    force_separate_z: Switch | None = None
    separate_z_anisotropy_threshold: Annotated[Real, Gt(0)] = 3.0
    memefficient_seg_resampling: Switch = False


class IntensityStatistics(_Frozen):
    """Foreground intensities of one channel over the training cases."""

    mean: Real
    std: Real
    percentile_00_5: Real
    percentile_99_5: Real
    median: Real | None = Field(default=None, exclude=True)  # nothing that is computed depends on it

    @property
    def is_finite(self) -> bool:
        """Whether an image can be normalised by them; those of a channel without foreground are not numbers."""
        return all(math.isfinite(v) for v in (self.mean, self.std, self.percentile_00_5, self.percentile_99_5))

    @property
    def fault(self) -> str:
        """What contradicts itself, so that an image would lose all or most of its values; empty where nothing does."""
        low, high = self.percentile_00_5, self.percentile_99_5
        if low > high:
            return f"says 'percentile_00_5' {low:g}, which is above 'percentile_99_5' {high:g}"
        if self.std < 0 or (self.std == 0 and low < high):
            return f"says 'std' {self.std:g}, although intensities run from {low:g} to {high:g}"
        return ""


class Configuration(_Frozen):
    """One configuration with everything inherited filled in.

    All per-axis entries are in transposed order, as in the file. ``data_identifier`` names the folder with the
    preprocessed cases; plans that give none mean PLANS_CONFIGURATION.
    """

    name: str
    patch_size: tuple[_Side, ...]
    spacing: tuple[_Positive, ...]
    batch_size: _Batch = 2
    normalization_schemes: tuple[NormalizationScheme, ...]
    use_mask_for_norm: tuple[Switch, ...]
    resample_data: Resampling
    resample_seg: Resampling
    resample_probabilities: Resampling
    architecture: Architecture
    data_identifier: str
    previous_stage: str | None = None
    next_stage: tuple[str, ...] = ()
    batch_dice: Switch = False

    @property
    def ndim(self) -> int:
        """2 for a slice-wise configuration, 3 for a volumetric one."""
        return len(self.patch_size)

    @property
    def patch_3d(self) -> tuple[int, int, int]:
        """The patch with three entries; that of a slice-wise configuration is one slice."""
        return lift_shape(self.patch_size)


class Plans(_Frozen):
    """A parsed plans.json; ``raw`` is the file's own dictionary, for copying it along, ``where`` its name in errors."""

    dataset_name: str = ""
    plans_name: str = DEFAULT_PLANS
    reader: str = "SimpleITKIO"
    transpose_forward: tuple[int, int, int] = (0, 1, 2)
    intensities: tuple[IntensityStatistics, ...] = ()
    configurations: dict[str, Mapping[str, Any]] = Field(default_factory=dict)
    raw: Mapping[str, Any] = Field(default_factory=dict, repr=False)
    where: str = Field(default="plans.json", repr=False)

    @property
    def of_pictures(self) -> bool:
        """Whether the dataset's images are pictures: nnU-Net gives them a third axis with voxels of 999."""
        spacing = self.raw.get(_MEDIAN) or ()
        return bool(spacing) and max(spacing) >= _PICTURE_SPACING

    def configuration(self, name: str) -> Configuration:
        """Resolve one configuration with all it inherits.

        Raises
        ------
        PlanError
            If the name is unknown, the inheritance is circular, or a value is unknown or missing.
        """
        entries = self.resolved(name)
        entries["data_identifier"] = entries.get("data_identifier") or f"{self.plans_name}_{name}"
        configuration = _configuration(name, entries, self.where)
        for channel, scheme in enumerate(configuration.normalization_schemes):
            if scheme != "CTNormalization":
                continue
            own = self.intensities[channel] if channel < len(self.intensities) else None
            fault = "has no numbers for it" if own is None or not own.is_finite else own.fault
            if fault:
                raise PlanError(
                    f"{self.where}, configuration '{name}': channel {channel} has CTNormalization, but "
                    f"'foreground_intensity_properties_per_channel' {fault}. Plan the dataset again."
                )
        return configuration

    def resolved(self, name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the entries of a configuration as in the file, with all it inherits."""
        if name not in self.configurations:
            heir = f", from which '{seen[-1]}' inherits" if seen else ""
            raise PlanError(
                f"The plans '{self.plans_name}' have no configuration '{name}'{heir}. They have: "
                f"{', '.join(self.configurations) or 'none'}."
            )
        if name in seen:
            raise PlanError(
                f"{self.where}: configurations inherit from each other in a circle: {' -> '.join((*seen, name))}."
            )
        if len(seen) > _LONGEST_CHAIN:
            raise PlanError(
                f"{self.where}: more than {_LONGEST_CHAIN} configurations inherit from each other: "
                f"{' -> '.join(seen[:3])} -> ..."
            )
        own = dict(self.configurations[name])
        parent = own.get("inherits_from")
        return {**self.resolved(str(parent), (*seen, name)), **own} if parent else own

    def require_stages(self, own: Configuration) -> None:
        """Refuse stages of a cascade that these plans do not have; else that shows when a training is done."""
        stages = [("previous_stage", own.previous_stage)] if own.previous_stage else []
        for key, stage in (*stages, *(("next_stage", stage) for stage in own.next_stage)):
            if stage == own.name or stage not in self.configurations:
                others = [name for name in self.configurations if name != own.name]
                why = "the configuration itself" if stage == own.name else "a configuration that these plans lack"
                raise PlanError(
                    f"{self.where}, configuration '{own.name}': '{key}' is '{stage}', {why}. Give one of "
                    f"{', '.join(others) or 'none'}, or remove the key where there is no cascade."
                )

    @classmethod
    def parse(cls, content: Mapping[str, Any], *, where: str = "plans.json") -> Plans:
        """Read the dictionary of a plans.json, also of releases before the key ``architecture``.

        Raises
        ------
        PlanError
            If the file lacks what every release writes.
        """
        configurations = content.get("configurations") if isinstance(content, Mapping) else None
        if not isinstance(configurations, Mapping) or not configurations:
            raise PlanError(f"{where}: no 'configurations'. Is this the plans.json of a trained nnU-Net v2 model?")
        statistics = content.get(
            "foreground_intensity_properties_per_channel",
            content.get("foreground_intensity_properties_by_modality", {}),
        )
        statistics = {} if statistics == [] else statistics
        if not isinstance(statistics, Mapping) or not all(str(key).isdecimal() for key in statistics):
            raise PlanError(
                f"{where}: 'foreground_intensity_properties_per_channel' is {shortened(statistics)}; it must name the "
                "channels by their numbers: {'0': {...}, '1': {...}}."
            )
        for what, name in (("dataset_name", content.get("dataset_name") or "-"), ("plans_name", _plans_name(content))):
            _require_plain(name, f"{where}: '{what}'")
        for name in configurations:
            _require_plain(name, f"{where}: a configuration's name")
        _require_lengths(content.get(_MEDIAN), where)
        try:
            return cls(
                dataset_name=content.get("dataset_name", ""),
                plans_name=_plans_name(content),
                reader=content.get("image_reader_writer", "SimpleITKIO"),
                transpose_forward=_permutation(content.get("transpose_forward", (0, 1, 2)), where),
                intensities=tuple(statistics[key] for key in sorted(statistics, key=int)),
                configurations=dict(configurations),
                raw=content,
                where=where,
            )
        except _WRONG as error:
            raise PlanError(f"{where} cannot be read: {first_problem(error, _KEYS)}") from error

    @classmethod
    def parse_json(cls, text: str, *, where: str = "plans.json") -> Plans:
        """Read the text of a plans.json; raises PlanError if it is no JSON object."""
        return cls.parse(json_object(text, where, PlanError), where=where)

    @classmethod
    def read(cls, path: Path) -> Plans:
        """Read a plans.json; raises PlanError if it is not there or not nnU-Net's."""
        return cls.parse_json(read_text(path, PlanError), where=str(path))


# What looking up, counting and converting raise if a value is missing or of another type.
_WRONG = (ValidationError, ValueError, TypeError, LookupError, AttributeError, OverflowError)


def _plans_name(content: Mapping[str, Any]) -> Any:
    return content.get("plans_name", DEFAULT_PLANS)


def _permutation(axes: Any, where: str) -> tuple[int, int, int]:
    if not isinstance(axes, list | tuple) or any(type(axis) is not int for axis in axes) or sorted(axes) != [0, 1, 2]:
        raise PlanError(f"{where}: 'transpose_forward' is {shortened(axes)}; it must hold 0, 1 and 2 in some order.")
    return axes[0], axes[1], axes[2]


def _require_lengths(sizes: Any, where: str) -> None:
    """Raise PlanError if the usual voxel size is no list of lengths; it may be missing."""
    if sizes and not (isinstance(sizes, list | tuple) and all(_is_number(v) and v > 0 for v in sizes)):
        raise PlanError(f"{where}: '{_MEDIAN}' is {shortened(sizes)}; it must be a list of numbers of mm.")


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _require_plain(name: Any, what: str) -> str:
    """Return a name that plans give to a file or folder; raises PlanError where it is none, or leads elsewhere."""
    fault = fault_of(name) if isinstance(name, str) else "it is not text"
    if fault is not None:
        raise PlanError(f"{what} is {name!r:.200}, which cannot be part of a file name: {fault}.")
    return str(name)


def _configuration(name: str, entries: Mapping[str, Any], where: str) -> Configuration:
    where = f"{where}, configuration '{name}'"
    try:
        return _parsed(name, entries, where)
    except _WRONG as error:
        raise PlanError(f"{where}: {first_problem(error)}") from error


def _parsed(name: str, entries: Mapping[str, Any], where: str) -> Configuration:
    missing = [key for key in ("patch_size", "spacing", "normalization_schemes") if key not in entries]
    if missing:
        raise PlanError(f"{where}: missing {', '.join(missing)}.")
    for key in ("patch_size", "spacing", "normalization_schemes", "use_mask_for_norm"):
        if not isinstance(entries.get(key, []), list | tuple):
            raise PlanError(f"{where}: '{key}' is {entries[key]!r}; it must be a list.")
    schemes = entries["normalization_schemes"]
    if not schemes:
        raise PlanError(f"{where}: 'normalization_schemes' is empty; every channel needs one.")
    unknown = [scheme for scheme in schemes if scheme not in NORMALIZATIONS]
    if unknown:
        raise PlanError(f"{where}: unknown normalisation {unknown[0]!r}. Known: {', '.join(NORMALIZATIONS)}.")
    if entries.get("preprocessor_name", "DefaultPreprocessor") != "DefaultPreprocessor":
        raise PlanError(f"{where}: unknown preprocessor {entries['preprocessor_name']!r}. Known: DefaultPreprocessor.")
    next_stage = entries.get("next_stage") or ()
    stages = (next_stage,) if isinstance(next_stage, str) else tuple(next_stage)
    for stage in (*stages, entries.get("previous_stage") or "-"):
        _require_plain(stage, f"{where}: 'next_stage' or 'previous_stage'")
    found = Configuration(
        name=name,
        patch_size=tuple(entries["patch_size"]),
        spacing=tuple(entries["spacing"]),
        batch_size=entries.get("batch_size", 2),
        normalization_schemes=tuple(schemes),
        use_mask_for_norm=tuple(entries.get("use_mask_for_norm", [False] * len(schemes))),
        resample_data=_resampling(entries, "data", where),
        resample_seg=_resampling(entries, "seg", where),
        resample_probabilities=_resampling(entries, "probabilities", where),
        architecture=Architecture.parse(entries, where),
        data_identifier=_require_plain(entries["data_identifier"], f"{where}: 'data_identifier'"),
        previous_stage=entries.get("previous_stage"),
        next_stage=stages,
        batch_dice=False if entries.get("batch_dice") is None else entries["batch_dice"],
    )
    _check(found, where)
    return found


def _check(found: Configuration, where: str) -> None:
    """Refuse entries that contradict each other; raises PlanError."""
    ndim, schemes = found.architecture.ndim, found.normalization_schemes
    for key, entry, needed, why in (
        ("patch_size", found.patch_size, ndim, f"the network has {ndim} axes"),
        # nnU-Net resamples slices along the third axis as well where a third spacing is given
        ("spacing", found.spacing, 3 if len(found.spacing) == 3 else ndim, f"the network has {ndim} axes"),
        ("use_mask_for_norm", found.use_mask_for_norm, len(schemes), f"'normalization_schemes' has {len(schemes)}"),
    ):
        if len(entry) != needed:
            raise PlanError(f"{where}: '{key}' is {shortened(list(entry))}, with {len(entry)} entries; {why}.")
    divisor = found.architecture.divisor
    if any(side % d for side, d in zip(found.patch_size, divisor, strict=True)):
        nearest = [max(1, round(side / d)) * d for side, d in zip(found.patch_size, divisor, strict=True)]
        raise PlanError(
            f"{where}: 'patch_size' is {list(found.patch_size)}, but the 'strides' of the network divide it by "
            f"{list(divisor)}, so every entry must be a multiple of that. The nearest that works is {nearest}."
        )


def _resampling(entries: Mapping[str, Any], role: str, where: str) -> Resampling:
    function = entries.get(f"resampling_fn_{role}", "resample_data_or_seg_to_shape")
    if function not in RESAMPLERS:
        raise PlanError(f"{where}: unknown resampling function {function!r}. Known: {', '.join(RESAMPLERS)}.")
    key = f"resampling_fn_{role}_kwargs"
    kwargs = entries.get(key) or {}
    if not isinstance(kwargs, Mapping):
        raise PlanError(f"{where}: '{key}' is {shortened(kwargs)}; it must be an object such as {{'order': 3}}.")
    order = 3 if role == "data" else 1
    try:
        return Resampling.model_validate({"order": order, **kwargs, "function": function})
    except ValidationError as error:
        raise PlanError(f"{where}, '{key}': {first_problem(error)}") from error
