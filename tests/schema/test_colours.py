"""Every label value has one colour, wherever it is shown."""

from __future__ import annotations

import numpy as np

from napari_nnunet.jobs.dataset.overlays import overlay
from napari_nnunet.schema.colours import class_colour, class_rgb


def test_a_colour_is_the_same_in_numbers():
    assert class_colour(1) == "#009eff"
    assert class_rgb(1) == (0, 158, 255)


def test_overlays_and_thumbnails_show_the_colours_of_the_layers():
    labels = np.arange(24).reshape(4, 6)
    picture = overlay(np.zeros((4, 6)), labels, intensity=1.0)
    for value in range(1, 24):
        assert tuple(picture[labels == value][0]) == class_rgb(value)
