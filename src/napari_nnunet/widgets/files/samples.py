"""Sample data: synthetic volumes with known truth, and pictures that scikit-image ships."""

from __future__ import annotations

from skimage import data

from napari_nnunet.engine.synthetic import CLASSES, SPACING_UM, make_crowd, make_volume
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.widgets.files.place import LayerData
from napari_nnunet.widgets.frame.layers import KIND, colormap_of, features_of

_PIXEL_UM = 0.65  # so that nuclei are about nine micrometres wide


def nuclei() -> list[LayerData]:
    """Return a volume of nuclei and shells with its truth (hidden), in micrometres."""
    image, labels = make_volume(seed=1)
    scheme = LabelScheme(labels={name: value for value, name in enumerate(CLASSES)})
    place = {"scale": SPACING_UM, "units": ["um"] * 3, "axis_labels": ["z", "y", "x"]}
    return [
        (image, {"name": "nuclei and shells", "colormap": "gray", **place}, "image"),
        (
            labels,
            {
                "name": "truth",
                "visible": False,
                "colormap": colormap_of(scheme),
                "features": features_of(scheme),
                **place,
            },
            "labels",
        ),
    ]


def touching_nuclei() -> list[LayerData]:
    """Return a picture of nuclei, many of which touch, and their numbers (hidden), in micrometres."""
    image, objects = make_crowd(1, (256, 256))
    place = {"scale": (_PIXEL_UM,) * 2, "units": ["um"] * 2, "axis_labels": ["y", "x"]}
    numbered = {"name": "numbered nuclei", "visible": False, "metadata": {KIND: "nucleus"}, **place}
    return [
        (image, {"name": "touching nuclei", "colormap": "gray", **place}, "image"),
        (objects, numbered, "labels"),
    ]


def cell_picture() -> list[LayerData]:
    """Return the picture of one cell that scikit-image ships."""
    return [(data.cell(), {"name": "cell"}, "image")]


def coins() -> list[LayerData]:
    """Return the picture of coins that scikit-image ships."""
    return [(data.coins(), {"name": "coins"}, "image")]
