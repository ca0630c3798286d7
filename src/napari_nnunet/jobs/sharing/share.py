"""Share models: export, install, download."""

from __future__ import annotations

import json
import math
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from napari_nnunet.errors import ModelError, NnunetError, SettingsError
from napari_nnunet.events import Job, Note, Progress, Stage
from napari_nnunet.formats.atomic import make_folder, partial_name, remove_leftovers, trash_path, write_error
from napari_nnunet.formats.model.bundle import Bundle, add_file, extract, inspect, zip_writer
from napari_nnunet.formats.model.checkpoint import light_checkpoint, read_checkpoint
from napari_nnunet.formats.model.download import download
from napari_nnunet.formats.model.folder import TrainedModel, load_model
from napari_nnunet.formats.model.known_models import cache_folder
from napari_nnunet.formats.results.inference_information import INFORMATION, INSTRUCTIONS, read_best
from napari_nnunet.formats.results.summary import find_summary
from napari_nnunet.schema.card import FILE, THUMBNAIL, CardModel, ModelCard, classes_of
from napari_nnunet.schema.model_name import EnsembleName
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.requests.sharing import ExportSettings
from napari_nnunet.version import __version__

TRASH = "trash"
_FOLD_FILES = ("debug.json", "progress.png", "network_architecture.pdf", "validation/summary.json")
_MODEL_FILES = ("plans.json", "dataset.json", "dataset_fingerprint.json", "inference_presets.json", "calibration.json")
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
    if target.exists() and not settings.replace_zip:
        raise SettingsError(f"{target} exists. Choose another name, or --replace.")
    chosen = yield from _with_first_stages(models)
    folds = {m.folder.name: m.resolve_folds(settings.folds, settings.checkpoints[0]) for m in chosen}
    listed = [(model, _files(model, folds[model.folder.name], settings)) for model in chosen]
    dataset = chosen[0].folder.parent
    yield Stage(name="Exporting", total=sum(len(files) for _, files in listed))
    remove_leftovers(make_folder(target.parent))
    with zip_writer(target) as archive, _workplace(target.parent) as work:
        hashes: dict[str, dict[str, str]] = {}
        done = 0
        for model, files in listed:
            for path in files:
                name = path.relative_to(dataset).as_posix()
                source = light_checkpoint(path, work) if settings.light and path.suffix == ".pth" else path
                digest = add_file(archive, source, f"{dataset.name}/{name}")
                if path.suffix == ".pth":
                    hashes.setdefault(model.folder.name, {})[path.relative_to(model.folder).as_posix()] = digest
                done += 1
                yield Progress(done=done, total=sum(len(files) for _, files in listed))
        for path in _dataset_files(dataset, chosen):
            add_file(archive, path, f"{dataset.name}/{path.relative_to(dataset).as_posix()}")
        _add_card(archive, make_card(chosen, folds, settings, hashes), dataset.name, settings)
    yield Note(text=f"{', '.join(model.folder.name for model in chosen)}: {target.stat().st_size / 1e6:.1f} MB.")
    return target


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
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


def make_card(
    models: Sequence[TrainedModel],
    folds: dict[str, tuple[Fold, ...]],
    settings: ExportSettings,
    hashes: dict[str, dict[str, str]] | None = None,
) -> ModelCard:
    """Return the card of some models."""
    first = models[0]
    dataset = first.folder.parent
    unknown = set(settings.card) - {"title", "description", "authors", "licence", "citation"}
    if unknown:
        raise SettingsError(f"A model card has no field {', '.join(sorted(unknown))}.")
    best: tuple[str, ...] = ()
    if (dataset / INFORMATION).is_file():
        best = tuple(model.folder for model in read_best(dataset).models)
    return ModelCard(
        dataset=dataset.name,
        channels=first.dataset.channel_names,
        classes=classes_of(first.dataset),
        models=tuple(card_model(m, folds[m.folder.name], (hashes or {}).get(m.folder.name)) for m in models),
        best=best,
        file_ending=first.dataset.file_ending,
        created=datetime.now(UTC).date().isoformat(),
        program=f"napari-nnunet {__version__}",
        thumbnail=THUMBNAIL if settings.thumbnail else "",
        **{"title": dataset.name, **settings.card},
    )


def card_model(model: TrainedModel, folds: Sequence[Fold], hashes: dict[str, str] | None = None) -> CardModel:
    """Return a card's entry for one model."""
    scores = [find_summary(model.folder / f"fold_{fold}" / "validation") for fold in folds]
    known = [score for score in scores if score is not None]
    per_class: dict[str, float] = {}
    names = {str(value): name for name, value in model.dataset.labels.labels.items()}
    for label in known[0].mean if known else ():
        values = [score.class_dice[label] for score in known if label in score.mean]
        values = [value for value in values if math.isfinite(value)]
        if values:
            per_class[names.get(label, label)] = sum(values) / len(values)
    means = [score.dice for score in known if math.isfinite(score.dice)]
    return CardModel(
        folder=model.folder.name,
        configuration=model.configuration.name,
        spacing=model.configuration.spacing,
        patch=model.configuration.patch_size,
        folds=tuple(str(fold) for fold in folds),
        cases=sum(len(score.cases) for score in known),
        dice=sum(means) / len(means) if means else None,
        dice_per_class=per_class,
        sha256=hashes or {},
    )


