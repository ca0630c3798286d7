"""A model as a bioimage.io package: one ONNX graph, rdf.yaml, a test input with its output, a page about it."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_nnunet.engine.network.device import Precision
from napari_nnunet.errors import ModelError
from napari_nnunet.events import Note
from napari_nnunet.jobs.prediction.predictor import Predictor
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.version import __version__

FORMAT = "0.5.3"  # of rdf.yaml; every later 0.5 reads it
_NAME = re.compile(r"[^\w \-()+]+")
_LONGEST_NAME = 128  # characters
_STATISTICAL = {"ZScoreNormalization", "RescaleTo01Normalization"}
_ALLOWED: dict[Precision, float] = {"float32": 1e-3, "float16": 2e-2, "int8": 5e-2}  # of probabilities
_MISMATCHED = 1000  # values per million of an 8-bit graph that may be off by more, the most that the format allows
_SHARE = 0.0099  # of the largest probability, what the format lets a test tolerate
_EPS = 1e-6  # what the format adds to deviations and ranges
_CITED = [
    {
        "text": "Isensee, F., Jaeger, P.F., Kohl, S.A.A. et al. nnU-Net: a self-configuring method for deep "
        "learning-based biomedical image segmentation. Nature Methods 18, 203-211 (2021).",
        "doi": "10.1038/s41592-020-01008-z",
    }
]


def require_sayable(predictor: Predictor) -> None:
    """Refuse models whose normalisation the format cannot say.

    Raises
    ------
    ModelError
        If channels are normalised in different ways by their own statistics, or within a mask.
    """
    configuration, name = predictor.model.configuration, predictor.model.name
    own = _STATISTICAL & set(configuration.normalization_schemes)
    if own and len(set(configuration.normalization_schemes)) > 1:
        raise ModelError(
            f"{name} normalises its channels in different ways ({', '.join(configuration.normalization_schemes)}), "
            "which a bioimage.io package cannot say. Export it as onnx or openvino."
        )
    masked = [
        scheme == "ZScoreNormalization" and mask
        for scheme, mask in zip(configuration.normalization_schemes, configuration.use_mask_for_norm, strict=True)
    ]
    if any(masked):
        raise ModelError(
            f"{name} normalises within the part of an image that is not 0, which a bioimage.io package cannot say. "
            "Export it as onnx or openvino."
        )


def package(
    predictor: Predictor, about: Mapping[str, Any], graphs: Any, *, kept: Precision
) -> Iterator[Note | tuple[str, bytes]]:
    """Yield the files of a package, name and content; before them, notes about its check.

    Parameters
    ----------
    predictor : Predictor
        The networks in float32, with the axes to mirror over.
    about : mapping
        What ``description.json`` says; it is attached.
    graphs : module
        :mod:`~napari_nnunet.engine.network.onnx_graph`, which needs a library that may not be there.
    kept : Precision
        How weights are stored.

    Raises
    ------
    ModelError
        If the graph does not give the model's own probabilities.
    """
    model, networks = predictor.model, predictor.ensemble.networks
    patch, regions = tuple(model.configuration.patch_size), model.dataset.labels.has_regions
    own = set(model.configuration.normalization_schemes) <= _STATISTICAL
    scale = None if own else graphs.FixedScale(*_constants(predictor))
    graph = graphs.build_whole(
        networks, patch, scale=scale, mirrors=predictor.ensemble.mirrors, regions=regions, kept=kept
    ).SerializeToString()
    image = _test_image(predictor, patch)
    expected = _probabilities(predictor, _normalised(predictor, image), regions=regions)
    given = image if scale is not None else _normalised(predictor, image)
    found = yield from _compared(graphs, graph, given, expected, kept)
    if kept == "int8" and found is not None:
        expected = found  # the model's own 8-bit arithmetic rounds other values to the other of two steps
    files = {
        "weights.onnx": graph,
        "test_input.npy": _npy(image),
        "test_output.npy": _npy(expected),
        "description.json": (json.dumps(about, indent=2) + "\n").encode(),
        "README.md": _page(predictor, kept).encode(),
    }
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    described = _described(
        predictor,
        patch,
        sums,
        graphs.OPSET,
        tolerance={
            "absolute_tolerance": min(_ALLOWED[kept], _SHARE * float(expected.max())),
            **({"mismatched_elements_per_million": _MISMATCHED} if kept == "int8" else {}),
        },
    )
    yield Note(
        text="rdf.yaml names no authors and no licence. Before you publish the package, fill in 'authors' and "
        "'license' there (an identifier of spdx.org, such as CC-BY-4.0)."
    )
    yield from files.items()
    yield "rdf.yaml", (json.dumps(described, indent=2) + "\n").encode()  # every JSON is YAML


def _constants(predictor: Predictor) -> Iterator[NDArray[np.float32]]:
    """Yield lowest and highest value, mean and deviation for each channel."""
    widest = float(np.finfo(np.float32).max)
    rows = []
    for c, scheme in enumerate(predictor.model.configuration.normalization_schemes):
        if scheme == "CTNormalization":
            seen = predictor.model.plans.intensities[c]
            rows.append((seen.percentile_00_5, seen.percentile_99_5, seen.mean, max(seen.std, 1e-8)))
        else:
            rows.append((-widest, widest, 0.0, 255.0 if scheme == "RGBTo01Normalization" else 1.0))
    yield from np.array(rows, np.float32).T


def _test_image(predictor: Predictor, patch: Sequence[int]) -> NDArray[np.float32]:
    """Return a window of noise (1, C, ...) with the intensities that the model was trained on."""
    noise = np.random.default_rng(0).standard_normal((1, predictor.ensemble.networks[0].channels_in, *patch))
    for c, seen in enumerate(predictor.model.plans.intensities[: noise.shape[1]]):
        noise[:, c] = noise[:, c] * seen.std + seen.mean
    return noise.astype(np.float32)


def _normalised(predictor: Predictor, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an image (1, C, ...) as the package normalises it."""
    axes = tuple(range(2, image.ndim))
    match predictor.model.configuration.normalization_schemes[0]:
        case "ZScoreNormalization":
            wide = image.astype(np.float64)
            return ((wide - wide.mean(axes, keepdims=True)) / (wide.std(axes, keepdims=True) + _EPS)).astype(np.float32)
        case "RescaleTo01Normalization":
            low, high = image.min(axes, keepdims=True), image.max(axes, keepdims=True)
            return (image - low) / (high - low + np.float32(_EPS))
        case _:
            low, high, mean, std = (v.reshape(1, -1, *[1] * len(axes)) for v in _constants(predictor))
            return (np.clip(image, low, high) - mean) / std


