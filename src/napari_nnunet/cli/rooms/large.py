"""Images larger than memory are segmented."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.jobs.large.files import predict_image_files

if TYPE_CHECKING:
    from napari_nnunet.cli.shell import Shell
    from napari_nnunet.schema.requests.large import PredictImageRequest


def predict_image(request: PredictImageRequest, shell: Shell) -> None:
    """Segment one image of any size."""
    model = load_model(request.model)
    result = shell.run(predict_image_files(model, request))
    names = model.dataset.labels.names
    if result.objects is not None:
        print(f"{result.path}: {', '.join(f'{number} x {kind}' for kind, number in result.objects.items())}")
        return
    found = ", ".join(f"{names[value]} {n}" for value, n in enumerate(result.counts) if value in names and value)
    print(f"{result.path}{f': voxels of {found}' if found else ''}")
