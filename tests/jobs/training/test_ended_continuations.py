"""What ended before it was trained goes on with what it was to begin with, or says that it cannot; time counts once."""

from __future__ import annotations

import itertools
import time
from types import SimpleNamespace

import pytest
import torch
from trainings import folder_of, going_on, of, request, run

from helpers import TRAINED
from napari_nnunet.cli import main
from napari_nnunet.engine.training.heads import HeadFit
from napari_nnunet.errors import ModelError
from napari_nnunet.events import EpochDone, Note, Progress, Stage, drain
from napari_nnunet.formats.model.checkpoint import read_raw
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.jobs.training.improve import continued
from napari_nnunet.jobs.training.prepare import check_training
from napari_nnunet.jobs.training.train import train as train_job


def test_a_continuation_that_is_stopped_and_resumed_ends_as_one_that_is_not(trained):
    place, model = trained
    trainer = "nnUNetTrainerVanillaAdam1en3"
    whole, _ = going_on(place, model, "whole", trainer=trainer)
    (made,) = drain(
        continued(place, [request(continue_from=model, plans="parts", epochs=2, iterations=3, trainer=trainer)])
    )
    job = train_job(place, made)
    steps = (event for event in job if isinstance(event, Progress) and event.total == 5)
    next(steps), next(steps)
    job.close()  # after the second step, which is saved
    resumed = drain(train_job(place, made.model_copy(update={"continue_from": None, "resume": True})))
    one, other = read_raw(whole.folder.final), read_raw(resumed.folder.final)
    for key, tensor in one["network_weights"].items():
        assert torch.equal(tensor, other["network_weights"][key]), key
    assert one["logging"]["lrs"] == other["logging"]["lrs"]
    assert one["logging"]["lrs"][0] == pytest.approx(3e-3)
    assert one["napari_nnunet"]["begun_with"]["fitted"] == other["napari_nnunet"]["begun_with"]["fitted"]


def test_a_continuation_that_was_ended_before_its_first_step_is_not_resumed_at_random(trained):
    place, model = trained
    (made,) = drain(continued(place, [request(continue_from=model, plans="ended", epochs=1, iterations=1)]))
    job = train_job(place, made)
    next(event for event in job if isinstance(event, Stage) and event.name == "Fitting the output layers")
    job.close()
    resumed = made.model_copy(update={"continue_from": None, "resume": True})
    with pytest.raises(ModelError) as found:
        drain(train_job(place, resumed))
    assert "was ended before anything of it was saved, and was to begin with the model" in str(found.value)
    assert f"Start it again: --continue_from {model.resolve()}." in str(found.value)
    assert "press 'Improve…' again" in found.value.in_window
    fold = model.parent / "nnUNetTrainer__ended__3d_fullres" / "fold_0"
    assert (fold / "continued_from.json").is_file()
    drain(train_job(place, resumed.model_copy(update={"resume": False, "validation": False})))
    assert not (fold / "continued_from.json").is_file(), "a training of its own is compared with no model"


@pytest.mark.parametrize("finished", [False, True])
def test_folds_that_were_to_continue_a_model_after_another_one_are_not_begun_at_random(trained, finished):
    place, model = trained
    asked = [request(continue_from=model, plans="several", epochs=1, iterations=1, validation=False)]
    made = drain(continued(place, [*asked, asked[0].model_copy(update={"fold": 1})]))
    job = train_job(place, made[0])
    if finished:
        drain(job)
    else:
        next(event for event in job if isinstance(event, Progress) and event.total == 3)
        job.close()  # saved, and the other fold has saved nothing yet
    later = made[1].model_copy(update={"continue_from": None, "resume": True})
    for look in (train_job(place, later), check_training(place, [later])):
        with pytest.raises(ModelError) as found:
            drain(look)
        assert "fold_1 cannot be resumed: it has saved nothing yet, and fold_0 of the same model began" in str(
            found.value
        )
        assert f"Start it with that, too: --continue_from {model.resolve()}. To begin at" in str(found.value)
    assert not (model.parent / "nnUNetTrainer__several__3d_fullres" / "fold_1").exists()
    drain(train_job(place, made[1]))
    drain(train_job(place, made[0].model_copy(update={"continue_from": None, "resume": True})))


