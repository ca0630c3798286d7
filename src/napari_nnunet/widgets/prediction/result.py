"""The layers a run fills."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image, Labels, Layer
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.events import Job
from napari_nnunet.jobs.prediction.result import Halt, ImageTurn
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.volume import WatchedArray, digest_of
from napari_nnunet.widgets.files.place import place_key
from napari_nnunet.widgets.frame.forms import DERIVED
from napari_nnunet.widgets.frame.layers import (
    FOLLOWED,
    ORIGIN,
    SPARSE,
    VALUES,
    add_layer,
    canvas_view,
    colormap_of,
    features_of,
    geometry_of,
    remove_layer,
    result_shape,
)
from napari_nnunet.widgets.objects.feature_table import write_features
from napari_nnunet.widgets.objects.voxels import look_into, voxels_of
from napari_nnunet.widgets.prediction.request import SegmentRequest

#: Metadata key of a layer that holds the probabilities of one class: result, its run, request and model, head, scheme.
PROBABILITY = "nnunet_probability"
_SOMEBODYS = {ORIGIN, VALUES, SPARSE, FOLLOWED}  # keys of metadata that say what somebody did with a layer
_LABELS, _DOUBTS = "labels", ("entropy", "disagreement")


@dataclass(eq=False)
class Left:
    """A layer as a run left it: whoever paints in it, moves it or gives it another name makes it their own.

    Parameters
    ----------
    shows : str
        What of the result it shows.
    name, place : str
        As the run gave them.
    features : DataFrame or None
        Those of Labels.
    request : str
        Which request the run was of; empty while it runs.
    digest : int or None
        Of all voxels; None where somebody painted while it ran.
    images : list of mapping of str to int
        What the images held, see :attr:`~napari_nnunet.jobs.prediction.result.Halt.seen`.
    weights : str
        Hashes of the checkpoints; empty where they are not known.
    looked : list of int or WatchedArray
        The same as ``images``, to look at them again; of a finished run.
    """

    shows: str
    name: str
    place: str
    features: Any = None
    request: str = ""
    digest: int | None = None
    images: list[dict[str, int]] = field(default_factory=list)
    weights: str = ""
    looked: list[int | WatchedArray] = field(default_factory=list)

    @classmethod
    def of(cls, layer: Image | Labels, shows: str = _LABELS) -> Left:
        """Return a layer as it is when it is made."""
        return cls(shows, layer.name, place_key(layer), layer.features.copy() if isinstance(layer, Labels) else None)

    def is_like(self, other: Left) -> bool:
        """Whether another layer shows the same of the same request, as far as both looked at images and weights."""
        if (self.request, self.shows) != (other.request, other.shows) or not self.request:
            return False
        seen = len(self.images) == len(other.images) and all(
            own.items() <= more.items() for own, more in zip(self.images, other.images, strict=True)
        )
        return seen and ("" in (self.weights, other.weights) or self.weights == other.weights)


#: Layers that runs made, as they left them. A duplicate is none of them.
_LEFT: WeakKeyDictionary[Layer, Left] = WeakKeyDictionary()


def left_in(layer: Layer) -> Left | None:
    """Return what a run left in a layer that it made itself, None for any other layer."""
    return _LEFT.get(layer)


def rivals(viewer: Any, request: str) -> list[Any]:
    """Return the layers that may give way to what a request makes."""
    found = [layer for layer, left in _known(viewer) if left.request == request]
    for layer in found:
        voxels_of(layer)
    return found


def is_untouched(layer: Layer, *, lately: bool = True) -> bool:
    """Whether a layer holds the voxels that the segmentation, and postprocessing, left in it.

    Not ``lately``, what a script wrote into its array is noticed once the layer is drawn, and less is read.
    """
    left = _LEFT.get(layer)
    if left is None or left.digest is None:
        return False
    return left.digest == voxels_of(layer).digest(layer, lately=lately)


def is_as_left(layer: Layer) -> bool:
    """Whether a layer is as a run left it, so that the same again may take its place; a training case is somebody's."""
    left = _LEFT.get(layer)
    if left is None or layer.name != left.name or place_key(layer) != left.place or _SOMEBODYS & set(layer.metadata):
        return False
    return (left.features is None or layer.features.equals(left.features)) and is_untouched(layer)


def show(viewer: Any, layer: Image | Labels, left: Left) -> Any:
    """Show a new layer, or the same in the layer of an earlier run if it is as that left it; returns which."""
    same = [other for other, own in _known(viewer) if own.is_like(left)]
    before = next(filter(is_as_left, same), None)
    if before is None:
        add_layer(viewer, layer)
    else:
        before.metadata.update(layer.metadata)
        before.data = layer.data
    shown = layer if before is None else before
    _LEFT[shown] = replace(left, name=shown.name)
    return shown


def show_instead(viewer: Any, layer: Labels, of: str, digest: int) -> None:
    """Show a new layer instead of those that show the same and are as they were left; others stay beside it.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Gets the layer.
    layer : Labels
        New.
    of : str
        What it shows.
    digest : int
        Of all of its voxels.
    """
    take_away(viewer, of)
    add_layer(viewer, layer)
    _LEFT[layer] = replace(Left.of(layer), request=of, digest=digest)


