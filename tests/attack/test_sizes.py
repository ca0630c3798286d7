"""Packed arrays that take more than the free memory are refused before they are unpacked."""

from __future__ import annotations

import functools

import blosc2
import numpy as np
import pytest

from napari_nnunet.errors import ResourceError
from napari_nnunet.formats import room
from napari_nnunet.formats.preprocessed.cases import open_case, read_next_stage, read_stored_labels
from napari_nnunet.formats.results.probabilities import ProbabilityReader

_SHAPE = (2, 4, 80, 80)


@pytest.fixture(autouse=True)
def little_memory(monkeypatch):
    monkeypatch.setattr(room, "_CERTAIN", 1000.0)
    monkeypatch.setattr(room, "available_memory", lambda: 10_000.0)


def _refused(act):
    with pytest.raises(ResourceError, match="GB of memory are free"):
        act()


def test_planes_of_probabilities(tmp_path):
    np.savez_compressed(tmp_path / "c.npz", probabilities=np.zeros(_SHAPE, np.float32))
    _refused(lambda: ProbabilityReader(tmp_path / "c.npz").read(1))


def test_cases_in_archives(tmp_path):
    np.savez_compressed(tmp_path / "c.npz", data=np.zeros(_SHAPE, np.float32), seg=np.zeros(_SHAPE, np.int8))
    (tmp_path / "c.pkl").write_bytes(b"")
    for act in (open_case, read_next_stage, lambda folder, name: read_stored_labels(folder / f"{name}.npz")):
        _refused(functools.partial(act, tmp_path, "c"))


def test_whole_cases_but_not_their_parts(tmp_path):
    for name in ("c", "c_seg"):
        blosc2.zeros(_SHAPE, dtype=np.float32, urlpath=str(tmp_path / f"{name}.b2nd"))
    (tmp_path / "c.pkl").write_bytes(b"")
    case = open_case(tmp_path, "c")
    assert case.data[:, :, :4, :4].shape == (2, 4, 4, 4)
    for act in (
        lambda: case.data[:],
        lambda: np.asarray(case.labels),
        lambda: read_stored_labels(tmp_path / "c_seg.b2nd"),
    ):
        _refused(act)
