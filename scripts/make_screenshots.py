"""Take the pictures of the docs in a real window.

python tests/with_screen.py python scripts/make_screenshots.py
"""

import time
from pathlib import Path

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

from napari_nnunet.engine.synthetic import SPACING_UM, make_volume

OUT = Path(__file__).parents[1] / "docs" / "images"


def pump(seconds, until=lambda: False):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        QApplication.instance().processEvents()
        time.sleep(0.01)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    viewer = napari.Viewer(show=True)
    viewer.window._qt_window.resize(1280, 820)

    def shot(name):
        pump(0.5)
        viewer.window.screenshot(str(OUT / f"{name}.png"), canvas_only=False)

    _, widget = viewer.window.add_plugin_dock_widget("napari-nnunet", "Segment")
    pump(1)
    shot("segment-start")
    viewer.open_sample("napari-nnunet", "nuclei_and_shells")
    pump(20, lambda: "About" in widget.summary.text())
    shot("segment-ready")
    # a larger volume, so that there is something to see while it runs
    image, _ = make_volume(7, shape=(48, 256, 256))
    viewer.layers.clear()
    place = {"scale": SPACING_UM, "units": ["um"] * 3, "axis_labels": ["z", "y", "x"]}
    viewer.add_image(image, name="embryo", colormap="gray", **place)
    viewer.reset_view()
    pump(20, lambda: "About" in widget.summary.text() and "embryo" in widget.summary.text())
    widget.panel.button.click()
    pump(60, lambda: widget.panel.fraction > 0.45)
    shot("segment-running")
    pump(300, lambda: widget._running is None)
    shot("segment-done")
    viewer.layers.selection.active = viewer.layers[0]
    widget.panel.button.click()
    pump(60, lambda: widget.panel.fraction > 0.3)
    widget.panel.button.click()
    pump(20, lambda: widget._running is None)
    shot("segment-cancelled")
    viewer.layers.clear()
    viewer.add_image(np.asarray(make_volume(3)[0][:20]), name="stack without units", colormap="gray")
    pump(3)
    shot("segment-not-ready")
    viewer.close()


if __name__ == "__main__":
    main()
