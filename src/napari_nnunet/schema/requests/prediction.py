"""Requests about segmenting images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le
from pydantic import BeforeValidator, model_validator

from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.model_name import DEFAULT_TRAINER
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.requests.option import (
    ROW,
    Cluster,
    DatasetFlag,
    Folds,
    GridSettings,
    PlansName,
    Request,
    TrainerName,
    VoxelSize,
    option,
    read_folds,
)

BackendName = Literal["auto", "torch", "openvino"]
AskedPrecision = Literal["auto", "float32", "bfloat16", "float16"]
PredictPrecision = Literal["auto", "float32", "bfloat16", "float16", "int8"]
Average = Literal["logits", "probabilities"]
PresetName = Literal["fast", "balanced", "full", "fast_8bit"]

Device = Annotated[
    str, option("Device", "-device DEVICE", "auto, cpu, cuda, cuda:1, mps; auto takes the fastest that is safe.")
]
Threads = Annotated[int, Ge(0), option("CPU threads", "--threads N", "CPU threads.", otherwise="all cores")]
Arithmetic = Annotated[AskedPrecision, option("Precision", "--precision", "Arithmetic of the network.")]


def _as_paths(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path) else value


Source = Annotated[
    tuple[Path, ...],
    BeforeValidator(_as_paths),
    option(
        "Images",
        "-i INPUT",
        "Folder with CASE_0000.ext, CASE_0001.ext, ... (one file per channel), files, or folders with a DICOM series.",
    ),
]
TargetFolder = Annotated[Path, option("Segmentations", "-o OUTPUT", "Folder for the segmentations.")]
KeepFinished = Annotated[
    bool,
    option("Keep what is finished", "--continue_prediction --c", "Skip cases whose complete output already exists."),
]
TileStep = Annotated[
    float,
    Gt(0),
    Le(1),
    option("Tile step", "-step_size S", "Distance between tiles as a fraction of the tile; 0.5 is nnU-Net's."),
]
Mirroring = Annotated[
    bool,
    option(
        "Mirroring",
        "--disable_tta",
        "Average over mirrored copies of every tile: slower (8 times in 3D, 4 in 2D), a little better.",
        sets=False,
        shell="No mirroring: up to 8 times faster, a little less accurate.",
    ),
]
AnySpacing = Annotated[
    bool,
    option(
        "Any voxel size",
        "--any_spacing",
        "Segment images whose voxels are more than ten times larger or smaller than those the model was trained on.",
    ),
]


class PredictSettings(Request):
    """How a trained model is applied to an image."""

    folds: Folds = option(
        "Folds",
        "-f FOLD",
        "Trained folds that are averaged, numbers or 'all'.",
        default=None,
        otherwise="all that were trained",
        reads=read_folds,
        row=True,
    )
    checkpoint: str = option(
        "Checkpoint",
        "-chk NAME",
        "checkpoint_final.pth, checkpoint_best.pth, ...",
        default="checkpoint_final.pth",
        row=True,
    )
    step: Annotated[TileStep, ROW] = 0.5
    mirroring: Annotated[Mirroring, ROW] = True
    gaussian: bool = option(
        "Gaussian weights", "", "Weigh the centre of a tile more than its border, as nnU-Net does.", default=True
    )
    device: Annotated[Device, ROW] = "auto"
    backend: BackendName = option(
        "Backend", "--backend", "torch, or OpenVINO (CPU only); auto takes the fastest.", default="auto"
    )
    precision: PredictPrecision = option(
        "Precision",
        "--precision",
        "Arithmetic of the network; int8 for models that were made 8-bit (Models dock).",
        default="auto",
        row=True,
        shell="Arithmetic of the network; int8 for models that were quantised (see quantize).",
    )
    threads: Threads = 0
    memory_gb: float = option(
        "Main memory (GB)",
        "--memory GB",
        "What a prediction may take at most.",
        default=0,
        ge=0,
        otherwise="what is free",
    )
    on_device: bool = option(
        "Keep sums on the GPU",
        "--not_on_device",
        "Off: tiles are summed up in main memory, which saves GPU memory.",
        default=True,
        sets=False,
        shell="Sum up in main memory instead of the GPU's.",
    )
    probabilities: bool = option(
        "Probabilities",
        "--save_probabilities",
        "Also return the probability of every class for every voxel (in folders: CASE.npz and CASE.pkl, for "
        "ensembles).",
        default=False,
    )
    quality: bool = option(
        "Predicted Dice",
        "--quality",
        "Also predict the Dice of each class, and say in what an image differs from the training data (in folders: "
        "quality.csv, worst first). Learnt once from the model's validation cases.",
        default=False,
        row=True,
    )
    any_spacing: AnySpacing = False
    classes: bool = option(
        "Classes instead of objects",
        "--classes",
        "Return the classes that a model of numbered objects has learnt (cores and borders).",
        default=False,
    )


#: What the presets set (everything else stays as it is). ``full`` is nnU-Net's own setting.
PRESETS: dict[PresetName, dict[str, object]] = {
    "fast": {"folds": "first", "mirroring": False, "step": 0.75},
    "balanced": {"folds": None, "mirroring": False, "step": 0.5},
    "full": {"folds": None, "mirroring": True, "step": 0.5},
    "fast_8bit": {"folds": "first", "mirroring": False, "step": 0.75, "precision": "int8"},
}


def preset(name: PresetName, *, folds: tuple[Fold, ...], base: PredictSettings) -> PredictSettings:
    """Return ``base`` with a preset applied.

    Parameters
    ----------
    name : {"fast", "balanced", "full", "fast_8bit"}
        Fast: one fold, no mirroring, step 0.75. Balanced: all folds, no mirroring, step 0.5. Full: nnU-Net's own.
        Fast in 8-bit arithmetic is for models that were quantised.
    folds : tuple
        The folds the model has.
    base : PredictSettings
        Everything the preset leaves alone.
    """
    changes = dict(PRESETS[name])
    changes["folds"] = folds[:1] if changes["folds"] == "first" else folds
    return base.replace(**changes)


def region_box(region: Sequence[int], shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return a region, first and one past the last voxel of each axis, as a box; raises SettingsError if it is none."""
    box = tuple(zip(region[::2], region[1::2], strict=False))
    fits = len(region) == 2 * len(shape) and all(0 <= lo < hi <= n for (lo, hi), n in zip(box, shape, strict=False))
    if not fits:
        raise SettingsError(
            f"The region {' '.join(map(str, region))} is not within the {' x '.join(map(str, shape))} voxels of the "
            "image. Give the first voxel and one past the last for each axis."
        )
    return box


