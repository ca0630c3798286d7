"""The card of a model: what its receiver wants to know, nnU-Net ignores it; and how files come into a zip with one."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_nnunet.errors import ModelError
from napari_nnunet.formats.atomic import make_folder, write_error, written_beside
from napari_nnunet.schema.colours import class_colour
from napari_nnunet.schema.dataset import DatasetInfo

CARD_FILE = "model_card.json"
THUMBNAIL = "model_card.png"
_CHUNK = 4 << 20
_STORED = (".pth", ".png", ".gz", ".zip", ".npz", ".jpg")  # compressed already, or as good as random


class CardClass(BaseModel):
    """A class or region: its name, the label values it combines, the colour it is shown in."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    values: tuple[int, ...]
    colour: str


class CardModel(BaseModel):
    """One trained configuration."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    folder: str = Field(description="TRAINER__PLANS__CONFIGURATION")
    configuration: str
    spacing: tuple[float, ...] = Field(description="Voxel size of the network's input in mm")
    patch: tuple[int, ...]
    folds: tuple[str, ...]
    cases: int = Field(0, description="Validation cases behind the scores")
    dice: float | None = Field(None, description="Mean foreground Dice of the validation")
    dice_per_class: dict[str, float] = Field(default_factory=dict)
    sha256: dict[str, str] = Field(default_factory=dict, description="Of every checkpoint in the file")


class ModelCard(BaseModel):
    """The description that comes with a bundle of models.

    Parameters
    ----------
    title, description, authors, licence, citation : str
        Free text; the licence is that of the weights.
    dataset : str
        Full name, DatasetXXX_Name.
    channels, classes, models, best
        What goes in and comes out; ``best`` names the folders that ``find_best_configuration`` chose.
    file_ending, created, program, thumbnail : str
        As they say; the date is ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = 1
    title: str = ""
    description: str = ""
    authors: str = ""
    licence: str = ""
    citation: str = ""
    dataset: str
    channels: tuple[str, ...]
    classes: tuple[CardClass, ...]
    models: tuple[CardModel, ...] = ()
    best: tuple[str, ...] = ()
    file_ending: str = ""
    created: str = ""
    program: str = ""
    thumbnail: str = ""

    @classmethod
    def parse(cls, content: Any, *, where: str) -> ModelCard:
        """Read the dictionary of a card; raises ModelError if it is not one."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise ModelError(f"{where} is not a valid model card: '{name}': {first['msg']}.") from error


def classes_of(info: DatasetInfo) -> tuple[CardClass, ...]:
    """Return the foreground classes or regions of a dataset with their colours."""
    scheme = info.labels
    if scheme.has_regions:
        pairs = zip(scheme.head_names, scheme.regions, scheme.regions_class_order or (), strict=True)
        return tuple(
            CardClass(name=name, values=region if isinstance(region, tuple) else (region,), colour=class_colour(value))
            for name, region, value in pairs
        )
    return tuple(
        CardClass(name=name, values=(value,), colour=class_colour(value))
        for value, name in scheme.names.items()
        if value != 0
    )


@contextmanager
def zip_writer(path: Path) -> Iterator[zipfile.ZipFile]:
    """Give a new zip; it appears when it is complete."""
    make_folder(path.parent)
    with written_beside(path) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        yield archive


def add_file(archive: zipfile.ZipFile, source: Path, name: str) -> str:
    """Add a file to a zip; returns its SHA-256.

    Raises
    ------
    ModelError
        If the file cannot be read.
    ResourceError
        If the zip cannot be written.
    """
    with _readable(source):
        info = zipfile.ZipInfo.from_file(source, name, strict_timestamps=False)
        file = source.open("rb")
    info.compress_type = zipfile.ZIP_STORED if name.endswith(_STORED) else zipfile.ZIP_DEFLATED
    digest = hashlib.sha256()
    try:
        with file, archive.open(info, "w", force_zip64=True) as member:
            while chunk := _chunk(file, source):
                digest.update(chunk)
                member.write(chunk)
    except OSError as error:
        raise write_error(Path(str(archive.filename)), error) from error
    return digest.hexdigest()


def _chunk(file: BinaryIO, source: Path) -> bytes:
    with _readable(source):
        return file.read(_CHUNK)


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelError(f"{source} cannot be read: {error.strerror or error}.") from error
