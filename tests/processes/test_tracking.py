"""Figures of a training go to the trackers of a lab, which cannot end it, whatever they do."""

from __future__ import annotations

import json
import threading
from importlib.util import find_spec

import pytest

from napari_nnunet.errors import SettingsError
from napari_nnunet.events import Ended, EpochDone, Note, drain
from napari_nnunet.processes import tracking
from napari_nnunet.processes.tracking import Run, figures, require_trackers, tracked
from napari_nnunet.schema.requests.training import TrainSettings


def epoch(number, **changes):
    given = {
        "epoch": number, "epochs": 2, "train_loss": 0.5 - number, "val_loss": 0.25, "dice": (0.75, None),
        "names": ("organ", "tumour (left)"), "average": None, "rate": 0.01, "seconds": 2.0,
    }  # fmt: skip
    return EpochDone(**{**given, **changes})


def training(epochs=(0, 1), error=None):
    for number in epochs:
        yield epoch(number)
    if error is not None:
        raise error
    return 0.875


def run(folder):
    return Run(
        folder / "results" / "model" / "fold_0", folder / "results", "Dataset001_A", "model fold 0", {"seed": "3"}
    )


def follow(folder, *names, job=None):
    events = []
    result = drain(
        tracked(
            job or training(), names, run(folder), ending=lambda _: Ended(how="finished", text=""),
            last=lambda dice: {"validation/dice": dice},
        ),
        events.append,
    )  # fmt: skip
    assert [e.epoch for e in events if isinstance(e, EpochDone)] == [0, 1]
    return result, [e.text for e in events if isinstance(e, Note)]


class Memory:
    """A tracker that remembers."""

    def __init__(self, _):
        self.seen, self.ended = [], None
        Memory.last = self

    def scalars(self, step, values):
        self.seen.append((step, dict(values)))

    def close(self, how):
        self.ended = how


class Failing(Memory):
    def scalars(self, step, values):
        raise OSError("the server is on fire")


def use(monkeypatch, **trackers):
    monkeypatch.setattr(tracking, "_TRACKERS", trackers)


def test_the_figures_of_epochs_have_names_and_those_that_are_unknown_are_left_out():
    assert figures(epoch(1, val_loss=float("nan"))) == {
        "loss/train": -0.5, "learning_rate": 0.01, "seconds_per_epoch": 2.0, "pseudo_dice/organ": 0.75
    }  # fmt: skip


def test_a_tracker_gets_every_epoch_and_how_it_ended(tmp_path, monkeypatch):
    use(monkeypatch, mlflow=Memory)
    assert follow(tmp_path, "mlflow") == (0.875, [])
    assert [step for step, _ in Memory.last.seen] == [0, 1, 1]
    assert Memory.last.seen[-1][1] == {"validation/dice": 0.875}
    assert Memory.last.ended == "finished"


@pytest.mark.parametrize(("how", "error"), [("failed", ValueError("diverged")), ("stopped", None)])
def test_a_tracker_knows_of_a_training_that_did_not_finish(tmp_path, monkeypatch, how, error):
    use(monkeypatch, mlflow=Memory)
    job = tracked(training(error=error), ["mlflow"], run(tmp_path), ending=lambda _: None, last=lambda _: {})
    if error is None:
        next(job)
        job.close()
    else:
        with pytest.raises(ValueError, match="diverged"):
            drain(job)
    assert Memory.last.ended == how


def test_what_a_library_says_is_noted_without_passwords_and_keys(tmp_path, monkeypatch):
    class Unreachable(Memory):
        def __init__(self, run):
            raise ConnectionError("https://me:pa:ss@lab.org/api failed with 0123abcd-key; see https://lab.org/help")

    monkeypatch.setenv("WANDB_API_KEY", "0123abcd-key")
    use(monkeypatch, wandb=Unreachable)
    _, (note,) = follow(tmp_path, "wandb")
    assert "https://***@lab.org/api failed with ***; see https://lab.org/help" in note


def test_a_tracker_that_fails_is_said_once_and_the_others_go_on(tmp_path, monkeypatch):
    use(monkeypatch, mlflow=Memory, wandb=Failing)
    result, notes = follow(tmp_path, "wandb", "mlflow")
    assert result == 0.875
    (note,) = notes
    assert "Weights & Biases does not get the figures" in note and "the server is on fire" in note


def test_a_tracker_that_never_answers_holds_nothing_up(tmp_path, monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(tracking, "_PATIENCE", 0.05)
    use(monkeypatch, mlflow=lambda _: never.wait())
    result, notes = follow(tmp_path, "mlflow")
    never.set()
    assert result == 0.875
    assert "no answer within" in notes[0]


def test_a_tracker_that_is_not_installed_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"MLflow is not installed: pip install 'napari-nnunet\[mlflow\]'"):
        require_trackers(["mlflow"])


def test_the_earlier_flag_is_one_of_them():
    assert TrainSettings(tensorboard=True, track=("mlflow", "tensorboard")).trackers == ("mlflow", "tensorboard")


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_tensorboard_reads_what_was_written(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert follow(tmp_path, "tensorboard")[1] == []
    found = EventAccumulator(str(run(tmp_path).folder / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in found.Scalars("loss/train")] == [(0, 0.5), (1, -0.5)]
    assert found.Scalars("validation/dice")[0].value == 0.875


@pytest.mark.skipif(find_spec("mlflow") is None, reason="MLflow is not installed")
def test_mlflow_keeps_one_run_also_of_a_training_that_is_resumed(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from mlflow.tracking import MlflowClient

    for _ in range(2):
        assert follow(tmp_path, "mlflow")[1] == []
    identifier = json.loads((run(tmp_path).folder / "tracking.json").read_text(encoding="utf-8"))["mlflow"]
    client = MlflowClient((tmp_path / "results" / "mlruns").as_uri())
    found = client.get_run(identifier)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"seed": "3"}
    assert found.data.metrics["loss/train"] == -0.5 and found.data.metrics["validation/dice"] == 0.875
    assert len(client.search_runs([found.info.experiment_id])) == 1


@pytest.mark.skipif(find_spec("wandb") is None, reason="Weights & Biases is not installed")
def test_weights_and_biases_stays_on_this_computer(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert follow(tmp_path, "wandb")[1] == []
    identifier = json.loads((run(tmp_path).folder / "tracking.json").read_text(encoding="utf-8"))["wandb"]
    assert list(run(tmp_path).folder.rglob(f"offline-run-*/run-{identifier}.wandb"))