class FolderRequest(GridSettings):
    """Which folder is segmented, and where to."""

    source: Source
    target: TargetFolder
    keep_finished: KeepFinished = False
    spacing: VoxelSize = None
    subfolders: bool = option(
        "Subfolders",
        "--subfolders",
        "Look into subfolders too; the results go into the same subfolders.",
        default=False,
    )
    table: bool = option(
        "Table",
        "--table",
        "Also write table.csv: voxels and volume of every class of every case, or its objects, state and time.",
        default=False,
    )

    dicom_seg: bool = option(
        "DICOM-SEG",
        "--dicom_seg",
        "Also write CASE.dcm: the segmentation as DICOM-SEG that references its series. The images must be DICOM.",
        default=False,
    )
    rtstruct: bool = option(
        "RTSTRUCT",
        "--rtstruct",
        "Also write CASE.rtstruct.dcm: its contours as structures of a planning system. The images must be DICOM.",
        default=False,
    )
    codes: Path | None = option(
        "Codes",
        "--codes FILE",
        "Table of what the classes are in DICOM: the codes.csv that lies beside segmentations, filled in.",
        default=None,
        otherwise="common anatomy, by the names of the classes",
    )

    @model_validator(mode="after")
    def _codes_are_used(self) -> Self:
        if self.codes is not None and not (self.dicom_seg or self.rtstruct):
            raise SettingsError(
                f"The codes in {self.codes} are for DICOM-SEG and RTSTRUCT, which were not asked for.",
                shell="Add --dicom_seg or --rtstruct.",
                window="Switch one of them on.",
            )
        return self

    @model_validator(mode="after")
    def _other_folder(self) -> Self:
        if os.path.realpath(self.target) in map(os.path.realpath, self.source):
            raise SettingsError(f"Input and output are the same folder, {self.target}. Choose another output folder.")
        return self


