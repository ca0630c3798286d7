"""Schedulers and workers are found, or started: on this computer, or as jobs of a queueing system."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from napari_nnunet.engine.machine import gpus
from napari_nnunet.errors import ResourceError
from napari_nnunet.formats.atomic import make_folder
from napari_nnunet.processes.alone import python
from napari_nnunet.processes.cluster.where import Local, Queue, Scheduler, Where
from napari_nnunet.processes.cluster.worker import GPU

INSTALL = "Install them with 'pip install \"napari-nnunet[cluster]\"'."
_CONNECT = 10.0  # seconds until a scheduler answers
_PATIENCE = 5.0  # seconds until a worker ends that was asked to
_QUIET = logging.CRITICAL
_CLASSES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}


def needed(name: str) -> Any:
    """Return a module that only clusters need.

    Raises
    ------
    ResourceError
        If it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0].replace("_", "-")
        raise ResourceError(f"Clusters need {package} and more, which are not installed. {INSTALL}") from error


@dataclass(frozen=True, eq=False)
class Started:
    """A scheduler one is connected to.

    Parameters
    ----------
    client : distributed.Client
        The connection.
    wanted : int
        Workers that were asked for, 0 where somebody else starts them.
    processes : tuple of Popen
        Those of this computer.
    printed : Path, optional
        The folder with what they print.
    """

    client: Any
    wanted: int = 0
    processes: tuple[subprocess.Popen[bytes], ...] = ()
    printed: Path | None = None


@contextmanager
def started(place: Where) -> Iterator[Started]:
    """Give a connection to the scheduler that ``--cluster`` names, for as long as the block lasts.

    Raises
    ------
    ResourceError
        If nobody answers there, nothing can be started, or the libraries are not installed.
    """
    distributed = needed("distributed")
    with ExitStack() as stack:
        if isinstance(place, Scheduler):
            yield Started(_connected(stack, distributed, place.address))
            return
        security = _security(distributed)
        if isinstance(place, Local):
            temporary = tempfile.TemporaryDirectory(prefix="napari-nnunet-", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(temporary))
            cluster = stack.enter_context(_scheduler(distributed, security))
            client = _connected(stack, distributed, cluster, security)
            processes = _workers(place.workers, cluster.scheduler_address, security, folder)
            stack.callback(_end, processes)
            yield Started(client, place.workers, processes, folder)
            return
        cluster = stack.enter_context(queue_cluster(place, security))
        cluster.scale(jobs=place.workers)
        yield Started(_connected(stack, distributed, cluster, security), place.workers)


def _connected(stack: ExitStack, distributed: Any, scheduler: Any, security: Any = None) -> Any:
    try:
        client = distributed.Client(scheduler, timeout=_CONNECT, set_as_default=False, security=security)
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ResourceError(
            f"No dask scheduler answers at {scheduler} ({reason}). Start one there with 'dask scheduler', or check "
            "host and port. Nothing was begun."
        ) from error
    stack.callback(client.close, timeout=2)
    return client


def _security(distributed: Any) -> Any:
    """Return keys for this run alone: nobody else on the computer or in the network may send work."""
    needed("cryptography")
    return distributed.Security.temporary()


def _scheduler(distributed: Any, security: Any) -> Any:
    """Return a scheduler within this process, which only this computer reaches."""
    return distributed.LocalCluster(
        n_workers=0,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        security=security,
        silence_logs=_QUIET,
    )


