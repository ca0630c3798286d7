"""Labels and where they are wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_nnunet.jobs.labelling.label_errors import find_label_errors as find_label_errors_job

if TYPE_CHECKING:
    from napari_nnunet.cli.shell import Shell
    from napari_nnunet.schema.requests.labelling import FindLabelErrorsRequest

_SHOWN = 20


def find_label_errors(request: FindLabelErrorsRequest, shell: Shell) -> None:
    """List the cases whose labels look wrong."""
    found = shell.run(find_label_errors_job(shell.workspace, request))
    print(f"{len(found.suspects)} of {len(found.cases)} cases look wrong (held against {found.model}).")
    for rank, case in enumerate(found.suspects[:_SHOWN], start=1):
        print(f"{rank}. {case.name}: Dice {case.dice:.3f}, score {case.score:.2f}" + (case.text and f"; {case.text}"))
    if len(found.suspects) > _SHOWN:
        print(f"... and {len(found.suspects) - _SHOWN} more.")
    print(found.file)
