"""A training case from its files: image and labels on one grid, or an error that says how they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError, counted, some
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase
from napari_nnunet.formats.images.files import ADAPTERS, read_header, read_labels, read_volume
from napari_nnunet.grid import Apart, Grid, Same, Turned, WhenApart, relation, same_voxels
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.volume import Volume


def read_case(
    case: TrainingCase,
    reader: str,
    scheme: LabelScheme,
    *,
    as_stored: bool = False,
    apart: WhenApart = "refuse",
) -> tuple[Volume, NDArray[Any]]:
    """Read image and labels of a case.

    Parameters
    ----------
    case : TrainingCase
        Its files.
    reader : str
        nnU-Net's class name.
    scheme : LabelScheme
        The values that labels may have.
    as_stored : bool
        Keep the type of the image's file.
    apart : {"refuse", "resample", "ignore"}
        What is done with channels on other grids; labels elsewhere than their image pass with "ignore" only.

    Returns
    -------
    tuple of (Volume, ndarray of int32)
        Shapes are compared by those who use them.

    Raises
    ------
    ImageError
        If a file cannot be read, voxels of the labels are not those of the image, or hold a value that dataset.json
        does not define: it would be trained as background or end the training.
    """
    volume = read_volume(case.images, reader=reader, as_stored=as_stored, apart=apart)
    labels, geometry = read_labels(case.label, reader=reader)
    if apart != "ignore":
        found = label_relation(volume, labels.shape, geometry)
        if found is not None:
            raise misplaced(case.label, found)
    unknown = unknown_values(labels, scheme)
    if unknown:
        raise ImageError(
            f"{case.label.name}: {unknown_in_words(unknown, scheme)}.",
            shell="Add it to 'labels', change the voxels, or, where nobody annotated them, give them the value of a "
            "label named 'ignore' (import_folders --map and --ignore do).",
            window="Check the dataset in the Training cases dock, which can fix it.",
        )
    alone = [text for text in geometry.remarks if text not in volume.geometry.remarks]
    if alone:
        volume = replace(volume, notes=(*volume.notes, *(f"of its labels: {text}" for text in alone)))
    return volume, labels


@dataclass(frozen=True)
class LaidLabels:
    """Labels of a case, beside its image.

    Parameters
    ----------
    voxels : ndarray of int, shape ([Z,] Y, X)
        On the image's voxels, unless they lie apart.
    geometry : Geometry
        Where these voxels lie: what the file says, or the image's where they were turned onto it.
    found : Turned, Apart or None
        How the file lies to the image; None if voxel by voxel.
    ignored : Turned, Apart or None
        How it lies by its header, where that is not believed.
    """

    voxels: NDArray[Any]
    geometry: Geometry
    found: Turned | Apart | None
    ignored: Turned | Apart | None = None


def lay_labels(
    path: Path, image: Grid, *, reader: str | None, as_stored: bool = False, apart: WhenApart = "refuse"
) -> LaidLabels:
    """Read labels of a case and turn them onto its image, where they are stored in another orientation.

    Parameters
    ----------
    path : Path
        The labels.
    image : Grid
        Where the image lies.
    reader, as_stored
        As for :func:`read_labels`.
    apart : {"refuse", "resample", "ignore"}
        With "ignore" labels of the image's size are taken voxel by voxel, whatever the headers say; their own stays.
    """
    labels, geometry = read_labels(path, reader=reader, as_stored=as_stored)
    own = Grid(labels.shape, geometry)
    found = relation(image, own)
    if isinstance(found, Same) or same_voxels(found, image, own):
        return LaidLabels(labels, geometry, None)
    if apart == "ignore" and labels.shape == image.shape:
        return LaidLabels(labels, geometry, None, found)
    if isinstance(found, Turned):
        return LaidLabels(np.ascontiguousarray(found.turn(labels)), image.geometry, found)
    return LaidLabels(labels, geometry, found)


def grid_of_image(path: Path, reader: str | None) -> Grid:
    """Return where the voxels of an image lie; only its header is read, unless its reader turns them."""
    if reader in ADAPTERS and ADAPTERS[reader].reorients:
        volume = read_volume([path], reader=reader, as_stored=True)
        return Grid(volume.shape, volume.geometry)
    found = read_header(path, reader=reader)
    return Grid(found.shape[1:], found.geometry)


def labels_over(
    path: Path, image: Grid, *, reader: str | None, as_stored: bool = False, apart: WhenApart = "refuse"
) -> LaidLabels:
    """Read labels of a case on its image's voxels, as :func:`lay_labels`; raises ImageError if they lie elsewhere."""
    laid = lay_labels(path, image, reader=reader, as_stored=as_stored, apart=apart)
    if isinstance(laid.found, Apart):
        raise misplaced(path, laid.found)
    return laid


def misplaced(path: Path, found: Turned | Apart) -> ImageError:
    """Return the error for labels that do not lie on their image."""
    return ImageError(
        f"{path.name}: {misplaced_in_words(found)}.",
        shell="Import the dataset again (import_folders turns labels onto their images), or, where only the headers "
        "are wrong, take the voxels as they lie (--ignore_geometry).",
        window="Check the dataset in the Training cases dock, which can fix it.",
    )


def unknown_values(labels: NDArray[Any], scheme: LabelScheme) -> dict[int, int]:
    """Return the values of labels that a scheme does not define, with their voxels."""
    allowed = _allowed(scheme)
    if not labels.size:
        return {}
    if allowed == tuple(range(len(allowed))) and labels.min() >= 0 and labels.max() < len(allowed):
        return {}  # two passes; counting takes much longer
    values, counts = np.unique(labels, return_counts=True)
    known = set(allowed)
    return {int(v): int(n) for v, n in zip(values, counts, strict=True) if int(v) not in known}


def unknown_in_words(unknown: Mapping[int, int], scheme: LabelScheme) -> str:
    """Return what is wrong with labels that hold values without a meaning."""
    listed = some([f"{value} ({counted(count, 'voxel')})" for value, count in unknown.items()])
    have = ", ".join(map(str, _allowed(scheme)))
    return f"it contains {listed}, which dataset.json does not define; it has {have}"


def _allowed(scheme: LabelScheme) -> tuple[int, ...]:
    return (*scheme.all_labels, *(() if scheme.ignore_label is None else (scheme.ignore_label,)))


def label_relation(volume: Volume, shape: tuple[int, ...], geometry: Geometry) -> Turned | Apart | None:
    """Return how labels lie to their image; None if voxel by voxel, or if they differ in size, which others say."""
    image, labels = Grid(volume.shape, volume.geometry), Grid(shape, geometry)
    found = relation(image, labels)
    if isinstance(found, Turned):
        return found
    if isinstance(found, Same) or same_voxels(found, image, labels) or shape != volume.shape:
        return None
    return found


def header_in_words(found: Turned | Apart) -> str:
    """Return how labels lie to their image by a header that is not believed."""
    if isinstance(found, Turned):
        return f"by their header the labels are stored in another orientation than the image ({found})"
    where = "in another place" if found.elsewhere else "on another grid"
    return f"by their header the labels lie {where} than the image ({found})"


def misplaced_in_words(found: Turned | Apart) -> str:
    """Return what is wrong with labels that do not lie on their image."""
    if isinstance(found, Turned):
        return (
            f"the labels are stored in another orientation than the image ({found}), so that training "
            f"would use them for the wrong voxels"
        )
    where = "in another place" if found.elsewhere else "on another grid"
    return f"the labels lie {where} than the image ({found})"
