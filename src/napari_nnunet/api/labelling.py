"""Find labels that look wrong, and what to label next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari_nnunet.api.doors import Folder, OnEvent, workspace_at
from napari_nnunet.events import drain
from napari_nnunet.jobs.labelling.label_errors import find_label_errors as find_label_errors_job
from napari_nnunet.jobs.labelling.suggest import suggest as suggest_job
from napari_nnunet.schema.requests.keywords import keywords
from napari_nnunet.schema.requests.labelling import FindLabelErrorsRequest, SuggestRequest

if TYPE_CHECKING:
    from napari_nnunet.jobs.labelling.suggestion import Suggestions
    from napari_nnunet.jobs.labelling.suspects import LabelErrors


@keywords(FindLabelErrorsRequest)
def find_label_errors(
    dataset: str, *, workspace: Folder | None = None, on_event: OnEvent | None = None, **changes: Any
) -> LabelErrors:
    """Compare the labels of a dataset with the cross-validation of one of its models, and list the cases, worst first.

    Parameters
    ----------
    dataset, workspace, on_event
        As for :func:`verify_dataset`.
    **changes

    Returns
    -------
    LabelErrors
        ``suspects``, ``cases``, ``csv()``, ``file``: the table that has been written.
    """
    return drain(
        find_label_errors_job(workspace_at(workspace), FindLabelErrorsRequest.of(dataset=dataset, **changes)), on_event
    )


@keywords(SuggestRequest)
def suggest(
    dataset: str,
    source: Folder | Sequence[Folder],
    *,
    workspace: Folder | None = None,
    on_event: OnEvent | None = None,
    **changes: Any,
) -> Suggestions:
    """Rank unlabelled images, slices or boxes by what a model of the dataset sees there: what to label next.

    Parameters
    ----------
    dataset, workspace, on_event
        As for :func:`verify_dataset`.
    source : path or sequence of path
        A folder of images, or files.
    **changes

    Returns
    -------
    Suggestions
        ``chosen``: places, with voxels and estimated minutes; ``gain``: what more cases are likely to bring;
        ``csv()``; ``file``: the table that has been written.
    """
    request = SuggestRequest.of(dataset=dataset, source=source, **changes)
    return drain(suggest_job(workspace_at(workspace), request), on_event)
