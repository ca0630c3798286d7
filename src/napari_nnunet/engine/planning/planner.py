"""From a dataset's fingerprint to its plans: the rules of Isensee et al., Nature Methods 2021, as one pure function."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_nnunet.engine.planning.topology import Topology, feature_map_size, topology
from napari_nnunet.errors import PlanError
from napari_nnunet.schema.architecture import Architecture
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.fingerprint import Fingerprint
from napari_nnunet.schema.plans import ANISOTROPY
from napari_nnunet.schema.requests.planning import PlanSettings

LOWRES_SHARE = 0.25  # a patch that sees less than this of the median image asks for a low-resolution stage
LOWRES_STEP = 1.03
_MOST_VOXELS = 1e12  # of an image: 4 TB, which no computer holds
_RESENC_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6)
_NORMALIZATIONS = {
    "ct": "CTNormalization",
    "nonorm": "NoNormalization",
    "zscore": "ZScoreNormalization",
    "rescale_to_0_1": "RescaleTo01Normalization",
    "rgb_to_0_1": "RGBTo01Normalization",
}


@dataclass(frozen=True)
class Planner:
    """The constants of one of nnU-Net's planners.

    Parameters
    ----------
    plans : str
        Name of the plans it writes.
    memory_gb : float
        GPU memory the reference values stand for, and its default target.
    reference : tuple of float
        Feature-map values that fit, in 2-D and 3-D.
    cover : float
        Largest share of the dataset's voxels that a batch may hold.
    residual : bool
        Whether the encoder is residual.
    resampling : str
        Rule of the plans: "default", "torch", "torch_separate" or "none".
    width : int
        Channels of the first stage.
    """

    plans: str
    memory_gb: float
    reference: tuple[float, float]
    cover: float
    residual: bool
    resampling: str = "default"
    width: int = 32


_PLAIN, _M, _L, _XL = (85e6, 560e6), (135e6, 680e6), (380e6, 2100e6), (560e6, 3600e6)
PLANNERS: dict[str, Planner] = {
    "ExperimentPlanner": Planner("nnUNetPlans", 8, _PLAIN, 0.05, residual=False),
    "ResEncUNetPlanner": Planner("nnUNetResEncUNetPlans", 8, _M, 0.05, residual=True),
    "nnUNetPlannerResEncM": Planner("nnUNetResEncUNetMPlans", 8, _M, 1, residual=True),
    "nnUNetPlannerResEncL": Planner("nnUNetResEncUNetLPlans", 24, _L, 1, residual=True),
    "nnUNetPlannerResEncXL": Planner("nnUNetResEncUNetXLPlans", 40, _XL, 1, residual=True),
    "nnUNetPlannerResEncL_noResampling": Planner("nnUNetResEncUNetLPlans_noResampling", 24, _L, 1, True, "none"),
    "nnUNetPlannerResEncL_torchres": Planner("nnUNetResEncUNetLPlans_torchres", 24, _L, 1, True, "torch"),
    "nnUNetPlannerResEncL_torchres_sepz": Planner(
        "nnUNetResEncUNetLPlans_torchres_sepz", 24, _L, 1, True, "torch_separate"
    ),
    "nnUNetPlanner_torchres": Planner("nnUNetPlans_torchres", 8, _PLAIN, 0.05, False, "torch"),
    # Not nnU-Net's, though it reads the plans: a sixteenth of the work per voxel, for trainings on a CPU.
    "SmallPlanner": Planner("nnUNetSmallPlans", 0.5, (_PLAIN[0] / 16, _PLAIN[1] / 16), 0.05, residual=False, width=8),
}


@dataclass(frozen=True)
class _Grid:
    """What the rules work on, in transposed order."""

    planner: Planner
    memory_gb: float
    names: int  # labels by name, background and ignore included
    voxels: float  # of the whole dataset at the target spacing


def plan(
    fingerprint: Fingerprint,
    dataset: DatasetInfo,
    settings: PlanSettings,
    *,
    dataset_name: str,
    reader: str,
    existing: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Work out plans.json.

    Parameters
    ----------
    fingerprint : Fingerprint
        What was measured.
    dataset : DatasetInfo
        Channels, labels and the number of training cases.
    settings : PlanSettings
        Planner, memory, spacing and name.
    dataset_name, reader : str
        Stored in the plans.
    existing : mapping, optional
        Plans of the same name that are there already: their own configurations are kept.

    Returns
    -------
    dict
        The content of plans.json, keys in nnU-Net's order.

    Raises
    ------
    PlanError
        If the planner is unknown, or dataset.json does not say how many training cases there are.
    """
    if settings.planner not in PLANNERS:
        raise PlanError(f"Unknown planner {settings.planner!r}. Known: {', '.join(PLANNERS)}.")
    if dataset.num_training is None:
        raise PlanError("dataset.json lacks 'numTraining', the number of training cases, which planning needs.")
    planner = PLANNERS[settings.planner]
    name = settings.plans_name or planner.plans
    target = fullres_spacing(fingerprint, settings.target_spacing)
    forward = _transposition(target)
    spacing = [target[a] for a in forward]
    median = _median_shape(fingerprint, target, forward)
    grid = _Grid(
        planner,
        settings.gpu_memory_gb or planner.memory_gb,
        len(dataset.labels.labels),
        math.prod(median) * dataset.num_training,
    )
    configurations = _configurations(grid, spacing, median, name, dataset, fingerprint, settings)
    added = (existing or {}).get("configurations") or {}
    kept = {key: value for key, value in added.items() if key not in configurations}
    return {
        "dataset_name": dataset_name,
        "plans_name": name,
        "original_median_spacing_after_transp": [
            float(np.percentile([s[a] for s in fingerprint.spacings], 50)) for a in forward
        ],
        "original_median_shape_after_transp": [
            round(float(np.median([shape[a] for shape in fingerprint.shapes_after_crop]))) for a in forward
        ],
        "image_reader_writer": reader,
        "transpose_forward": list(forward),
        "transpose_backward": [forward.index(a) for a in range(3)],
        "configurations": {**configurations, **kept},
        "experiment_planner_used": settings.planner,
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": fingerprint.to_json()[
            "foreground_intensity_properties_per_channel"
        ],
    }