class PredictFolderRequest(PredictSettings, FolderRequest):
    """Segment a folder of images with a trained model."""

    preset: PresetName | None = option(
        "Preset", "--preset", "A preset for folds, mirroring and step; explicit settings win.", default=None
    )
    region: tuple[int, ...] | None = option(
        "Region",
        "--region N",
        "Segment only a box of every image, in voxels: first and one past the last of each axis, Z0 Z1 Y0 Y1 X0 X1 "
        "(pictures: Y0 Y1 X0 X1). Intensities are normalised by the whole image.",
        default=None,
        once=True,
        otherwise="the whole image",
    )
    previous: Path | None = option(
        "First stage",
        "-prev_stage_predictions DIR",
        "Segmentations of a cascade's first stage.",
        default=None,
        otherwise="they are predicted",
    )
    part: int = option("Part", "-part_id K", "Take part K of the cases, 0 to N - 1.", default=0, ge=0)
    parts: int = option("Parts", "-num_parts N", "Split the cases into N parts.", default=1, ge=1)
    cluster: Cluster = None

    @model_validator(mode="after")
    def _part_exists(self) -> Self:
        if self.part >= self.parts:
            raise SettingsError(
                f"Part {self.part} of {self.parts} does not exist; they are numbered from 0 to {self.parts - 1}.",
                shell="Change -part_id or -num_parts.",
            )
        return self

    @property
    def table_path(self) -> Path:
        """Where the table goes; each part of a folder that is shared out has its own."""
        return self.target / ("table.csv" if self.parts == 1 else f"table_{self.part}.csv")

    @property
    def quality_path(self) -> Path:
        """Where predicted Dice goes, in the same way."""
        return self.target / ("quality.csv" if self.parts == 1 else f"quality_{self.part}.csv")

    def box(self, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...] | None:
        """Return the region for an image of a shape ([Z,] Y, X); raises SettingsError where it does not fit."""
        return None if self.region is None else region_box(self.region, shape)

    def settings(self, folds: tuple[Fold, ...]) -> PredictSettings:
        """Return the settings for a model that has these folds: the preset's, then what was given beside it."""
        own = self.only(PredictSettings)
        if self.preset is None:
            return own
        return preset(self.preset, folds=folds, base=own).replace(**own.model_dump(exclude_unset=True))


class PredictFromModelfolderRequest(PredictFolderRequest):
    """Segment a folder of images with the trained model in a folder."""

    model: Path = option("Model", "-m MODEL", "Folder with plans.json, dataset.json and fold_*.")


class PredictRequest(PredictFolderRequest):
    """Segment a folder of images with a trained model, given by dataset and configuration."""

    dataset: DatasetFlag
    configuration: str = option("Configuration", "-c CONFIGURATION", "2d, 3d_fullres, 3d_lowres, ...")
    plans: PlansName = "nnUNetPlans"
    trainer: TrainerName = DEFAULT_TRAINER


class PredictBestRequest(FolderRequest):
    """Carry out the whole recipe of the best model or ensemble: all folds and stages, joining, postprocessing."""

    dataset: DatasetFlag
    mirroring: Mirroring = True
    step: TileStep = 0.5
    probabilities: bool = option(
        "Probabilities", "--save_probabilities", "Also write the mean probabilities.", default=False
    )
    uncertainty: bool = option(
        "Uncertainty", "--uncertainty", "Also write maps of entropy and disagreement (0 to 1).", default=False
    )
    device: Device = "auto"
    any_spacing: AnySpacing = False

    def settings(self) -> PredictSettings:
        """Return how each member predicts."""
        return PredictSettings(
            device=self.device, step=self.step, mirroring=self.mirroring, any_spacing=self.any_spacing
        )


class MeasurePresetsRequest(Request):
    """Segment labelled cases with every preset, print Dice and time, and note them in the model folder.

    The Segment dock finds them there. Use cases the model was not trained on.
    """

    model: Path = option("Model", "-m MODEL", "Model folder.")
    source: Source
    labels: Path = option("Labels", "-l LABELS", "Folder with CASE.ext.")
    device: Device = "auto"
