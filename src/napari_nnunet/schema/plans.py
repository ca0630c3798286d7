"""plans.json: what nnU-Net decided for a dataset.

Names in a plans file are looked up in literal tables; nothing is imported because a file says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_nnunet.errors import PlanError
from napari_nnunet.schema.model_name import DEFAULT_PLANS
from napari_nnunet.schema.names import require_plain

NormalizationScheme = Literal[
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
]
NORMALIZATIONS: tuple[str, ...] = (
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)
#: Configurations that are preprocessed if none are named; small datasets lack some of them.
STANDARD: tuple[str, ...] = ("2d", "3d_fullres", "3d_lowres")
#: Those, and the cascade, which needs no preprocessing of its own.
TRAINABLE: tuple[str, ...] = (*STANDARD, "3d_cascade_fullres")
RESAMPLERS: tuple[str, ...] = ("resample_data_or_seg_to_shape", "resample_torch_fornnunet", "no_resampling_hack")
ARCHITECTURES: tuple[str, ...] = ("PlainConvUNet", "ResidualEncoderUNet")
BLOCKS: dict[str, Literal["basic", "bottleneck"]] = {"BasicBlockD": "basic", "BottleneckD": "bottleneck"}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Architecture(_Frozen):
    """A U-Net in numbers.

    Parameters
    ----------
    name : {"PlainConvUNet", "ResidualEncoderUNet"}
        Kind of encoder.
    features, kernel_sizes, strides
        One entry per stage, full resolution first.
    blocks : tuple of int
        Convolutions (plain) or residual blocks per encoder stage.
    decoder_convs : tuple of int
        Convolutions per decoder stage, lowest resolution first.
    """

    name: Literal["PlainConvUNet", "ResidualEncoderUNet"]
    ndim: Literal[2, 3]
    features: tuple[int, ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    blocks: tuple[int, ...]
    decoder_convs: tuple[int, ...]
    conv_bias: bool = True
    norm: Literal["instance", "batch", "none"] = "instance"
    norm_eps: float = 1e-5
    norm_affine: bool = True
    dropout: float | None = None
    nonlinearity: Literal["leaky_relu", "relu"] = "leaky_relu"
    slope: float = 0.01
    nonlin_first: bool = False
    block: Literal["basic", "bottleneck"] = "basic"
    bottleneck_channels: tuple[int, ...] | None = None
    stem_channels: int | None = None

    @property
    def stages(self) -> int:
        """Number of resolutions."""
        return len(self.features)

    @property
    def divisor(self) -> tuple[int, ...]:
        """Product of the strides per axis: a patch must be a multiple of it."""
        total = [1] * self.ndim
        for stride in self.strides:
            total = [t * s for t, s in zip(total, stride, strict=True)]
        return tuple(total)

    def replace_norm(self, norm: Literal["instance", "batch", "none"]) -> Architecture:
        """Return the same network with another normalisation (trainer variant BN)."""
        return self.model_copy(update={"norm": norm})


class Resampling(_Frozen):
    """Which rule resamples, and its arguments."""

    function: Literal["resample_data_or_seg_to_shape", "resample_torch_fornnunet", "no_resampling_hack"]
    is_seg: bool = False
    order: int = 3
    order_z: int = 0
    force_separate_z: bool | None = None
    separate_z_anisotropy_threshold: float = 3.0
    memefficient_seg_resampling: bool = False


class IntensityStatistics(_Frozen):
    """Foreground intensities of one channel over the training cases."""

    mean: float
    std: float
    percentile_00_5: float
    percentile_99_5: float


class Configuration(_Frozen):
    """One configuration with everything inherited filled in.

    All per-axis entries are in transposed order, as in the file. ``data_identifier`` names the folder with the
    preprocessed cases; plans that give none mean PLANS_CONFIGURATION.
    """

    name: str
    patch_size: tuple[int, ...]
    spacing: tuple[float, ...]
    batch_size: int = 2
    normalization_schemes: tuple[NormalizationScheme, ...]
    use_mask_for_norm: tuple[bool, ...]
    resample_data: Resampling
    resample_seg: Resampling
    resample_probabilities: Resampling
    architecture: Architecture
    data_identifier: str
    previous_stage: str | None = None
    next_stage: tuple[str, ...] = ()
    batch_dice: bool = False

    @property
    def ndim(self) -> int:
        """2 for a slice-wise configuration, 3 for a volumetric one."""
        return len(self.patch_size)


class Plans(_Frozen):
    """A parsed plans.json; ``raw`` is the file's own dictionary, for copying it along."""

    dataset_name: str = ""
    plans_name: str = DEFAULT_PLANS
    reader: str = "SimpleITKIO"
    transpose_forward: tuple[int, int, int] = (0, 1, 2)
    intensities: tuple[IntensityStatistics, ...] = ()
    configurations: dict[str, Mapping[str, Any]] = Field(default_factory=dict)
    raw: Mapping[str, Any] = Field(default_factory=dict, repr=False)

    @property
    def transpose_backward(self) -> tuple[int, int, int]:
        """Inverse of ``transpose_forward``."""
        forward = self.transpose_forward
        return forward.index(0), forward.index(1), forward.index(2)

    def configuration(self, name: str) -> Configuration:
        """Resolve one configuration with all it inherits.

        Raises
        ------
        PlanError
            If the name is unknown, the inheritance is circular, or a value is unknown or missing.
        """
        entries = self.resolved(name)
        entries["data_identifier"] = entries.get("data_identifier") or f"{self.plans_name}_{name}"
        return _configuration(name, entries)

    def resolved(self, name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the entries of a configuration as in the file, with all it inherits."""
        if name not in self.configurations:
            raise PlanError(
                f"The plans '{self.plans_name}' have no configuration '{name}'. They have: "
                f"{', '.join(self.configurations) or 'none'}."
            )
        if name in seen:
            raise PlanError(
                f"plans.json: configurations inherit from each other in a circle: {' -> '.join((*seen, name))}."
            )
        own = dict(self.configurations[name])
        parent = own.get("inherits_from")
        return {**self.resolved(str(parent), (*seen, name)), **own} if parent else own

    @classmethod
    def parse(cls, content: Mapping[str, Any], *, where: str = "plans.json") -> Plans:
        """Read the dictionary of a plans.json, also of releases before the key ``architecture``.

        Raises
        ------
        PlanError
            If the file lacks what every release writes.
        """
        configurations = content.get("configurations")
        if not isinstance(configurations, Mapping) or not configurations:
            raise PlanError(f"{where}: no 'configurations'. Is this the plans.json of a trained nnU-Net v2 model?")
        statistics = content.get(
            "foreground_intensity_properties_per_channel",
            content.get("foreground_intensity_properties_by_modality", {}),
        )
        try:
            return cls(
                dataset_name=content.get("dataset_name", ""),
                plans_name=content.get("plans_name", DEFAULT_PLANS),
                reader=content.get("image_reader_writer", "SimpleITKIO"),
                transpose_forward=tuple(content.get("transpose_forward", (0, 1, 2))),
                intensities=tuple(statistics[key] for key in sorted(statistics, key=int)),
                configurations=dict(configurations),
                raw=content,
            )
        except (ValidationError, ValueError, TypeError) as error:
            raise PlanError(f"{where} cannot be read: {_first_problem(error)}") from error

    @classmethod
    def parse_json(cls, text: str, *, where: str = "plans.json") -> Plans:
        """Read the text of a plans.json; raises PlanError if it is not a JSON object."""
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise PlanError(f"{where} is not valid JSON: {error}.") from error
        if not isinstance(content, Mapping):
            raise PlanError(f"{where} must hold a JSON object, not {type(content).__name__}.")
        return cls.parse(content, where=where)

    @classmethod
    def read(cls, path: Path) -> Plans:
        """Read a file; raises PlanError where it cannot be read or is something else."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PlanError(f"{path} cannot be read: {error}.") from error
        return cls.parse_json(text, where=str(path))


def _first_problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']} (got {first['input']!r})."
    return f"{error}."


def _configuration(name: str, entries: Mapping[str, Any]) -> Configuration:
    where = f"plans.json, configuration '{name}'"
    missing = [key for key in ("patch_size", "spacing", "normalization_schemes") if key not in entries]
    if missing:
        raise PlanError(f"{where}: missing {', '.join(missing)}.")
    schemes = entries["normalization_schemes"]
    unknown = [scheme for scheme in schemes if scheme not in NORMALIZATIONS]
    if unknown:
        raise PlanError(f"{where}: unknown normalisation {unknown[0]!r}. Known: {', '.join(NORMALIZATIONS)}.")
    if entries.get("preprocessor_name", "DefaultPreprocessor") != "DefaultPreprocessor":
        raise PlanError(f"{where}: unknown preprocessor {entries['preprocessor_name']!r}. Known: DefaultPreprocessor.")
    next_stage = entries.get("next_stage") or ()
    try:
        return Configuration(
            name=name,
            patch_size=tuple(entries["patch_size"]),
            spacing=tuple(entries["spacing"]),
            batch_size=entries.get("batch_size", 2),
            normalization_schemes=tuple(schemes),
            use_mask_for_norm=tuple(entries.get("use_mask_for_norm", [False] * len(schemes))),
            resample_data=_resampling(entries, "data", where),
            resample_seg=_resampling(entries, "seg", where),
            resample_probabilities=_resampling(entries, "probabilities", where),
            architecture=_architecture(entries, where),
            data_identifier=require_plain(str(entries["data_identifier"]), f"{where}: 'data_identifier'"),
            previous_stage=entries.get("previous_stage"),
            next_stage=(next_stage,) if isinstance(next_stage, str) else tuple(next_stage),
            batch_dice=entries.get("batch_dice", False),
        )
    except ValidationError as error:
        raise PlanError(f"{where}: {_first_problem(error)}") from error


def _resampling(entries: Mapping[str, Any], role: str, where: str) -> Resampling:
    function = entries.get(f"resampling_fn_{role}", "resample_data_or_seg_to_shape")
    if function not in RESAMPLERS:
        raise PlanError(f"{where}: unknown resampling function {function!r}. Known: {', '.join(RESAMPLERS)}.")
    kwargs = dict(entries.get(f"resampling_fn_{role}_kwargs") or {})
    kwargs.setdefault("order", 3 if role == "data" else 1)
    return Resampling.model_validate({"function": function, **kwargs})


def _architecture(entries: Mapping[str, Any], where: str) -> Architecture:
    described = entries.get("architecture")
    kwargs = described["arch_kwargs"] if described else _legacy_kwargs(entries, where)
    path = str(described["network_class_name"]) if described else str(entries["UNet_class_name"])
    name = path.rsplit(".", 1)[-1]
    if name not in ARCHITECTURES:
        raise PlanError(f"{where}: unknown architecture {path!r}. Known: {', '.join(ARCHITECTURES)}.")
    stages = int(kwargs["n_stages"])
    ndim = len(kwargs["kernel_sizes"][0]) if isinstance(kwargs["kernel_sizes"][0], Sequence) else _ndim(kwargs, where)
    nonlin_kwargs = kwargs.get("nonlin_kwargs") or {}
    norm_kwargs = kwargs.get("norm_op_kwargs") or {}
    return Architecture(
        name=name,
        ndim=ndim,
        features=_per_stage(kwargs["features_per_stage"], stages),
        kernel_sizes=tuple(_axes(k, ndim) for k in kwargs["kernel_sizes"]),
        strides=tuple(_axes(s, ndim) for s in kwargs["strides"]),
        blocks=_per_stage(
            kwargs.get("n_blocks_per_stage") or kwargs.get("n_conv_per_stage") or kwargs["n_conv_per_stage_encoder"],
            stages,
        ),
        decoder_convs=_per_stage(kwargs["n_conv_per_stage_decoder"], stages - 1),
        conv_bias=bool(kwargs.get("conv_bias", False)),
        norm=_norm(kwargs.get("norm_op"), where),
        norm_eps=norm_kwargs.get("eps", 1e-5),
        norm_affine=norm_kwargs.get("affine", False),
        dropout=(kwargs.get("dropout_op_kwargs") or {}).get("p", 0.5) if kwargs.get("dropout_op") else None,
        nonlinearity=_nonlinearity(kwargs.get("nonlin"), where),
        slope=nonlin_kwargs.get("negative_slope", 0.01),
        nonlin_first=bool(kwargs.get("nonlin_first", False)),
        block=_block(kwargs.get("block"), where),
        bottleneck_channels=_optional_per_stage(kwargs.get("bottleneck_channels"), stages),
        stem_channels=kwargs.get("stem_channels"),
    )


def _legacy_kwargs(entries: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Translate the plans of releases before the key ``architecture``."""
    needed = (
        "UNet_class_name",
        "UNet_base_num_features",
        "unet_max_num_features",
        "n_conv_per_stage_encoder",
        "n_conv_per_stage_decoder",
        "pool_op_kernel_sizes",
        "conv_kernel_sizes",
    )
    missing = [key for key in needed if key not in entries]
    if missing:
        raise PlanError(
            f"{where}: neither 'architecture' nor the older keys are complete (missing: {', '.join(missing)}). "
            "The network cannot be determined."
        )
    strides = entries["pool_op_kernel_sizes"]
    base, cap = entries["UNet_base_num_features"], entries["unet_max_num_features"]
    return {
        "n_stages": len(strides),
        "features_per_stage": [min(base * 2**stage, cap) for stage in range(len(strides))],
        "kernel_sizes": entries["conv_kernel_sizes"],
        "strides": strides,
        "n_conv_per_stage": entries["n_conv_per_stage_encoder"],
        "n_conv_per_stage_decoder": entries["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": "InstanceNorm",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "LeakyReLU",
    }


def _ndim(kwargs: Mapping[str, Any], where: str) -> int:
    for ndim in (2, 3):
        if str(kwargs.get("conv_op", "")).endswith(f"Conv{ndim}d"):
            return ndim
    raise PlanError(f"{where}: 'conv_op' is {kwargs.get('conv_op')!r}; known are Conv2d and Conv3d.")


def _axes(value: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    return (int(value),) * ndim if isinstance(value, int) else tuple(int(v) for v in value)


def _per_stage(value: int | Sequence[int], stages: int) -> tuple[int, ...]:
    return (int(value),) * stages if isinstance(value, int) else tuple(int(v) for v in value)


def _optional_per_stage(value: int | Sequence[int] | None, stages: int) -> tuple[int, ...] | None:
    return None if value is None else _per_stage(value, stages)


def _norm(path: str | None, where: str) -> Literal["instance", "batch", "none"]:
    if path is None:
        return "none"
    last = path.rsplit(".", 1)[-1]
    if last.startswith("InstanceNorm"):
        return "instance"
    if last.startswith("BatchNorm"):
        return "batch"
    raise PlanError(f"{where}: unknown 'norm_op' {path!r}. Known: InstanceNorm2d/3d, BatchNorm2d/3d.")


def _nonlinearity(path: str | None, where: str) -> Literal["leaky_relu", "relu"]:
    last = (path or "").rsplit(".", 1)[-1]
    if last == "LeakyReLU":
        return "leaky_relu"
    if last == "ReLU":
        return "relu"
    raise PlanError(f"{where}: unknown 'nonlin' {path!r}. Known: LeakyReLU, ReLU.")


def _block(path: str | None, where: str) -> Literal["basic", "bottleneck"]:
    if path is None:
        return "basic"
    last = path.rsplit(".", 1)[-1]
    if last not in BLOCKS:
        raise PlanError(f"{where}: unknown residual block {path!r}. Known: {', '.join(BLOCKS)}.")
    return BLOCKS[last]
