"""Blocks of a large image on a cluster: the same bytes as in one process, whatever happens to workers."""

import json

import numpy as np
import psutil
import pytest

from formats_large import ome_zarr
from helpers import Recipe, make_model, smooth_image
from napari_nnunet import predict_image
from napari_nnunet.engine.large import blocks
from napari_nnunet.errors import ImageError, ResourceError, SettingsError
from napari_nnunet.events import Note, Painted

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
pytest.importorskip("yaozarrs", reason="yaozarrs is not installed: it comes with napari-nnunet[large]")
# Workers load torch, which takes seconds.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("known_arithmetic")]
HOW = {
    "device": "cpu", "backend": "torch", "precision": "float32", "mirroring": False, "threads": 1, "chunk": (8, 16, 16),
    "memory_gb": 4,
}  # fmt: skip


class _StopError(Exception):
    pass


def stop(event):
    """Cancel after the first block."""
    if isinstance(event, Painted):
        raise _StopError


@pytest.fixture
def image(tmp_path):
    return ome_zarr(tmp_path / "image.zarr", [smooth_image((20, 40, 40))[0]], unit="millimeter")


def begun(tmp_path, model, image, name, monkeypatch):
    """Begin a result of many blocks, and cancel it after the first: blocks of a new result would be large."""
    monkeypatch.setattr(blocks, "_MOST_VOXELS", 3000)
    with pytest.raises(_StopError):
        predict_image(model, image, tmp_path / name, on_event=stop, **HOW)
    return tmp_path / name


def chunks_of(path):
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted((path / "0").rglob("*")) if f.is_file()}


def test_blocks_of_a_cluster_are_the_bytes_of_one_process(tmp_path, model, image, cluster, monkeypatch):
    target, said = begun(tmp_path, model, image, "there.zarr", monkeypatch), []
    how = {**HOW, "carry_on": True}
    found = predict_image(model, image, target, cluster=cluster.address, on_event=said.append, **how)
    assert found.kept == 1 and found.blocks > 5
    assert sum(isinstance(event, Painted) for event in said) == found.blocks
    assert any("2 workers on 1 computer" in event.text for event in said if isinstance(event, Note))
    here = predict_image(model, image, tmp_path / "here.zarr", **HOW)
    assert chunks_of(target) == chunks_of(tmp_path / "here.zarr")
    assert found.counts == here.counts


def test_a_new_result_of_a_cascade_and_a_time_series(tmp_path, cluster):
    make_model(tmp_path, Recipe(configuration="3d_lowres", spacing=(2.0, 2.0, 2.0)), seed=3)
    model = make_model(
        tmp_path, Recipe(previous_stage="3d_lowres", configuration="3d_cascade_fullres", spacing=(1.2, 1.2, 1.2))
    )
    series = tmp_path / "series.zarr"
    zarr.save(str(series), np.stack([smooth_image((16, 30, 30), seed=i)[0] for i in range(3)]))
    more = {"axes": "TZYX", "spacing": (1.0, 1.0, 1.0), **HOW}
    found = predict_image(model, series, tmp_path / "there.zarr", cluster=cluster.address, **more)
    assert found.blocks == 3
    predict_image(model, series, tmp_path / "here.zarr", **more)
    assert chunks_of(tmp_path / "there.zarr") == chunks_of(tmp_path / "here.zarr")


def test_objects_are_found_here_in_what_workers_computed(tmp_path, cluster):
    folder = make_model(tmp_path, Recipe(labels={"background": 0, "cell core": 1, "cell border": 2})).folder
    path, scheme = folder / "dataset.json", {"kinds": {"cell": [1, 2]}, "width": 1.5, "unit": 1.0}
    path.write_text(json.dumps({**json.loads(path.read_text()), "napari_nnunet_objects": scheme}))
    image = ome_zarr(tmp_path / "image.zarr", [smooth_image((20, 40, 40))[0]], unit="millimeter")
    found = predict_image(folder, image, tmp_path / "there.zarr", cluster=cluster.address, **HOW)
    here = predict_image(folder, image, tmp_path / "here.zarr", **HOW)
    assert chunks_of(tmp_path / "there.zarr") == chunks_of(tmp_path / "here.zarr")
    assert found.objects == here.objects and found.objects["cell"] > 1


def test_an_image_that_changes_while_workers_read_it_ends_the_job(tmp_path, model, image, cluster, monkeypatch):
    target = begun(tmp_path, model, image, "a.zarr", monkeypatch)

    def touch(event):
        if isinstance(event, Painted):
            chunk = next(f for f in (image / "0").rglob("*") if f.is_file() and f.name != "zarr.json")
            chunk.write_bytes(chunk.read_bytes())

    with pytest.raises(ImageError, match="was changed while it was read"):
        predict_image(model, image, target, cluster=cluster.address, on_event=touch, carry_on=True, **HOW)


def test_an_array_of_this_process_is_refused(tmp_path, model, cluster):
    array, how = smooth_image((8, 16, 16))[0], {**HOW, "cluster": cluster.address}
    with pytest.raises(SettingsError, match="is in this process alone"):
        predict_image(model, array, tmp_path / "a.zarr", spacing=(1, 1, 1), **how)
    assert not list(tmp_path.glob("a.zarr*"))


@pytest.mark.skipif(not hasattr(psutil, "RLIMIT_FSIZE"), reason="only Linux refuses writes to one process")
def test_a_disk_that_is_full_at_a_chunk_keeps_what_is_finished(tmp_path, model, image, cluster, monkeypatch):
    target = begun(tmp_path, model, image, "a.zarr", monkeypatch)
    how = {**HOW, "carry_on": True, "cluster": cluster.address}
    workers = [psutil.Process(nanny.pid).children()[-1] for nanny in cluster.processes[1:]]
    try:
        for worker in workers:
            worker.rlimit(psutil.RLIMIT_FSIZE, (0, psutil.RLIM_INFINITY))
        with pytest.raises(ResourceError, match="The blocks that are finished are kept"):
            predict_image(model, image, target, **how)
    finally:
        for worker in workers:
            worker.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
    found = predict_image(model, image, target, **how)
    assert found.kept >= 1
    predict_image(model, image, tmp_path / "here.zarr", **HOW)
    assert chunks_of(target) == chunks_of(tmp_path / "here.zarr")


def test_a_block_whose_worker_is_killed_is_computed_by_another(tmp_path, model, image, own_cluster, monkeypatch):
    target, cluster, killed = begun(tmp_path, model, image, "a.zarr", monkeypatch), own_cluster(), []

    def listen(event):
        if isinstance(event, Painted) and not killed:
            killed.append(cluster.kill_one(cluster.processes[1]))

    found = predict_image(model, image, target, cluster=cluster.address, on_event=listen, **HOW, carry_on=True)
    assert killed and found.kept == 1
    predict_image(model, image, tmp_path / "here.zarr", **HOW)
    assert chunks_of(target) == chunks_of(tmp_path / "here.zarr")
