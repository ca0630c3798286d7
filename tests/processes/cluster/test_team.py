"""Workers that die, have other versions or see other disks; schedulers that are not there."""

import os
import signal

import pytest

from clusters import forty_two, note_worker, until, work_slowly
from napari_nnunet.errors import ResourceError
from napari_nnunet.processes.cluster import start, worker
from napari_nnunet.processes.cluster.team import Elsewhere, spread, team
from napari_nnunet.processes.cluster.worker import Expected, packed, sampled, versions, why_unfit
from napari_nnunet.processes.pool import Outcome, Task

pytest.importorskip("distributed", reason="dask.distributed is not installed: it comes with napari-nnunet[cluster]")


def task(*arguments, name="a"):
    return Task(name, arguments, lambda: 0.0)


def outcomes(stream, after=lambda _: None):
    """Return the outcomes of a stream by name, and do something after each."""
    found = {}
    for item in stream:
        if isinstance(item, Outcome):
            found[item.name] = item
            after(item)
    return found


def refused(need):
    with pytest.raises(ResourceError) as caught:
        outcomes(spread(need, forty_two, [task()]))
    return caught.value.message


def test_results_and_errors_come_back_by_name(cluster):
    tasks = [task(False, name="good"), task(True, name="bad")]
    found = outcomes(spread(Elsewhere(cluster.address), forty_two, tasks))
    assert found["good"].result == 42 and found["good"].error is None
    assert found["bad"].error.message == "This is wrong. Do that."


def test_all_workers_are_told_to_do_something_while_nothing_waits_for_it(cluster, tmp_path):
    with team(Elsewhere(cluster.address)) as workers:
        list(workers.gathered())
        workers.tell(note_worker, tmp_path)
        until(lambda: len(list(tmp_path.iterdir())) == 2)
        assert workers.count == 2


def test_a_scheduler_that_is_not_there_is_said_at_once(monkeypatch):
    monkeypatch.setattr(start, "_CONNECT", 0.5)
    assert "No dask scheduler answers at tcp://127.0.0.1:9" in refused(Elsewhere("tcp://127.0.0.1:9"))


def test_a_worker_of_another_version_is_refused_before_work_starts(cluster, monkeypatch):
    monkeypatch.setattr(
        "napari_nnunet.processes.cluster.team.versions", lambda: (("napari-nnunet", "9.9"), *versions()[1:])
    )
    message = refused(Elsewhere(cluster.address))
    assert "has napari-nnunet" in message and "not 9.9" in message and "Install the same versions" in message


def test_a_worker_with_another_torch_is_refused_but_another_build_is_not(monkeypatch):
    own = dict(versions())
    expected = Expected(tuple({**own, "torch": "1.0"}.items()), (), None, "")
    assert why_unfit(expected) == f"has torch {own['torch']}, not 1.0"
    monkeypatch.setattr(worker, "version", lambda _: f"{own['torch']}+cu999")
    assert versions()[1] == ("torch", own["torch"])


def test_a_path_that_workers_do_not_see_is_said_before_work_starts(cluster, tmp_path):
    message = refused(Elsewhere(cluster.address, reads=(tmp_path / "nowhere",)))
    assert f"does not see {tmp_path / 'nowhere'}" in message and "on a shared disk" in message


def test_a_folder_of_the_same_name_on_another_disk_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_PATIENCE", 0.1)
    expected = Expected(versions(), (), tmp_path, "mark")
    assert why_unfit(expected) == f"does not see {tmp_path} as it is here"
    why_unfit.cache_clear()
    (tmp_path / "mark").touch()
    assert why_unfit(expected) == ""


