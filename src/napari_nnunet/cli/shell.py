"""What every verb has: where things lie, and how progress is shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from napari_nnunet.cli.show import show
from napari_nnunet.events import CaseFailed, Job, Pump
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.requests.option import Request, option
from napari_nnunet.schema.requests.words import words

T = TypeVar("T")


class ShellRequest(Request):
    """Flags of every verb."""

    workspace: Path | None = option(
        "Workspace",
        "--workspace DIR",
        "Folder with nnUNet_raw, nnUNet_preprocessed and nnUNet_results.",
        default=None,
        otherwise="nnU-Net's three environment variables, else a folder of this user",
    )
    verbose: bool = option("Verbose", "--verbose", "Print every note.", default=False)
    bar: bool = option("Progress bar", "--no_pbar --disable_progress_bar", "No progress bar.", default=True, sets=False)
    events: Path | None = option("Events", "--events FILE", "Append every event to FILE as JSON lines.", default=None)


class Shell:
    """Runs jobs and shows them as the flags ask.

    Parameters
    ----------
    request : ShellRequest
        What was typed.
    """

    def __init__(self, request: ShellRequest) -> None:
        self._request = request
        self.failed = 0  # cases of jobs that went on without them

    @property
    def workspace(self) -> Workspace:
        """Where datasets and models lie."""
        return Workspace.resolve(self._request.workspace, os.environ)

    @property
    def words(self) -> list[str]:
        """What is typed for the same in another process."""
        return words((self._request,))

    def run(self, job: Job[T]) -> T:
        """Run a job to its end and return its result; cases that failed meanwhile are counted."""
        request = self._request
        return show(self._counted(job), events=request.events, bar=request.bar, verbose=request.verbose)

    def _counted(self, job: Job[T]) -> Job[T]:
        with Pump(job) as pump:
            for event in pump:
                self.failed += isinstance(event, CaseFailed)
                yield event
        return pump.result
