"""inference_information.json: which model, or which ensemble, is best for a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_nnunet.errors import ModelError
from napari_nnunet.schema.json_text import read_object
from napari_nnunet.schema.model_name import ModelName
from napari_nnunet.schema.names import Fold, typed

INFORMATION = "inference_information.json"
OBJECTS_KEY = "napari_nnunet_mean_average_precision"  # nnU-Net passes it over
INSTRUCTIONS = "inference_instructions.txt"


@dataclass(frozen=True)
class Best:
    """What a comparison of models found.

    Parameters
    ----------
    dataset : str
        Full name.
    folds : tuple
        That were compared, and that are averaged in prediction.
    models : tuple of ModelName
        The best one, or the members of the best ensemble.
    results : dict of str to float
        Mean foreground Dice of all that was compared, by identifier.
    dice, dice_cleaned : float
        Of the best, before and after postprocessing.
    postprocessing : Path
        postprocessing.pkl.
    plans_file : Path
        plans.json with a dataset.json next to it.
    objects : dict of str to float
        Mean average precision of the objects of all that was compared, by identifier; that is what the best was chosen
        by. Empty where it was the Dice.
    """

    dataset: str
    folds: tuple[Fold, ...]
    models: tuple[ModelName, ...]
    results: dict[str, float]
    dice: float
    dice_cleaned: float
    postprocessing: Path
    plans_file: Path
    objects: dict[str, float]

    @property
    def precision(self) -> float | None:
        """Mean average precision of the best's objects; None where the Dice decided."""
        return max(self.objects.values(), default=None)


def read_best(results: Path) -> Best:
    """Read the information of a dataset.

    Parameters
    ----------
    results : Path
        ``nnUNet_results/DATASET``.

    Raises
    ------
    ModelError
        If there is none, or it is not nnU-Net's.
    """
    path = results / INFORMATION
    if not path.exists():
        raise ModelError(
            f"{path} does not exist: the models of {results.name} have not been compared yet. Run "
            f"'napari-nnunet find_best_configuration {typed(results.name)}' first."
        )
    content = read_object(path, ModelError)
    try:
        best = content["best_model_or_ensemble"]
        models = tuple(
            ModelName(str(m["trainer"]), str(m["plans_identifier"]), str(m["configuration"]))
            for m in best["selected_model_or_models"]
        )
        if not models:
            raise ValueError("it names no model")
        return Best(
            dataset=results.name,
            folds=tuple(_fold(fold) for fold in content["folds"]),
            models=models,
            results={str(name): float(value) for name, value in content["all_results"].items()},
            dice=float(best["result_on_crossval_pre_pp"]),
            dice_cleaned=float(best["result_on_crossval_post_pp"]),
            postprocessing=_found(best["postprocessing_file"], results),
            plans_file=_found(best["some_plans_file"], results),
            objects={str(name): float(value) for name, value in content.get(OBJECTS_KEY, {}).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, ModelError) as error:
        raise ModelError(f"{path} is not what find_best_configuration writes ({error}). Run it again.") from error


def _fold(value: Any) -> Fold:
    return "all" if value == "all" else int(value)


def _found(text: str, results: Path) -> Path:
    """Return the file a path means: below the folder the information lies in, which may have been moved since."""
    path = Path(text)
    if results.name not in path.parts or ".." in path.parts:
        raise ValueError(f"{text} does not lie in {results.name}")
    last = len(path.parts) - 1 - path.parts[::-1].index(results.name)
    return results.joinpath(*path.parts[last + 1 :])
