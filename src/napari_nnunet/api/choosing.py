"""Compare segmentations and choose the best model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_nnunet.api.doors import Folder, OnEvent, workspace_at
from napari_nnunet.events import drain
from napari_nnunet.jobs.choosing.best import find_best as find_best_job
from napari_nnunet.jobs.choosing.compare import compare_folders
from napari_nnunet.jobs.choosing.evaluate import evaluate as evaluate_job
from napari_nnunet.schema.requests.choosing import CompareRequest, EvaluateFolderRequest, FindBestRequest
from napari_nnunet.schema.requests.keywords import keywords

if TYPE_CHECKING:
    from napari_nnunet.jobs.choosing.best import Answer
    from napari_nnunet.jobs.choosing.compare import Comparison
    from napari_nnunet.jobs.choosing.evaluate import Evaluation


@keywords(FindBestRequest)
def find_best(
    dataset: str, *, workspace: Folder | None = None, on_event: OnEvent | None = None, **changes: Any
) -> Answer:
    """Compare all trained models of a dataset, and ensembles of them, by their cross-validations.

    Parameters
    ----------
    dataset, workspace, on_event
        As for :func:`verify_dataset`.
    **changes

    Returns
    -------
    Answer
        ``best``, ``scored``, ``postprocessing``; nnU-Net's files have been written.
    """
    return drain(find_best_job(workspace_at(workspace), FindBestRequest.of(dataset=dataset, **changes)), on_event)


@keywords(EvaluateFolderRequest)
def evaluate(
    reference: Folder, prediction: Folder, dataset_json: Folder, *, on_event: OnEvent | None = None, **changes: Any
) -> Evaluation:
    """Compare a folder of segmentations with a folder of references, and write summary.json beside them.

    Parameters
    ----------
    reference, prediction : str or Path
        Folders with files of the same names.
    dataset_json : str or Path
        Which labels there are.
    on_event
        As for :func:`verify_dataset`.
    **changes

    Returns
    -------
    Evaluation
        ``summary``, ``dice``, ``cases``, ``csv()``.
    """
    where = {"reference": reference, "prediction": prediction, "dataset_json": dataset_json}
    return drain(evaluate_job(EvaluateFolderRequest.of(**where, **changes)), on_event)


@keywords(CompareRequest)
def compare(first: Folder, second: Folder, *, on_event: OnEvent | None = None, **changes: Any) -> Comparison:
    """Compare two folders of segmentations, of two models or two readers.

    Parameters
    ----------
    first, second : str or Path
        Folders with files of the same names.
    on_event
        As for :func:`verify_dataset`.
    **changes

    Returns
    -------
    Comparison
        ``cases``, the most different first; ``text()``, ``csv()``, ``evaluation``.
    """
    return drain(compare_folders(CompareRequest.of(first=first, second=second, **changes)), on_event)
