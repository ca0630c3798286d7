"""Colours of label layers."""

from __future__ import annotations

import numpy as np

from napari_nnunet.schema.colours import class_rgb
from napari_nnunet.widgets.frame.layers import colormap_of_values


def test_a_class_that_is_painted_later_is_seen_in_its_own_colour():
    """A reopened case knows its own classes; painting a further one once left the canvas as it was."""
    colormap = colormap_of_values([0, 1, 2])
    assert colormap.map(0)[3] == 0
    for value in (1, 2, 3, 100):
        np.testing.assert_allclose(colormap.map(value), [*np.divide(class_rgb(value), 255), 1], atol=1e-6)
    assert colormap.map(5000)[3] == 1
