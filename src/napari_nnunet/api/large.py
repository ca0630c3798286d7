"""Segment images larger than memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_nnunet.api.doors import Folder, OnEvent, merged, opened_model
from napari_nnunet.errors import ImageError
from napari_nnunet.events import drain
from napari_nnunet.formats.large.opening import image_of
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.jobs.large.files import open_for
from napari_nnunet.jobs.large.predict_image import LargeResult
from napari_nnunet.jobs.large.predict_image import predict_image as predict_image_job
from napari_nnunet.schema.requests.keywords import keywords
from napari_nnunet.schema.requests.large import PredictImageRequest, PredictImageSettings


@keywords(PredictImageSettings)
def predict_image(
    model: TrainedModel | Folder,
    image: Folder | Sequence[Folder] | Any,
    result: Folder,
    *,
    level: str | None = None,
    axes: str | None = None,
    spacing: tuple[float, ...] | None = None,
    settings: PredictImageSettings | None = None,
    on_event: OnEvent | None = None,
    **changes: Any,
) -> LargeResult:
    """Segment one image of any size with a trained model, block by block.

    Parameters
    ----------
    model : TrainedModel, str or Path
        A model folder, opened or not.
    image : str, Path, a sequence of those, or array-like
        OME-Zarr, zarr, a folder of TIFF planes, TIFF, NIfTI, ...; several hold the channels. Or an array of any kind
        with slices (dask, zarr, numpy), which is never read as a whole.
    result : str or Path
        ``NAME.zarr``, ``IMAGE.zarr/labels/NAME``, or a file of another format where it fits into memory.
    level : str, optional
        Level of an OME-Zarr image; the one whose voxels are the nearest to the model's if not given.
    axes : str, optional
        A letter per axis: T, C, Z, Y, X; what the image says, and ([C,] [Z,] Y, X) for an array, if not given.
    spacing : tuple of float, optional
        Voxel size in mm, ``([z,] y, x)``; needed with arrays, instead of what the image says.
    settings : PredictImageSettings, optional
        What the keywords change; nnU-Net's own settings where not given.
    on_event : callable, optional
        Called with every event: progress, notes.
    **changes

    Returns
    -------
    LargeResult
        ``path``, and ``counts`` of voxels of every label value; of a model of numbered objects ``objects`` instead, how
        many there are of each kind.
    """
    known, asked = opened_model(model), merged(PredictImageSettings, settings, changes)
    if hasattr(image, "shape"):
        if spacing is None:
            raise ImageError("An array has no voxel size. Pass spacing=(z, y, x) in mm, or (y, x) for a picture.")
        source = image_of(image, spacing, axes)
    else:
        paths = (image,) if isinstance(image, str | Path) else tuple(image)
        named = tuple(str(path) for path in paths)
        request = PredictImageRequest.of(
            model=known.folder, source=named, target=Path(result), level=level, axes=axes, spacing=spacing
        )
        source = open_for(known, request)
    return drain(predict_image_job(known, source, Path(result), asked), on_event)
