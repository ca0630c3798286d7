"""From a form to submitted trainings: what is preprocessed before, how many jobs there will be, their start."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from napari_nnunet.events import Job
from napari_nnunet.jobs.dataset.splits import SPLITS_FILE
from napari_nnunet.jobs.scheduling.pieces import make_pieces
from napari_nnunet.jobs.scheduling.train_all import train_all
from napari_nnunet.jobs.training.prepare import Needs, look_at_needs, prepare_cases
from napari_nnunet.processes.cluster.submit import require_scheduler
from napari_nnunet.processes.cluster.where import Queue, where
from napari_nnunet.processes.launch import ClusterTrainings


@dataclass(frozen=True)
class JobNeeds(Needs):
    """What is to be done before trainings can be jobs, and which jobs are left.

    Parameters
    ----------
    jobs : tuple of str, optional
        Names of those that are neither at their end nor under way; None while cases are still to be preprocessed.
    """

    jobs: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Begun:
    """What was begun.

    Parameters
    ----------
    folders : tuple of Path
        Of the folds that are trained; empty where nothing is left to train.
    process : Popen, optional
        What runs the jobs of this computer; None where Slurm has them.
    log : Path, optional
        What that process prints.
    """

    folders: tuple[Path, ...]
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None


def look_at_jobs(asked: ClusterTrainings) -> Job[JobNeeds]:
    """Find out what is to be done before trainings are submitted; nothing is written.

    Raises
    ------
    NnunetError
        If there is no such scheduler, plans or configuration, or what a training refuses.
    """
    require_scheduler(where(asked.request.cluster))
    needs = yield from look_at_needs(asked.workspace, asked.requests)
    if needs.cases or not (asked.workspace.preprocessed / asked.dataset / SPLITS_FILE).is_file():
        return JobNeeds(needs.cases, needs.unused)
    left = yield from make_pieces(asked.workspace, asked.request)
    return JobNeeds((), needs.unused, tuple(piece.name for piece in left.jobs))


def submit_trainings(asked: ClusterTrainings, *, adopt: tuple[str, ...] = ()) -> Job[Begun]:
    """Preprocess what is new or changed, then submit all trainings that are left.

    Slurm gets them here; those of this computer are run by a process of their own, which outlives this one.

    Parameters
    ----------
    asked : ClusterTrainings
        Which trainings.
    adopt : tuple of str
        Cases that every fold shall train with from now on; see :func:`prepare_cases`.

    Raises
    ------
    NnunetError
        What :func:`train_all` raises, before anything is submitted.
    """
    place = where(asked.request.cluster)
    require_scheduler(place)
    yield from prepare_cases(asked.workspace, asked.requests, adopt=adopt)
    left = yield from make_pieces(asked.workspace, asked.request)
    folders = tuple(piece.folder.path for piece in left.jobs if piece.folder is not None)
    if not left.jobs:
        return Begun(())
    if isinstance(place, Queue):
        yield from train_all(asked.workspace, asked.request)
        return Begun(folders)
    return Begun(folders, *asked.start())
