"""The layers a run fills."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray

from napari_nnunet.events import Job
from napari_nnunet.jobs.prediction.result import Halt
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.volume import digest_of
from napari_nnunet.widgets.frame.forms import DERIVED
from napari_nnunet.widgets.frame.layers import (
    canvas_view,
    colormap_of,
    features_of,
    geometry_of,
    result_shape,
)
from napari_nnunet.widgets.prediction.request import SegmentRequest, place_key

#: Metadata key of a layer that holds the probabilities of one class: result, its run, request and model, head, scheme.
PROBABILITY = "nnunet_probability"
#: Metadata key of a layer that a run adds beside its labels: the request, what it shows, its place and its digest.
SHOWN_BESIDE = "nnunet_beside"
_DOUBTS = ("entropy", "disagreement")


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
        self.doubts: list[NDArray[np.float32]] = []  # entropy and disagreement, where models disagree
        self.digest: int | None = None  # of the canvas as the job left it
        self._digests: dict[str, int] = {}  # of what lies beside it
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

    def noted(self, job: Job[Sequence[Any]]) -> Job[Sequence[Any]]:
        """Run a job that fills the canvases, and note on its thread what it left there."""
        predictions = yield from job
        self.digest = digest_of(self.canvas)
        if predictions and predictions[0].uncertainty is not None:
            self.doubts = [self._doubt(predictions, i) for i in range(len(_DOUBTS))]
        self._digests = {name: digest_of(values) for name, values in self._beside()}
        return predictions

    def _doubt(self, predictions: Sequence[Any], index: int) -> NDArray[np.float32]:
        """Return a map of uncertainty of all time points."""
        values = np.zeros(self.canvas.shape, dtype=np.float32)
        for frame, prediction in zip(self.request.frames, predictions, strict=True):
            canvas_view(values, self.request.axes, frame.index)[...] = prediction.uncertainty[index]
        return values

    def _heads(self) -> list[tuple[int, str]]:
        """Return the heads whose probabilities are shown; background stays out."""
        scheme = self.request.model.dataset.labels
        first = 0 if scheme.has_regions else 1
        return [] if self.probabilities is None else list(enumerate(scheme.head_names))[first:]

    def _beside(self) -> list[tuple[str, NDArray[np.float32]]]:
        """Return what is shown beside the labels, by its name."""
        shown = [] if self.probabilities is None else [(f"p({n})", self.probabilities[i]) for i, n in self._heads()]
        return [*shown, *zip(_DOUBTS, self.doubts, strict=False)]

    def layers_beside(self) -> list[Image]:
        """Return an Image layer per foreground head, if probabilities are wanted, and those of the uncertainty."""
        layers = [*self._probability_layers(), *self._uncertainty_layers()]
        for layer, (name, values) in zip(layers, self._beside(), strict=True):
            digest = self._digests.get(name)
            about = {"request": self.request.key, "shows": name, "place": place_key(layer)}
            layer.metadata[SHOWN_BESIDE] = {**about, "digest": digest_of(values) if digest is None else digest}
        return layers

    def _probability_layers(self) -> list[Image]:
        if self.probabilities is None:
            return []
        scheme = self.request.model.dataset.labels
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
            for head, name in self._heads()
        ]

    def _uncertainty_layers(self) -> list[Image]:
        shown = zip(_DOUBTS, self.doubts, strict=False)
        return [doubt_layer(values, f"{self.name}: {name}", self.placement) for name, values in shown]


def unchanged_beside(layer: Any, like: Image) -> bool:
    """Whether a layer shows the same of the same request as another, in its place, with what the run left in it."""
    about = layer.metadata.get(SHOWN_BESIDE) if isinstance(layer, Image) else None
    if about is None or {**about, "digest": 0} != {**like.metadata[SHOWN_BESIDE], "digest": 0}:
        return False
    whole = isinstance(layer.data, np.ndarray) and layer.data.shape == like.data.shape
    return whole and place_key(layer) == about["place"] and digest_of(layer.data) == about["digest"]


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