def test_the_shell_says_so_before_the_first_of_several_folds_goes_on(trained, capsys):
    place, model = trained
    drain(continued(place, [request(continue_from=model, plans="words")]))
    fold = model.parent / "nnUNetTrainer__words__3d_fullres" / "fold_0"
    FoldFolder(fold).note_origin(model=model)
    (fold / "checkpoint_latest.pth").write_bytes(b"not looked at")
    words = ["train", TRAINED, "3d_fullres", "0", "1", "--workspace", str(place.raw.parent), "-p", "words", "--c"]
    assert main(words) == 1
    assert "fold_1 cannot be resumed: it has saved nothing yet" in capsys.readouterr().err


def test_weights_that_a_training_was_to_begin_with_are_not_forgotten(new_workspace):
    place = new_workspace()
    run(place)
    weights = folder_of(place).final
    asked = request(pretrained=weights, epochs=1, iterations=1, validation=False).model_copy(update={"fold": 1})
    job = train_job(place, asked)
    next(event for event in job if isinstance(event, Stage))
    job.close()
    resumed = asked.model_copy(update={"pretrained": None, "resume": True})
    with pytest.raises(ModelError) as found:
        drain(train_job(place, resumed))
    assert f"it was ended before anything of it was saved, and was to begin with the weights {weights}" in str(
        found.value
    )
    assert f"Start it again: -pretrained_weights {weights}." in str(found.value)
    assert "Choose these weights at 'Begin with' and press Train." in found.value.in_window
    drain(train_job(place, asked.model_copy(update={"pretrained": None})))
    assert not (folder_of(place).path.parent / "fold_1" / "pretrained_weights.json").exists()


def test_a_budget_that_fitting_used_up_is_said_and_no_looks_are_taken_beyond_a_quarter_of_it(trained, monkeypatch):
    place, model = trained
    ticks = itertools.count()
    monkeypatch.setattr(
        "napari_nnunet.jobs.training.improve.time", SimpleNamespace(monotonic=lambda: 5.0 * next(ticks))
    )
    looks = []
    real = HeadFit.look
    monkeypatch.setattr(HeadFit, "look", lambda *given: looks.append(1) or real(*given))
    asked = request(continue_from=model, validation=False)
    changes = {"epochs": None, "iterations": None, "validation_iterations": None}
    for budget, expected in ((20.0, 1), (10.0, 1)):
        looks.clear()
        (made,) = drain(continued(place, [asked.model_copy(update={**changes, "time_budget": budget})]))
        events = []
        job = train_job(place, made)
        for event in job:
            events.append(event)
            if isinstance(event, Stage) and event.name.startswith("Epoch"):
                break
        job.close()
        assert len(looks) == expected
        said = [note for note in of(Note, events) if "What c" in note.text]
        if budget == 20.0:
            assert "so 20 seconds allow" in said[0].text and "What came before took 10 s of them." in said[0].text
        else:
            assert said[0].level == "warning"
            assert "What comes before the epochs took 10 s of 10 seconds" in said[0].text
            assert "1 epoch of 5 steps are trained all the same. Give it more time." in said[0].text


def test_the_time_of_fitting_is_taken_from_the_budget_and_not_called_time_of_epochs(trained, monkeypatch):
    place, model = trained
    ticks, fitting, fit = itertools.count(), [0.0], HeadFit.fit
    clock = SimpleNamespace(time=time.time, monotonic=lambda: 0.05 * next(ticks))
    monkeypatch.setattr("napari_nnunet.jobs.training.session.time", clock)
    monkeypatch.setattr("napari_nnunet.jobs.training.train.time", clock)
    monkeypatch.setattr("napari_nnunet.jobs.training.improve.time", SimpleNamespace(monotonic=lambda: fitting[-1]))
    monkeypatch.setattr(HeadFit, "fit", lambda own: fitting.append(8.0) or fit(own))
    asked = request(continue_from=model, validation=False)
    changes = {"epochs": None, "iterations": None, "validation_iterations": None, "time_budget": 20.0}
    (made,) = drain(continued(place, [asked.model_copy(update=changes)]))
    events = []
    result = drain(train_job(place, made), events.append)
    ends = of(EpochDone, events)
    assert sum(end.seconds for end in ends) == pytest.approx(12.0, abs=2 * ends[-1].seconds)
    assert len(ends) >= ends[0].epochs, "not ended early"
    assert read_raw(result.folder.final)["napari_nnunet"]["aside"] == 8.0