def fullres_spacing(fingerprint: Fingerprint, wished: Sequence[float] | None) -> list[float]:
    """Return the spacing of 3d_fullres in the reader's order: the median, finer for thick slices."""
    if wished is not None:
        return [float(s) for s in wished]
    spacings, shapes = np.array(fingerprint.spacings), np.array(fingerprint.shapes_after_crop)
    target = np.percentile(spacings, 50, axis=0)
    size = np.percentile(shapes, 50, axis=0)
    worst = int(np.argmax(target))
    others = [a for a in range(3) if a != worst]
    coarse = target[worst] > ANISOTROPY * max(target[others])
    few = size[worst] * ANISOTROPY < min(size[others])
    if coarse and few:
        finer = float(np.percentile(spacings[:, worst], 10))
        target[worst] = finer if finer >= max(target[others]) else max(target[others]) + 1e-5
    return [float(s) for s in target]


def _median_shape(fingerprint: Fingerprint, wanted: Sequence[float], forward: Sequence[int]) -> list[float]:
    """Return the size of the median image; refuses one without voxels, or with more than any computer holds."""
    shapes = [
        [round(old / new * n) for old, new, n in zip(s, wanted, shape, strict=True)]
        for s, shape in zip(fingerprint.spacings, fingerprint.shapes_after_crop, strict=True)
    ]
    median = [float(np.median([shape[a] for shape in shapes])) for a in forward]
    if min(median) > 0 and math.prod(median) < _MOST_VOXELS:
        return median
    shape, spacing = (
        [float(np.median([values[a] for values in some])) for a in forward]
        for some in (fingerprint.shapes_after_crop, fingerprint.spacings)
    )
    old, new = (" x ".join(f"{v:.0f}" for v in some) for some in (shape, median))
    before, after = (" x ".join(f"{v:g}" for v in some) for some in (spacing, [wanted[a] for a in forward]))
    own = " ".join(f"{np.median([values[a] for values in fingerprint.spacings]):g}" for a in range(3))
    raise PlanError(
        f"Resampled from {old} voxels of {before} mm to voxels of {after} mm, the median image would have {new} "
        "voxels. Give a target spacing nearer to that of the images.",
        shell=f"(Theirs would be: -overwrite_target_spacing {own})",
    )


