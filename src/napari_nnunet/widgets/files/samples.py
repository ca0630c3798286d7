"""Sample data: synthetic volumes with known truth, and pictures that scikit-image ships."""

from __future__ import annotations

from skimage import data

from napari_nnunet.engine.synthetic import CLASSES, SPACING_UM, make_volume
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.widgets.files.place import LayerData
from napari_nnunet.widgets.frame.layers import colormap_of, features_of


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


def cell_picture() -> list[LayerData]:
    """Return the picture of one cell that scikit-image ships."""
    return [(data.cell(), {"name": "cell"}, "image")]


def coins() -> list[LayerData]:
    """Return the picture of coins that scikit-image ships."""
    return [(data.coins(), {"name": "coins"}, "image")]
