"""Many images in one press: all that are open, or a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels

from napari_nnunet.errors import NnunetError, SettingsError, counted, some
from napari_nnunet.events import Job
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.model.side_files import what_is_there
from napari_nnunet.formats.workspace import is_folder
from napari_nnunet.jobs.prediction.table import Line, found_in_planes
from napari_nnunet.schema.requests.prediction import PredictFolderRequest, PredictSettings
from napari_nnunet.widgets.frame.layers import Frame, canvas_view, result_shape
from napari_nnunet.widgets.frame.ready import NotReadyError, Remedy
from napari_nnunet.widgets.frame.words import about_time, plain_time
from napari_nnunet.widgets.frame.worker import lazy
from napari_nnunet.widgets.prediction.request import Choices, SegmentRequest, default_axes, resolve
from napari_nnunet.widgets.prediction.result import ResultLayers, left_in

if TYPE_CHECKING:
    from napari_nnunet.jobs.prediction.estimate import Total, estimate_many
    from napari_nnunet.jobs.prediction.folder.loop import FolderResult
    from napari_nnunet.jobs.prediction.predict_files import Survey, predict_folder, survey_folder
else:
    estimate_many = lazy("napari_nnunet.jobs.prediction.estimate:estimate_many")
    predict_folder = lazy("napari_nnunet.jobs.prediction.predict_files:predict_folder")
    survey_folder = lazy("napari_nnunet.jobs.prediction.predict_files:survey_folder")

_NAMED = 4
Costs = Mapping[str, "Total"]


@dataclass(frozen=True, eq=False)
class OpenImages:
    """All open images that a model can read.

    Parameters
    ----------
    requests : tuple of SegmentRequest
        One per image.
    done : tuple of Labels or None
        The result that an image has already.
    left_out : tuple of (str, str)
        Names of the others, and why they cannot be segmented.
    """

    requests: tuple[SegmentRequest, ...]
    done: tuple[Labels | None, ...]
    left_out: tuple[tuple[str, str], ...]

    @property
    def model(self) -> TrainedModel:
        """The model of all."""
        return self.requests[0].model

    @property
    def todo(self) -> list[SegmentRequest]:
        """Those without a result; all, where every one has its own."""
        return [r for r, done in zip(self.requests, self.done, strict=True) if done is None] or list(self.requests)

    @property
    def continues(self) -> bool:
        """Whether some are done."""
        return 0 < len(self.kept) < len(self.requests)

    @property
    def kept(self) -> list[tuple[SegmentRequest, Labels]]:
        """Those with a result."""
        return [(r, layer) for r, layer in zip(self.requests, self.done, strict=True) if layer is not None]


@dataclass(frozen=True, eq=False)
class FolderOrder:
    """A folder of images, and where the results go."""

    model: TrainedModel
    folder: PredictFolderRequest


def open_images(choices: Choices, images: Sequence[Image], typed: Mapping[Image, str], results: Any) -> OpenImages:
    """Return what segmenting all open images means.

    Parameters
    ----------
    choices : Choices
        The form; layers, axes, voxel size and region are each image's own.
    images : sequence of Image
        All that are open.
    typed : mapping of Image to str
        Voxel sizes that were typed for a layer.
    results : iterable of Layer
        The viewer's layers.

    Raises
    ------
    NotReadyError
        If none of them can be segmented, with the reason of the first.
    """
    if choices.model is None:
        raise NotReadyError("Choose a model from the list, or 'Browse…' to its folder.")
    if not images:
        raise NotReadyError("Open images first (File > Open, or File > Open Sample > nnU-Net).")
    requests, left_out = [], []
    for group in groups_of(choices.model, images):
        readings = default_axes(choices.model, group)
        own = replace(
            choices,
            layers=group,
            axes=readings[0] if readings else "",
            spacing_text=typed.get(group[0], ""),
            region=None,
            times=None,
            accepted=None,
        )
        try:
            requests.append(resolve(own))
        except (NotReadyError, NnunetError) as reason:
            left_out.append((group[0].name, str(reason)))
    if not requests:
        raise NotReadyError(left_out[0][1])
    finished = dict(_finished(results))
    return OpenImages(tuple(requests), tuple(_result_of(request, finished) for request in requests), tuple(left_out))


def _finished(layers: Any) -> Iterator[tuple[str, Labels]]:
    """Return the results that runs finished, with what was asked for; of a copy nobody knows of which voxels it is."""
    for layer in layers:
        left = left_in(layer)
        about = layer.metadata.get("nnunet", {}) if isinstance(layer, Labels) else {}
        if left is not None and left.looked and about.get("partial") is False:
            yield left.request, layer


def _result_of(request: SegmentRequest, finished: Mapping[str, Labels]) -> Labels | None:
    """Return the result of an image, None where there is none, or its layer holds what cannot be one by now."""
    layer = finished.get(request.key)
    return layer if layer is not None and holds_a_result(layer, request) else None


def holds_a_result(layer: Labels, request: SegmentRequest) -> bool:
    """Whether a layer has the shape of a result; people give layers other data."""
    return np.shape(layer.data) == result_shape(request.source, request.axes)


def groups_of(model: TrainedModel, images: Sequence[Image]) -> list[tuple[Image | Any, ...]]:
    """Return the layers that are one image each, as the form takes them: one, or one per channel.

    Layers of several channels are found by their names: the same but for the channel's name or number at the end.
    """
    names = model.dataset.channel_names
    rest = (None,) * (len(names) - 1)
    if len(names) == 1:
        return [(layer,) for layer in images]
    endings = [{name.casefold(), str(i), f"{i:04d}"} for i, name in enumerate(names)]
    groups: dict[str, dict[int, Image]] = {}
    found: list[tuple[Image | Any, ...]] = []
    for layer in images:
        before, _, last = layer.name.replace("_", " ").rpartition(" ")
        channel = next((i for i, words in enumerate(endings) if last.casefold() in words), None)
        if default_axes(model, (layer, *rest)) or channel is None:
            found.append((layer, *rest))
        else:
            groups.setdefault(before, {})[channel] = layer
    for own in groups.values():
        whole = len(own) == len(names)
        found.append(tuple(own[i] for i in range(len(names))) if whole else (own[min(own)], *rest))
    return found


def folder_order(
    model: TrainedModel | None,
    settings: PredictSettings,
    images: str,
    results: str,
    spacing: tuple[float, ...] | None,
    cluster: str | None = None,
) -> FolderOrder:
    """Return what segmenting a folder means.

    Raises
    ------
    NotReadyError
        If a folder is missing, or both are the same.
    """
    if model is None:
        raise NotReadyError("Choose a model from the list, or 'Browse…' to its folder.")
    if not images:
        raise NotReadyError("Choose the folder with the images.")
    if not is_folder(Path(images)):
        raise NotReadyError(f"The folder {images} is not there. Choose another one, or connect its disk again.")
    if not results:
        raise NotReadyError("Choose the folder for the results.")
    if not is_folder(Path(results).parent):
        raise NotReadyError(f"The folder {Path(results).parent} is not there. Choose another one for the results.")
    try:
        own = {"source": (Path(images),), "target": Path(results), "spacing": spacing, "cluster": cluster}
        folder = PredictFolderRequest.like(settings, **own, keep_finished=True, table=True)
    except SettingsError as error:
        raise NotReadyError(error.in_window) from error
    return FolderOrder(model, folder)


def segment_folder(order: FolderOrder) -> Job[FolderResult]:
    """Segment what has no segmentation yet; refuses a folder with results that were made otherwise."""
    require_own(order)
    return (yield from predict_folder(order.model, order.folder))


def look_at_many(
    order: OpenImages | FolderOrder, elsewhere: Callable[[Path], object]
) -> Job[tuple[Survey | None, Costs]]:
    """Work out how many images there are, and what they take; ``elsewhere`` chooses another folder for the results."""
    if isinstance(order, FolderOrder):
        require_own(order, elsewhere)
        survey = yield from survey_folder(order.model, order.folder)
        return survey, (yield from estimate_many(order.model, survey.sizes, order.folder.only(PredictSettings)))
    sizes: dict[Any, float] = {}
    for request in order.todo:
        size = request.frames[0].volume.shape, request.grid.spacing
        sizes[size] = sizes.get(size, 0) + len(request.frames)
    return None, (yield from estimate_many(order.model, sizes, order.requests[0].settings))


def require_own(order: FolderOrder, elsewhere: Callable[[Path], object] | None = None) -> None:
    """Raise NotReadyError if the folder of the results holds what was made otherwise."""
    target = order.folder.target
    if what_is_there(order.model, order.folder) != "others":
        return
    text = f"{target} holds segmentations of other images, another model or other settings, which these are not mixed "
    new = next(new for i in range(2, 10_000) if not (new := target.with_name(f"{target.name}_{i}")).exists())
    remedy = None if elsewhere is None else Remedy(f"Segment into {new.name}", lambda: elsewhere(new))
    raise NotReadyError(f"{text}with. Choose another folder for the results.", remedy)


def describe_many(order: OpenImages | FolderOrder) -> str:
    """Return what will be segmented (rich text)."""
    if isinstance(order, FolderOrder):
        return f"<b>Will segment</b> the images of {order.folder.source[0]}"
    names = [f"'{request.source.name}'" for request in order.todo]
    text = f"<b>Will segment</b> {counted(len(names), 'open image')}: {some(names, _NAMED)}"
    if order.continues:
        has = "has its" if len(order.kept) == 1 else "have their"
        text += f". {len(order.kept)} of {len(order.requests)} {has} result already"
    for name, reason in order.left_out[:_NAMED]:
        said = reason if name in reason else f"'{name}'. {reason}"
        text += f".<br>Left out: {said.rstrip('.')}"
    if len(order.left_out) > _NAMED:
        more = len(order.left_out) - _NAMED
        text += f".<br>{more} more {'is' if more == 1 else 'are'} left out"
    return text


def expect_many(order: OpenImages | FolderOrder, survey: Survey | None, costs: Costs) -> str:
    """Return what it will take (rich text)."""
    lines = [describe_many(order)]
    if survey is not None:
        lines[0] += f": {counted(survey.cases, 'image')}"
        if survey.there:
            lines.append(f"{survey.there} of them {'is' if survey.there == 1 else 'are'} segmented already, and kept")
        lines += [survey.left_out.rstrip(".")] if survey.left_out else []
    if costs:
        own = costs["own"]
        when = "Time unknown" if own.seconds is None else about_time(own.seconds)
        guess = "" if own.measured or own.seconds is None else " (a first estimate)"
        lines.append(f"{when}{guess} and {own.memory_bytes / 1e9:.1f} GB of memory, on {own.choice}")
    return ".<br>".join(lines) + "."


def preset_times(costs: Costs) -> dict[str, str]:
    """Return what each preset takes, as the form shows it."""
    return {name: "" if cost.seconds is None else plain_time(cost.seconds) for name, cost in costs.items()}


def _kept_lines(request: SegmentRequest, layer: Labels) -> Job[list[Line]]:
    """Return the lines of an image that was segmented before, as its result is now."""
    labels, info, voxel, classes = layer.data, request.model.dataset, request.voxel_mm, request.settings.classes
    lines = []
    for frame in request.frames:
        view = canvas_view(np.asarray(labels), request.axes, frame.index)
        found = yield from found_in_planes(view, info, voxel, classes=classes)
        lines.append(Line(frame_name(request, frame), "kept", found=found))
    return lines


def frame_name(request: SegmentRequest, frame: Frame) -> str:
    """Return what a line of the table of many images calls a time point."""
    return request.source.name if frame.index is None else f"{request.source.name} (t = {frame.index})"


def count_kept(result: ResultLayers) -> Job[None]:
    """Count what the earlier result of an image holds by now; on the job's thread."""
    if result.kept is not None and holds_a_result(result.kept, result.request):
        result.kept_lines = yield from _kept_lines(result.request, result.kept)


def lost_line(result: ResultLayers, layers: Any) -> Line | None:
    """Return what is said of an image whose earlier result was to be kept, but was taken away meanwhile."""
    there = result.kept in layers
    if result.kept is None or (there and holds_a_result(result.kept, result.request)):
        return None
    gone = "was given other data" if there else "was removed"
    reason = f"Its result {gone} while this ran, so nothing is kept. Run it again to segment this image."
    return Line(result.request.source.name, "lost", reason=reason)
