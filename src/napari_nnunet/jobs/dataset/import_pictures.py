"""Small pictures of pairs that are about to be imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from napari_nnunet.errors import NnunetError
from napari_nnunet.events import CaseDone, Job
from napari_nnunet.jobs.dataset.cases import small_picture
from napari_nnunet.jobs.dataset.import_case import PlannedCase, placed_mask, read_image
from napari_nnunet.jobs.dataset.overlays import overlay, telling_slice

_MOST = 60  # pairs that are drawn
_FEW, _MANY = 16, 64  # values of masks, and of images


def pair_pictures(cases: Sequence[PlannedCase], folder: Path) -> Job[None]:
    """Draw the first pairs, image under mask, into a folder; yields one event per picture."""
    for i, case in enumerate(cases[:_MOST]):
        target = folder / f"{i}.png"
        try:
            volume = read_image(case.pair, "ignore")
            mask, _ = placed_mask(case.pair, volume, "ignore")
        except NnunetError:
            continue  # it is told when it is imported
        stack = (np.asarray(mask.array).reshape(volume.shape_3d) != 0).astype(np.uint8)
        z = telling_slice(stack)
        image = np.asarray(volume.array)[0].reshape(volume.shape_3d)[z]
        iio.imwrite(target, small_picture(overlay(image, stack[z])))
        yield CaseDone(case=case.name, index=i, total=len(cases), path=str(target))


def look_swapped(cases: Sequence[PlannedCase]) -> Job[bool]:
    """Say whether masks look like images and images like masks, by the number of values in the first pair."""
    yield from ()
    if not cases or cases[0].facts.distinct < _MANY:
        return False
    image = np.asarray(read_image(cases[0].pair, "ignore").array)
    return len(np.unique(image)) <= _FEW
