"""Arrays on the disk, for as long as they are needed."""

from __future__ import annotations

import builtins

import numpy as np

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
