"""The layers a run fills."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import numpy as np
from napari.layers import Image, Labels

from napari_nnunet.jobs.prediction.result import Halt
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.widgets.frame.forms import DERIVED
from napari_nnunet.widgets.frame.layers import (
    canvas_view,
    colormap_of,
    features_of,
    geometry_of,
    result_shape,
)
from napari_nnunet.widgets.prediction.request import SegmentRequest

#: Metadata key of a layer that holds the probabilities of one class: result, its run, request and model, head, scheme.
PROBABILITY = "nnunet_probability"


class ResultLayers:
    """The canvases of one run and the layers that show them.

    Parameters
    ----------
    request : SegmentRequest
        What is being run.
    name : str, optional
        Of the result; the image's and the configuration's where not given.
    """

    def __init__(self, request: SegmentRequest, *, name: str | None = None) -> None:
        self.request = request
        self.halt = Halt()
        self.run = uuid4().hex  # results of models with one configuration name have one name
        self._sources = [layer.data for layer in request.layers]
        scheme = request.model.dataset.labels
        shape = result_shape(request.source, request.axes)
        self.placement = geometry_of(request.source, request.axes)
        self.name = name or f"{request.source.name} – {request.model.configuration.name}"
        self.objects = None if request.settings.classes else ObjectScheme.of(request.model.dataset)
        self.canvas = np.zeros(shape, dtype=scheme.dtype if self.objects is None else np.uint32)
        self.probabilities = (
            np.zeros((scheme.heads, *shape), dtype=np.float32) if request.settings.probabilities else None
        )
        self.labels = self.new_labels()

    def new_labels(self) -> Labels:
        """Make the layer that shows the canvas; it takes the place of the one before."""
        scheme = self.request.model.dataset.labels
        # Numbered objects have napari's own colours, which tell neighbours apart.
        known = {} if self.objects else {"colormap": colormap_of(scheme), "features": features_of(scheme)}
        self.labels = Labels(
            self.canvas,
            name=self.name,
            **known,
            metadata={"nnunet": {"partial": True, "model": str(self.request.model.folder)}},
            **self.placement,
        )
        return self.labels

    def shown_in(self, viewer: Any) -> bool:
        """Whether the layer is there and still shows the canvas; people remove layers and replace their data."""
        return self.labels in viewer.layers and np.shares_memory(np.asarray(self.labels.data), self.canvas)

    def is_for(self, request: SegmentRequest) -> bool:
        """Whether a request asks for the same of the same images, which show what they showed."""
        sources = [layer.data for layer in request.layers]
        return request.key == self.request.key and all(a is b for a, b in zip(sources, self._sources, strict=True))

    def targets(self) -> list[tuple[Any, Any, Any]]:
        """Return (volume, labels view, probabilities view) of every frame."""
        axes = self.request.axes
        return [
            (
                frame.volume,
                canvas_view(self.canvas, axes, frame.index),
                None if self.probabilities is None else canvas_view(self.probabilities, axes, frame.index, leading=1),
            )
            for frame in self.request.frames
        ]

    def probability_layers(self) -> list[Image]:
        """Return one Image layer per foreground head; background stays out."""
        if self.probabilities is None:
            return []
        scheme = self.request.model.dataset.labels
        first = 0 if scheme.has_regions else 1
        origin = {"result": self.name, "scheme": scheme.model_dump(), "run": self.run}
        origin |= {"request": self.request.key, "model": str(self.request.model.folder)}
        return [
            Image(
                self.probabilities[head],
                name=f"{self.name}: p({name})",
                contrast_limits=(0, 1),
                colormap="magma",
                blending="additive",
                visible=False,
                metadata={DERIVED: True, PROBABILITY: {**origin, "head": head}},
                **self.placement,
            )
            for head, name in list(enumerate(scheme.head_names))[first:]
        ]

    def uncertainty_layers(self, predictions: Sequence[Any]) -> list[Image]:
        """Return entropy and disagreement of all time points as Image layers."""
        shape = self.canvas.shape
        layers = []
        for i, name in enumerate(("entropy", "disagreement")):
            values = np.zeros(shape, dtype=np.float32)
            for frame, prediction in zip(self.request.frames, predictions, strict=True):
                canvas_view(values, self.request.axes, frame.index)[...] = prediction.uncertainty[i]
            layers.append(doubt_layer(values, f"{self.name}: {name}", self.placement))
        return layers


def doubt_layer(values: Any, name: str, place: dict[str, Any]) -> Image:
    """Return a layer with a map of uncertainty, 0 to 1."""
    return Image(
        np.asarray(values, dtype=np.float32),
        name=name,
        contrast_limits=(0, 1),
        colormap="inferno",
        blending="additive",
        visible=name.endswith("disagreement"),
        opacity=0.7,
        metadata={DERIVED: True},
        **place,
    )