def take_away(viewer: Any, of: str) -> None:
    """Remove the layers that show something and are as they were left."""
    for before in [other for other, left in _known(viewer) if left.request == of and is_as_left(other)]:
        remove_layer(viewer, before)


def _known(viewer: Any) -> list[tuple[Any, Left]]:
    """Return the layers that were made here, and how they were left."""
    return [(layer, left) for layer in viewer.layers if (left := left_in(layer)) is not None]


def frames_in(axes: str, times: Sequence[int | None], labels: NDArray[Any]) -> list[NDArray[Any]]:
    """Return views of labels in a result's shape that are taken by themselves: one per time point."""
    return [canvas_view(labels, axes, time) for time in times]


def put_features(layer: Labels, features: Mapping[str, Any]) -> None:
    """Give a layer the features that were measured of it; that is no change by hand, and columns of others stay."""
    left = _LEFT.get(layer)
    own = left is not None and layer.features.equals(left.features)
    write_features(layer, features)
    if left is not None and own:
        left.features = layer.features.copy()


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
        self._painted = False  # while it ran
        self.rivals: list[Any] = []  # layers that may give way to those of this run
        self.kept: Labels | None = None  # an earlier result, which stays if the image holds what it held
        self.kept_lines: list[Any] = []  # of the table of images, for that
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
        self.left = Left.of(self.labels)
        self._strokes = voxels_of(self.labels).version(self.labels)
        return self.labels

    @property
    def painted(self) -> bool:
        """Whether somebody painted while it ran, took a stroke back, or brought one back."""
        return self._painted or voxels_of(self.labels).version(self.labels) != self._strokes

    def go_on(self, request: SegmentRequest) -> None:
        """Take up a run that was cancelled, with the voxels there are now."""
        self.request, self._painted = request, False
        self._strokes = voxels_of(self.labels).version(self.labels)

    def add_to(self, viewer: Any) -> None:
        """Add the layer to a viewer, which numbers names that are taken."""
        own = self.labels.name == self.left.name
        add_layer(viewer, self.labels)
        if own:
            self.left.name = self.labels.name

    def call(self, name: str) -> None:
        """Name the layer, unless somebody gave it another name meanwhile."""
        if self.labels.name == self.left.name:
            self.labels.name = name
            self.left.name = self.labels.name

    def leave(self, recipe: Mapping[str, Any]) -> Left:
        """Note how the run leaves its layer, with the recipe of a finished one."""
        self.left.request, self.left.images = self.request.key, self.halt.seen
        self.left.weights = _weights_of(recipe)
        self.left.looked = self.halt.looked() if recipe else []
        if not self.painted:
            self.left.digest = digest_of(self.canvas) if self.digest is None else self.digest
            voxels_of(self.labels).note(self.labels, self.left.digest)
        _LEFT[self.labels] = self.left
        return self.left

    def shown_in(self, viewer: Any) -> bool:
        """Whether the layer is there and still shows the canvas; people remove layers and replace their data."""
        return self.labels in viewer.layers and np.shares_memory(np.asarray(self.labels.data), self.canvas)

    @property
    def waits(self) -> bool:
        """Whether its layer is not to be seen yet: nobody knows whether there is anything to segment."""
        return self.kept is not None

    def turn(self, focus: Any, keeping: Callable[[], Job[object]]) -> ImageTurn:
        """Return what is done with its image, among others; ``keeping`` runs where an earlier result is kept."""
        request, left = self.request, None if self.kept is None else left_in(self.kept)
        own: dict[str, Any] = {"before": None if left is None else left.looked, "noted": self.noted}
        name, targets = request.source.name, self.targets()
        return ImageTurn(name, targets, request.settings, self.halt, focus, **own, keeping=keeping)

    def is_for(self, request: SegmentRequest) -> bool:
        """Whether a request asks for the same of the same images, which show what they showed."""
        return request.key == self.request.key

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
        """Run a job that fills the canvases, and note on its thread what it left there.

        Raises
        ------
        ImageError
            If a script changed the layer of a cancelled run, which would be carried on with: it is left as it is.
        """
        before, self.digest = self.digest, None
        earlier, self.rivals = self.rivals, []
        if self.halt.begun and before is not None and digest_of(self.canvas) != before:
            self._painted = True
            raise ImageError(
                f"The voxels of '{self.labels.name}' were changed since it was cancelled, so nothing was added to it. "
                "Run it again to segment all of the image; the layer stays as it is."
            )
        try:
            predictions = yield from job
        finally:
            self.digest = digest_of(self.canvas)
        look_into(earlier)
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

    def show_beside(self, viewer: Any) -> None:
        """Show probabilities and uncertainty, in the layers of an earlier run where they are as that left them."""
        layers = [*self._probability_layers(), *self._uncertainty_layers()]
        for layer, (shows, values) in zip(layers, self._beside(), strict=True):
            digest = self._digests.get(shows)
            left = replace(Left.of(layer, shows), request=self.left.request, images=self.left.images)
            left.digest, left.weights = digest_of(values) if digest is None else digest, self.left.weights
            show(viewer, layer, left)

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


def _weights_of(recipe: Mapping[str, Any]) -> str:
    """Return which weights a result was made with, those of all members."""
    used = [own.get("sha256") for own in (recipe, *recipe.get("members", ()))]
    return repr(used) if any(used) else ""


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