def test_a_path_where_a_worker_sees_something_else_is_noticed(cluster, tmp_path, monkeypatch):
    model = tmp_path / "model"
    (model / "fold_0").mkdir(parents=True)
    (model / "plans.json").write_text("{}")
    weights = model / "fold_0" / "checkpoint_final.pth"
    weights.write_bytes(bytes(3_000_000))
    image = tmp_path / "image.zarr"
    (image / "c" / "0").mkdir(parents=True)
    (image / "c" / "0" / "1").write_bytes(b"voxels")
    need = Elsewhere(cluster.address, reads=(model, image))
    (model / "fold_0" / "progress.png").touch()  # of no prediction's concern
    assert outcomes(spread(need, forty_two, [task()]))["a"].result == 42
    here = [sampled(path) for path in need.reads]
    weights.write_bytes(bytes(1_500_000) + b"\1" * 1_500_000)  # as large as it was
    (image / "labels").mkdir()
    assert [sampled(path) == known for path, known in zip(need.reads, here, strict=True)] == [False, True]
    monkeypatch.setattr("napari_nnunet.processes.cluster.team.sampled", dict(zip(need.reads, here, strict=True)).get)
    message = refused(need)
    assert f"reads something else in {model}" in message and "under the same path, on a shared disk" in message
    assert sampled(tmp_path / "nowhere") == ""


def test_the_mark_in_a_folder_is_gone_afterwards(cluster, tmp_path):
    assert outcomes(spread(Elsewhere(cluster.address, writes=tmp_path / "new"), forty_two, [task()]))["a"].result == 42
    assert list((tmp_path / "new").iterdir()) == []


def test_a_worker_that_comes_later_is_looked_at_before_its_first_task(cluster, monkeypatch):
    other = (("napari-nnunet", "9.9"), *versions()[1:])
    monkeypatch.setattr("napari_nnunet.processes.cluster.team.versions", lambda: other)
    refusal = pytest.raises(ResourceError, match="The worker tcp://.* has napari-nnunet .*, not 9.9")
    with team(Elsewhere(cluster.address)) as workers, refusal:  # as if none had been there at first
        outcomes(workers.outcomes(forty_two, [task()]))


def test_more_tasks_are_handed_over_when_workers_come_later(cluster, monkeypatch):
    monkeypatch.setattr("napari_nnunet.processes.cluster.team._LOOK_EVERY", 0.0)
    monkeypatch.setattr("napari_nnunet.processes.cluster.team._FEWEST", 1)
    with team(Elsewhere(cluster.address)) as workers:  # as if none had been there at first
        before = workers.window
        found = outcomes(workers.outcomes(forty_two, [task(name=str(i)) for i in range(5)]))
        assert len(found) == 5 and (before, workers.window) == (1, 8)


def test_paths_are_sent_as_absolute_ones(tmp_path, monkeypatch):
    import pickle
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    assert pickle.loads(packed(forty_two, (Path("a"),)))[1] == (tmp_path / "a",)


@pytest.mark.slow
def test_the_task_of_a_worker_that_is_killed_goes_to_another(own_cluster, tmp_path):
    cluster, names = own_cluster(), ["a", "b", "c"]
    (tmp_path / "held-a").touch()
    stream = spread(Elsewhere(cluster.address), work_slowly, [task(tmp_path, name, name=name) for name in names])
    found = {}
    for item in stream:
        if isinstance(item, Outcome):
            found[item.name] = item
        begun = tmp_path / "begun-a"
        if begun.exists() and begun.read_text(encoding="utf-8") and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            os.kill(int(begun.read_text(encoding="utf-8")), signal.SIGKILL)
    assert {name: entry.result for name, entry in found.items()} == {name: name.upper() for name in names}
    assert (tmp_path / "times-a").read_text(encoding="utf-8").count("x") == 2


@pytest.mark.slow
def test_work_continues_when_the_scheduler_is_started_anew(own_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(start, "_CONNECT", 300.0)
    cluster, names = own_cluster(1), ["a", "b"]
    found, again = {}, False
    for item in spread(Elsewhere(cluster.address), work_slowly, [task(tmp_path, n, name=n) for n in names]):
        if isinstance(item, Outcome):
            found[item.name] = item.result
            if not again:
                again = True
                cluster.stop()
                cluster.start(1)
    assert found == {"a": "A", "b": "B"}


@pytest.mark.slow
def test_a_scheduler_that_does_not_come_back_ends_the_job_with_a_sentence(own_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(start, "_CONNECT", 2.0)
    cluster = own_cluster(1)
    stream = spread(Elsewhere(cluster.address), work_slowly, [task(tmp_path, n, name=n) for n in "abc"])
    with pytest.raises(ResourceError, match="is lost, and its scheduler does not answer any more"):
        outcomes(stream, lambda _: cluster.stop())
