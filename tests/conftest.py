"""Fixtures for all tests: a tiny model, a volume, and the way to the real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

import sleeping_threads  # noqa: F401
from clusters import Cluster
from helpers import Recipe, make_model, smooth_image
from napari_nnunet.engine.network.device import Timed
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.jobs import arithmetic
from napari_nnunet.jobs.prediction import predictor
from napari_nnunet.processes import pool
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.volume import Volume

settings.register_profile("house", derandomize=True, deadline=None, database=None)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory, monkeypatch):
    """Keep caches, preferences and networks of one test from another, and from the developer's own."""
    home = tmp_path_factory.mktemp("home")
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)
    yield
    predictor.forget()


@pytest.fixture
def in_one_process(monkeypatch):
    """Work on cases in this process: for tests that are not about worker processes, which take a second to start."""
    monkeypatch.setattr(pool, "_run", lambda function, tasks, *_: pool._here(function, tasks))


@pytest.fixture
def narrow_networks(monkeypatch):
    """Let the arithmetic of networks with few features stand for that of nnU-Net's usual ones: measured in no time."""
    usual = arithmetic.usual_network
    monkeypatch.setattr(
        arithmetic, "usual_network", lambda ndim: usual(ndim).model_copy(update={"features": (8, 8), "blocks": (1, 1)})
    )


@pytest.fixture
def known_arithmetic(monkeypatch):
    """Know which arithmetic is the fastest, for tests that are not about measuring it."""
    monkeypatch.setattr(arithmetic, "time_apart", lambda *_: [Timed("torch", "float32", 1.0)])


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real datasets, models and recorded figures; tests that need it skip elsewhere."""
    where = os.environ.get("NAPARI_NNUNET_TEST_DATA")
    if not where:
        pytest.skip("NAPARI_NNUNET_TEST_DATA names no folder with datasets, models and parity figures")
    return Path(where)


@pytest.fixture
def model(tmp_path: Path) -> TrainedModel:
    """A small 3-D model with one channel and two classes."""
    return make_model(tmp_path / "models")


@pytest.fixture
def new_model(tmp_path: Path):
    """Make models of other kinds: ``new_model(patch=(16, 16), ...)``."""

    def make(*, seed: int = 0, **changes) -> TrainedModel:
        return make_model(tmp_path / "models", Recipe(**changes), seed=seed)

    return make


@pytest.fixture
def volume() -> Volume:
    """A volume that needs several tiles and resampling for :func:`model`."""
    return Volume(smooth_image((14, 40, 36)), Geometry(spacing=(1.3, 0.8, 0.9)))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler and two workers on this computer, as people start them, for tests that leave them as they were."""
    pytest.importorskip("distributed", reason="dask.distributed is not installed: it comes with napari-nnunet[cluster]")
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    yield found
    found.stop()


@pytest.fixture
def own_cluster(tmp_path):
    """A cluster of a test's own, to do it harm; started by ``own_cluster(workers)``."""
    pytest.importorskip("distributed", reason="dask.distributed is not installed: it comes with napari-nnunet[cluster]")
    made = []

    def start(workers=2):
        folder = tmp_path / f"cluster{len(made)}"
        folder.mkdir()
        made.append(Cluster(folder, workers))
        return made[-1]

    yield start
    for one in made:
        one.stop()
