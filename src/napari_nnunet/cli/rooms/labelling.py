"""Labels: where they are wrong, and what to label next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_nnunet.errors import counted, of_all, some
from napari_nnunet.formats.results.accepted import ACCEPTED_FILE
from napari_nnunet.jobs.labelling.label_errors import find_label_errors as find_label_errors_job
from napari_nnunet.jobs.labelling.suggest import suggest as suggest_job

if TYPE_CHECKING:
    from napari_nnunet.cli.shell import Shell
    from napari_nnunet.schema.requests.labelling import FindLabelErrorsRequest, SuggestRequest

_SHOWN = 20


def find_label_errors(request: FindLabelErrorsRequest, shell: Shell) -> None:
    """List the cases whose labels look wrong."""
    found = shell.run(find_label_errors_job(shell.workspace, request))
    cases = of_all(len(found.suspects), len(found.cases), "case looks", "cases look")
    print(f"{cases} wrong (compared with {found.model}).")
    for rank, case in enumerate(found.suspects[:_SHOWN], start=1):
        print(f"{rank}. {case.name}: Dice {case.dice:.3f}, score {case.score:.2f}" + (case.text and f"; {case.text}"))
    if len(found.suspects) > _SHOWN:
        print(f"... and {len(found.suspects) - _SHOWN} more.")
    if found.accepted:
        print(f"Accepted, in {found.folder / ACCEPTED_FILE}: {some([case.name for case in found.accepted])}.")
    for group in found.copies[:_SHOWN]:
        print(f"Copies: {some(group.names)}: {group.text}.")
    if len(found.copies) > _SHOWN:
        print(f"... and {len(found.copies) - _SHOWN} more groups of copies.")
    print(found.file)


def suggest(request: SuggestRequest, shell: Shell) -> None:
    """List what to label next, and what it costs."""
    found = shell.run(suggest_job(shell.workspace, request))
    print(f"{len(found.chosen)} of {found.considered} {request.unit}, by {found.model}:")
    for rank, suggestion in enumerate(found.chosen[:_SHOWN], start=1):
        place = suggestion.place
        where = "" if request.unit == "cases" else f" {place.where}"
        print(f"{rank}. {place.case}{where}: about {suggestion.minutes:.1f} minutes, entropy {place.entropy:.3f}")
    if len(found.chosen) > _SHOWN:
        print(f"... and {len(found.chosen) - _SHOWN} more.")
    voxels, minutes = counted(found.voxels, "voxel"), counted(round(found.minutes), "minute")
    print(f"Together {voxels}, about {minutes} at {request.pace:g} s per outline.")
    print(f"{found.standing.text} {found.learning}")
    print(found.file)