def _probabilities(predictor: Predictor, image: NDArray[np.float32], *, regions: bool) -> NDArray[np.float32]:
    """Return what the model itself makes of a normalised window (1, C, ...), as in a prediction."""
    mean = _result(predictor.ensemble.logits(torch.from_numpy(image)))
    head = predictor.ensemble.head()
    if head is not None:
        mean = torch.einsum("hc,nc...->nh...", head[0], mean) + head[1].reshape(-1, *[1] * (image.ndim - 2))
    return (torch.sigmoid(mean) if regions else torch.softmax(mean, 1)).numpy()


def _result(steps: Generator[None, None, Tensor]) -> Tensor:
    while True:
        try:
            next(steps)
        except StopIteration as done:
            mean: Tensor = done.value
            return mean.clone()


def _compared(
    graphs: Any, graph: bytes, image: NDArray[np.float32], expected: NDArray[np.float32], kept: Precision
) -> Generator[Note, None, NDArray[np.float32] | None]:
    found = graphs.run_once(graph, "image", image)
    if found is None:
        text = "The package was not tried: onnxruntime is not installed (pip install onnxruntime)."
        yield Note(level="warning", text=text)
        return None
    off, allowed = how_far(found, expected, kept), _ALLOWED[kept]
    if not off <= allowed:
        raise ModelError(
            f"The package's probabilities are off by {off:.1e}; {allowed:.0e} is allowed. Nothing was written.",
            shell={"float16": "Export without --float16.", "int8": "Export without --int8."}.get(kept, ""),
        )
    yield Note(level="detail", text=f"bioimage.io package: probabilities differ by at most {off:.1e}.")
    return np.asarray(found, np.float32)


def how_far(found: Any, expected: NDArray[np.float32], kept: Precision) -> float:
    """Return how far two results are apart at most; in 8-bit arithmetic, as a root of mean squares.

    There, a value between two steps becomes the one in this program and the other in that, and what follows from it in
    single voxels can be large.
    """
    apart = np.asarray(found, np.float64) - expected
    return float(np.sqrt(np.mean(apart**2)) if kept == "int8" else np.abs(apart).max())


def _npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array))
    return stream.getvalue()


