"""A segmentation that was cancelled carries on where it stopped, and ends as one that was never cancelled, to the bit."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import dask.array
import numpy as np
import pytest

from helpers import Recipe, make_model, smooth_image
from napari_nnunet.engine.prediction.vote import VoteSettings
from napari_nnunet.events import Note, Progress, Stage, drain
from napari_nnunet.jobs.prediction import windows
from napari_nnunet.jobs.prediction.combined import Combination, Member, predict_combined
from napari_nnunet.jobs.prediction.predict import predict, predict_series
from napari_nnunet.jobs.prediction.result import Halt
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.volume import Volume

SETTINGS = PredictSettings(
    device="cpu", backend="torch", precision="float32", probabilities=True, mirroring=False, threads=1
)
IMAGE = Volume(smooth_image((16, 26, 22)), Geometry(spacing=(1.0, 1.0, 1.0)))


def _first_steps(job, steps):
    """Take some steps of a job and cancel it; returns the stages and how many network runs it did."""
    stages, runs = [], 0
    for _ in range(steps):
        event = next(job)
        stages += [event.name] if isinstance(event, Stage) else []
        runs = event.done if isinstance(event, Progress) else runs
    job.close()
    return stages, runs


@pytest.mark.parametrize(("roi", "focus"), [(None, None), (((2, 11), (0, 24), (4, 22)), (9.0, None, None))])
def test_wherever_it_was_cancelled_the_result_is_the_same(model, roi, focus):
    options = {"roi": roi, "focus": focus, "preview": True}
    events = []
    whole = drain(predict(model, IMAGE, SETTINGS, **options), events.append)
    for steps in (len(events) // 3, len(events) - 1):
        halt, canvas = Halt(), np.zeros(IMAGE.shape, np.uint8)
        own = {**options, "canvas": canvas, "halt": halt}
        _, before = _first_steps(predict(model, IMAGE, SETTINGS, **own), steps)
        assert halt.begun
        after = []
        result = drain(predict(model, IMAGE, SETTINGS, **own), after.append)
        np.testing.assert_array_equal(result.labels, whole.labels)
        np.testing.assert_array_equal(result.probabilities, whole.probabilities)
        assert result.labels is canvas
        done = [event.done for event in after if isinstance(event, Progress)]
        assert not done or done[0] >= before  # no window is computed twice, but for the round that was under way
        assert "Preparing the image" not in [event.name for event in after if isinstance(event, Stage)]
        assert not halt.begun


def test_it_may_be_cancelled_again_and_again(model):
    whole = drain(predict(model, IMAGE, SETTINGS))
    halt, canvas, stops = Halt(), np.zeros(IMAGE.shape, np.uint8), 0
    while True:
        job = predict(model, IMAGE, SETTINGS, canvas=canvas, halt=halt)
        try:
            _first_steps(job, 6)
        except StopIteration as end:
            np.testing.assert_array_equal(end.value.labels, whole.labels)
            break
        stops += 1
    assert stops > 1


def test_weights_that_changed_meanwhile_begin_anew(tmp_path):
    model = make_model(tmp_path)
    halt, canvas = Halt(), np.zeros(IMAGE.shape, np.uint8)
    _first_steps(predict(model, IMAGE, SETTINGS, canvas=canvas, halt=halt), 10)
    assert halt.begun
    other = make_model(tmp_path, seed=5)
    result = drain(predict(other, IMAGE, SETTINGS, canvas=canvas, halt=halt))
    np.testing.assert_array_equal(result.labels, drain(predict(other, IMAGE, SETTINGS)).labels)


def _cancelled_in_the_second(model, frames, settings):
    """Return the halt of a series that was cancelled within its second time point."""
    halt = Halt()
    job = predict_series(model, frames, settings, halt=halt)
    while not halt.results:
        next(job)
    for _ in range(6):  # into the second one
        next(job)
    job.close()
    return halt


def test_time_points_that_are_finished_are_not_segmented_again(model, monkeypatch):
    images = [Volume(smooth_image((8, 20, 18), seed=i), IMAGE.geometry) for i in range(3)]
    settings = SETTINGS.replace(probabilities=False)
    whole = [drain(predict(model, image, settings)).labels for image in images]
    frames = [(image, np.zeros(image.shape, np.uint8), None) for image in images]
    halt = _cancelled_in_the_second(model, frames, settings)
    segmented = []
    segment = windows.segment_windows
    monkeypatch.setattr(
        "napari_nnunet.jobs.prediction.predict.segment_windows",
        lambda predictor, ensemble, task, sums: (segmented.append(sums.next), segment(predictor, ensemble, task, sums))[
            1
        ],
    )
    results = drain(predict_series(model, frames, settings, halt=halt))
    assert len(segmented) == 2
    for result, labels in zip(results, whole, strict=True):
        np.testing.assert_array_equal(result.labels, labels)


def test_an_error_is_not_carried_on_from(model):
    halt = Halt()
    broken = replace(IMAGE, array=np.full(IMAGE.array.shape, "x"))
    with pytest.raises(Exception, match=r".+"):
        drain(predict(model, broken, SETTINGS, halt=halt))
    assert not halt.begun


def test_a_cascade_carries_on_in_the_stage_it_was_in(tmp_path):
    make_model(tmp_path, Recipe(configuration="3d_lowres"))
    second = make_model(tmp_path, Recipe(configuration="3d_cascade_fullres", previous_stage="3d_lowres"))
    events: list = []
    whole = drain(predict(second, IMAGE, SETTINGS), events.append)
    for steps in range(6, len(events), len(events) // 4):
        halt, canvas = Halt(), np.zeros(IMAGE.shape, np.uint8)
        _first_steps(predict(second, IMAGE, SETTINGS, canvas=canvas, halt=halt), steps)
        result = drain(predict(second, IMAGE, SETTINGS, canvas=canvas, halt=halt))
        np.testing.assert_array_equal(result.labels, whole.labels)


def test_an_ensemble_keeps_the_members_that_are_finished(tmp_path):
    model = make_model(tmp_path, Recipe(folds=(0, 1)))
    members = tuple(Member(model, SETTINGS.replace(folds=(fold,))) for fold in (0, 1))
    combination = Combination(members, VoteSettings(uncertainty=True))
    events: list = []
    whole = drain(predict_combined(combination, IMAGE), events.append)
    halt, canvas = Halt(), np.zeros(IMAGE.shape, np.uint8)
    _first_steps(predict_combined(combination, IMAGE, canvas=canvas, halt=halt), 3 * len(events) // 4)
    assert len(halt.results) == 1
    after: list = []
    result = drain(predict_combined(combination, IMAGE, canvas=canvas, halt=halt), after.append)
    assert not [event for event in after if isinstance(event, Stage) and event.name.startswith("1 of 2")]
    np.testing.assert_array_equal(result.labels, whole.labels)
    for own, other in zip(result.uncertainty, whole.uncertainty, strict=True):
        np.testing.assert_array_equal(own, other)


def _open_in(folder):
    """Return the files of a folder that this process has open, or that have a name there; on Linux they have none."""
    links = Path("/proc/self/fd")
    opened = {os.readlink(link) for link in links.iterdir() if link.is_symlink()} if links.is_dir() else set()
    return {name for name in opened if str(folder) in name} | {str(path) for path in folder.iterdir()}


SEEN = 2 if Path("/proc/self/fd").is_dir() or os.name == "nt" else 0  # of two files; elsewhere they are out of sight


def test_what_is_kept_is_let_go_of(tmp_path):
    model = make_model(tmp_path, Recipe(folds=(0, 1)))
    members = tuple(Member(model, SETTINGS.replace(folds=(fold,))) for fold in (0, 1))
    halt = Halt()
    place = tmp_path / "scratch"
    _first_steps(predict_combined(Combination(members), IMAGE, halt=halt, folder=place), 12)
    assert halt.begun
    assert len(_open_in(place)) == SEEN
    halt.drop()
    assert not halt.begun
    assert not _open_in(place)


@pytest.mark.parametrize(("kind", "plane"), [("dask", None), ("dask", 6), ("zarr", 1), ("memmap", 1)])
def test_images_that_are_read_when_they_are_needed_are_looked_at_too(model, tmp_path, kind, plane):
    """Every program may write into a file while a run is cancelled; the layer is the same all the time."""
    voxels = IMAGE.array.copy()
    if kind == "memmap":
        np.save(tmp_path / "a.npy", voxels)
        stored = lazy = np.load(tmp_path / "a.npy", mmap_mode="r+")
    else:
        zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
        options = {"shape": voxels.shape, "dtype": voxels.dtype, "chunks": (1, 4, 26, 22)}
        stored = zarr.create_array(tmp_path / "a.zarr", **options)
        stored[...] = voxels
        lazy = dask.array.from_array(stored) if kind == "dask" else stored
    settings = SETTINGS.replace(probabilities=False)

    def frames():
        return [(Volume(lazy, IMAGE.geometry), canvas, None)]

    canvas, halt = np.zeros(voxels.shape[1:], np.uint8), Halt()
    _first_steps(predict_series(model, frames(), settings, halt=halt), 10)
    assert halt.begun
    if plane is not None:
        stored[:, plane] = stored[:, plane][..., ::-1].copy()
    events = []
    (result,) = drain(predict_series(model, frames(), settings, halt=halt), events.append)
    now = Volume(np.array(stored[...]), IMAGE.geometry)
    np.testing.assert_array_equal(result.labels, drain(predict(model, now, settings)).labels)
    said = [event.text for event in events if isinstance(event, Note)]
    assert any("edited meanwhile" in text for text in said) == (plane is not None)
    assert ("Preparing the image" in [getattr(event, "name", "") for event in events]) == (plane is not None)


@pytest.mark.parametrize("at", [0, 1])
def test_images_whose_voxels_were_edited_meanwhile_are_segmented_anew(model, at):
    settings = SETTINGS.replace(probabilities=False)
    images = [Volume(smooth_image((8, 20, 18), seed=i).copy(), IMAGE.geometry) for i in range(2)]
    frames = [(image, np.zeros(image.shape, np.uint8), None) for image in images]
    halt = _cancelled_in_the_second(model, frames, settings)
    images[at].array[...] = images[at].array[:, :, ::-1].copy()  # the same array with other voxels, as tools leave it
    events = []
    found = drain(predict_series(model, frames, settings, halt=halt), events.append)
    for result, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(result.labels, drain(predict(model, image, settings)).labels)
    said = [event.text for event in events if isinstance(event, Note)]
    assert "The image was edited meanwhile, so all of it is segmented again." in said
