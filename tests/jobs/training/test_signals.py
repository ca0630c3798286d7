"""A training that is told its end by a signal saves, and continues to the bit."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout

import psutil
import pytest
from trainings import SHORT, folder_of, run, same

from helpers import TRAINED
from napari_nnunet.cli import main
from napari_nnunet.cli.show import show
from napari_nnunet.events import Ended, Progress, from_json
from napari_nnunet.formats.model.checkpoint import read_raw
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.training.train import train
from napari_nnunet.processes.notice import SIGNALS
from napari_nnunet.schema.requests.training import TrainRequest


def elsewhere(function, *values):
    """Call a function in the main thread of a fresh process: signals are no matter of the process that tests."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *values).result()


def told(workspace, number, *, settings=SHORT, to=os.getpid, step=3):
    """Train until a process gets a signal at a step; returns the result, and who takes the signal afterwards."""
    return elsewhere(_train_and_tell, workspace, number, settings, to, step)


def _train_and_tell(workspace, number, settings, to, step):
    def listening():
        job, seen = train(workspace, request), 0
        try:
            while True:
                event = next(job)
                seen += isinstance(event, Progress)
                if seen == step and isinstance(event, Progress):
                    os.kill(to(), number)
                yield event
        except StopIteration as end:
            return end.value

    request = TrainRequest.like(
        settings, dataset=TRAINED, configuration="3d_fullres", fold=0, resume=True, validation=False
    )
    return show(listening(), bar=False), signal.getsignal(number)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: signal.Signals(number).name)
def test_a_signal_lets_a_training_save_and_end_and_it_continues_to_the_bit(workspace, tmp_path, number):
    other = Workspace(workspace.raw, workspace.preprocessed, tmp_path / "other")
    stopped, handler = told(other, number)
    assert not stopped.finished and stopped.signal == number
    folder = folder_of(other)
    assert read_raw(folder.latest)["current_epoch"] == 0  # within the first epoch
    last = from_json(folder.events.read_text(encoding="utf-8").splitlines()[-1])
    assert isinstance(last, Ended) and last.how == "stopped" and signal.Signals(number).name in last.text
    assert handler is signal.SIG_DFL
    run(other, resume=True, validation=False)
    same(read_raw(run(workspace, validation=False)[0].folder.final), read_raw(folder.final))


def _run_and_end(words, folder):
    """Run the command line and end this process politely once it trains; returns the status and what was printed."""

    def tell():
        while not (folder.events.is_file() and "progress" in folder.events.read_text(encoding="utf-8")):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    teller = threading.Thread(target=tell)
    teller.start()
    with redirect_stdout(io.StringIO()) as printed:
        status = main(words)
    teller.join()
    return status, printed.getvalue()


def test_a_shell_is_told_by_the_status_that_a_training_is_not_at_its_end(workspace, monkeypatch):
    for name, value in workspace.variables().items():
        monkeypatch.setenv(name, value)
    words = [
        "train", TRAINED, "3d_fullres", "0", "1", "--epochs", "500", "-device", "cpu", "--threads", "1", "--workers",
        "0", "--no_pbar",
    ]  # fmt: skip
    status, printed = elsewhere(_run_and_end, words, folder_of(workspace))
    assert status == 128 + signal.SIGTERM
    assert "Fold 0 was stopped; --c resumes it. Not started: 1." in printed
    assert folder_of(workspace).latest.is_file() and not folder_of(workspace, 1).path.exists()


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGINT], ids=["queueing system", "Ctrl+C"])
def test_a_process_that_makes_batches_is_deaf_to_what_reaches_all_processes(workspace, number):
    settings = SHORT.replace(workers=1)
    result, _ = told(workspace, number, settings=settings, to=_worker, step=2)
    assert result.finished


def test_where_the_signal_ends_a_process_that_makes_batches_the_training_stops_and_does_not_fail(workspace):
    settings = SHORT.replace(workers=1, iterations=40)
    stopped, _ = told(workspace, signal.SIGTERM, settings=settings, to=_everybody, step=2)
    assert not stopped.finished and stopped.signal == signal.SIGTERM


def _worker():
    (found,) = multiprocessing.active_children()
    return found.pid


def _everybody():
    psutil.Process(_worker()).terminate()
    return os.getpid()
