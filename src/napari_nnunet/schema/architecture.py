"""The network of a plan: a U-Net in numbers, as plans.json describes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from napari_nnunet.errors import PlanError

ARCHITECTURES: tuple[str, ...] = ("PlainConvUNet", "ResidualEncoderUNet")
_BLOCKS: dict[str, Literal["basic", "bottleneck"]] = {"BasicBlockD": "basic", "BottleneckD": "bottleneck"}
_BLOCK_COUNTS = ("n_blocks_per_stage", "n_conv_per_stage", "n_conv_per_stage_encoder")
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

    @classmethod
    def parse(cls, entries: Mapping[str, Any], where: str) -> Architecture:
        """Read the entries of a configuration, also of releases before the key ``architecture``.

        Raises
        ------
        PlanError
            If the network, or a part of it, is not known.
        """
        described = entries.get("architecture")
        kwargs = described["arch_kwargs"] if described else _legacy_kwargs(entries, where)
        path = str(described["network_class_name"]) if described else str(entries["UNet_class_name"])
        name = path.rsplit(".", 1)[-1]
        if name not in ARCHITECTURES:
            raise PlanError(f"{where}: unknown architecture {path!r}. Known: {', '.join(ARCHITECTURES)}.")
        stages = int(kwargs["n_stages"])
        kernel = kwargs["kernel_sizes"][0]
        ndim = len(kernel) if isinstance(kernel, Sequence) else _ndim(kwargs, where)
        blocks = next((kwargs[key] for key in _BLOCK_COUNTS if kwargs.get(key)), None)
        if blocks is None:
            raise PlanError(f"{where}: the blocks per stage are missing; one of {', '.join(_BLOCK_COUNTS)} is needed.")
        nonlin_kwargs = kwargs.get("nonlin_kwargs") or {}
        norm_kwargs = kwargs.get("norm_op_kwargs") or {}
        return cls(
            name=name,
            ndim=ndim,
            features=_per_stage(kwargs["features_per_stage"], stages),
            kernel_sizes=tuple(_axes(k, ndim) for k in kwargs["kernel_sizes"]),
            strides=tuple(_axes(s, ndim) for s in kwargs["strides"]),
            blocks=_per_stage(blocks, stages),
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
            "Which network this is cannot be known."
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
    if last not in _BLOCKS:
        raise PlanError(f"{where}: unknown residual block {path!r}. Known: {', '.join(_BLOCKS)}.")
    return _BLOCKS[last]
