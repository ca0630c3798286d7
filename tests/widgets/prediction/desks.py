"""An image on a model of a viewer, and what runs show of it: most of the Segment dock without its window."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

from helpers import smooth_image
from napari_nnunet.events import drain
from napari_nnunet.jobs.prediction.predict import predict_series
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.widgets.prediction.request import Choices, resolve
from napari_nnunet.widgets.prediction.show import ResultView

FIRST = (np.array([0]),) * 3


class Desk:
    """An image and what runs show of it.

    Parameters
    ----------
    model : TrainedModel
        The model.
    qtbot : QtBot
        Keeps the widget.
    """

    def __init__(self, model, qtbot):
        self.model, self.viewer = model, ViewerModel()
        self.image = self.viewer.add_image(smooth_image((8, 18, 16))[0], name="image", units=["mm"] * 3)
        self.view = ResultView(self.viewer)
        qtbot.addWidget(self.view)

    def choices(self, **others):
        asked = {"axes": "ZYX", "output": "Labels", "times": None, **others}
        return Choices(self.model, (self.image,), spacing_text="", settings=PredictSettings(), region=None, **asked)

    def run(self, meanwhile=lambda result: None, **others):
        """Segment; something may be done before the result is shown. Returns the layer it left."""
        request = resolve(self.choices(**others))
        result = self.view.begin(request)
        meanwhile(result)
        job = predict_series(request.model, result.targets(), request.settings, halt=result.halt)
        predictions = drain(result.noted(job))
        self.view.done(predictions, recommended=None)
        return result.labels

    def labels(self):
        return [layer for layer in self.viewer.layers if isinstance(layer, Labels)]

    def beside(self):
        return [layer for layer in self.viewer.layers if isinstance(layer, Image) and layer is not self.image]


def duplicate(viewer, layer):
    """Do what napari does when somebody duplicates a layer."""
    data, state, kind = layer.as_layer_data_tuple()
    return viewer.add_layer(Layer.create(deepcopy(data), {**state, "name": f"{layer.name} copy"}, kind))
