"""Numbered objects that were found, and which is of which kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.formats.atomic import make_folder
from napari_nnunet.formats.images.files import ending_of, write_labels
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.objects import ObjectScheme

_NUMBERS = {".bmp": 254, ".png": 65535, ".gipl": 65535}  # that formats can hold; others hold 2 147 483 647
FOUND_KINDS = "kinds"  # beside objects that were found: of which kind each is


def write_found(
    objects: NDArray[Any],
    kinds: Mapping[int, str],
    scheme: ObjectScheme,
    geometry: Geometry,
    path: Path,
    writer: str | None,
) -> Path:
    """Write the objects that were found in an image and, where there are several kinds, which is of which.

    Parameters
    ----------
    objects : ndarray of int, shape ([Z,] Y, X)
        Numbered; no more bits are written than they need.
    kinds : dict of int to str
        Kind of every object.
    scheme : ObjectScheme
        Kinds, and their values in a mask of kinds: ``kinds/CASE`` beside the file of the objects.
    geometry : Geometry
        Where the image lies.
    path : Path
        File to write, last of all.
    writer : str or None
        nnU-Net's name of what reads and writes images.

    Returns
    -------
    Path
        The file: another one, .tif or .nii.gz, where there are more objects than the format has numbers.
    """
    if scheme.only_kind is None:
        values = scheme.mask_values
        table = np.zeros(int(objects.max(initial=0)) + 1, dtype=np.uint16)
        for number, kind in kinds.items():
            table[number] = values[kind]
        write_labels(table[objects], geometry, make_folder(path.parent / FOUND_KINDS) / path.name, writer=writer)
    ending = ending_of(path)
    if objects.max(initial=0) > _NUMBERS.get(ending, np.inf):
        path.unlink(missing_ok=True)  # of a run before, which had fewer
        path = path.with_name(path.name[: -len(ending)] + (".nii.gz" if ending == ".gipl" else ".tif"))
        writer = None
    write_labels(objects, geometry, path, writer=writer)
    return path
