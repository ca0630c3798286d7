"""Raw datasets: dataset.json, imagesTr, labelsTr, or files listed in dataset.json (facts, sections 1.1 and 1.5)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.cases import Case, find_cases
from napari_nnunet.schema.dataset import DatasetInfo


@dataclass(frozen=True)
class TrainingCase:
    """A case with its reference segmentation."""

    name: str
    images: tuple[Path, ...]
    label: Path


@dataclass(frozen=True)
class RawDataset:
    """A dataset as it lies in nnUNet_raw.

    Parameters
    ----------
    folder : Path
        ``DatasetXXX_Name``.
    info : DatasetInfo
        Its dataset.json.
    text : str
        The file's own text, to be copied along.
    cases : tuple of TrainingCase
        Sorted by name, or in the order of the list in dataset.json.
    """

    folder: Path
    info: DatasetInfo
    text: str
    cases: tuple[TrainingCase, ...]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name


def open_dataset(folder: Path) -> RawDataset:
    """Open a raw dataset and find its training cases; no image is read.

    Raises
    ------
    DatasetError
        If dataset.json, images or labels are missing; all missing files at once.
    """
    path = folder / "dataset.json"
    if not path.is_file():
        raise DatasetError(f"{folder} is not a dataset: it has no dataset.json.")
    text = path.read_text(encoding="utf-8")
    info = DatasetInfo.parse_json(text, where=str(path))
    listed = json.loads(text).get("dataset")
    cases = _listed(folder, listed) if isinstance(listed, dict) else _found(folder, info)
    if not cases:
        raise DatasetError(f"{folder} has no training cases.")
    missing = [str(p) for case in cases for p in (*case.images, case.label) if not p.is_file()]
    if missing:
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise DatasetError(f"{folder.name} lacks {len(missing)} files: {', '.join(missing[:10])}{more}.")
    return RawDataset(folder, info, text, tuple(cases))


def _found(folder: Path, info: DatasetInfo) -> list[TrainingCase]:
    for name in ("imagesTr", "labelsTr"):
        if not (folder / name).is_dir():
            raise DatasetError(f"{folder} has no folder {name}.")
    cases: list[Case] = find_cases(folder / "imagesTr", ending=info.file_ending, channels=len(info.channel_names))
    return [
        TrainingCase(case.name, case.files, folder / "labelsTr" / f"{case.name}{info.file_ending}") for case in cases
    ]


def _listed(folder: Path, listed: dict[str, Any]) -> list[TrainingCase]:
    def resolve(text: str) -> Path:
        path = Path(os.path.expandvars(text))
        return path if path.is_absolute() else (folder / path).absolute()

    cases = []
    for name, entry in listed.items():
        try:
            cases.append(
                TrainingCase(name, tuple(resolve(image) for image in entry["images"]), resolve(entry["label"]))
            )
        except (KeyError, TypeError) as error:
            raise DatasetError(
                f"dataset.json, key 'dataset': the entry of {name} must hold 'images' (a list of paths) and 'label'."
            ) from error
    return cases
