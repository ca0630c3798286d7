"""Jobs are given to Slurm, or to processes of this computer, through submitit."""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_nnunet.errors import ResourceError, SettingsError
from napari_nnunet.formats.atomic import make_folder
from napari_nnunet.processes.alone import python
from napari_nnunet.processes.cluster.scheduled import NOTICE, ScheduledJob
from napari_nnunet.processes.cluster.start import needed
from napari_nnunet.processes.cluster.where import JOBS, JOBS_OF, Queue, Scheduler, Where

_TIMES = 1000  # a job may reach its time limit and be run again
_NO_LIMIT = 10 * 365 * 24 * 60  # minutes: submitit's local jobs have one
_SWITCH = re.compile(r"--([a-z][a-z0-9-]*)(?:[= ](.+))?")
PRINT = "Let --dry_run print a command for each job, and give these to your scheduler."


@dataclass(frozen=True, eq=False)
class Handle:
    """A job that was submitted.

    Parameters
    ----------
    number : str
        The scheduler's.
    log : Path
        The file with what it prints.
    over : callable
        Whether it has ended; asked of local jobs only.
    end : callable
        Lets a local job save and end.
    """

    number: str
    log: Path
    over: Callable[[], bool] = bool
    end: Callable[[], object] = bool


def require_scheduler(place: Where) -> None:
    """Look whether jobs can be submitted there, before anything is.

    Raises
    ------
    SettingsError
        If trainings cannot be jobs of it.
    ResourceError
        If it, or submitit, is not installed here.
    """
    if isinstance(place, Scheduler):
        raise SettingsError(
            f"{place.address} is a dask scheduler, whose tasks take seconds; trainings take hours and are jobs.",
            shell="Give local, local:N (so many at a time on this computer), or slurm:FILE.toml.",
            window=JOBS_OF,
        )
    if isinstance(place, Queue) and place.kind != "slurm":
        raise SettingsError(
            f"Trainings are submitted through submitit, which knows Slurm, not {place.kind}.",
            shell=PRINT,
            window=JOBS_OF,
        )
    if os.name == "nt":
        raise ResourceError(
            "submitit, through which jobs are submitted, works on Linux and macOS only.",
            shell=PRINT,
            window="Train on this computer, without jobs.",
        )
    needed("submitit")
    if isinstance(place, Queue):
        slurm_parameters(place, 1)
        missing = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
        if missing:
            raise ResourceError(
                f"There is no {' and no '.join(missing)} on this machine, so it cannot submit jobs to Slurm. "
                "Run this on a login node of the cluster, or give local:N.",
                shell=PRINT,
            )


def slurm_parameters(settings: Queue, processes: int) -> dict[str, Any]:
    """Return what submitit calls the settings of a job.

    Parameters
    ----------
    settings : Queue
        Of a file about Slurm.
    processes : int
        GPUs of a job, where it has some.

    Raises
    ------
    SettingsError
        If a directive is not written out: ``--constraint=a100``.
    """
    more: dict[str, Any] = {"requeue": True, "kill-on-invalid-dep": "yes"}
    for line in settings.directives:
        found = _SWITCH.fullmatch(line.strip())
        if found is None:
            raise SettingsError(
                f"directives: {line!r} is not understood. Write options of sbatch out, such as "
                "'--constraint=a100' or '--exclusive'."
            )
        more[found[1]] = True if found[2] is None else found[2].strip()
    return {
        "time": settings.minutes,
        "cpus_per_task": settings.cores,
        "mem": f"{math.ceil(settings.gigabytes * 1000)}M",
        "gres": f"gpu:{processes}" if settings.gpu else None,
        "partition": settings.queue,
        "account": settings.account,
        "setup": ["export OMP_WAIT_POLICY=PASSIVE", *settings.setup],
        "signal_delay_s": NOTICE,
        "stderr_to_stdout": True,
        "wckey": None,  # sites that know such keys refuse submitit's own
        "additional_parameters": more,
    }


def private_folder(folder: Path) -> Path:
    """Return the folder of submitit's files, which nobody else may read or write: it holds pickles."""
    made = make_folder(folder.expanduser().absolute())
    if hasattr(os, "getuid") and made.stat().st_uid != os.getuid():
        raise ResourceError(
            f"{made} belongs to another user. What lies there is executed, so it must be yours: set folder in the "
            "settings, or HOME."
        )
    made.chmod(0o700)
    return made


class LocalJobs:
    """Processes of this computer."""

    def __init__(self) -> None:
        local = needed("submitit").LocalExecutor
        self._executor = local(private_folder(JOBS) / "%j", max_num_timeout=_TIMES)
        self._executor.update_parameters(timeout_min=_NO_LIMIT, stderr_to_stdout=True)

    def submit(self, job: ScheduledJob) -> Handle:
        """Start a process, which Ctrl-C in the terminal does not reach: a training ends with its step, not within."""
        with _deaf_to_ctrl_c():
            made = self._executor.submit(job)

        def end() -> None:
            if not made.done():
                os.kill(int(made.job_id), signal.SIGTERM)  # passed on to the job

        return Handle(str(made.job_id), Path(made.paths.stdout), made.done, end)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Start processes that ignore Ctrl-C; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class SlurmJobs:
    """Jobs of Slurm.

    Parameters
    ----------
    settings : Queue
        Of a file about Slurm.
    processes : int
        GPUs of a job, where it has some.
    """

    def __init__(self, settings: Queue, processes: int) -> None:
        slurm = needed("submitit").SlurmExecutor
        folder = private_folder(settings.logs) / "%j"
        interpreter = shlex.quote(settings.python or python())
        self._executor = slurm(folder, max_num_timeout=_TIMES, python=interpreter)
        self._executor.update_parameters(**slurm_parameters(settings, processes))

    def submit(self, job: ScheduledJob, name: str, needs: Sequence[str] = ()) -> Handle:
        """Submit a job that begins when others have ended well.

        Parameters
        ----------
        job : ScheduledJob
            What it does.
        name : str
            For lists of jobs.
        needs : sequence of str
            Numbers of these others.

        Raises
        ------
        ResourceError
            If Slurm refuses it; says what Slurm says.
        """
        after = f"afterok:{':'.join(needs)}" if needs else None
        self._executor.update_parameters(job_name=name, dependency=after)
        try:
            made = self._executor.submit(job)
        except (RuntimeError, OSError) as error:  # submitit's own are RuntimeErrors
            said = " ".join(str(error).split())
            raise ResourceError(f"Slurm refused the job {name}: {said}") from error
        return Handle(str(made.job_id), Path(made.paths.stdout))
