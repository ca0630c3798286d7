"""Carry a model elsewhere: networks as ONNX or OpenVINO, what is done around them, and a program of one file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_nnunet.engine.network.backends import compile_network
from napari_nnunet.engine.network.device import BackendChoice, Precision
from napari_nnunet.engine.network.unet import UNet
from napari_nnunet.errors import ModelError, ResourceError
from napari_nnunet.events import Job, Note, Progress, Stage
from napari_nnunet.formats.atomic import remove_leftovers, write_error
from napari_nnunet.formats.model.card import add_file, zip_writer
from napari_nnunet.formats.model.eight_bit import MOST_LOST, EightBit, EightBitMeasured
from napari_nnunet.formats.model.folder import TrainedModel, load_model
from napari_nnunet.jobs.prediction.predictor import Predictor, build_predictor
from napari_nnunet.jobs.sharing.bioimage import how_far, package, require_sayable
from napari_nnunet.jobs.sharing.export import place_of_zip, workplace
from napari_nnunet.schema.names import typed
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.schema.plans import Resampling
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.schema.requests.sharing import CarryFormat, CarryRequest
from napari_nnunet.version import __version__

FORMAT_VERSION = 1  # of description.json
_GRAPHS = {"bioimageio": "onnx"}
_ALLOWED: dict[Precision, float] = {"float32": 1e-3, "float16": 2e-2, "int8": 5e-2}  # of the largest logit


def export_model(request: CarryRequest) -> Job[Path]:
    """Write a model as a zip that needs neither this program nor torch.

    Parameters
    ----------
    request : CarryRequest
        Which model, and how.

    Returns
    -------
    Path
        The zip: the networks (one per fold), ``description.json`` and ``segment.py``, which segments with them.

    Raises
    ------
    ModelError
        If the model is of a kind that cannot be carried, or a network does not give its own logits.
    SettingsError, ResourceError
        If the zip exists, cannot be written, or a library is missing.
    """
    target = request.target
    model = load_model(request.model)
    _require_carriable(model)
    writer = _writer(request.format)
    with place_of_zip(target, replace=request.replace_zip):
        remove_leftovers(target.parent)
        return (yield from _export(model, request, writer))


def _require_carriable(model: TrainedModel) -> None:
    if model.configuration.previous_stage is not None:
        raise ModelError(
            f"{model.name} is the second stage of a cascade: it needs the labels of the first one, which cannot be "
            "carried yet. Export the first stage, or a configuration without stages."
        )
    if model.average == "probabilities":
        raise ModelError(
            f"{model.name} was imported from nnU-Net v1 and averages probabilities, which cannot be exported yet."
        )


def _export(model: TrainedModel, request: CarryRequest, writer: Any) -> Job[Path]:
    settings = PredictSettings(
        device="cpu",
        precision="float32",
        folds=request.folds,
        checkpoint=request.checkpoint,
        mirroring=request.mirrored or request.format != "bioimageio",
    )
    folds = model.resolve_folds(settings.folds, settings.checkpoint)
    yield Stage(name=f"Exporting {model.name}", total=len(folds))
    eight_bit = request.kept == "int8"
    measured = _measured(model) if eight_bit else None
    choice = BackendChoice("cpu", "openvino" if eight_bit else "torch", "int8" if eight_bit else "float32", "", 1)
    predictor = build_predictor(model, settings, choice)
    if measured is not None:
        if predictor.choice.precision != "int8":
            raise ModelError(f"{model.name} cannot be exported: {predictor.choice.why}.")
        yield Note(text=str(measured))
    if ObjectScheme.of(model.dataset) is not None:
        yield Note(
            level="warning",
            text=f"{model.name} numbers objects. The exported model gives its classes (cores and borders); objects are "
            "numbered by this program only.",
        )
    if request.format == "bioimageio":
        yield from _package(predictor, request, writer)
        return request.target
    patch = tuple(model.configuration.patch_size)
    with zip_writer(request.target) as archive, workplace(request.target.parent) as work:
        names = []
        sums: dict[str, str] = {}
        for done, (fold, network) in enumerate(zip(folds, predictor.ensemble.networks, strict=True), start=1):
            path = work / f"fold_{fold}{writer.ENDINGS[0]}"
            try:
                writer.write(network, patch, path, kept=request.kept)
            except OSError as error:
                raise write_error(request.target, error) from error
            yield from _checked(predictor, network, path, writer, request.kept)
            for ending in writer.ENDINGS:
                sums[f"fold_{fold}{ending}"] = add_file(archive, path.with_suffix(ending), f"fold_{fold}{ending}")
            names.append(path.name)
            yield Progress(done=done, total=len(folds))
        about = {**description_of(predictor, request.format, names, request.kept), "files": sums}
        _add(archive, "description.json", (json.dumps(about, indent=2) + "\n").encode())
        _add(archive, "segment.py", runner().encode())
    return request.target


def _package(predictor: Predictor, request: CarryRequest, graphs: Any) -> Job[None]:
    require_sayable(predictor)
    about = description_of(predictor, "onnx", ["weights.onnx"], request.kept)
    with zip_writer(request.target) as archive:
        for part in package(predictor, about, graphs, kept=request.kept):
            if isinstance(part, Note):
                yield part
            else:
                _add(archive, *part)
    yield Progress(done=len(predictor.folds), total=len(predictor.folds))


def runner() -> str:
    """Return the text of the program that segments with a carried model."""
    return (files("napari_nnunet.resources") / "segment.py").read_text(encoding="utf-8")


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    try:
        archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    except OSError as error:
        raise write_error(Path(str(archive.filename)), error) from error


def _measured(model: TrainedModel) -> EightBitMeasured:
    """Return what 8-bit arithmetic costs a model, as it was measured on its validation cases.

    Raises
    ------
    ModelError
        If that was never measured, or costs too much.
    """
    if not model.eight_bit_path.is_file() or (measured := EightBit.read(model.eight_bit_path).measured) is None:
        raise ModelError(
            f"{model.name} was not quantised: what its layers need in 8-bit arithmetic, and how much accuracy that "
            "costs, is found on its training and validation cases first.",
            shell=f"Run 'napari-nnunet quantize -m {typed(model.folder)}', or export without --int8.",
            window="Press 'Make 8-bit' in the Models dock, or switch 8-bit off.",
        )
    if not measured.is_accurate:
        raise ModelError(
            f"{model.name} loses {measured.dice - measured.dice_eight_bit:.4f} of its Dice in 8-bit arithmetic "
            f"({measured.cases} validation cases); at most {MOST_LOST} is allowed. Nothing was written.",
            shell="Export with --float16, which is half the size.",
            window="Switch 'Half the size' on instead.",
        )
    return measured


def _checked(predictor: Predictor, network: UNet, path: Path, writer: Any, kept: Precision) -> Iterator[Note]:
    """Run what was written on a window of noise and compare the logits with the network's own.

    Those are of the same arithmetic: what 8-bit arithmetic itself costs was measured on cases.

    Raises
    ------
    ModelError
        If they differ more than rounding explains.
    """
    run = writer.opened(path)
    if run is None:
        yield Note(
            level="warning",
            text=f"{path.name} was not tried: onnxruntime is not installed (pip install onnxruntime).",
        )
        return
    shape = (1, network.channels_in, *predictor.model.configuration.patch_size)
    window = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    own = compile_network(network, predictor.choice, window.shape)(torch.from_numpy(window)).numpy()
    found = run(window)
    off, allowed = how_far(found, own, kept) / max(float(np.abs(own).max()), 1e-12), _ALLOWED[kept]
    if not off <= allowed:
        raise ModelError(
            f"{path.name} gives logits that are off by {off:.2%} of the largest; {allowed:.1%} is allowed. Nothing was "
            "written.",
            shell={"float16": "Export without --float16.", "int8": "Export without --int8."}.get(kept, ""),
            window="Switch 'Half the size' and '8-bit' off." if kept != "float32" else "",
        )
    yield Note(level="detail", text=f"{path.name}: logits differ by {off:.1e} of the largest.")
    if kept == "float16":
        regions = predictor.model.dataset.labels.has_regions
        other = ((found > 0) != (own > 0)).any(axis=1) if regions else found.argmax(axis=1) != own.argmax(axis=1)
        yield Note(
            text=f"{path.name}: with weights of half the size, {other.mean():.3%} of the voxels of a window of noise "
            "get another label. In images these are voxels between two classes; compare a case before you rely on it."
        )


def description_of(
    predictor: Predictor, kind: CarryFormat, networks: list[str], kept: Precision = "float32"
) -> dict[str, Any]:
    """Return what description.json says: all that is done around the networks (docs/carried-models.md)."""
    model = predictor.model
    plans, configuration, scheme = model.plans, model.configuration, model.dataset.labels
    channels = []
    for i, name in enumerate(model.dataset.channel_names):
        channel: dict[str, Any] = {
            "name": name,
            "normalization": configuration.normalization_schemes[i],
            "use_mask": configuration.use_mask_for_norm[i],
        }
        if i < len(plans.intensities):
            channel.update(
                plans.intensities[i].model_dump(include={"mean", "std", "percentile_00_5", "percentile_99_5"})
            )
        channels.append(channel)
    return {
        "format_version": FORMAT_VERSION,
        "format": kind,
        "made_by": f"napari-nnunet {__version__}",
        "model": model.name,
        "trainer": model.trainer,
        "configuration": configuration.name,
        "networks": networks,
        "weights": kept,
        "sha256": model.hashes(predictor.folds, "checkpoint_final.pth") if _final(predictor) else {},
        "channels": channels,
        "labels": {name: value for value, name in scheme.names.items()},
        "regions_class_order": list(scheme.regions_class_order or ()) if scheme.has_regions else None,
        "heads": scheme.heads,
        "dtype": scheme.dtype,
        "transpose_forward": list(plans.transpose_forward),
        "spacing": list(configuration.spacing),
        "patch": list(configuration.patch_size),
        "step": 0.5,
        "mirror_axes": list(predictor.mirror_axes),
        "resample_image": _rule(configuration.resample_data, logits=False),
        "resample_logits": _rule(configuration.resample_probabilities, logits=True),
    }


def _final(predictor: Predictor) -> bool:
    return all((predictor.model.folder / f"fold_{fold}" / "checkpoint_final.pth").is_file() for fold in predictor.folds)


def _rule(rule: Resampling, *, logits: bool) -> dict[str, Any]:
    """Return a way to resample: splines of an order, planes apart where voxels are far from cubes."""
    order: int | None = 1 if rule.function == "resample_torch_fornnunet" else rule.order
    if rule.function == "no_resampling_hack":
        order = None
    elif logits:
        order = min(order or 0, 1)
    return {
        "order": order,
        "order_z": rule.order_z,
        "force_separate_z": rule.force_separate_z,
        "threshold": rule.separate_z_anisotropy_threshold,
        "clip": rule.function == "resample_data_or_seg_to_shape" and order is not None and order > 1,
    }


def _writer(kind: CarryFormat) -> Any:
    """Return the module that writes a format.

    Raises
    ------
    ResourceError
        If its library is not installed.
    """
    try:
        return import_module(f"napari_nnunet.engine.network.{_GRAPHS.get(kind, kind)}_graph")
    except ImportError as error:
        raise ResourceError(
            f"The library that writes {kind} is not installed ({error.name}). Install it with: pip install "
            '"napari-nnunet[export]"'
        ) from error
