"""A scheduler and two workers on this computer, programs of their own, as people start them."""

import pytest
from clusters import Cluster

pytest.importorskip("distributed", reason="dask.distributed is not installed: it comes with napari-nnunet[cluster]")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Two workers, for all tests that leave them as they were."""
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    yield found
    found.stop()


@pytest.fixture
def own_cluster(tmp_path):
    """A cluster of a test's own, to do it harm; started by ``own_cluster(workers)``."""
    made = []

    def start(workers=2):
        folder = tmp_path / f"cluster{len(made)}"
        folder.mkdir()
        made.append(Cluster(folder, workers))
        return made[-1]

    yield start
    for one in made:
        one.stop()