def _transposition(target: Sequence[float]) -> tuple[int, int, int]:
    coarsest = int(np.argmax(target))
    first, second = (a for a in range(3) if a != coarsest)
    return coarsest, first, second


def _configurations(
    grid: _Grid,
    spacing: list[float],
    median: list[float],
    name: str,
    dataset: DatasetInfo,
    fingerprint: Fingerprint,
    settings: PlanSettings,
) -> dict[str, Any]:
    normalization = _normalization(dataset, fingerprint, settings)
    # ResEnc planners share the data of the default planner, but for what only they resample.
    shared = grid.planner.residual and grid.planner.resampling == "default"

    def identifier(configuration: str) -> str:
        return f"{'nnUNetPlans' if shared and configuration != '3d_lowres' else name}_{configuration}"

    found: dict[str, Any] = {
        "2d": _configuration(grid, spacing[1:], median[1:], identifier("2d"), normalization, batch_dice=True)
    }
    if median[0] == 1:
        return found
    full = _configuration(grid, spacing, median, identifier("3d_fullres"), normalization, batch_dice=False)
    low = _lowres(grid, spacing, median, full, identifier("3d_lowres"), normalization, dataset.num_training or 0)
    if low is not None:
        full["batch_dice"] = True
        found["3d_lowres"] = {**low, "next_stage": "3d_cascade_fullres"}
    found["3d_fullres"] = full
    if low is not None:
        found["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    return found


def _normalization(dataset: DatasetInfo, fingerprint: Fingerprint, settings: PlanSettings) -> dict[str, Any]:
    schemes = [_NORMALIZATIONS.get(name.casefold(), "ZScoreNormalization") for name in dataset.channel_names]
    cropped = fingerprint.median_relative_size_after_cropping < 0.75
    return {
        "preprocessor_name": settings.preprocessor,
        "normalization_schemes": schemes,
        "use_mask_for_norm": [cropped and scheme == "ZScoreNormalization" for scheme in schemes],
    }


def _lowres(
    grid: _Grid,
    spacing: Sequence[float],
    median: Sequence[float],
    full: Mapping[str, Any],
    identifier: str,
    normalization: Mapping[str, Any],
    cases: int,
) -> dict[str, Any] | None:
    """Coarsen the voxels until a patch sees a quarter of the image; None if that hardly differs."""
    coarse = list(spacing)
    voxels = math.prod(median)
    original = voxels
    patch = math.prod(full["patch_size"])
    low = None
    while patch / voxels < LOWRES_SHARE:
        widest = max(coarse)
        thin = [widest / s > 2 for s in coarse]
        coarse = [s * LOWRES_STEP if t or not any(thin) else s for s, t in zip(coarse, thin, strict=True)]
        shape = [s / c * n for s, c, n in zip(spacing, coarse, median, strict=True)]
        voxels = math.prod(shape)
        resized = _Grid(grid.planner, grid.memory_gb, grid.names, voxels * cases)
        low = _configuration(resized, coarse, [round(n) for n in shape], identifier, normalization, batch_dice=False)
        patch = math.prod(low["patch_size"])
    return None if original / voxels < 2 else low


def _configuration(
    grid: _Grid,
    spacing: Sequence[float],
    median: Sequence[float],
    identifier: str,
    normalization: Mapping[str, Any],
    *,
    batch_dice: bool,
) -> dict[str, Any]:
    """Choose patch, network and batch of one configuration."""
    d = len(spacing)
    shape = topology(spacing, _initial_patch(spacing, median))
    reference = grid.planner.reference[d - 2] * grid.memory_gb / grid.planner.memory_gb
    standard = 12 if d == 2 else 2
    # The default planner lets a 2-D patch grow until only a batch of two fits; ResEnc planners keep the standard batch.
    limit = reference if grid.planner.residual else reference * standard / 2
    size = _feature_maps(grid, shape)
    while size > limit:
        shape = _shrunk(spacing, median, shape)
        size = _feature_maps(grid, shape)
    most = round(grid.voxels * grid.planner.cover / math.prod(shape.patch))
    batch = max(min(round(reference / size * standard), most), 2)
    return {
        "data_identifier": identifier,
        "preprocessor_name": normalization["preprocessor_name"],
        "batch_size": batch,
        "patch_size": list(shape.patch),
        "median_image_size_in_voxels": list(median),
        "spacing": list(spacing),
        "normalization_schemes": normalization["normalization_schemes"],
        "use_mask_for_norm": normalization["use_mask_for_norm"],
        **_resampling(grid.planner.resampling),
        "architecture": architecture_entry(grid.planner, shape, d),
        "batch_dice": batch_dice,
    }


def _initial_patch(spacing: Sequence[float], median: Sequence[float]) -> list[float]:
    """Return a patch of 256^3 or 2048^2 voxels with the aspect of the spacing, cut to the median image."""
    d = len(spacing)
    edge = 2048 if d == 2 else 256
    inverse = [1 / s for s in spacing]
    factor = (edge**d / math.prod(inverse)) ** (1 / d)
    return [min(round(i * factor), m) for i, m in zip(inverse, median, strict=True)]


def _shrunk(spacing: Sequence[float], median: Sequence[float], shape: Topology) -> Topology:
    """Take one step from the axis whose patch is largest in relation to the image."""
    ratio = [p / m for p, m in zip(shape.patch, median, strict=True)]
    axis = max(range(len(ratio)), key=lambda a: (ratio[a], a))
    patch = list(shape.patch)
    trial = list(patch)
    trial[axis] -= shape.divisor[axis]
    patch[axis] -= topology(spacing, trial).divisor[axis]
    return topology(spacing, patch)


def features_per_stage(stages: int, d: int, width: int = 32) -> list[int]:
    """Return the channels of every stage of a planned network: doubled from ``width`` to 10 (in 2-D 16) times that."""
    return [min(width * 2**s, (16 if d == 2 else 10) * width) for s in range(stages)]


def _feature_maps(grid: _Grid, shape: Topology) -> int:
    residual = grid.planner.residual
    features = features_per_stage(shape.stages, len(shape.patch), grid.planner.width)
    blocks = _blocks(grid.planner, shape)
    return feature_map_size(shape, features, blocks, 1 if residual else 2, grid.names, residual=residual)


def _blocks(planner: Planner, shape: Topology) -> tuple[int, ...]:
    """Return the residual blocks or convolutions of every stage of the encoder."""
    return _RESENC_BLOCKS[: shape.stages] if planner.residual else (2,) * shape.stages


def _resampling(rule: str) -> dict[str, Any]:
    """Return the entries that say how data, labels and probabilities are resampled."""
    if rule == "none":
        function = "no_resampling_hack"
        kinds: dict[str, dict[str, Any]] = {kind: {} for kind in ("data", "seg", "probabilities")}
    elif rule == "default":
        function = "resample_data_or_seg_to_shape"
        kinds = {
            kind: {"is_seg": kind == "seg", "order": 3 if kind == "data" else 1, "order_z": 0, "force_separate_z": None}
            for kind in ("data", "seg", "probabilities")
        }
    else:
        function = "resample_torch_fornnunet"
        separate: dict[str, Any] = {"force_separate_z": False, "memefficient_seg_resampling": False}
        if rule == "torch_separate":
            separate = {
                "force_separate_z": None,
                "memefficient_seg_resampling": False,
                "separate_z_anisotropy_threshold": 3,
            }
        kinds = {kind: {"is_seg": kind == "seg", **separate} for kind in ("data", "seg", "probabilities")}
    return {
        "resampling_fn_data": function,
        "resampling_fn_seg": function,
        "resampling_fn_data_kwargs": kinds["data"],
        "resampling_fn_seg_kwargs": kinds["seg"],
        "resampling_fn_probabilities": function,
        "resampling_fn_probabilities_kwargs": kinds["probabilities"],
    }


def architecture_entry(planner: Planner, shape: Topology, d: int) -> dict[str, Any]:
    """Return the entry ``architecture`` of a configuration with ``d`` axes."""
    return Architecture(
        name="ResidualEncoderUNet" if planner.residual else "PlainConvUNet",
        ndim=3 if d == 3 else 2,
        features=tuple(features_per_stage(shape.stages, d, planner.width)),
        kernel_sizes=shape.kernels,
        strides=shape.strides,
        blocks=_blocks(planner, shape),
        decoder_convs=(1 if planner.residual else 2,) * (shape.stages - 1),
    ).to_json()
