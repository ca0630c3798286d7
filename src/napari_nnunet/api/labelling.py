"""Find labels that look wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_nnunet.api.doors import Folder, OnEvent, workspace_at
from napari_nnunet.events import drain
from napari_nnunet.jobs.labelling.label_errors import find_label_errors as find_label_errors_job
from napari_nnunet.schema.requests.keywords import keywords
from napari_nnunet.schema.requests.labelling import FindLabelErrorsRequest

if TYPE_CHECKING:
    from napari_nnunet.jobs.labelling.label_errors import LabelErrors


@keywords(FindLabelErrorsRequest)
def find_label_errors(
    dataset: str, *, workspace: Folder | None = None, on_event: OnEvent | None = None, **changes: Any
) -> LabelErrors:
    """Hold the labels of a dataset against the cross-validation of one of its models, and list the cases, worst first.

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
