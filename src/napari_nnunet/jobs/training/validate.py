"""Segment the validation cases of a fold, evaluate them, and prepare them for the next stage."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_nnunet.engine.batches.cascade import one_hot
from napari_nnunet.engine.choosing.metrics import Metrics, blanked, evaluated, measure_labels
from napari_nnunet.engine.image.prepare import Box3, PrepareRecord, plan_grid
from napari_nnunet.engine.network import unet
from napari_nnunet.engine.network.backends import torch_threads
from napari_nnunet.engine.network.device import BackendChoice
from napari_nnunet.engine.network.unet import UNet
from napari_nnunet.engine.prediction.decode import Assembler
from napari_nnunet.engine.prediction.infer import Ensemble
from napari_nnunet.errors import DatasetError, ImageError, NnunetError, memory_told
from napari_nnunet.events import CaseDone, CaseFailed, Job, Note, Progress, Stage
from napari_nnunet.formats.atomic import make_folder, remove_leftovers
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.preprocessed.cases import open_case, read_next_stage, write_next_stage
from napari_nnunet.formats.preprocessed.journal import Journal
from napari_nnunet.formats.results.probabilities import scratch, write_probabilities, write_properties
from napari_nnunet.formats.results.summary import SUMMARY_FILE
from napari_nnunet.formats.workspace import stamp
from napari_nnunet.jobs.arithmetic import prediction_choice
from napari_nnunet.jobs.choosing.evaluate import Rules, read_pair, summary_of
from napari_nnunet.jobs.choosing.pairs import Pair
from napari_nnunet.jobs.prediction.predict import run_with_fallbacks
from napari_nnunet.jobs.prediction.predictor import Predictor
from napari_nnunet.jobs.prediction.result import PreparedImage, Segmentation
from napari_nnunet.jobs.training.object_rules import ObjectJudge
from napari_nnunet.jobs.training.order import Order
from napari_nnunet.schema.dataset import Region, unknown_regions
from napari_nnunet.schema.geometry import Geometry, lift, lift_shape
from napari_nnunet.schema.requests.prediction import PredictSettings


@dataclass(frozen=True)
class ValidationResult:
    """How good a fold is.

    Parameters
    ----------
    folder : Path
        Segmentations and summary.json.
    dice : float or None
        Mean over classes of the mean over cases.
    per_class : dict of str to float
        Mean over cases.
    failed : dict of str to NnunetError
        Cases that could not be segmented or compared, and why.
    """

    folder: Path
    dice: float | None
    per_class: dict[str, float]
    failed: dict[str, NnunetError]


@dataclass(frozen=True, eq=False)
class _Case:
    """A validation case, read."""

    name: str
    data: torch.Tensor
    record: PrepareRecord
    properties: dict[str, Any]
    reference: NDArray[Any]
    geometry: Geometry
    reference_file: Path


def validate_fold(order: Order, network: UNet, choice: BackendChoice) -> Job[ValidationResult]:
    """Segment a fold's validation cases with mirroring, compare them, and write ``validation/summary.json``.

    Parameters
    ----------
    order : Order
        What was trained.
    network : UNet
        With the weights to validate; it is not changed.
    choice : BackendChoice
        Device of the training; the fastest way to predict there is taken.

    Returns
    -------
    ValidationResult
        Cases that failed are in it.
    """
    folder = make_folder(order.folder.validation)
    remove_leftovers(folder)
    predictor = _predictor(order, network, choice)
    names = sorted(order.split.val)
    _forget(folder, order.info.file_ending, names)
    yield Stage(name="Validation", total=len(names))
    found: dict[str, tuple[dict[Region, Metrics], Path]] = {}
    failed: dict[str, NnunetError] = {}
    with (
        ThreadPoolExecutor(1) as reader,
        ThreadPoolExecutor(1) as writer,
        torch_threads(predictor.choice.threads),
        ExitStack() as waiting,
    ):
        judge = yield from ObjectJudge.of(order, waiting)
        names = names if judge is None else judge.first(names)
        ahead = [reader.submit(_read, order, name) for name in names[:1]]
        writing: list[Future[None]] = []
        for i, name in enumerate(names):
            begun = time.monotonic()
            current = ahead.pop()
            ahead += [reader.submit(_read, order, following) for following in names[i + 1 : i + 2]]
            try:
                case = current.result()
                with memory_told():
                    labels = yield from _segment(predictor, order, case, writer, writing, (i, len(names)), judge)
            except NnunetError as error:
                failed[name] = error
                (folder / (name + order.info.file_ending)).unlink(missing_ok=True)  # that of another network
                yield CaseFailed.of(name, error, i, len(names))
                continue
            scheme = order.info.labels
            metrics = measure_labels(case.reference, labels, evaluated(scheme), scheme.ignore_label)
            found[name] = blanked(metrics, unknown_regions(order.info, name)), case.reference_file
            path = folder / (name + order.info.file_ending)
            yield CaseDone(case=name, index=i, total=len(names), path=str(path), seconds=time.monotonic() - begun)
        for future in writing:
            future.result()
        if judge is not None:
            yield from judge.finish()
    return _summary(order, folder, found, failed)


def _forget(folder: Path, ending: str, names: Sequence[str]) -> None:
    """Remove what an earlier network left and this one will not replace: probabilities, and cases of other folds."""
    for path in sorted(folder.iterdir()):
        other = path.name.endswith(ending) and path.name.removesuffix(ending) not in names
        if path.is_file() and (other or path.suffix in (".npz", ".pkl")):
            path.unlink(missing_ok=True)


def _predictor(order: Order, network: UNet, choice: BackendChoice) -> Predictor:
    """Copy the weights into a network of its own: prediction lays them out as it needs."""
    copy = unet.build(order.architecture, order.channels_in, order.info.labels.heads)
    copy.load_state_dict({name: tensor.detach().float().cpu() for name, tensor in network.state_dict().items()})
    settings = PredictSettings(device=choice.device, threads=choice.threads)
    model = TrainedModel(order.model, order.plans, order.info, order.settings.trainer, order.configuration)
    own = prediction_choice(settings, order.architecture)
    ensemble = Ensemble([copy], own, order.configuration.patch_size, order.mirror_axes)
    return Predictor(model, (order.fold,), order.mirror_axes, ensemble)


def _read(order: Order, name: str) -> _Case:
    """Read a preprocessed case and its reference; runs on a thread while the case before is segmented."""
    stored = open_case(order.data, name)
    properties = dict(stored.read_properties())
    path = order.reference(name)
    if not path.is_file():
        raise DatasetError(
            f"The reference {path} is missing.",
            shell="Run 'preprocess' again.",
            window="Press Preprocess in the Plan dock, then train the fold again.",
        )
    reference, geometry = read_labels(path, reader=order.plans.reader)
    try:
        box = properties["bbox_used_for_cropping"]
        crop: Box3 = tuple((int(lo), int(hi)) for lo, hi in box)  # type: ignore[assignment]
        sizes = [geometry.spacing_3d, *_size_of_image(order, name, properties)]
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{stored.properties} does not record how {name} was cropped. Preprocess it again."
        ) from error
    shape = lift_shape(reference.shape)
    data = np.asarray(stored.data[:], dtype=np.float32)
    records = [plan_grid(shape, size, order.plans, order.configuration, crop) for size in sizes]
    record = next((record for record in records if record.network_shape == data.shape[1:]), records[0])
    if data.shape[1:] != record.network_shape:
        raise ImageError(
            f"{name} is preprocessed to {data.shape[1:]} voxels, but its reference asks for {record.network_shape}: "
            "image and reference changed since. Preprocess it again."
        )
    if order.previous is not None:
        previous = np.asarray(read_next_stage(order.previous, name)[:])
        data = np.concatenate((data, one_hot(previous, order.previous_labels)))
    return _Case(name, torch.from_numpy(data), record, properties, reference, geometry, path)


def _size_of_image(order: Order, name: str, properties: Mapping[str, Any]) -> list[tuple[float, ...]]:
    """Return the voxel size that a case was preprocessed with, where that of its reference was not believed."""
    if Journal.of(order.data).joined().get(name) != "ignore":
        return []
    return [tuple(float(size) for size in properties["spacing"])]


def _segment(
    predictor: Predictor,
    order: Order,
    case: _Case,
    writer: ThreadPoolExecutor,
    writing: list[Future[None]],
    progress: tuple[int, int],
    judge: ObjectJudge | None,
) -> Job[NDArray[Any]]:
    done, total = progress
    scheme = order.info.labels
    out = order.folder.validation / (case.name + order.info.file_ending)
    labels = np.zeros(case.reference.shape, dtype=scheme.dtype)
    settings = PredictSettings(device=predictor.choice.device, threads=predictor.choice.threads)
    stages = yield from _next_stages(predictor, order, case)
    with ExitStack() as stack:
        probabilities = None
        judged = judge is not None and judge.wants(case.name)
        if order.settings.probabilities or judged:
            shape = (scheme.heads, *lift_shape(labels.shape))
            probabilities = stack.enter_context(scratch(shape, out.parent))
        task = Segmentation(
            PreparedImage(case.data, case.record),
            settings,
            lift(labels),
            probabilities,
            also=tuple(assembler for assembler, _, _ in stages),
        )
        with closing(run_with_fallbacks(predictor, task)) as job:
            for event in job:
                # What happens within a case is a heartbeat at most: the bar counts cases.
                yield event if isinstance(event, Note) else Progress(done=done, total=total)
        if probabilities is not None and judge is not None and judged:
            yield from judge.take(case.name, probabilities)
        if probabilities is not None and order.settings.probabilities:
            write_probabilities(probabilities, out.with_name(case.name + ".npz"))
            write_properties(case.properties, out.with_name(case.name + ".pkl"))
    for _, canvas, folder in stages:
        patch = order.plans.configuration(folder.name).patch_size
        writing.append(writer.submit(write_next_stage, make_folder(folder), case.name, canvas, patch))
    writing.append(writer.submit(write_labels, labels, case.geometry, out, writer=order.plans.reader))
    return labels


def _next_stages(
    predictor: Predictor, order: Order, case: _Case
) -> Job[Sequence[tuple[Assembler, NDArray[Any], Path]]]:
    """Return what brings the result to the grid of each next stage, where it goes, and its folder."""
    found = []
    scheme = order.info.labels
    for name in order.configuration.next_stage:
        target = order.plans.configuration(name)
        data = order.base / target.data_identifier
        try:
            z, y, x = (int(n) for n in open_case(data, case.name).labels.shape[1:])
        except DatasetError as error:
            yield Note.about(f"{case.name} could not be prepared for {name}:", error)
            continue
        canvas = np.zeros((z, y, x), dtype=np.uint8 if len(scheme.foreground_labels) < 255 else np.uint16)
        whole: Box3 = ((0, z), (0, y), (0, x))
        # nnU-Net calls both spacings its own, so that thick slices are never resampled by themselves here.
        record = replace(
            case.record, transpose_forward=(0, 1, 2), shape=(z, y, x), box=whole, spacing=case.record.network_spacing
        )
        assembler = Assembler(
            record, scheme, order.configuration.resample_probabilities, canvas, None, predictor.ensemble.head()
        )
        found.append((assembler, canvas, order.model / "predicted_next_stage" / name))
    return found


def _dice_anew(pair: Pair, rules: Rules, values: Mapping[int, int]) -> dict[str, float]:
    """Measure an earlier segmentation against the labels of today, whose classes may have other values.

    Parameters
    ----------
    pair : Pair
        Today's labels, and the segmentation.
    rules : Rules
        Of today's labels.
    values : mapping of int to int
        The value of each class in the segmentation, and in the labels.

    Returns
    -------
    dict of str to float
        The Dice by the value in the segmentation; NaN where neither has the class, or nobody looked for it.
    """
    reference, seen, _ = read_pair(pair, rules)
    known = reference != (-1 if rules.ignore_label is None else rules.ignore_label)
    unknown = rules.unknown.get(pair.name, frozenset())
    found = {}
    for theirs, ours in values.items():
        drawn, said = (reference == ours) & known, (seen == theirs) & known
        both = int(drawn.sum()) + int(said.sum())
        nothing = not both or ours in unknown
        found[str(theirs)] = math.nan if nothing else 2 * int((drawn & said).sum()) / both
    return found


def measured_anew(
    order: Order,
    model: TrainedModel,
    references: Mapping[str, Path],
    values: Mapping[int, int],
    old: dict[str, dict[str, float]],
) -> Generator[Note, None, set[str] | None]:
    """Measure the earlier segmentations of cases whose labels changed since; return those that cannot be compared.

    It returns None where the earlier model has no segmentations, so that nothing can be measured.

    Parameters
    ----------
    order : Order
        A training that continued the model.
    model : TrainedModel
        The earlier model.
    references : mapping of str to Path
        Today's labels of the cases that both validated.
    values : mapping of int to int
        The value of each class in the model's segmentations, and in the labels.
    old : dict
        The Dice of each case and class of the model, which is changed.
    """
    folder = model.folder / f"fold_{order.fold}" / "validation"
    gone: set[str] = set()
    told = stamp(folder / SUMMARY_FILE)
    rules = Rules.of(order.info, reader=order.plans.reader)
    if not any((folder / (name + rules.ending)).is_file() for name in references):
        return None  # an installed model brings figures only, and labels that were copied are newer than they
    joined = Journal.of(order.data).joined()
    for name, reference in references.items():
        now = stamp(reference)
        if told is None or now is None or now[0] <= told[0]:
            continue
        try:
            pair = Pair(name, reference, folder / (name + rules.ending))
            old[name] = _dice_anew(pair, replace(rules, ignore_geometry=joined.get(name) == "ignore"), values)
        except NnunetError as error:
            gone.add(name)
            yield Note.about(
                f"{name} is not compared, as its labels changed since the earlier model was validated:", error
            )
    return gone


def _summary(
    order: Order,
    folder: Path,
    found: dict[str, tuple[dict[Region, Metrics], Path]],
    failed: dict[str, NnunetError],
) -> ValidationResult:
    if not found:
        return ValidationResult(folder, None, {}, failed)
    ordered = sorted(found.items())  # objects are looked at in an order of their own
    pairs = [Pair(name, reference, folder / (name + order.info.file_ending)) for name, (_, reference) in ordered]
    summary = summary_of(pairs, [metrics for _, (metrics, _) in ordered], evaluated(order.info.labels))
    summary.write(folder / SUMMARY_FILE)
    return ValidationResult(folder, None if math.isnan(summary.dice) else summary.dice, summary.class_dice, failed)
