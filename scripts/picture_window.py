"""What the scripts of the docs' pictures share: where pictures go, a window, and waiting for it."""

import time
from pathlib import Path

import napari
from qtpy.QtWidgets import QApplication

from napari_nnunet.widgets.tour import offer_no_more

OUT = Path(__file__).parents[1] / "docs" / "images"
SLOW = 20.0  # times that a busy computer may take before a picture is given up


def pump(seconds, until=None):
    """Let the window work for some time, or until something is so: no picture is taken of what is not there yet."""
    end = time.monotonic() + seconds * (1 if until is None else SLOW)
    while until is None or not until():
        if time.monotonic() > end:
            if until is not None:
                raise TimeoutError(f"It took more than {SLOW * seconds:.0f} s.")
            return
        QApplication.instance().processEvents()
        time.sleep(0.01)


def window(height):
    """Return a viewer, and what takes a picture of it."""
    offer_no_more()  # no offers in pictures of what somebody does who knows them
    viewer = napari.Viewer(show=True)
    viewer.window._qt_window.resize(1280, height)

    def shot(name):
        pump(1.5)
        file = OUT / f"{name}.png"
        viewer.window.screenshot(str(file), canvas_only=False, flash=False)
        return file

    return viewer, shot
