"""Write trained models into a zip that nnU-Net, too, installs."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from napari_nnunet.errors import ModelError, SettingsError
from napari_nnunet.events import Job, Note, Progress, Stage
from napari_nnunet.formats.atomic import make_folder, partial_name, remove_leftovers, write_json
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.model.card import CARD_FILE, THUMBNAIL, ModelCard, add_file, zip_writer
from napari_nnunet.formats.model.checkpoint import light_checkpoint
from napari_nnunet.formats.model.fold import FINAL
from napari_nnunet.formats.model.folder import TrainedModel, load_model
from napari_nnunet.formats.regular import file_hash
from napari_nnunet.formats.results.inference_information import INFORMATION, INSTRUCTIONS
from napari_nnunet.jobs.sharing.cards import make_card
from napari_nnunet.schema.json_text import message
from napari_nnunet.schema.model_name import EnsembleName
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.requests.sharing import ExportSettings

_FOLD_FILES = (
    "debug.json",
    "progress.png",
    "network_architecture.pdf",
    "object_rules.json",
    "validation/summary.json",
    "validation/objects.json",
)
_MEASURED = ("inference_presets.json", "calibration.json")  # with weights that they name
_MODEL_FILES = ("plans.json", "dataset.json", "dataset_fingerprint.json", *_MEASURED)
_RESULT_FILES = ("summary.json", "postprocessing.pkl", "postprocessing.json")


def export_models(models: Sequence[TrainedModel], target: Path, settings: ExportSettings) -> Job[Path]:
    """Write trained models of one dataset into a zip that nnU-Net, too, installs.

    Parameters
    ----------
    models : sequence of TrainedModel
        Of the same dataset. Of a cascade, the first stage belongs along; it is added where it is next to.
    target : Path
        The zip.
    settings : ExportSettings
        What goes in.

    Returns
    -------
    Path
        The zip.

    Raises
    ------
    ModelError, SettingsError, ResourceError
        If a fold or checkpoint is missing, or the zip exists or cannot be written.
    """
    with place_of_zip(target, replace=settings.replace_zip):
        return (yield from _export(models, target, settings))


def _export(models: Sequence[TrainedModel], target: Path, settings: ExportSettings) -> Job[Path]:
    chosen = yield from _with_first_stages(models)
    folds = {m.folder.name: m.resolve_folds(settings.folds, settings.checkpoints[0]) for m in chosen}
    listed = [(model, _files(model, folds[model.folder.name], settings)) for model in chosen]
    dataset = chosen[0].folder.parent
    yield Stage(name="Exporting", total=sum(len(files) for _, files in listed))
    remove_leftovers(target.parent)
    with zip_writer(target) as archive, workplace(target.parent) as work:
        hashes: dict[str, dict[str, str]] = {}
        done = 0
        for model, files in listed:
            added: dict[Path, str] = {}
            for path in sorted(files, key=lambda path: path.name in _MEASURED):  # after the weights
                name = path.relative_to(dataset).as_posix()
                source = path
                if settings.light and path.suffix == ".pth":
                    source = light_checkpoint(path, work)
                elif settings.light and path.name in _MEASURED:
                    source = _of_light(path, added, work)
                digest = add_file(archive, source, f"{dataset.name}/{name}")
                if path.suffix == ".pth":
                    added[path] = digest
                    hashes.setdefault(model.folder.name, {})[path.relative_to(model.folder).as_posix()] = digest
                done += 1
                yield Progress(done=done, total=sum(len(files) for _, files in listed))
        for path in _dataset_files(dataset, chosen):
            add_file(archive, path, f"{dataset.name}/{path.relative_to(dataset).as_posix()}")
        _add_card(archive, make_card(chosen, folds, settings, hashes), dataset.name, settings)
    yield Note(text=f"{', '.join(model.folder.name for model in chosen)}: {target.stat().st_size / 1e6:.1f} MB.")
    return target


def _of_light(path: Path, added: Mapping[Path, str], work: Path) -> Path:
    """Return a copy of what was measured with a model, noting the light checkpoints where it noted their sources.

    Checkpoints of nnU-Net are told by their file's hash (:func:`weights_of`), and a light one is another file.
    """
    content = message(path)
    noted = content.get("weights")
    if not isinstance(noted, Mapping):
        return path
    now = dict(noted)
    for checkpoint, digest in added.items():
        place = checkpoint.parent.name
        if checkpoint.name == FINAL and place in now and now[place] == file_hash(checkpoint):
            now[place] = digest
    if now == noted:
        return path
    write_json(work / path.name, {**content, "weights": now})
    return work / path.name


@contextmanager
def place_of_zip(target: Path, *, replace: bool) -> Iterator[None]:
    """Claim the place of a zip that is written; raises SettingsError where one is that may not be replaced."""
    with claimed(target.parent, f"{target} is already being written", part=target.name):
        if target.exists() and not replace:
            raise SettingsError(
                f"{target} exists.",
                shell="Choose another name, or --replace.",
                window="Choose another name, or confirm that it is to be replaced.",
            )
        yield


@contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """Give a folder for a while; the next export removes it where a process was killed."""
    path = make_folder(folder / partial_name("export"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _with_first_stages(models: Sequence[TrainedModel]) -> Job[list[TrainedModel]]:
    """Return the models and the first stages that cascades among them need."""
    chosen = list(models)
    for model in models:
        folder = model.previous_stage_folder()
        if folder is not None and folder.name not in {m.folder.name for m in chosen}:
            if not folder.is_dir():
                raise ModelError(f"{model.folder.name} needs its first stage {folder.name}, which is not trained.")
            yield Note(text=f"The first stage {folder.name} is exported too: {model.configuration.name} needs it.")
            chosen.append(load_model(folder))
    if not chosen:
        raise ModelError("There is no model to export.")
    if len({model.folder.parent for model in chosen}) > 1:
        raise ModelError("A zip holds the models of one dataset; export each dataset separately.")
    return chosen


def _files(model: TrainedModel, folds: Sequence[Fold], settings: ExportSettings) -> list[Path]:
    found = [model.folder / name for name in _MODEL_FILES if (model.folder / name).is_file()]
    for fold in folds:
        folder = model.folder / f"fold_{fold}"
        found += [model.checkpoint_path(fold, name) for name in settings.checkpoints]
        found += [folder / name for name in _FOLD_FILES if (folder / name).is_file()]
        if settings.validation:
            ending = model.dataset.file_ending
            found += sorted(p for p in (folder / "validation").glob(f"*{ending}") if not p.name.startswith("."))
    for result in sorted(model.folder.glob("crossval_results_folds_*")):
        found += [result / name for name in _RESULT_FILES if (result / name).is_file()]
    return found


def _dataset_files(dataset: Path, models: Sequence[TrainedModel]) -> list[Path]:
    """Return the files about several models of the dataset together."""
    names = {model.folder.name for model in models}
    found = [dataset / name for name in (INFORMATION, INSTRUCTIONS) if (dataset / name).is_file()]
    for folder in sorted(dataset.glob("ensembles/ensemble___*")):
        ensemble = EnsembleName.of(folder.name)
        if ensemble is not None and set(ensemble.members) <= names:
            found += [
                folder / name for name in (*_RESULT_FILES, "plans.json", "dataset.json") if (folder / name).is_file()
            ]
    return found


def _add_card(archive: zipfile.ZipFile, card: ModelCard, dataset: str, settings: ExportSettings) -> None:
    archive.writestr(f"{dataset}/{CARD_FILE}", json.dumps(card.model_dump(mode="json"), indent=2))
    if settings.thumbnail is not None:
        add_file(archive, settings.thumbnail, f"{dataset}/{THUMBNAIL}")
