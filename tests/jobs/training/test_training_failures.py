"""What goes wrong in a training is said in words, as early as it is known."""

from __future__ import annotations

import math
import os
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from trainings import SHORT, folder_of, of, run

from helpers import TRAINED
from napari_nnunet.engine.training.learner import Learner
from napari_nnunet.errors import DatasetError, InternalError, PlanError, ResourceError, SettingsError, TrainingError
from napari_nnunet.events import (
    CheckpointSaved,
    Ended,
    Note,
    Progress,
    Stage,
    drain,
    from_json,
)
from napari_nnunet.formats.model.checkpoint import read_raw
from napari_nnunet.formats.preprocessed.cases import preprocessed_files
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.training import loader as _loader
from napari_nnunet.jobs.training import session as _session
from napari_nnunet.jobs.training.order import make_order
from napari_nnunet.jobs.training.train import train
from napari_nnunet.processes.follow import Follower
from napari_nnunet.schema.requests.training import TrainRequest


def test_what_is_not_there_is_said_before_work_starts(workspace, tmp_path):
    empty = Workspace.at(tmp_path / "empty")
    with pytest.raises(DatasetError, match="plan_and_preprocess"):
        run(empty)
    with pytest.raises(PlanError, match="nnUNetPlans"):
        run(workspace, plans="Other")
    with pytest.raises(PlanError, match="3d_lowres"):
        run(workspace, configuration="3d_lowres")
    with pytest.raises(SettingsError, match="Unknown trainer"):
        run(workspace, settings=SHORT.replace(trainer="nnUNetTrainerX"))
    with pytest.raises(SettingsError, match="Adan"):
        run(workspace, settings=SHORT.replace(trainer="nnUNetTrainerAdan"))
    with pytest.raises(DatasetError, match="no fold -1"):
        run(workspace, -1)
    with pytest.raises(SettingsError, match="resumed"):
        run(workspace, resume=True, pretrained=tmp_path / "x.pth")
    with pytest.raises(SettingsError, match="begun"):
        run(workspace, finish_in=3)
    with pytest.raises(SettingsError, match="float16"):
        run(workspace, settings=SHORT.replace(precision="float16"))
    if not torch.cuda.is_available():
        with pytest.raises(ResourceError, match="no CUDA GPU"):
            run(workspace, settings=SHORT.replace(device="cuda"))
    assert not list(workspace.results.glob("**/*.pth"))


def test_not_preprocessed_and_stale(new_workspace):
    workspace = new_workspace()
    base = workspace.preprocessed / TRAINED
    label = workspace.raw / TRAINED / "labelsTr" / "c1.nii.gz"
    os.utime(label, (1e9, 1e9))
    order = make_order(workspace, TrainRequest(dataset=TRAINED, configuration="3d_fullres", fold=0))
    assert drain(order).split.train  # the same in it
    label.write_bytes((label.parent / "c2.nii.gz").read_bytes())
    with pytest.raises(DatasetError, match=r"1 of 5 cases.*c1.*preprocess"):
        run(workspace)
    (base / "nnUNetPlans_3d_fullres").rename(base / "gone")
    with pytest.raises(DatasetError, match="not preprocessed"):
        run(workspace)


def test_a_fold_beyond_the_list_is_a_random_split_with_a_warning(workspace):
    _, events = run(workspace, 7, validation=False)
    assert any("80:20" in note.text for note in of(Note, events))


def test_splits_that_do_not_fit(new_workspace):
    workspace = new_workspace()
    path = workspace.preprocessed / TRAINED / "splits_final.json"
    path.write_text('[{"train": ["c0"], "val": ["nobody"]}]')
    with pytest.raises(DatasetError, match="nobody"):
        run(workspace)
    path.write_text("[")
    with pytest.raises(DatasetError, match="is not valid JSON"):
        run(workspace)


def test_a_damaged_case_is_named(new_workspace):
    workspace = new_workspace()
    folder = workspace.preprocessed / TRAINED / "nnUNetPlans_3d_fullres"
    image = preprocessed_files(folder, "c2")[0]
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    with pytest.raises(DatasetError, match="c2") as caught:
        run(workspace, "all", settings=SHORT.replace(workers=2, iterations=20))
    assert "Traceback" not in caught.value.message


