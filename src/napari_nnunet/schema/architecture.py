"""The network of a plan: a U-Net in numbers, as plans.json describes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict, ValidationError

from napari_nnunet.errors import PlanError
from napari_nnunet.schema.json_text import Real, Switch, Whole, first_problem, shortened

ARCHITECTURES: tuple[str, ...] = ("PlainConvUNet", "ResidualEncoderUNet")
_BLOCKS: dict[str, Literal["basic", "bottleneck"]] = {"BasicBlockD": "basic", "BottleneckD": "bottleneck"}
_BLOCK_COUNTS = ("n_blocks_per_stage", "n_conv_per_stage", "n_conv_per_stage_encoder")
# What a network can plausibly be: the largest that nnU-Net plans have 9 stages, 512 features, 6 blocks, kernels of 3.
_STAGES = 12
_Features = Annotated[Whole, Ge(1), Le(4096)]
_Kernel = Annotated[Whole, Ge(1), Le(11)]
_Stride = Annotated[Whole, Ge(1), Le(8)]
_Blocks = Annotated[Whole, Ge(1), Le(32)]
_Share = Annotated[Real, Ge(0), Le(1)]
_MOST_WEIGHTS = 1e9  # 4 GB; those of nnU-Net's largest residual encoder are about 0.1e9
_KEYS = {  # of the fields, in the file
    "features": "features_per_stage",
    "blocks": "n_conv_per_stage, or n_blocks_per_stage,",
    "decoder_convs": "n_conv_per_stage_decoder",
    "slope": "nonlin_kwargs: negative_slope",
    "norm_eps": "norm_op_kwargs: eps",
    "norm_affine": "norm_op_kwargs: affine",
    "dropout": "dropout_op_kwargs: p",
}
_PACKAGE = "dynamic_network_architectures"
_PATHS = {
    "PlainConvUNet": f"{_PACKAGE}.architectures.unet.PlainConvUNet",
    "ResidualEncoderUNet": f"{_PACKAGE}.architectures.unet.ResidualEncoderUNet",
    "instance": "torch.nn.modules.instancenorm.InstanceNorm",
    "batch": "torch.nn.modules.batchnorm.BatchNorm",
    "dropout": "torch.nn.modules.dropout.Dropout",
    "leaky_relu": "torch.nn.LeakyReLU",
    "relu": "torch.nn.ReLU",
    "bottleneck": f"{_PACKAGE}.building_blocks.residual.BottleneckD",
}


class Architecture(BaseModel):
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

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Literal["PlainConvUNet", "ResidualEncoderUNet"]
    ndim: Literal[2, 3]
    features: tuple[_Features, ...]
    kernel_sizes: tuple[tuple[_Kernel, ...], ...]
    strides: tuple[tuple[_Stride, ...], ...]
    blocks: tuple[_Blocks, ...]
    decoder_convs: tuple[_Blocks, ...]
    conv_bias: Switch = True
    norm: Literal["instance", "batch", "none"] = "instance"
    norm_eps: _Share = 1e-5
    norm_affine: Switch = True
    dropout: _Share | None = None
    nonlinearity: Literal["leaky_relu", "relu"] = "leaky_relu"
    slope: _Share = 0.01
    nonlin_first: Switch = False
    block: Literal["basic", "bottleneck"] = "basic"
    bottleneck_channels: tuple[_Features, ...] | None = None
    stem_channels: _Features | None = None

    @property
    def stages(self) -> int:
        """Number of resolutions."""
        return len(self.features)

    @property
    def weights(self) -> float:
        """About how many numbers the network learns; the decoder has fewer than the encoder."""
        kernels = [math.prod(kernel) for kernel in self.kernel_sizes]
        return float(sum(b * f * f * k for b, f, k in zip(self.blocks, self.features, kernels, strict=True)))

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

    @classmethod
    def parse(cls, entries: Mapping[str, Any], where: str) -> Architecture:
        """Read the entries of a configuration, also of releases before the key ``architecture``.

        Raises
        ------
        PlanError
            If the network, or a part of it, is not known.
        """
        described = entries.get("architecture")
        if described and not isinstance(described, Mapping):
            raise PlanError(f"{where}: 'architecture' is {shortened(described)}; it must be an object.")
        kwargs = described["arch_kwargs"] if described else _legacy_kwargs(entries, where)
        path = str(described["network_class_name"]) if described else str(entries["UNet_class_name"])
        name = path.rsplit(".", 1)[-1]
        if name not in ARCHITECTURES:
            raise PlanError(f"{where}: unknown architecture {path!r}. Known: {', '.join(ARCHITECTURES)}.")
        stages = _stages(kwargs["n_stages"], where)
        kernels = kwargs["kernel_sizes"]
        first = kernels[0] if isinstance(kernels, Sequence) else kernels
        ndim = len(first) if isinstance(first, Sequence) else _ndim(kwargs, where)
        blocks = next((key for key in _BLOCK_COUNTS if kwargs.get(key)), None)
        if blocks is None:
            raise PlanError(f"{where}: the blocks per stage are missing; one of {', '.join(_BLOCK_COUNTS)} is needed.")
        values = {
            "name": name,
            "ndim": ndim,
            "features": _per_stage(kwargs, "features_per_stage", stages, where),
            "kernel_sizes": _axes_per_stage(kwargs, "kernel_sizes", stages, ndim, where),
            "strides": _axes_per_stage(kwargs, "strides", stages, ndim, where),
            "blocks": _per_stage(kwargs, blocks, stages, where),
            "decoder_convs": _per_stage(kwargs, "n_conv_per_stage_decoder", stages - 1, where),
            "stem_channels": kwargs.get("stem_channels"),
            **_details(kwargs, where),
        }
        if kwargs.get("bottleneck_channels") is not None:
            values["bottleneck_channels"] = _per_stage(kwargs, "bottleneck_channels", stages, where)
        try:
            network = cls.model_validate(values)
        except ValidationError as error:
            raise PlanError(f"{where}: {first_problem(error, _KEYS)}") from error
        _check(network, where)
        return network

    def to_json(self) -> dict[str, Any]:
        """Return the entry ``architecture`` as nnU-Net writes it."""
        residual = self.name == "ResidualEncoderUNet"
        slope = {} if self.slope == 0.01 else {"negative_slope": self.slope}
        kwargs: dict[str, Any] = {
            "n_stages": self.stages,
            "features_per_stage": list(self.features),
            "conv_op": f"torch.nn.modules.conv.Conv{self.ndim}d",
            "kernel_sizes": [list(kernel) for kernel in self.kernel_sizes],
            "strides": [list(stride) for stride in self.strides],
            ("n_blocks_per_stage" if residual else "n_conv_per_stage"): list(self.blocks),
            "n_conv_per_stage_decoder": list(self.decoder_convs),
            "conv_bias": self.conv_bias,
            "norm_op": None if self.norm == "none" else f"{_PATHS[self.norm]}{self.ndim}d",
            "norm_op_kwargs": {"eps": self.norm_eps, "affine": self.norm_affine},
            "dropout_op": None if self.dropout is None else f"{_PATHS['dropout']}{self.ndim}d",
            "dropout_op_kwargs": None if self.dropout is None else {"p": self.dropout},
            "nonlin": _PATHS[self.nonlinearity],
            "nonlin_kwargs": {"inplace": True, **slope},
        }
        if self.nonlin_first:
            kwargs["nonlin_first"] = True
        if self.block == "bottleneck":
            kwargs["block"] = _PATHS["bottleneck"]
        for name in ("bottleneck_channels", "stem_channels"):
            value = getattr(self, name)
            if value is not None:
                kwargs[name] = list(value) if isinstance(value, tuple) else value
        return {
            "network_class_name": _PATHS[self.name],
            "arch_kwargs": kwargs,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]
            + (["block"] if self.block == "bottleneck" else []),
        }


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
    _stages(len(strides), where)
    base, cap = (_features(entries, key, where) for key in ("UNet_base_num_features", "unet_max_num_features"))
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


def _check(network: Architecture, where: str) -> None:
    """Refuse what no convolution of nnU-Net's can be, or no memory can hold; raises PlanError."""
    if any(stride != 1 for stride in network.strides[0]):
        raise PlanError(
            f"{where}: 'strides' begins with {list(network.strides[0])}; the first stage works at full resolution: "
            f"{[1] * network.ndim}."
        )
    even = next((kernel for kernel in network.kernel_sizes if any(size % 2 == 0 for size in kernel)), None)
    if even is not None:
        nearest = [size + 1 - size % 2 for size in even]
        raise PlanError(f"{where}: 'kernel_sizes' has {list(even)}; sizes are odd. The nearest is {nearest}.")
    if network.weights > _MOST_WEIGHTS:
        raise PlanError(
            f"{where}: the network would have about {network.weights / 1e9:,.1f} billion weights, at most "
            f"{_MOST_WEIGHTS / 1e9:.0f} billion are allowed. Look at 'features_per_stage', 'kernel_sizes' and the "
            "blocks per stage."
        )


