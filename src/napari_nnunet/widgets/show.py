"""``python -m napari_nnunet.widgets.show FILE ...``: open napari with files and the Segment dock."""

from __future__ import annotations

import sys

import napari


def main(paths: list[str]) -> None:
    """Open a window and wait until it is closed."""
    viewer = napari.Viewer(title="napari-nnunet")
    viewer.open(paths, plugin="napari-nnunet")
    viewer.window.add_plugin_dock_widget("napari-nnunet", "Segment")
    napari.run()


if __name__ == "__main__":
    main(sys.argv[1:])