def _described(
    predictor: Predictor, patch: Sequence[int], sums: Mapping[str, str], opset: int, *, tolerance: Mapping[str, float]
) -> dict[str, Any]:
    model = predictor.model
    space = [
        {"type": "space", "id": axis, "size": n, "scale": mm, "unit": "millimeter"}
        for axis, n, mm in zip(_axes(predictor), patch, model.configuration.spacing, strict=True)
    ]
    sized = [
        {**axis, "size": {"tensor_id": "image", "axis_id": axis["id"], "offset": 0}, "halo": n // 4}
        for axis, n in zip(space, patch, strict=True)
    ]

    def tensor(name: str, channels: Sequence[str], axes: list[dict[str, Any]], file: str) -> dict[str, Any]:
        channel = {"type": "channel", "id": "channel", "channel_names": [_channel(c) for c in channels]}
        return {
            "id": name,
            "axes": [{"type": "batch", "id": "batch"}, channel, *axes],
            "test_tensor": {"source": file, "sha256": sums[file]},
            "data": {"type": "float32"},
        }

    image = tensor("image", model.dataset.channel_names, space, "test_input.npy")
    image["preprocessing"] = _preprocessing(predictor)
    heads = model.dataset.labels.head_names
    return {
        "type": "model",
        "format_version": FORMAT,
        "name": _NAME.sub(" ", f"{model.name} (nnU-Net)")[:_LONGEST_NAME].strip(),
        "description": f"nnU-Net for {', '.join(model.dataset.channel_names)}: {', '.join(heads)}."[:1024],
        "documentation": {"source": "README.md", "sha256": sums["README.md"]},
        "attachments": [{"source": "description.json", "sha256": sums["description.json"]}],
        "authors": [{"name": "unknown"}],
        "cite": _CITED,
        "tags": ["nnU-Net", "segmentation", f"{len(patch)}d", "napari-nnunet"],
        "inputs": [image],
        "outputs": [tensor("probabilities", heads, sized, "test_output.npy")],
        "weights": {"onnx": {"source": "weights.onnx", "sha256": sums["weights.onnx"], "opset_version": opset}},
        "config": {
            "bioimageio": {"reproducibility_tolerance": [dict(tolerance)]},
            "napari_nnunet": {"version": __version__, "folds": [str(fold) for fold in predictor.folds]},
        },
    }


def _channel(name: str) -> str:
    return name.strip() or "channel"


def _axes(predictor: Predictor) -> str:
    """Return the image's axes in the order in which the network sees them, "zyx" or two of them."""
    order = "".join("zyx"[axis] for axis in predictor.model.plans.transpose_forward)
    return order[-predictor.model.configuration.ndim :]


def _preprocessing(predictor: Predictor) -> list[dict[str, Any]]:
    axes = [*_axes(predictor)]
    match predictor.model.configuration.normalization_schemes[0]:
        case "ZScoreNormalization":
            return [{"id": "zero_mean_unit_variance", "kwargs": {"axes": axes}}]
        case "RescaleTo01Normalization":
            return [{"id": "scale_range", "kwargs": {"axes": axes, "min_percentile": 0.0, "max_percentile": 100.0}}]
        case _:
            return []  # within the graph


def _page(predictor: Predictor, kept: Precision) -> str:
    model = predictor.model
    tested = (
        "the exported graph, in 8-bit arithmetic"
        if kept == "int8"
        else "the trained network itself, not by the exported graph"
    )
    scheme = model.dataset.labels
    size = " x ".join(f"{mm:.4g}" for mm in model.configuration.spacing)
    return f"""# {model.name}

An nnU-Net of {len(predictor.folds)} fold{"s" if len(predictor.folds) > 1 else ""}, by napari-nnunet {__version__}.

- Input: {", ".join(model.dataset.channel_names)}, resampled to voxels of {size} mm ({", ".join(_axes(predictor))}).
- Normalisation: {", ".join(model.configuration.normalization_schemes)}. nnU-Net takes its statistics from the whole
  image, cropped to what is not 0; a program that feeds windows should do so too.
- Output: {_meaning(scheme)}
- Windows that overlap by half, weighted by a Gaussian, and their sum resampled to the image's voxels, give nnU-Net's
  segmentation. `description.json` says all of it for programs.

## Validation

The test output was computed by {tested}.
"""


def _meaning(scheme: LabelScheme) -> str:
    if scheme.has_regions:
        return (
            f"a probability for each of the regions {', '.join(scheme.head_names)}, which may overlap; a voxel belongs "
            "to a region from 0.5 on."
        )
    return f"a probability for each of {', '.join(scheme.head_names)}; the highest is the class."