def _details(kwargs: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return what a convolution is followed by."""
    for key in ("nonlin_kwargs", "norm_op_kwargs", "dropout_op_kwargs"):
        if kwargs.get(key) and not isinstance(kwargs[key], Mapping):
            raise PlanError(f"{where}: '{key}' is {shortened(kwargs[key])}; it must be an object, or null.")
    nonlin_kwargs = kwargs.get("nonlin_kwargs") or {}
    norm_kwargs = kwargs.get("norm_op_kwargs") or {}
    return {
        "conv_bias": kwargs.get("conv_bias") or False,
        "norm": _norm(kwargs.get("norm_op"), where),
        "norm_eps": norm_kwargs.get("eps", 1e-5),
        "norm_affine": norm_kwargs.get("affine", False),
        "dropout": (kwargs.get("dropout_op_kwargs") or {}).get("p", 0.5) if kwargs.get("dropout_op") else None,
        "nonlinearity": _nonlinearity(kwargs.get("nonlin"), where),
        "slope": nonlin_kwargs.get("negative_slope", 0.01),
        "nonlin_first": kwargs.get("nonlin_first") or False,
        "block": _block(kwargs.get("block"), where),
    }


def _ndim(kwargs: Mapping[str, Any], where: str) -> int:
    for ndim in (2, 3):
        if str(kwargs.get("conv_op", "")).endswith(f"Conv{ndim}d"):
            return ndim
    raise PlanError(f"{where}: 'conv_op' is {kwargs.get('conv_op')!r}; known are Conv2d and Conv3d.")


def _stages(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _STAGES:
        raise PlanError(f"{where}: 'n_stages' is {shortened(value)}; it must be a number from 1 to {_STAGES}.")
    return value


def _features(entries: Mapping[str, Any], key: str, where: str) -> int:
    value = entries[key]
    if type(value) is not int or value < 1:
        raise PlanError(f"{where}: '{key}' is {shortened(value)}; it must be a number of features, from 1 on.")
    return value


def _per_stage(kwargs: Mapping[str, Any], key: str, count: int, where: str) -> tuple[Any, ...]:
    """Return an entry with one value per stage; what the values are is checked by the network's fields."""
    value = kwargs[key]
    if isinstance(value, int):
        return (value,) * count
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise PlanError(f"{where}: '{key}' is {shortened(value)}; it must be a list of {count} numbers, or one number.")
    if len(value) != count:
        fitting = [*value, *list(value[-1:]) * count][:count]
        raise PlanError(
            f"{where}: '{key}' is {shortened(value)}, with {len(value)} entries; 'n_stages' {kwargs['n_stages']} needs "
            f"{count}. The nearest that works is {shortened(fitting)}."
        )
    return tuple(value)


def _axes_per_stage(
    kwargs: Mapping[str, Any], key: str, stages: int, ndim: int, where: str
) -> tuple[tuple[Any, ...], ...]:
    entries = _per_stage(kwargs, key, stages, where)
    axes = [(entry,) * ndim if isinstance(entry, int) else entry for entry in entries]
    wrong = next((entry for entry in axes if not isinstance(entry, list | tuple) or len(entry) != ndim), None)
    if wrong is not None:
        raise PlanError(f"{where}: '{key}' has the entry {shortened(wrong)}; {ndim} axes need {ndim} numbers.")
    return tuple(tuple(entry) for entry in axes)


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
    if last not in _BLOCKS:
        raise PlanError(f"{where}: unknown residual block {path!r}. Known: {', '.join(_BLOCKS)}.")
    return _BLOCKS[last]