def _workers(count: int, address: str, security: Any, folder: Path) -> tuple[subprocess.Popen[bytes], ...]:
    """Start workers on this computer, each with a GPU of its own where there are some.

    They are programs of their own: processes that dask forks would run the script of whoever calls us again.
    """
    keys = security.get_tls_config_for_role("worker")
    for name in ("ca_file", "cert", "key"):
        path = folder / name
        path.touch(mode=0o600)
        path.write_text(keys[name], encoding="ascii")
    found, processes = gpus(), []
    for number in range(count):
        options = {
            **{f"--tls-{name.replace('_', '-')}": folder / name for name in ("ca_file", "cert", "key")},
            "--nthreads": 1,
            "--memory-limit": 0,  # what a task takes is ours to judge
            "--name": f"{number}",
            "--local-directory": folder,
            "--death-timeout": 60,
        }
        environment = None
        if found:
            options["--resources"] = f"{GPU}=1"
            environment = {**_environment(), "CUDA_VISIBLE_DEVICES": found[number % len(found)]}
        words = [str(word) for pair in options.items() for word in pair]
        with (folder / f"{number}.log").open("wb") as log:
            command = [python(), "-m", "distributed.cli.dask_worker", address, *words, "--no-dashboard"]
            processes.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
                )
            )
    return tuple(processes)


def _environment() -> dict[str, str]:
    # Threads that wait sleep, as in every process of the command line.
    return {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}


def _end(processes: tuple[subprocess.Popen[bytes], ...]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def queue_cluster(settings: Queue, security: Any = None) -> Any:
    """Return a scheduler within this process whose workers will be jobs of a queueing system; none is submitted yet.

    Parameters
    ----------
    settings : Queue
        Of the jobs.
    security : distributed.Security, optional
        Keys; they are written, for this user alone, into the folder of the logs.
    """
    jobqueue = needed("dask_jobqueue")
    folder = make_folder(settings.logs)
    folder.chmod(0o700)
    # One task at a time per worker, which uses all cores of its job. The last of several options counts.
    extra = [
        "--nthreads",
        "1",
        "--memory-limit",
        "0",
        "--no-dashboard",
        *(["--resources", f"{GPU}=1"] if settings.gpu else []),
    ]
    own, directives = _own(settings)
    return getattr(jobqueue, _CLASSES[settings.kind])(
        n_workers=0,
        cores=settings.cores,
        processes=1,
        memory=settings.memory,
        job_name="napari-nnunet",
        queue=settings.queue,
        walltime=_walltime(settings),
        interface=settings.interface,
        python=settings.python or python(),
        worker_extra_args=extra,
        job_extra_directives=[*directives, *settings.directives],
        job_script_prologue=["export OMP_WAIT_POLICY=PASSIVE", *settings.setup],
        log_directory=str(folder),
        shared_temp_directory=str(folder),
        security=security,
        silence_logs=_QUIET,
        scheduler_options={"dashboard_address": "127.0.0.1:0"},  # it asks nobody who they are
        **own,
    )


def _walltime(settings: Queue) -> str:
    """Return the time limit in the form that a queueing system knows.

    Days are Slurm's alone, LSF knows no seconds, and the others take two numbers for minutes and seconds.
    """
    if settings.kind == "slurm" and settings.walltime.count(":") == 2:
        return settings.walltime
    hours, minutes = divmod(settings.minutes, 60)
    return f"{hours:02}:{minutes:02}" + ("" if settings.kind == "lsf" else ":00")


def _own(settings: Queue) -> tuple[dict[str, Any], list[str]]:
    """Return what each queueing system calls its own: keywords of its class, and lines of its job scripts."""
    memory = f"{math.ceil(settings.gigabytes * 1000)}MB"
    match settings.kind:
        case "slurm":
            return {"account": settings.account}, ["--gres=gpu:1"] if settings.gpu else []
        case "pbs":
            gpu = ":ngpus=1" if settings.gpu else ""
            chosen = f"select=1:ncpus={settings.cores}:mem={memory}{gpu}"
            return {"account": settings.account, "resource_spec": chosen}, []
        case "lsf":
            # Units of memory differ between sites; LSF's own default is MB.
            named = {"project": settings.account, "lsf_units": "mb"}
            return named, ['-gpu "num=1"'] if settings.gpu else []
        case _:
            # Sites name their parallel environment and their GPUs as they like: those are lines of their own.
            return {"project": settings.account}, []
