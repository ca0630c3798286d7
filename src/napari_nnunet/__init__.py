"""nnU-Net inside napari: segment images with trained models.

The public names are loaded when they are first used, so that importing the package loads neither torch nor napari.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_nnunet.version import __version__

if TYPE_CHECKING:
    from napari_nnunet.api.choosing import compare, evaluate, find_best
    from napari_nnunet.api.labelling import find_label_errors, suggest
    from napari_nnunet.api.large import predict_image
    from napari_nnunet.api.prediction import ensemble_predict, predict, predict_best
    from napari_nnunet.api.sharing import export_models, fetch_model, install_models, list_models
    from napari_nnunet.api.training import plan_and_preprocess, train, train_all, verify_dataset
    from napari_nnunet.errors import NnunetError
    from napari_nnunet.formats.dataset.raw_dataset import generate_dataset_json
    from napari_nnunet.formats.images.files import read_volume, write_labels
    from napari_nnunet.formats.model.folder import TrainedModel, load_model
    from napari_nnunet.jobs.dataset.look import look_at
    from napari_nnunet.jobs.prediction.result import Prediction
    from napari_nnunet.schema.geometry import Geometry
    from napari_nnunet.schema.requests.planning import PlanSettings
    from napari_nnunet.schema.requests.prediction import PredictSettings
    from napari_nnunet.schema.requests.training import TrainSettings
    from napari_nnunet.volume import Volume


__all__ = [
    "Geometry",
    "NnunetError",
    "PlanSettings",
    "PredictSettings",
    "Prediction",
    "TrainSettings",
    "TrainedModel",
    "Volume",
    "__version__",
    "compare",
    "ensemble_predict",
    "evaluate",
    "export_models",
    "fetch_model",
    "find_best",
    "find_label_errors",
    "generate_dataset_json",
    "install_models",
    "list_models",
    "load_model",
    "look_at",
    "plan_and_preprocess",
    "predict",
    "predict_best",
    "predict_image",
    "read_volume",
    "suggest",
    "train",
    "train_all",
    "verify_dataset",
    "write_labels",
]

_HOMES = {
    "Geometry": "napari_nnunet.schema.geometry",
    "NnunetError": "napari_nnunet.errors",
    "PlanSettings": "napari_nnunet.schema.requests.planning",
    "PredictSettings": "napari_nnunet.schema.requests.prediction",
    "Prediction": "napari_nnunet.jobs.prediction.result",
    "TrainSettings": "napari_nnunet.schema.requests.training",
    "TrainedModel": "napari_nnunet.formats.model.folder",
    "Volume": "napari_nnunet.volume",
    "compare": "napari_nnunet.api.choosing",
    "ensemble_predict": "napari_nnunet.api.prediction",
    "evaluate": "napari_nnunet.api.choosing",
    "export_models": "napari_nnunet.api.sharing",
    "fetch_model": "napari_nnunet.api.sharing",
    "find_best": "napari_nnunet.api.choosing",
    "find_label_errors": "napari_nnunet.api.labelling",
    "suggest": "napari_nnunet.api.labelling",
    "generate_dataset_json": "napari_nnunet.formats.dataset.raw_dataset",
    "install_models": "napari_nnunet.api.sharing",
    "list_models": "napari_nnunet.api.sharing",
    "load_model": "napari_nnunet.formats.model.folder",
    "look_at": "napari_nnunet.jobs.dataset.look",
    "plan_and_preprocess": "napari_nnunet.api.training",
    "predict": "napari_nnunet.api.prediction",
    "predict_best": "napari_nnunet.api.prediction",
    "predict_image": "napari_nnunet.api.large",
    "read_volume": "napari_nnunet.formats.images.files",
    "train": "napari_nnunet.api.training",
    "train_all": "napari_nnunet.api.training",
    "verify_dataset": "napari_nnunet.api.training",
    "write_labels": "napari_nnunet.formats.images.files",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'napari_nnunet' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
