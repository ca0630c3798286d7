"""What nnU-Net leaves beside its segmentations: dataset.json, plans.json and how they were made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.atomic import copy_file, write_json
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.regular import file_hash, regular
from napari_nnunet.formats.results.recipe import read_recipe
from napari_nnunet.formats.workspace import stamp
from napari_nnunet.schema.json_text import message, read_object
from napari_nnunet.schema.objects import RULES_FILE
from napari_nnunet.schema.requests.prediction import PredictFolderRequest, PredictSettings

_MORE = "napari_nnunet"
_ARGUMENTS = "predict_from_raw_data_args.json"
#: What decides about the result; where and how fast it is computed does not.
_DECIDING = ("model", "input", "previous", "folds", "checkpoint", "step", "mirroring", "gaussian", "classes")


def write_side_files(
    model: TrainedModel,
    folder: PredictFolderRequest,
    settings: PredictSettings,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write what nnU-Net leaves next to its predictions, so that its tools can continue from here.

    ``more`` is what :func:`what_is_there` compares besides.
    """
    for name in ("dataset.json", "plans.json"):
        path = folder.target / name
        if not path.is_file() or path.read_bytes() != regular(model.folder / name).read_bytes():
            copy_file(model.folder / name, path)
    write_json(folder.target / _ARGUMENTS, {**_arguments(model, folder, settings), _MORE: _more(model, settings, more)})


def _arguments(model: TrainedModel, folder: PredictFolderRequest, settings: PredictSettings) -> dict[str, Any]:
    return {
        "model": str(model.folder),
        "input": str(folder.source[0]) if len(folder.source) == 1 else [str(source) for source in folder.source],
        "output": str(folder.target),
        "previous": None if folder.previous is None else str(folder.previous),
        "part": folder.part,
        "parts": folder.parts,
        **settings.model_dump(mode="json"),
    }


def what_is_there(
    model: TrainedModel, folder: PredictFolderRequest, more: Mapping[str, Any] | None = None
) -> Literal["nothing", "the same", "others"]:
    """Return what a folder of results holds: segmentations that the same request made, others, or none.

    Others are those of another model, of other settings or images, and those of weights that were trained on since.

    Parameters
    ----------
    model : TrainedModel
        The first one of an ensemble.
    folder : PredictFolderRequest
        What is asked for.
    more : dict, optional
        What decides of an ensemble: its members and how they are joined.
    """
    target, ending = folder.target, model.dataset.file_ending
    if not target.is_dir() or not any(path.name.endswith(ending) for path in target.iterdir()):
        return "nothing"
    try:
        arguments, recipe = read_object(target / _ARGUMENTS, DatasetError), read_recipe(target)
        settings = folder.settings(model.resolve_folds(None, folder.checkpoint))
        folds = model.resolve_folds(settings.folds, settings.checkpoint)
        wanted = _arguments(model, folder, settings)
        same = all(arguments.get(name) == wanted[name] for name in _DECIDING)
        same &= arguments.get(_MORE, {}) == json.loads(json.dumps(_more(model, settings, more)))
        same &= more is not None or recipe.get("sha256") == model.hashes(folds, settings.checkpoint)
        for name, asked in (("spacing", folder.spacing), ("region", folder.region)):
            same &= (recipe.get(name) or None) == (list(asked) if asked else None)
    except (DatasetError, OSError):
        return "others"
    return "the same" if same else "others"


def made_by(
    model: TrainedModel,
    folder: PredictFolderRequest,
    settings: PredictSettings,
    more: Mapping[str, Any] | None = None,
) -> str:
    """Return a digest of what decides about segmentations besides the images: weights, rules and settings.

    Where the model lies is no part of it, nor how fast and where it is computed. ``more`` is as for
    :func:`what_is_there`.
    """
    folds = model.resolve_folds(settings.folds, settings.checkpoint)
    own: Any = model.hashes(folds, settings.checkpoint)
    if more is not None:
        own = {**more, "members": [{**member, "model": ""} for member in more.get("members", ())]}
    deciding = {
        "weights": own,
        "files": [file_hash(regular(model.folder / name)) for name in ("plans.json", "dataset.json")],
        "before": None if folder.previous is not None else _first_stage(model, settings),
        "how": settings.model_dump(mode="json", include={"step", "mirroring", "gaussian", "classes"}),
        "asked": [list(folder.spacing or ()), list(folder.region or ())],
        "more": _more(model, settings, more) if more is None else None,
    }
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:32]


def _first_stage(model: TrainedModel, settings: PredictSettings) -> Any:
    """Return the weights of a cascade's first stage, which is predicted first; None where there is none."""
    folder = model.previous_stage_folder()
    if folder is None or not folder.is_dir():
        return None
    paths = sorted(folder.glob(f"fold_*/{settings.checkpoint}"))
    return {path.parent.name: file_hash(path) for path in paths if path.is_file()}


def _more(model: TrainedModel, settings: PredictSettings, more: Mapping[str, Any] | None) -> dict[str, Any]:
    if more is not None:
        return dict(more)
    rules = rules_of_folds(model, settings)
    return {"object_rules": rules} if rules else {}


def rules_of_folds(model: TrainedModel, settings: PredictSettings) -> dict[str, Any]:
    """Return the rules by which objects are found, of every fold that chose some; empty where classes are wanted."""
    if settings.classes:
        return {}
    folds = model.resolve_folds(settings.folds, settings.checkpoint)
    found = {f"fold_{fold}": message(model.folder / f"fold_{fold}" / RULES_FILE).get("rules") for fold in folds}
    return {fold: rules for fold, rules in found.items() if rules}


def stamps_of(model: TrainedModel, settings: PredictSettings) -> tuple[tuple[str, tuple[int, int] | None], ...]:
    """Return size and time of the files of a model that decide about its results: other ones after it was trained on.

    Raises
    ------
    ModelError
        If a fold that is wanted has no checkpoint.
    """
    paths = [model.folder / name for name in ("plans.json", "dataset.json")]
    for fold in model.resolve_folds(settings.folds, settings.checkpoint):
        paths += [model.checkpoint_path(fold, settings.checkpoint), model.folder / f"fold_{fold}" / RULES_FILE]
    first = model.previous_stage_folder()
    paths += [] if first is None else sorted(first.glob(f"fold_*/{settings.checkpoint}"))
    paths += [model.eight_bit_path] if settings.precision == "int8" else []
    return tuple((str(path), stamp(path)) for path in paths)
