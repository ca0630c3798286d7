"""Models that are quantised without NNCF: with wide ranges for all that convolutions read."""

from __future__ import annotations

import json

from napari_nnunet.engine.network.device import choose
from napari_nnunet.engine.network.unet import weights_digest
from napari_nnunet.jobs.prediction.predictor import build_predictor
from napari_nnunet.schema.requests.prediction import PredictSettings

MEASURED = {
    "computer": "elsewhere", "arithmetic": "torch float32", "cases": 3, "dice": 0.9, "seconds": 2.0,
    "dice_eight_bit": 0.899, "seconds_eight_bit": 1.0,
}  # fmt: skip


def ranges_of(network, shape, widest=6.0):
    """Return ranges from -widest to widest of all that the convolutions of a network read."""
    from napari_nnunet.engine.network.eight_bit import _named
    from napari_nnunet.engine.network.openvino_backend import build_graph

    nodes = _named(build_graph(network, shape)).get_ordered_ops()
    readers = [node for node in nodes if node.get_type_name().startswith(("Convolution", "Concat"))]
    read = {value.get_node().get_friendly_name() for node in readers for value in node.input_values()}
    known = {node.get_friendly_name() for node in nodes if node.get_type_name() not in ("Constant", "Concat")}
    return dict.fromkeys(read & known, (-widest * 128 / 127, widest))


def write_ranges(model, *, measured=None, **changes):
    """Write eight_bit.json for all folds, with changes of their entries."""
    usual = PredictSettings(device="cpu", precision="float32", mirroring=False)
    found = build_predictor(model, usual, choose(usual))
    shape = (1, model.channels_in, *model.configuration.patch_size)
    folds = {
        str(fold): {
            "checkpoint": "checkpoint_final.pth",
            "weights": weights_digest(network),
            "ranges": ranges_of(network, shape),
            **changes,
        }
        for fold, network in zip(found.folds, found.ensemble.networks, strict=True)
    }
    model.eight_bit_path.write_text(json.dumps({"version": 1, "folds": folds, "measured": measured}))
