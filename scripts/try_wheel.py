"""Segment the sample with the installed plugin in a real napari window: what a user does first."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import napari
import numpy as np
from qtpy.QtWidgets import QApplication, QPushButton

import napari_nnunet

PATIENCE = 180  # seconds


def main() -> int:
    if "site-packages" not in str(Path(napari_nnunet.__file__)):
        print(f"This is not the installed plugin: {napari_nnunet.__file__}", file=sys.stderr)
        return 1
    viewer = napari.Viewer()
    viewer.open_sample("napari-nnunet", "nuclei_and_shells")
    _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", "Segment")
    button = next(b for b in dock.findChildren(QPushButton) if b.text() == "Segment")
    wait(button.isEnabled, "the Segment button is ready")
    button.click()
    wait(lambda: finished(viewer), "there is a result")
    (result,) = results(viewer)
    truth = np.asarray(viewer.layers["truth"].data)
    agreement = float(np.mean(np.asarray(result.data) == truth))
    print(f"{napari_nnunet.__version__}: {result.name}, {agreement:.1%} of the voxels as in the truth")
    viewer.close()
    return 0 if agreement > 0.95 else 1


def results(viewer: napari.Viewer) -> list[napari.layers.Labels]:
    return [layer for layer in viewer.layers if isinstance(layer, napari.layers.Labels) and layer.name != "truth"]


def finished(viewer: napari.Viewer) -> bool:
    return any(not layer.metadata.get("nnunet", {}).get("partial", True) for layer in results(viewer))


def wait(ready, what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > until:
            raise SystemExit(f"Not within {PATIENCE} s: {what}.")
        QApplication.processEvents()
        time.sleep(0.02)


if __name__ == "__main__":
    raise SystemExit(main())
