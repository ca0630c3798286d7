"""Whether the voxels of an image fit a model: their size, asked before anything is read or made, and their values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.image.intensities import intensity_warnings
from napari_nnunet.engine.image.turning import Turning
from napari_nnunet.engine.image.voxel_size import as_trained, trained_sizes
from napari_nnunet.errors import NnunetError, SettingsError, counted, some
from napari_nnunet.events import Job, Note
from napari_nnunet.formats.dataset.case_files import Case, reader_for
from napari_nnunet.formats.images.files import read_header
from napari_nnunet.formats.images.tiff import sidecar
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.volume import Volume

P = TypeVar("P")

#: Voxels that differ by more than this from those a model was trained on are asked about; a wrong unit is a factor of
#: 1000, scanners and microscopes of one kind differ by less than 10.
FAR = 10.0
_LISTED = 10
_STRIP = 16  # rows
_STACKS = (".tif", ".tiff")
_DOUBTFUL = (".tif", ".tiff", ".nrrd", ".mha", ".mhd")  # formats that need not say how large a voxel is


@dataclass(frozen=True)
class FarVoxels:
    """An image whose voxels are far larger or smaller than those a model was trained on.

    Parameters
    ----------
    spacing, trained : tuple of float
        Voxel size of the image and of the model in mm, ``([z,] y, x)``; that of the model has all three where the image
        is a single slice and the model was trained on volumes.
    axes : str
        The axes that differ by more than a factor of ten: "zyx".
    known : bool
        False if the image does not say its voxel size, so that 1 mm was taken.
    source : str
        Where the spacing comes from, if not from the file's own header.
    """

    spacing: tuple[float, ...]
    trained: tuple[float, ...]
    axes: str
    known: bool = True
    source: str = ""

    @property
    def text(self) -> str:
        """A sentence with both sizes, for a shell and a dock alike."""
        own, trained = (" x ".join(f"{v:g}" for v in sizes) + " mm" for sizes in (self.spacing, self.trained))
        if len(self.trained) > len(self.spacing):
            return f"The image is a single slice, and the model was trained on volumes with voxels of {trained}."
        if not self.known:
            origin = "The image does not say its voxel size, so 1 mm was assumed"
        else:
            origin = f"The voxels of the image are {own}" + (f" (from {self.source})" if self.source else "")
        along = "" if len(self.axes) == len(self.spacing) else f" along {' and '.join(self.axes)}"
        return (
            f"{origin}; the model was trained on {trained}, which differs by more than a factor of {FAR:g}{along}. "
            "Is the unit right (micrometres, millimetres)?"
        )


def far_voxels(model: TrainedModel, geometry: Geometry) -> FarVoxels | None:
    """Return what is suspicious about the voxel size of an image for a model, None where it fits.

    Only axes that the model resamples are looked at: a slice-wise model takes any distance of slices.

    Parameters
    ----------
    model : TrainedModel
        The model.
    geometry : Geometry
        Of the image.
    """
    geometry = as_trained(model.plans, model.configuration, geometry)
    forward = model.plans.transpose_forward
    turning = Turning.of((1,) * geometry.ndim, geometry) if model.turns else None
    if turning is not None:  # the model knows the axes of a turned image; those of this one are named
        z, y, x = (turning.found.axes[axis] for axis in forward)
        forward = (z, y, x)
    spacing = [geometry.spacing_3d[axis] for axis in forward]
    sizes = trained_sizes(model.plans, model.configuration)
    first = 3 - len(model.configuration.spacing)
    far = {
        forward[i]
        for i in range(first, 3)
        if not min(size[i] for size in sizes) / FAR <= spacing[i] <= max(size[i] for size in sizes) * FAR
    }
    if not far:
        return None
    letters = "".join("zyx"[axis] for axis in sorted(far))
    shown = range(0 if "z" in letters else 3 - geometry.ndim, 3)
    trained = tuple(sizes[0][forward.index(axis)] for axis in shown)
    return FarVoxels(geometry.spacing, trained, letters, geometry.spacing_known, geometry.spacing_source)


def require_near(model: TrainedModel, geometry: Geometry, settings: PredictSettings) -> None:
    """Raise SettingsError if the voxels of an image are far from the model's and that was not accepted."""
    found = None if settings.any_spacing else far_voxels(model, geometry)
    if found is not None:
        raise SettingsError(
            found.text,
            shell="Give the right size (--spacing), or segment the image as it is (--any_spacing).",
            window="Correct the voxel size, or confirm it.",
        )


def doubting_once(model: TrainedModel) -> Callable[[Volume, Job[P]], Job[P]]:
    """Return what says, before the first of several jobs over images, what is odd about intensities for a model."""
    asked = [model]

    def told(volume: Volume, job: Job[P]) -> Job[P]:
        while asked:
            of = asked.pop()
            odd = intensity_warnings(_some_of(volume.array), of.plans, of.configuration, of.dataset.channel_names)
            yield from (Note(level="warning", text=text) for text in odd)
        return (yield from job)

    return told


def _some_of(array: Any) -> NDArray[Any]:
    """Return three slices of a volume, or strips of a picture (C, [Z,] Y, X): reading all may take long."""
    count, thick = array.shape[1], 1 if len(array.shape) == 4 else _STRIP
    places = sorted({count // 4, count // 2, 3 * count // 4})
    return np.concatenate([np.asarray(array[:, place : place + thick]) for place in places], axis=1)


def size_notes(model: TrainedModel, cases: Sequence[Case], reader: str) -> Iterator[Note]:
    """Yield what to know of the voxel sizes of a folder, before it is segmented.

    Parameters
    ----------
    model : TrainedModel
        The model.
    cases : sequence of Case
        That will be segmented.
    reader : str
        The model's.
    """
    unknown, unused = [], []
    broken: dict[str, str] = {}
    for case in cases:
        path = case.files[0]
        if reader == "NaturalImage2DIO" or not path.name.lower().endswith(_DOUBTFUL):
            continue
        try:
            geometry = read_header(path, reader=reader_for(path, reader)).geometry
        except NnunetError as error:
            if (beside := sidecar(path)).is_file() and path.name.lower().endswith(_STACKS):
                broken[beside.name] = error.message
            continue  # others are said when their turn comes
        if not geometry.spacing_known:
            unknown.append(path.name)
        elif as_trained(model.plans, model.configuration, geometry) != geometry:
            unused.append(path.name)
    if broken:
        of = f"{len(broken)} of {counted(len(cases), 'case')}"
        text = f"No voxel size can be read for {of} ({some(list(broken), _LISTED)}): "
        text += next(iter(broken.values()))
        yield Note(level="warning", text=f"{text} They will fail; fix the files, or give the size (--spacing).")
    if unknown:
        text = f"No voxel size in {some(unknown, _LISTED)}; 1 mm is assumed in every direction."
        yield Note(level="warning", text=f"{text} Give the size (--spacing) if that is wrong.")
    if unused:
        text = (
            f"The voxel size inside {some(unused, _LISTED)} is kept in the results only: the model was trained on "
            "images without one and treats every voxel as 1 x 1 x 1."
        )
        yield Note(level="warning", text=f"{text} Give a size (--spacing) to have the images resampled.")
