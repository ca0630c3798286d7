"""A model, and blocks so small that small images have several."""

import pytest

from helpers import make_model
from napari_nnunet.engine.large import blocks


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "_MOST_VOXELS", 3000)


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path)
