"""Short arithmetic with networks that nnU-Net trained: labels are those of float32."""

from __future__ import annotations

import numpy as np
import pytest

from napari_nnunet.engine.network.device import backend_candidates
from napari_nnunet.events import drain
from napari_nnunet.formats.images.files import read_volume
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.schema.requests.prediction import PredictSettings

pytestmark = [pytest.mark.parity, pytest.mark.slow]
_CASES = 3


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_bfloat16_labels_hardly_a_voxel_differently(real_data, configuration):
    backends = [backend for backend, precision in backend_candidates() if precision == "bfloat16"]
    if not backends:
        pytest.skip("this processor has no bfloat16")
    dataset = real_data / "models" / "Dataset004_Hippocampus"
    model = load_model(dataset / f"nnUNetTrainer__nnUNetPlansSmall__{configuration}")
    images = real_data / "data" / "Dataset004_Hippocampus" / "imagesTr"
    held = sorted((model.folder / "fold_0" / "validation").glob("*.nii.gz"))[:_CASES]
    settings = PredictSettings(device="cpu", precision="float32", mirroring=True)
    same: dict[str, list[float]] = {backend: [] for backend in backends}
    for path in held:
        volume = read_volume((images / path.name.replace(".nii.gz", "_0000.nii.gz"),), reader=model.plans.reader)
        exact = drain(predict(model, volume, settings)).labels
        for backend, found in same.items():
            short = drain(predict(model, volume, settings.replace(precision="bfloat16", backend=backend))).labels
            found.append(float((short == exact).mean()))
    assert {
        backend: round(float(np.mean(found)), 5) for backend, found in same.items() if np.mean(found) < 0.9998
    } == {}
