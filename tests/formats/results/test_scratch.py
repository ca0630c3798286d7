"""Arrays on the disk, for as long as they are needed."""

from __future__ import annotations

import builtins
import sys

import numpy as np
import pytest

from napari_nnunet.formats.results.probabilities import scratch


def test_a_temporary_array_is_never_opened_a_second_time_which_windows_refuses(tmp_path, monkeypatch):
    ordinary = builtins.open

    def refuse(file, *args, **kwargs):
        if str(file).endswith(".raw"):
            raise PermissionError(13, "Permission denied", str(file))
        return ordinary(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", refuse)
    with scratch((2, 3, 4, 5), tmp_path) as array:
        assert not array.any()
        array[1] = 0.5
        np.testing.assert_array_equal(array[1], 0.5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="there a file in use has a name, and its folder stays in its place")
def test_a_temporary_array_leaves_nothing_in_a_folder_that_is_moved_meanwhile(tmp_path):
    (tmp_path / "model").mkdir()
    with scratch((2, 3, 4, 5), tmp_path / "model") as array:
        (tmp_path / "model").rename(tmp_path / "trash")
        array[1] = 0.5
    assert list((tmp_path / "trash").iterdir()) == []
