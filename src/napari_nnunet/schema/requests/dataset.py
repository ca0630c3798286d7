"""Requests about making, checking and looking at datasets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le
from pydantic import Field

from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.requests.option import DatasetFlag, EachDataset, Memory, PlansName, Request, Workers, option


def read_class_names(words: Sequence[str]) -> dict[int, str]:
    """Return names of mask values, written as 255=cell."""
    return {int(value): name for value, name in (_halves(word, "255=cell", number=0) for word in words)}


def read_labels(words: Sequence[str]) -> dict[str, int | tuple[int, ...]]:
    """Return values of classes and regions, written as liver=1 or whole=1,2."""
    found: dict[str, int | tuple[int, ...]] = {}
    for name, text in (_halves(word, "liver=1", number=1) for word in words):
        values = tuple(int(value) for value in text.split(","))
        found[name] = values[0] if len(values) == 1 else values
    return found


def _halves(word: str, example: str, *, number: int) -> tuple[str, str]:
    left, sign, right = word.partition("=")
    if not sign or not left or not all(part.isdigit() for part in (left, right)[number].split(",")):
        raise SettingsError(f"{word!r} cannot be read; write it like {example}.")
    return left, right


class VerifyRequest(Request):
    """Check files, labels, geometry and values of raw datasets; report every problem at once."""

    dataset: EachDataset
    workers: Workers = 0
    memory_gb: Memory = 0


class ImportFoldersRequest(Request):
    """Match images and masks by their names and write them as a dataset; --dry_run only shows the pairs."""

    images: Annotated[Path, option("Images", "-i DIR", "Images: files, or DICOM series as folders.")]
    masks: Annotated[Path, option("Masks", "-m DIR", "Masks, named like the images.")]
    name: Annotated[
        str, option("Name", "-n NAME", "Name of the new dataset, e.g. Nuclei; the next free number is put in front.")
    ] = ""
    channel_names: Annotated[
        tuple[str, ...], option("Channels", "--channels NAME", "Names of the channels, in order.")
    ] = ()
    suffixes: Annotated[
        tuple[str, ...],
        option(
            "Channel suffixes",
            "--suffixes END",
            "Endings of the names of channel files (_red _green; written --suffixes=_red for one that begins with -).",
        ),
    ] = ()
    class_names: Annotated[
        dict[int, str],
        option("Classes", "--classes VALUE=NAME", "Names of mask values, such as 255=cell.", reads=read_class_names),
    ] = Field({})
    ignore: Annotated[
        int | None, option("Ignore value", "--ignore VALUE", "Mask value of voxels that nobody annotated.")
    ] = None
    dry_run: Annotated[bool, option("Only show", "--dry_run", "Show the pairs and write nothing.")] = False
    workers: Workers = 0


class ConvertMsdRequest(Request):
    """Convert a task of the Medical Segmentation Decathlon (TaskNN_Name)."""

    source: Annotated[Path, option("Task", "-i DIR", "The task's folder.")]
    number: Annotated[
        int | None, Ge(0), option("Number", "-overwrite_id N", "Dataset number.", otherwise="the task's")
    ] = None
    workers: Workers = 0


class ConvertOldRequest(Request):
    """Convert a dataset of nnU-Net v1 (a task folder)."""

    source: Annotated[Path, option("Task", "input_folder", "The old task's folder.")]
    name: Annotated[str, option("Name", "output_dataset_name", "DatasetXXX_Name.")]


class DatasetJsonRequest(Request):
    """Write the dataset.json of a raw dataset; the training cases are counted."""

    folder: Annotated[Path, option("Folder", "folder", "DatasetXXX_Name, with imagesTr and labelsTr.")]
    channels: Annotated[
        tuple[str, ...], option("Channels", "--channels NAME", "Names in order; CT selects the rules for CT.")
    ]
    labels: Annotated[
        dict[str, Any],
        option(
            "Labels",
            "--labels NAME=VALUE",
            "liver=1 tumour=2, regions as whole=1,2; background=0 is added.",
            reads=read_labels,
        ),
    ]
    regions_class_order: Annotated[
        tuple[int, ...] | None, option("Order of regions", "--regions_class_order VALUE", "Needed with regions.")
    ] = None
    file_ending: Annotated[str, option("Ending", "--file_ending END", ".nii.gz, .png, .tif, ...")]


class OverlaysRequest(Request):
    """Draw the most telling slice of every training case with its labels in colour."""

    dataset: DatasetFlag
    target: Annotated[Path, option("Folder", "-o DIR", "Folder for the pictures.")]
    workers: Workers = 0
    channel: Annotated[int, Ge(0), option("Channel", "-channel_idx N", "Channel that is shown.")] = 0
    raw: Annotated[bool, option("Raw images", "--use_raw", "Show raw instead of preprocessed images.")] = False
    plans: PlansName = "nnUNetPlans"
    configuration: Annotated[
        str | None,
        option("Configuration", "-c CONFIGURATION", "Which.", otherwise="3d_fullres if there is one, else 2d"),
    ] = None
    intensity: Annotated[
        float, Ge(0), Le(1), option("Intensity", "-overlay_intensity X", "Strength of the colours, 0 to 1.")
    ] = 0.6
