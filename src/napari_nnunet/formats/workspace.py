"""Where datasets, plans and models live: nnU-Net's three folders, or one workspace that holds all three."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from napari_nnunet.errors import DatasetError, ModelError
from napari_nnunet.schema.model_name import ModelName
from napari_nnunet.schema.names import MOST_BYTES, is_dataset_name, require_dataset_name, typed

_VARIABLES = {"raw": "nnUNet_raw", "preprocessed": "nnUNet_preprocessed", "results": "nnUNet_results"}


def default_folder() -> Path:
    """Return the per-user folder that is used when nothing else is said."""
    return Path(platformdirs.user_data_dir("napari-nnunet", appauthor=False))


@dataclass(frozen=True)
class Workspace:
    """nnU-Net's three folders.

    Parameters
    ----------
    raw, preprocessed, results : Path
        As ``nnUNet_raw``, ``nnUNet_preprocessed`` and ``nnUNet_results``.
    """

    raw: Path
    preprocessed: Path
    results: Path

    @classmethod
    def at(cls, folder: Path) -> Workspace:
        """Return the workspace whose three folders lie in ``folder``."""
        return cls(*(folder / name for name in _VARIABLES.values()))

    def variables(self) -> dict[str, str]:
        """Return nnU-Net's environment variables for these folders."""
        return {variable: str(getattr(self, name)) for name, variable in _VARIABLES.items()}

    @classmethod
    def resolve(cls, folder: Path | None = None, environment: Mapping[str, str] | None = None) -> Workspace:
        """Find the folders: the one given, else nnU-Net's variables, else the per-user folder.

        Parameters
        ----------
        folder : Path, optional
            ``--workspace``.
        environment : mapping, optional
            ``os.environ`` if not given.
        """
        if folder is not None:
            return cls.at(folder.expanduser().absolute())
        values = os.environ if environment is None else environment
        fallback = default_folder()
        raw, preprocessed, results = (
            Path(values[variable]).expanduser().absolute() if values.get(variable) else fallback / variable
            for variable in _VARIABLES.values()
        )
        return cls(raw, preprocessed, results)

    @classmethod
    def around(cls, folder: Path) -> Workspace:
        """Return the workspace that a folder is, or lies in: its own, one of nnU-Net's three folders, a dataset."""
        for place in (folder, *folder.parents[:2]):
            if place.name in _VARIABLES.values():
                return cls.at(place.parent)
        return cls.at(folder)

    @property
    def folder(self) -> Path | None:
        """The folder that holds all three; None if nnU-Net's variables point to different places."""
        common = self.raw.parent
        return common if self == Workspace.at(common) else None

    def is_there(self) -> bool:
        """Return whether any of the three folders can be looked at; False also where their disk is gone."""
        return any(stamp(folder) for folder in (self.raw, self.preprocessed, self.results))

    def marks(self, dataset: str | None = None) -> tuple[frozenset[Any], frozenset[Any]]:
        """Return what is another when somebody changed datasets or plans, and when models came or went.

        No file is opened. Of ``dataset`` every image and label is looked at, of the others their folders.
        """
        names = ("dataset.json", "groups.csv", "imagesTr", "labelsTr", "objectsTr", "trash")
        paths = [place / name for place in entries(self.raw, "Dataset*_*") for name in names]
        if dataset is not None:
            own = self.raw / dataset
            paths += [path for name in ("imagesTr", "labelsTr", "objectsTr") for path in entries(own / name, "*")]
        paths += entries(self.preprocessed, "Dataset*_*/*.json")
        models = entries(self.results, "Dataset*/*__*__*/fold_*/checkpoint_*.pth")
        return frozenset((path, stamp(path)) for path in paths), frozenset(models)

    def dataset_of(self, folder: Path) -> str | None:
        """Return the name of the dataset whose folder this is, in any of the three; None for other folders."""
        inside = folder.parent in (self.raw, self.preprocessed, self.results)
        return folder.name if inside and is_dataset_name(folder.name) else None

    def raw_datasets(self) -> list[Path]:
        """Return the folders of raw datasets, those without a dataset.json too, sorted by name."""
        names = ("imagesTr", "dataset.json")
        return sorted({path.parent for name in names for path in entries(self.raw, f"Dataset*_*/{name}")})

    def dataset_names(self) -> list[str]:
        """Return the names of all datasets that are there, raw or planned, sorted."""
        planned = [path.parent.name for path in entries(self.preprocessed, "Dataset*_*/dataset.json")]
        return sorted({*planned, *(path.name for path in self.raw_datasets())})

    def dataset_name(self, name_or_id: str) -> str:
        """Return the full name of a dataset given by its number, its name, or its name without the number.

        Raises
        ------
        DatasetError
            If no folder, or more than one, fits.
        """
        if name_or_id.startswith("Dataset"):
            return require_dataset_name(name_or_id)
        numbered = name_or_id.isdecimal() and name_or_id.isascii() and len(name_or_id) < MOST_BYTES
        fits = rf"Dataset0*{int(name_or_id)}_.*" if numbered else rf"Dataset[0-9]{{3,}}_{re.escape(name_or_id)}"
        names = {
            child.name
            for root in (self.raw, self.preprocessed, self.results)
            if root.is_dir()
            for child in root.iterdir()
            if re.fullmatch(fits, child.name, re.DOTALL) and child.is_dir()
        }
        if len(names) == 1:
            return names.pop()
        if names:
            raise DatasetError(f"Dataset {name_or_id} is ambiguous: {', '.join(sorted(names))}. Give the full name.")
        if not numbered:
            raise DatasetError(
                f"{name_or_id!r:.80} is neither a dataset number nor a name such as Dataset004_Hippocampus, and no "
                f"dataset in {self.raw}, {self.preprocessed} or {self.results} has that name after its number."
            )
        raise DatasetError(
            f"No dataset with the number {name_or_id} in {self.raw}, {self.preprocessed} or {self.results}.",
            shell=f"{self._misplaced()}Set --workspace, or nnU-Net's variables nnUNet_raw, nnUNet_preprocessed and "
            "nnUNet_results.",
            window="Choose another workspace.",
        )

    def _misplaced(self) -> str:
        """Return what to say where the folder is not a workspace but part of one, or a file; empty otherwise."""
        given = self.raw.parent
        if given.is_file():
            return f"{given} is a file. "
        inner = next((folder for folder in (given, *given.parents) if folder.name in _VARIABLES.values()), None)
        return "" if inner is None else f"The workspace is the folder that holds {inner.name}: {inner.parent}. "

    def model(self, dataset: str, name: ModelName) -> Path:
        """Return where a model of a dataset (its full name) lies, or will."""
        return self.results / dataset / name.folder

    def models(self, dataset: str) -> list[ModelName]:
        """Return the trained models of a dataset (its full name) by name, without those in renamed folders."""
        folders = sorted((self.results / dataset).glob("*__*__*"))
        return [name for path in folders if path.is_dir() and (name := ModelName.of(path.name)) is not None]

    def model_folder(self, dataset: str, *, trainer: str, plans: str, configuration: str) -> Path:
        """Return the folder of a trained model.

        Raises
        ------
        ModelError
            If it is not there; the message lists the models of the dataset.
        """
        name = self.dataset_name(dataset)
        folder = self.model(name, ModelName(trainer, plans, configuration))
        if not folder.is_dir():
            there = ", ".join(model.folder for model in self.models(name))
            if not there:
                raise ModelError(
                    f"{folder} does not exist: {name} has no trained model yet.",
                    shell=f"Train one first: 'napari-nnunet plan_and_preprocess -d {typed(name)}', then 'napari-nnunet "
                    f"train {typed(name)} {configuration} 0'.",
                    window="Train one first, in the Train dock.",
                )
            raise ModelError(
                f"{folder} does not exist. Trained models of {name}: {there}.",
                shell="They are named TRAINER__PLANS__CONFIGURATION (-tr, -p, -c).",
            )
        return folder


def entries(folder: Path, pattern: str) -> list[Path]:
    """Return what a folder holds, sorted; nothing where it, or its disk, is gone."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def stamp(path: Path) -> tuple[int, int] | None:
    """Return when a file or folder was changed and its size, None where it cannot be looked at."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size


def is_folder(path: Path) -> bool:
    """Return whether a folder is there; False also where its disk is gone."""
    try:
        return path.is_dir()
    except OSError:
        return False