def _add_card(archive: zipfile.ZipFile, card: ModelCard, dataset: str, settings: ExportSettings) -> None:
    archive.writestr(f"{dataset}/{FILE}", json.dumps(card.model_dump(mode="json"), indent=2))
    if settings.thumbnail is not None:
        add_file(archive, settings.thumbnail, f"{dataset}/{THUMBNAIL}")


@dataclass(frozen=True)
class Installed:
    """Models that were installed.

    Parameters
    ----------
    folders : tuple of Path
        Where they are.
    card : ModelCard or None
        Where the zip had one.
    """

    folders: tuple[Path, ...]
    card: ModelCard | None


def install_zip(path: Path, results: Path, *, replace: bool = False) -> Job[Installed]:
    """Unpack models into ``nnUNet_results``; they appear when all of them were read and checked.

    Parameters
    ----------
    path : Path
        A zip of ours or nnU-Net's.
    results : Path
        ``nnUNet_results``.
    replace : bool
        Whether models of the same name are moved to the trash first; otherwise that is an error.

    Returns
    -------
    Installed
        The models.

    Raises
    ------
    ModelError, ResourceError
        If the zip is damaged, holds something else or is not safe, a model exists, or the disk is full. Nothing is left
        behind then.
    """
    bundle = inspect(path)
    target = make_folder(results) / bundle.dataset
    remove_leftovers(results)
    there = [name for name in bundle.models if (target / name).exists()]
    if there and not replace:
        raise ModelError(
            f"{', '.join(there)} of {bundle.dataset} exist{'s' if len(there) == 1 else ''} in {results} already. "
            "Use --replace to move what is there to the trash first."
        )
    beside = results / partial_name(bundle.dataset)
    yield Stage(name=f"Unpacking {path.name}", total=100)
    try:
        for done in extract(bundle, beside):
            yield Progress(done=round(100 * done / max(bundle.size, 1)), total=100)
        yield Stage(name="Checking the models")
        for name in bundle.models:
            _check(beside / name)
            yield Progress(done=1, total=1)
        for name in there:
            trash_model(target / name)
        _move(beside, target, bundle)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Installed(tuple(target / name for name in bundle.models), bundle.card)


def download_model(url: str, results: Path, *, sha256: str | None = None, replace: bool = False) -> Job[Installed]:
    """Download a zip with models and install them; an interrupted download is continued by the same call.

    Parameters
    ----------
    url : str
        http or https.
    results, replace
        As for :func:`install_zip`.
    sha256 : str, optional
        Checksum of the zip.
    """
    yield Stage(name="Downloading", total=1000)
    path: Path | None = None
    with closing(download(url, cache_folder() / "downloads", sha256=sha256)) as pieces:  # type: ignore[type-var]
        for piece in pieces:
            if isinstance(piece, Path):
                path = piece
                continue
            done, total = piece
            yield Progress(done=round(1000 * done / total) if total else 0, total=1000)
    if path is None:
        raise ModelError(f"{url} returned no file.")
    result = yield from install_zip(path, results, replace=replace)
    path.unlink(missing_ok=True)
    return result


def _check(folder: Path) -> None:
    """Make sure a model can be loaded, its weights included."""
    model = load_model(folder)
    for path in sorted(folder.glob("fold_*/checkpoint_*.pth")):
        read_checkpoint(path)
    if not model.checkpoints:
        raise ModelError(f"{folder.name} has no usable checkpoint.")


def _move(beside: Path, target: Path, bundle: Bundle) -> None:
    """Bring unpacked models into place; what the dataset's folder has already stays, but for what was in the trash."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        for child in sorted(beside.iterdir()):
            if not (target / child.name).exists():
                os.rename(child, target / child.name)
            elif child.name == "ensembles":
                for folder in child.iterdir():
                    if not (target / "ensembles" / folder.name).exists():
                        os.rename(folder, target / "ensembles" / folder.name)
            elif child.name == FILE and bundle.card is not None:
                os.replace(child, target / child.name)
    except OSError as error:
        raise write_error(target, error) from error


def trash_model(folder: Path) -> Path:
    """Move a model's folder to the trash of its ``nnUNet_results``; returns where it is."""
    target = trash_path(folder.parent.parent / TRASH / folder.parent.name, folder.name)
    try:
        os.rename(folder, target)
    except OSError as error:
        raise write_error(target, error) from error
    return target


def read_card(folder: Path) -> ModelCard | None:
    """Return the card in a dataset's folder of results, None if there is none."""
    try:
        return ModelCard.parse(json.loads((folder / FILE).read_text(encoding="utf-8")), where=str(folder / FILE))
    except (OSError, ValueError, NnunetError):
        return None


def card_text(card: ModelCard) -> str:
    """Return a card as some lines of text."""
    lines = [card.title or card.dataset]
    lines += [card.description] if card.description else []
    lines.append(f"Channels: {', '.join(card.channels)}")
    lines.append(f"Classes: {', '.join(entry.name for entry in card.classes)}")
    for model in card.models:
        spacing = " x ".join(f"{s:g}" for s in model.spacing)
        score = "" if model.dice is None else f", Dice {model.dice:.3f} in {model.cases} validation cases"
        lines.append(f"{model.configuration}: {spacing} mm, {len(model.folds)} folds{score}")
    for name in ("authors", "licence", "citation"):
        if getattr(card, name):
            lines.append(f"{name.capitalize()}: {getattr(card, name)}")
    return "\n".join(lines)