def test_values_that_are_not_numbers_stop_it_and_name_the_case(new_workspace):
    from napari_nnunet.formats.preprocessed.cases import open_case, store_case

    workspace = new_workspace()
    folder = workspace.preprocessed / TRAINED / "nnUNetPlans_3d_fullres"
    stored = open_case(folder, "c3")
    data = np.asarray(stored.data[:])
    data[:] = np.nan
    store_case(
        folder, "c3", data, np.asarray(stored.labels[:]), stored.read_properties(), patch=(8, 16, 16), staging=folder
    )
    with pytest.raises(TrainingError, match=r"nan in epoch .*c3.*not finite"):
        run(workspace, "all", settings=SHORT.replace(iterations=30))
    text = folder_of(workspace, "all").events.read_text(encoding="utf-8")
    assert of(Ended, [from_json(line) for line in text.splitlines()])[-1].how == "failed"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "Unexpected RuntimeError: mat1 and mat2 shapes"),
        (KeyError("organ"), "Unexpected KeyError: 'organ'"),
        (MemoryError(), "Not enough memory on cpu for a training step"),
        (DatasetError("c1 is damaged."), "c1 is damaged."),
    ],
)
def test_whatever_a_training_dies_of_is_known_to_those_who_ask_later(workspace, monkeypatch, error, sentence):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Learner, "step", fail)
    with pytest.raises((type(error), ResourceError)):
        run(workspace)
    (view,) = Follower(workspace).look()
    assert view.status == "failed"
    assert view.ended.text.startswith(sentence)
    assert "in fail" not in view.ended.text
    assert "in fail" in Path(view.ended.report).read_text(encoding="utf-8")


def test_a_step_that_memory_does_not_suffice_for_says_what_would_fit(workspace, monkeypatch):
    def huge(*_, **__):
        torch.empty(1 << 58, dtype=torch.uint8)

    monkeypatch.setattr(Learner, "step", huge)
    with pytest.raises(
        ResourceError, match=r"Not enough memory on cpu for a training step with 2 .* A batch of 1 would fit"
    ):
        run(workspace)


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (
            MemoryError(),
            ResourceError,
            "Not enough main memory. Close other programs. Or let fewer processes make batches (--workers).",
        ),
        (DatasetError("c1 is damaged."), DatasetError, "c1 is damaged."),
    ],
)
def test_what_a_process_that_makes_batches_dies_of_keeps_its_kind(workspace, monkeypatch, error, kind, sentence):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(_loader, "make_batch", fail)
    with pytest.raises(kind) as caught:
        run(workspace, settings=SHORT.replace(workers=1))
    assert caught.value.message.startswith(sentence)


def test_a_fault_in_a_process_that_makes_batches_has_its_traceback_beside_the_sentence(workspace, monkeypatch):
    def fail(*_, **__):
        raise KeyError("organ")

    monkeypatch.setattr(_loader, "make_batch", fail)
    with pytest.raises(InternalError) as caught:
        run(workspace, settings=SHORT.replace(workers=1))
    assert caught.value.message == "Unexpected KeyError: 'organ'"
    assert "in fail" in caught.value.report


def test_images_that_are_not_finite_are_named_though_all_of_a_batch_are():
    batch = SimpleNamespace(image=torch.full((2, 1, 4, 4), math.nan), cases=("a", "b"))
    assert _session.Session.suspects(SimpleNamespace(_batch=batch)) == ["a", "b"]


def test_a_network_that_diverges_keeps_the_last_good_state(workspace, monkeypatch):
    settings = SHORT.replace(epochs=30)
    job = train(
        workspace,
        TrainRequest.like(settings, dataset=TRAINED, configuration="3d_fullres", fold=0),
    )
    session = []
    begin = _session.Session.learn

    def learn(self):
        session.append(self)
        if self.epoch == 2:
            with torch.no_grad():
                next(iter(self.learner.network.parameters())).fill_(math.nan)
        return begin(self)

    monkeypatch.setattr(_session.Session, "learn", learn)
    with pytest.raises(TrainingError, match="diverged") as error:
        drain(job)
    folder = folder_of(workspace)
    newest = max(folder.checkpoints, key=lambda path: path.stat().st_mtime)
    assert str(newest) in str(error.value)
    for tensor in read_raw(newest)["network_weights"].values():
        assert torch.isfinite(tensor).all()


def test_a_full_disk_at_a_checkpoint_is_told_and_tried_again(workspace, monkeypatch):
    write, calls = _session.write_checkpoint, []

    def refuse(path, *args, **kwargs):
        calls.append(path.name)
        if len(calls) <= 3 or calls.count("checkpoint_final.pth") in (1, 2):
            raise ResourceError("No space left while writing it.")
        write(path, *args, **kwargs)

    monkeypatch.setattr(_session, "write_checkpoint", refuse)
    monkeypatch.setattr(_session, "_RETRY_EVERY", 0.01)
    result, events = run(workspace, validation=False)
    assert result.finished
    assert sum("training continues" in note.text for note in of(Note, events)) >= 2
    assert sum("trying again" in note.text for note in of(Note, events)) == 2
    assert of(CheckpointSaved, events)[-1].path.endswith("checkpoint_final.pth")


