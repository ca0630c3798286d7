"""Requests about images larger than memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.requests.option import Cluster, option
from napari_nnunet.schema.requests.prediction import PredictSettings, PresetName, preset


def _as_texts(value: object) -> object:
    return (str(value),) if isinstance(value, str | Path) else value


class PredictImageSettings(PredictSettings):
    """How an image of any size is segmented."""

    memory_gb: float = option(
        "Main memory (GB)",
        "--memory GB",
        "What the whole process may take at most; the image is cut into blocks accordingly.",
        default=0,
        ge=0,
        otherwise="half of what is free",
    )
    cluster: Cluster = None
    probabilities: bool = option("Probabilities", "", "Not written for images larger than memory.", default=False)
    carry_on: bool = option(
        "Continue",
        "--continue --c",
        "Continue a result that was begun: finished blocks are not computed again.",
        default=False,
    )
    preset: PresetName | None = option(
        "Preset", "--preset", "A preset for folds, mirroring and step; explicit settings win.", default=None
    )
    chunk: tuple[int, ...] | None = option(
        "Chunks",
        "--chunks N",
        "Chunks of the result in voxels, Z Y X (pictures: Y X).",
        default=None,
        once=True,
        otherwise="128 x 128 x 128, wider where the image is thin",
    )

    def settings(self, folds: tuple[Fold, ...]) -> PredictSettings:
        """Return the settings for a model that has these folds: the preset's, then what was given beside it."""
        own = self.only(PredictSettings)
        if self.preset is None:
            return own
        return preset(self.preset, folds=folds, base=own).replace(**own.model_dump(exclude_unset=True))


class PredictImageRequest(PredictImageSettings):
    """Segment one image of any size with the trained model in a folder, block by block.

    The image is never in memory as a whole, nor is the result. What was finished before a job was cancelled, killed or
    failed is kept in RESULT.unfinished, and --continue carries on from there.
    """

    model: Path = option("Model", "-m MODEL", "Folder with plans.json, dataset.json and fold_*.")
    source: Annotated[
        tuple[str, ...],
        BeforeValidator(_as_texts),
        option(
            "Image",
            "-i IMAGE",
            "OME-Zarr, zarr, a folder of TIFF planes, TIFF, NIfTI, or another image that is read here; several hold "
            "the channels one after the other. Addresses (https://, s3://) need fsspec.",
        ),
    ]
    target: Path = option(
        "Result",
        "-o RESULT",
        "OME-Zarr (NAME.zarr, or IMAGE.zarr/labels/NAME), or a file (.nii.gz, .tif, ...) where it fits into memory.",
    )
    level: str | None = option(
        "Level",
        "--level LEVEL",
        "Level of an OME-Zarr image, by path or number.",
        default=None,
        otherwise="the one whose voxels are the nearest to the model's",
    )
    axes: str | None = option(
        "Axes",
        "--axes LETTERS",
        "What each axis of the image is: T (time), C (channel), Z, Y, X, such as CZYX.",
        default=None,
        otherwise="what the image says",
    )
    spacing: tuple[float, ...] | None = option(
        "Voxel size",
        "--spacing MM",
        "Voxel size of what is read in mm, in the order z y x (pictures: y x), whatever the image says.",
        default=None,
        once=True,
        otherwise="what the image says",
    )
