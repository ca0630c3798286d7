"""Requests about making, checking and looking at datasets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.requests.mask_words import read_map, without_doubles
from napari_nnunet.schema.requests.option import (
    DatasetFlag,
    DatasetPosition,
    EachDataset,
    GridSettings,
    Memory,
    PlansName,
    Request,
    VoxelSize,
    Workers,
    option,
)


def read_class_names(words: Sequence[str]) -> dict[int, str]:
    """Return names of mask values, written as 255=cell."""
    halves = [_halves(word, "255=cell", number=0) for word in words]
    return without_doubles((int(value), name) for value, name in halves)


def read_label_words(words: Sequence[str]) -> dict[str, int | tuple[int, ...]]:
    """Return values of classes and regions, written as liver=1 or whole=1,2."""
    found: list[tuple[str, int | tuple[int, ...]]] = []
    for name, text in (_halves(word, "liver=1", number=1) for word in words):
        values = tuple(int(value) for value in text.split(","))
        found.append((name, values[0] if len(values) == 1 else values))
    return without_doubles(found)


def _as_values(value: Any) -> Any:
    """Return one value, or none, as the tuple of values that a request has."""
    return () if value is None else (value,) if isinstance(value, int) else value


def _halves(word: str, example: str, *, number: int) -> tuple[str, str]:
    left, sign, right = word.partition("=")
    if not sign or not left or not all(part.isdecimal() for part in (left, right)[number].split(",")):
        raise SettingsError(f"{word!r} cannot be read; write it like {example}.")
    return left, right


class LookRequest(Request):
    """Show what would be read of images, and how: size, voxel size and its source, orientation, type, values, oddities.

    Nothing is changed. A path is a file, a folder with images, a folder with a DICOM series, or a raw dataset.
    """

    paths: tuple[Path, ...] = option("Paths", "PATH", "Files and folders.", min_length=1)
    subfolders: bool = option("Subfolders", "--subfolders", "Look into subfolders too.", default=False)


class VerifyRequest(Request):
    """Check files, labels, geometry and values of raw datasets; report every problem at once."""

    dataset: EachDataset
    workers: Workers = 0
    memory_gb: Memory = 0


class ImportFoldersRequest(GridSettings):
    """Match images and masks by their names and write them as a dataset; --dry_run only shows pairs and values.

    Masks with one file per class (CASE/CLASS, CLASS/CASE, CASE_CLASS) are joined.
    """

    images: Path = option("Images", "-i DIR", "Images: files, or DICOM series as folders.")
    masks: Path = option("Masks", "-m DIR", "Masks, named like the images; a file per case, or per case and class.")
    name: str = option(
        "Name", "-n NAME", "Name of the new dataset, e.g. Nuclei; the next free number is put in front.", default=""
    )
    channel_names: tuple[str, ...] = option(
        "Channels", "--channels NAME", "Names of the channels, in order.", default=()
    )
    colours: Literal["as_stored", "grey", "rgb", "leave_out"] = option(
        "Colours",
        "--colours HOW",
        "Where pictures are grey and in colour: grey (the brightness of colours), rgb (grey as three equal channels, "
        "without transparency), leave_out (those unlike most).",
        default="as_stored",
    )
    suffixes: tuple[str, ...] = option(
        "Channel suffixes",
        "--suffixes END",
        "Endings of the names of channel files (_red _green; written --suffixes=_red for one that begins with -).",
        default=(),
    )
    class_names: dict[int, str] = option(
        "Classes", "--classes VALUE=NAME", "Names of mask values, such as 255=cell.", default={}, reads=read_class_names
    )
    mapping: dict[str, str] = option(
        "Values",
        "--map VALUES=CLASS",
        "Which values or colours of the masks are which class: 1,2,5..9=cell 255=ignore #ff0000=nucleus; nonzero=cell "
        "for all but 0, each=class for a class of each.",
        default={},
        reads=read_map,
    )
    threshold: float | None = option(
        "Threshold",
        "--threshold X",
        "For masks with degrees (probabilities, smoothed edges, JPEG): values from X on are the class 1.",
        default=None,
    )
    ignore: Annotated[tuple[int, ...], BeforeValidator(_as_values)] = option(
        "Ignore values",
        "--ignore VALUE",
        "Mask values of voxels that nobody annotated.",
        default=(),
        otherwise="every voxel was looked at",
    )
    objects: str | None = option(
        "Numbered objects",
        "--objects [KIND]",
        "Every value of a mask, and in masks drawn in colours every connected piece of a colour, is an object of its "
        "own (a nucleus, a particle) of this kind; the classes to learn are derived.",
        default=None,
        bare="object",
    )
    annotated: tuple[str, ...] = option(
        "Classes looked for",
        "--annotated CLASS",
        "The only classes of the dataset that were looked for in these cases; the others are unknown there, not "
        "background. A class that the dataset lacks is added, and is unknown in its earlier cases.",
        default=(),
        otherwise="all",
    )
    skip: tuple[str, ...] = option("Left out", "--skip NAME", "Cases or files that are left out.", default=())
    dataset: str | None = option(
        "Add to", "-d DATASET", "Add the cases to this dataset instead of making one.", default=None
    )
    spacing: VoxelSize = None
    subfolders: bool = option(
        "Subfolders",
        "--subfolders",
        "Look into subfolders too; both folders have the same ones, and cases are named SUBFOLDER_FILE.",
        default=False,
    )
    dry_run: bool = option("Only show", "--dry_run", "Show pairs and values, and write nothing.", default=False)
    workers: Workers = 0


class AnnotatedClassesRequest(Request):
    """Show or say which classes were looked for in which cases of a raw dataset; the others are unknown there.

    A class that nobody looked for in a case does not enter its loss or its scores. nnU-Net ignores this.
    """

    dataset: DatasetPosition
    classes: tuple[str, ...] = option(
        "Classes", "--classes CLASS", "The classes that were looked for, or all.", default=(), otherwise="only show"
    )
    cases: tuple[str, ...] = option(
        "Cases", "--cases CASE", "Which cases; * stands for anything.", default=(), otherwise="every case"
    )


class ConvertMsdRequest(Request):
    """Convert a task of the Medical Segmentation Decathlon (TaskNN_Name)."""

    source: Path = option("Task", "-i DIR", "The task's folder.")
    number: int | None = option(
        "Number", "-overwrite_id N", "Dataset number.", default=None, ge=0, otherwise="the task's"
    )
    workers: Workers = 0


class ConvertOldRequest(Request):
    """Convert a dataset of nnU-Net v1 (a task folder)."""

    source: Path = option("Task", "input_folder", "The old task's folder.")
    name: str = option("Name", "output_dataset_name", "DatasetXXX_Name.")


class DatasetJsonRequest(Request):
    """Write the dataset.json of a raw dataset; the training cases are counted."""

    folder: Path = option("Folder", "folder", "DatasetXXX_Name, with imagesTr and labelsTr.")
    channels: tuple[str, ...] = option("Channels", "--channels NAME", "Names in order; CT selects the rules for CT.")
    labels: dict[str, Any] = option(
        "Labels",
        "--labels NAME=VALUE",
        "liver=1 tumour=2, regions as whole=1,2; background=0 is added.",
        reads=read_label_words,
    )
    regions_class_order: tuple[int, ...] | None = option(
        "Order of regions", "--regions_class_order VALUE", "Needed with regions.", default=None
    )
    file_ending: str = option("Ending", "--file_ending END", ".nii.gz, .png, .tif, ...")


class OverlaysRequest(Request):
    """Draw the most telling slice of every training case with its labels in colour."""

    dataset: DatasetFlag
    target: Path = option("Folder", "-o DIR", "Folder for the pictures.")
    workers: Workers = 0
    channel: int = option("Channel", "-channel_idx N", "Channel that is shown.", default=0, ge=0)
    raw: bool = option("Raw images", "--use_raw", "Show raw instead of preprocessed images.", default=False)
    plans: PlansName = "nnUNetPlans"
    configuration: str | None = option(
        "Configuration", "-c CONFIGURATION", "Which.", default=None, otherwise="3d_fullres if there is one, else 2d"
    )
    intensity: float = option(
        "Intensity", "-overlay_intensity X", "Strength of the colours, 0 to 1.", default=0.6, ge=0, le=1
    )


def read_class_values(words: Sequence[str]) -> dict[str, int]:
    """Return values of classes by name, written as 3=membrane."""
    return without_doubles((name, value) for value, name in read_class_names(words).items())


class DeriveObjectsRequest(Request):
    """Derive the classes that nnU-Net learns (core and border) from the numbered objects in objectsTr of a dataset."""

    dataset: DatasetPosition
    kinds: dict[int, str] = option(
        "Kinds of object",
        "--kinds VALUE=NAME",
        "Names of kinds by their values in kindsTr, such as 1=nucleus 2=debris; one kind needs no kindsTr.",
        default={},
        otherwise="all are of one kind, 'object'",
        reads=read_class_names,
    )
    classes: dict[str, int] = option(
        "Ordinary classes",
        "--classes VALUE=NAME",
        "Classes in kindsTr that are not objects, such as 3=membrane.",
        default={},
        reads=read_class_values,
    )
    ignore: int | None = option(
        "Ignore value", "--ignore VALUE", "Value in kindsTr of voxels that nobody annotated.", default=None
    )
    table: Path | None = option(
        "Table of kinds",
        "--kinds-table FILE",
        "A CSV with the columns case, object and kind, instead of kindsTr, which is drawn from it.",
        default=None,
    )
    width: float | None = option(
        "Border width",
        "--width VOXELS",
        "Width of borders in network voxels.",
        default=None,
        gt=0,
        le=20,
        otherwise="measured",
    )
    workers: Workers = 0