@pytest.mark.parametrize("how", ["stop", "close"])
def test_a_training_that_waits_for_room_on_the_disk_still_listens(workspace, monkeypatch, how):
    def refuse(path, *_, **__):
        raise ResourceError("No space left while writing it.")

    monkeypatch.setattr(_session, "write_checkpoint", refuse)
    monkeypatch.setattr(_session, "_RETRY_EVERY", 600.0)
    request = TrainRequest.like(SHORT, dataset=TRAINED, configuration="3d_fullres", fold=0, validation=False)
    job, begun = train(workspace, request), None
    with pytest.raises(ResourceError, match="No space") if how == "stop" else nullcontext():
        for event in job:
            if isinstance(event, Note) and "trying again every" in event.text:
                begun = time.monotonic()
                if how == "stop":
                    folder_of(workspace).ask(stop=True)
            elif begun is not None and how == "close":
                job.close()
    assert time.monotonic() - begun < 120


@pytest.mark.parametrize(
    "content",
    ['{"stop": "yes"}', '{"finish_in": NaN}', '{"finish_in": -3}', '{"finish_in": [1]}', '{"pause": 1}', "[]", '{"st'],
)
def test_a_wish_that_means_nothing_is_told_and_never_ends_a_training(workspace, content):
    request = TrainRequest.like(SHORT, dataset=TRAINED, configuration="3d_fullres", fold=0, validation=False)
    events = []
    for event in train(workspace, request):
        if isinstance(event, Progress) and not of(Progress, events):
            path = folder_of(workspace).path / "control.json"
            path.write_text(content)
            os.utime(path, (1, 1))  # nobody is still writing it
        events.append(event)
    assert sum("A request to this training is ignored" in note.text for note in of(Note, events)) == 1
    assert of(Ended, events)[-1].how == "finished"


@pytest.mark.parametrize(
    ("stage", "settings"),
    [("Measuring the training step", SHORT.replace(epochs=None, time_budget=60)), ("Epoch 1 of 3", SHORT)],
    ids=["measuring", "validating"],
)
def test_stop_is_heard_at_every_step(workspace, stage, settings):
    request = TrainRequest.like(settings, dataset=TRAINED, configuration="3d_fullres", fold=0, validation=False)
    job, heard = train(workspace, request), []
    for event in job:
        heard.append(event)
        steps = [e for e in heard if isinstance(e, Progress)]
        last = stage.startswith("Measuring") or (steps and steps[-1].done > settings.iterations)
        if heard[-1:] == steps[-1:] and last and any(isinstance(e, Stage) and e.name == stage for e in heard):
            folder_of(workspace).ask(stop=True)
            break
    result = drain(job, heard.append)
    assert not result.finished
    assert result.epochs == 0
    assert folder_of(workspace).latest.is_file()
    assert sum(isinstance(event, Progress) for event in heard) == len(steps)


def test_an_event_file_that_cannot_be_written_does_not_end_it(workspace, monkeypatch):
    folder = folder_of(workspace)
    folder.path.mkdir(parents=True)
    job = train(
        workspace,
        TrainRequest.like(SHORT, dataset=TRAINED, configuration="3d_fullres", fold=0, resume=True, validation=False),
    )
    folder.events.mkdir()
    events = []
    result = drain(job, events.append)
    assert result.finished
    assert sum("is a folder, but a file is expected" in note.text for note in of(Note, events)) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # batchgenerators' own thread
def test_a_worker_that_the_system_ends_is_told_at_once(workspace, monkeypatch):
    monkeypatch.setattr(_loader, "open_case", lambda folder, name: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(ResourceError, match=r"A data-loading process was killed.*c\d"):
        run(workspace, settings=SHORT.replace(workers=1))


def test_a_step_too_large_for_memory_says_what_would_fit(workspace, monkeypatch):
    from napari_nnunet.engine.network import device as _device

    needed = [float(f) for f in (_memory_need(workspace, n) for n in (1, 2))]
    monkeypatch.setattr(_device, "available_memory", lambda: int((needed[0] + needed[1]) / 2))
    with pytest.raises(ResourceError, match="A batch of 1 would fit"):
        run(workspace)
    monkeypatch.setattr(_device, "available_memory", lambda: 1000)
    with pytest.raises(ResourceError, match="Not even one patch"):
        run(workspace)


def _memory_need(workspace, batch):
    from napari_nnunet.engine.planning.cost import step_bytes
    from napari_nnunet.formats.preprocessed.plans import read_plans

    configuration = read_plans(workspace.preprocessed / TRAINED, "nnUNetPlans").configuration("3d_fullres")
    return step_bytes(configuration.architecture, 1, 3, configuration.patch_size, batch)
