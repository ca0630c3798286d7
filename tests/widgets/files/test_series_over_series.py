"""Series lie over each other only where their times are the same."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels

from napari_nnunet.widgets.files.overlay import require_over
from napari_nnunet.widgets.frame.ready import NotReadyError


def series(*, unit="s", **place):
    units = (unit, "mm", "mm", "mm")
    return Labels(np.ones((3, 4, 8, 9), np.uint8), axis_labels=tuple("tzyx"), units=units, **place)


@pytest.mark.parametrize(
    "other",
    [
        {"translate": (3, 0, 0, 0)},
        {"scale": (2, 1, 1, 1)},
        {"affine": np.diag([2.0, 1, 1, 1, 1])},
        {"unit": "ms"},
    ],
)
def test_series_at_other_times_do_not_lie_over_each_other(other):
    first, second = series(), series(**other)
    first.name, second.name = "first", "second"
    with pytest.raises(NotReadyError, match="'first' and 'second' show different times: every 1 second from 0 on"):
        require_over(first, second, "TZYX")


@pytest.mark.parametrize("other", [{"unit": "ms", "scale": (1000, 1, 1, 1)}, {"unit": "pixel"}, {}])
def test_series_at_the_same_times_lie_over_each_other(other):
    require_over(series(), series(**other), "TZYX")
