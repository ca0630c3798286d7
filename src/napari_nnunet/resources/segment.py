"""Segment images with a carried model: numpy, scipy and onnxruntime (or openvino) are all it needs.

    python segment.py IMAGE.npy [IMAGE.npy ...] -o LABELS.npy --spacing Z Y X

Every IMAGE is one channel, in the model's order: .npy, or .nii/.nii.gz where nibabel is installed, with its spacing.
From Python: ``Carried("folder").segment(array, spacing)``. What is done stands in description.json beside this file.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

VERSION = 1
Array = Any
Entry = dict[str, Any]
_NIFTI, _MM = (".nii", ".nii.gz"), {1: 1e3, 3: 1e-3}  # NIfTI says metres, micrometres; else mm
_VALUES = {"uint8": 1 << 8, "uint16": 1 << 16}
_LONGEST, _LONGEST_NAME = 1 << 24, 240  # bytes of description.json, and of the name of a file
_MOST_OF_A_PATCH, _MOST_VOXELS = 1 << 28, 1 << 32  # the latter resampled; more are of a wrong voxel size
_SCHEMES = ("ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it would tell a server of each import
_core = cache(lambda: import_module("openvino").Core())  # it stays: one that goes takes the stack for signals along
_OF_CT = ("mean", "std", "percentile_00_5", "percentile_99_5")


def _real(value: Any, least: float = -1e38, most: float = 1e38) -> bool:
    return type(value) in (int, float) and least <= value <= most


def _whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _all(values: Any, good: Callable[[Any], bool], least: int = 1, most: int = 1 << 16) -> bool:
    return isinstance(values, list) and least <= len(values) <= most and all(map(good, values))


def _is_name(value: Any) -> bool:
    short = isinstance(value, str) and 0 < len(value.encode("utf-8", "replace")) <= _LONGEST_NAME
    return short and value not in (".", "..") and not set(value) & set("/\\:\0")


def _axes(values: Any, count: int, least: int) -> bool:
    return _all(values, lambda n: _whole(n, 0, count - 1), least, count) and len(set(values)) == len(values)


def _is_channel(value: Any) -> bool:
    scheme = value.get("normalization") if isinstance(value, dict) and type(value.get("use_mask")) is bool else None
    return scheme in _SCHEMES or (scheme == "CTNormalization" and all(_real(value.get(name)) for name in _OF_CT))


def _is_rule(value: Any) -> bool:
    order, ways = value.get("order", ...) if isinstance(value, dict) else ..., (None, True, False)
    if not (order is None or _whole(order, 0, 5)) or not any(value.get("force_separate_z", ...) is way for way in ways):
        return False
    return _whole(value.get("order_z"), 0, 5) and _real(value.get("threshold"), 0) and type(value.get("clip")) is bool


_RULE = "a rule with order, order_z, force_separate_z, threshold and clip"
#: Every key that is used: what it must be, and whether it is that, given those that were found good before.
_KEYS: dict[str, tuple[str, Callable[[Any, Entry], bool]]] = {
    "format_version": ("1", lambda v, _: _whole(v, 1, VERSION)),
    "format": ("'onnx' or 'openvino'", lambda v, _: v in ("onnx", "openvino")),
    "networks": ("names of files beside it", lambda v, _: _all(v, _is_name)),
    "files": ("the SHA-256 of files beside it", lambda v, _: isinstance(v, dict) and all(map(_is_name, v))),
    "channels": ("nnU-Net's normalization of each channel, with its numbers", lambda v, _: _all(v, _is_channel)),
    "dtype": ("'uint8' or 'uint16'", lambda v, _: v in list(_VALUES)),
    "heads": ("a number of classes that dtype can hold", lambda v, a: _whole(v, 1, _VALUES[a["dtype"]])),
    "regions_class_order": ("null, or a label for each of the heads", lambda v, a: v is None or _all(
        v, lambda n: _whole(n, 0, _VALUES[a["dtype"]] - 1), a["heads"], a["heads"])),
    "transpose_forward": ("the axes 0, 1 and 2", lambda v, _: _axes(v, 3, 3)),
    "spacing": ("two or three sizes in mm", lambda v, _: _all(v, lambda n: _real(n, 1e-9, 1e9), 2, 3)),
    "patch": ("a side for each spacing", lambda v, a: _all(v, lambda n: _whole(n, 1, 1 << 14), *[len(a["spacing"])] * 2)
              and math.prod(v) <= _MOST_OF_A_PATCH),
    "step": ("a number above 0, at most 1", lambda v, _: _real(v, 0.01, 1)),
    "mirror_axes": ("axes of patch, each once", lambda v, a: _axes(v, len(a["patch"]), 0)),
    **dict.fromkeys(("resample_image", "resample_logits"), (_RULE, lambda v, _: _is_rule(v))),
}  # fmt: skip


def _file(path: Path) -> str:
    if not path.exists():
        raise ValueError(f"{path} does not exist.")
    if any(part.exists() and not part.is_file() for part in (path, path.with_suffix(".bin"))):
        raise ValueError(f"{path} is not a file.")  # but a pipe perhaps, and whoever opens one waits
    return str(path)


def _described(path: Path) -> Entry:
    """Return what description.json says; raises ValueError with the key unless all that is used is what it must be."""
    if not path.exists():
        raise ValueError(f"{path} does not exist. Unpack the model again, all of it into one folder.")
    try:
        with open(_file(path), "rb") as file:
            about = json.loads(file.read(_LONGEST))  # a longer one is cut off, and no JSON then
        if not isinstance(about, dict):
            raise ValueError("there is no object in it")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Unpack the model again.") from error
    version = about.get("format_version")
    if _whole(version, VERSION + 1, 1 << 31):
        raise ValueError(f"This model was exported by a later version ({version}); take its own segment.py.")
    about.setdefault("files", {})  # earlier exports have no checksums
    for key, (allowed, good) in _KEYS.items():
        if not good(about.get(key, ...), about):
            found = f"is {about[key]!r:.60}" if key in about else "is missing"
            raise ValueError(f"{path}: '{key}' {found}; it must be {allowed}. Unpack the model again.")
    return about


def _require_whole(folder: Path, files: Entry) -> None:
    """Raise ValueError unless the files of the model are those that were exported."""
    for name, digest in files.items():
        path = folder / name
        wrong = "does not exist" if not path.exists() else "was changed or damaged since the model was exported"
        if not path.exists() or hashlib.sha256(Path(_file(path)).read_bytes()).hexdigest() != digest:
            raise ValueError(f"{path} {wrong}. Unpack the model again, all of it into one folder.")


class Carried:
    """A model that was carried here.

    Parameters
    ----------
    folder : str or Path
        With description.json and the networks.
    threads : int
        For the networks; 0 means all cores.
    """

    def __init__(self, folder: str | Path, threads: int = 0) -> None:
        self.folder = Path(folder)
        self.about = _described(self.folder / "description.json")
        _require_whole(self.folder, self.about["files"])
        opened = _open_openvino if self.about["format"] == "openvino" else _open_onnx
        with _told(f"The networks in {folder} cannot be opened"):
            self._networks = [opened(self.folder / name, threads) for name in self.about["networks"]]

    def segment(self, image: Array, spacing: Sequence[float] | None = None, *, mirroring: bool = True) -> Array:
        """Return the labels of an image; raises ValueError if image, description and networks do not fit.

        Parameters
        ----------
        image : ndarray, shape (C, [Z,] Y, X), or ([Z,] Y, X) for models of one channel
            As it was acquired; it is not changed.
        spacing : sequence of float, optional
            Voxel size ([z,] y, x) in the unit of the training (mm); the network's own if not given.
        mirroring : bool
            Whether the mean is taken over mirrored copies.

        Returns
        -------
        ndarray of int, shape ([Z,] Y, X)
        """
        data, flat, size = self._checked(np.asarray(image), spacing)
        about = self.about
        forward = tuple(about["transpose_forward"])
        data = np.transpose(data, (0, *(a + 1 for a in forward)))
        size = tuple(size[a] for a in forward)
        data = np.where(np.isfinite(data), data, 0).astype(np.float32)
        mask = (data != 0).any(axis=0)
        box = _box(mask)
        inside = ndimage.binary_fill_holes(mask)[box]
        crop = data[(slice(None), *box)].copy()
        for channel, rule in zip(crop, about["channels"], strict=True):
            _normalise(channel, rule, inside)
        target = (*size[: 3 - len(about["spacing"])], *about["spacing"])
        shape = tuple(max(1, round(s / t * n)) for s, t, n in zip(size, target, crop.shape[1:], strict=True))
        if math.prod(shape) > _MOST_VOXELS:
            raise ValueError(f"The image would have {shape} voxels of {target} mm, as it has voxels of {size} mm.")
        seen = np.stack([_resampled(channel, shape, size, target, about["resample_image"]) for channel in crop])
        logits = self._logits(seen, mirroring)
        back = about["resample_logits"]
        logits = np.stack([_resampled(head, crop.shape[1:], target, size, back) for head in logits])
        labels = np.zeros(mask.shape, dtype=about["dtype"])
        labels[box] = self._decided(logits)
        labels = np.transpose(labels, np.argsort(forward))
        return labels[0] if flat else labels

    def _checked(self, image: Array, spacing: Sequence[float] | None) -> tuple[Array, bool, tuple[float, ...]]:
        channels = len(self.about["channels"])
        if image.dtype.kind not in "buif":
            raise ValueError(f"The image holds values of type {image.dtype}; the model takes real numbers.")
        if (
            image.ndim in (2, 3)
            and channels == 1
            and not (image.ndim == 3 and image.shape[0] == 1 and len(self.about["patch"]) == 2)
        ):
            image = image[None]
        if image.ndim not in (3, 4) or image.shape[0] != channels or not image.size:
            takes = f"{channels} channel{'s' if channels > 1 else ''}"
            raise ValueError(f"The model takes {takes} (C, [Z,] Y, X); the image has shape {image.shape}.")
        flat = image.ndim == 3
        own = [self.about["spacing"][0], *self.about["spacing"]][-3:]
        own = [own[self.about["transpose_forward"].index(axis)] for axis in range(1 if flat else 0, 3)]
        if spacing is None:
            print(f"segment.py: no voxel size is known (--spacing); the model's is taken: {own} mm.", file=sys.stderr)
        known = tuple(own if spacing is None else spacing)
        if len(known) != image.ndim - 1 or not all(0 < size < math.inf for size in known):
            raise ValueError(f"spacing must be {image.ndim - 1} positive numbers, not {known}.")
        return (image[:, None], True, (999.0, *known)) if flat else (image, False, known)

    def _logits(self, data: Array, mirroring: bool) -> Array:
        patch = tuple(self.about["patch"])
        plane = len(patch) == 2
        window = (1, *patch) if plane else patch
        pads = [max(p - n, 0) for n, p in zip(data.shape[1:], window, strict=True)]
        padded = np.pad(data, [(0, 0), *((p // 2, p - p // 2) for p in pads)])
        begins = [_starts(n, p, self.about["step"]) for n, p in zip(padded.shape[1:], window, strict=True)]
        weights = _importance(patch).reshape(window)
        axes = self.about["mirror_axes"] if mirroring else []
        mirrors = [m for count in range(len(axes) + 1) for m in itertools.combinations(axes, count)]
        total = np.zeros((self.about["heads"], *padded.shape[1:]), dtype=np.float32)
        weight = np.zeros(padded.shape[1:], dtype=np.float32)
        for start in itertools.product(*begins):
            where = tuple(slice(s, s + p) for s, p in zip(start, window, strict=True))
            tile = padded[(slice(None), *where)]
            tile = tile[:, 0] if plane else tile
            seen = np.zeros((self.about["heads"], *patch), dtype=np.float32)
            for network, mirror in itertools.product(self._networks, mirrors):
                turned = tuple(a + 1 for a in mirror)
                seen += np.flip(_run(network, np.flip(tile, turned), seen.shape), turned)
            seen /= len(self._networks) * len(mirrors)
            total[(slice(None), *where)] += seen.reshape(-1, *window) * weights
            weight[where] += weights
        total /= weight
        return total[(slice(None), *(slice(p // 2, p // 2 + n) for p, n in zip(pads, data.shape[1:], strict=True)))]

    def _decided(self, logits: Array) -> Array:
        order = self.about["regions_class_order"]
        if order is None:
            return np.argmax(logits, axis=0)
        labels = np.zeros(logits.shape[1:], dtype=np.int64)
        for value, region in zip(order, logits, strict=True):
            labels[region > 0] = value
        return labels


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn whatever a library raises into a ValueError that says what could not be done."""
    try:
        yield
    except (ImportError, MemoryError, OSError):
        raise
    except Exception as error:
        raise ValueError(f"{what}: {' '.join(str(error).split())[:500] or type(error).__name__}") from error


def _run(network: Any, tile: Array, shape: tuple[int, ...]) -> Array:
    """Return the logits of a window."""
    with _told("A network does not take windows as description.json says"):
        found = np.asarray(network(tile), dtype=np.float32)
    if found.shape != shape:
        raise ValueError(f"A network gives logits {found.shape}, where description.json says {shape}.")
    if not np.isfinite(found).all():
        raise ValueError("A network gives values that are not numbers. Its weights are damaged, or the image is.")
    return found


def _open_onnx(path: Path, threads: int) -> Any:
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(_file(path), options, providers=onnxruntime.get_available_providers())
    name = session.get_inputs()[0].name
    return lambda tile: session.run(None, {name: np.ascontiguousarray(tile[None], dtype=np.float32)})[0][0]


def _open_openvino(path: Path, threads: int) -> Any:
    own = {"INFERENCE_NUM_THREADS": str(threads), "ENABLE_CPU_PINNING": "NO"} if threads else {}
    compiled = _core().compile_model(_file(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32", **own})
    return lambda tile: compiled(np.ascontiguousarray(tile[None], dtype=np.float32))[0][0].copy()


def _box(mask: Array) -> tuple[slice, ...]:
    there = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return tuple(slice(int(t[0]), int(t[-1]) + 1) if t.size else slice(None) for t in there)


def _normalise(x: Array, rule: Entry, inside: Array) -> None:
    """Normalise a channel in place."""
    scheme = rule["normalization"]
    if scheme == "ZScoreNormalization":
        where = inside if rule["use_mask"] else np.ones_like(inside)
        values = x[where].astype(np.float64)
        if values.size:
            x[where] = (x[where] - np.float32(values.mean())) / np.float32(max(values.std(), 1e-8))
    elif scheme == "CTNormalization":
        np.clip(x, rule["percentile_00_5"], rule["percentile_99_5"], out=x)
        x -= np.float32(rule["mean"])
        x /= np.float32(max(rule["std"], 1e-8))
    elif scheme == "RescaleTo01Normalization":
        x -= x.min()
        x /= np.float32(max(float(x.max()), 1e-8))
    elif scheme == "RGBTo01Normalization":
        if x.min() < 0 or x.max() > 255:
            raise ValueError(f"The model takes 8-bit colours (0 to 255); there are values {x.min():g} to {x.max():g}.")
        x /= np.float32(255)


def _separate(current: Sequence[float], new: Sequence[float], rule: Entry) -> int | None:
    """Return the axis along which planes are not interpolated."""
    force, threshold = rule["force_separate_z"], rule["threshold"]
    uneven = [sizes for sizes in (current, new) if max(sizes) / min(sizes) > threshold]
    if force is False or not (force or uneven):
        return None
    deciding = current if force else uneven[0]
    coarsest = [axis for axis, spacing in enumerate(deciding) if spacing == max(deciding)]
    return coarsest[0] if len(coarsest) == 1 else None


def _resampled(x: Array, shape: Sequence[int], current: Sequence[float], new: Sequence[float], rule: Entry) -> Array:
    """Bring a channel (Z, Y, X) to another shape."""
    if rule["order"] is None or tuple(shape) == x.shape:
        return x
    axis = _separate(current, new, rule)
    if axis is None:
        return _zoomed(x, shape, rule)
    plane = tuple(n for a, n in enumerate(shape) if a != axis)
    made = np.stack([_zoomed(p, plane, rule) for p in np.moveaxis(x, axis, 0)])
    if rule["order_z"] == 0:
        size = len(made)
        index = np.clip(np.floor((np.arange(shape[axis]) + 0.5) * size / shape[axis]), 0, size - 1).astype(np.intp)
        return np.moveaxis(made[index], 0, axis)
    whole = np.moveaxis(made, 0, axis)
    return _zoomed(whole, shape, {**rule, "order": rule["order_z"], "clip": False})


def _zoomed(x: Array, shape: Sequence[int], rule: Entry) -> Array:
    if tuple(shape) == x.shape:
        return x
    out = np.empty(tuple(shape), dtype=np.float32)
    factors = [n / size for n, size in zip(shape, x.shape, strict=True)]
    ndimage.zoom(x.astype(np.float64), factors, output=out, order=rule["order"], mode="nearest", grid_mode=True)
    return np.clip(out, x.min(), x.max(), out=out) if rule["clip"] else out


def _starts(size: int, tile: int, step: float) -> list[int]:
    count = math.ceil((size - tile) / (tile * step)) + 1
    return [round((size - tile) / (count - 1) * i) if count > 1 else 0 for i in range(count)]


def _importance(patch: Sequence[int]) -> Array:
    """Return the Gaussian weights of a window, rounded as nnU-Net rounds them."""
    impulse = np.zeros(tuple(patch))
    impulse[tuple(n // 2 for n in patch)] = 1
    weights = ndimage.gaussian_filter(impulse, [n / 8 for n in patch], mode="constant")
    rounded = (weights / weights.max() * 10).astype(np.float16)
    rounded[rounded == 0] = rounded[rounded > 0].min()
    return rounded.astype(np.float32)


def _read(path: Path) -> tuple[Array, tuple[float, ...] | None, Any]:
    """Return an image in array order, its spacing where the file says it, and what a result needs to be written."""
    with _told(f"{path} cannot be read"):
        if path.name.endswith(_NIFTI):
            image = import_module("nibabel").load(_file(path))
            array, mm = np.asarray(image.dataobj).transpose(), _MM.get(int(image.header["xyzt_units"]) & 7, 1)
            return array, tuple(float(z) * mm for z in image.header.get_zooms()[:3][::-1]), image
        return np.asarray(np.load(_file(path))), None, None


def _write(path: Path, labels: Array, like: Any) -> None:
    """Write labels beside their place and put them there when the file is whole."""
    temporary = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        if path.name.endswith(".npy"):
            np.save(temporary, labels)
        else:
            nib = import_module("nibabel")
            made = nib.Nifti1Image(labels.transpose(), like.affine)
            made.header["xyzt_units"] = like.header["xyzt_units"]
            nib.save(made, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _segmented(args: argparse.Namespace) -> None:
    """Segment the image of a command; raises ValueError before the network runs where its files do not fit."""
    read = [_read(path) for path in args.channels]
    if not args.output.name.endswith(endings := (".npy",) if read[0][2] is None else (".npy", *_NIFTI)):
        raise ValueError(f"The labels of such images are written as {' or '.join(endings)}, not {args.output}.")
    if not args.output.parent.is_dir():
        raise ValueError(f"{args.output.parent} is not a folder: the labels cannot be written there.")
    if args.output.resolve() in [path.resolve() for path in args.channels]:
        raise ValueError(f"{args.output} is the image itself: give the labels another name.")
    if len(shapes := {array.shape for array, _, _ in read}) > 1:
        raise ValueError(f"The channels have different shapes: {', '.join(map(str, sorted(shapes)))}.")
    places = [found.affine for _, _, found in read if found is not None]
    if not all(np.allclose(place, places[0], rtol=0, atol=1e-3) for place in places):
        raise ValueError("The channels lie at different places, or their voxels have different sizes.")
    model = Carried(Path(__file__).parent, args.threads)
    together = len(read) == 1 and (len(model.about["channels"]) > 1 or read[0][0].ndim == 4)
    image = read[0][0] if together else np.stack([r[0] for r in read])
    labels = model.segment(image, args.spacing or read[0][1], mirroring=not args.no_mirroring)
    _write(args.output, labels, read[0][2])
    if bad := np.count_nonzero(~np.isfinite(image)):
        print(f"segment.py: {bad} values that are NaN or infinite were read as 0.", file=sys.stderr)


def main() -> int:
    """Segment one image; returns the exit status."""
    parser = argparse.ArgumentParser(description="Segment an image with this model.")
    parser.add_argument("channels", nargs="+", type=Path, metavar="IMAGE", help="a file per channel")
    parser.add_argument("-o", dest="output", type=Path, required=True, help="labels: .npy, or .nii.gz for NIfTI images")
    parser.add_argument("--spacing", nargs="+", type=float, help="voxel size, as the axes of the array")
    parser.add_argument("--no_mirroring", action="store_true", help="up to eight times faster, a little less exact")
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    try:
        _segmented(args)
    except (ValueError, OSError, ImportError, MemoryError) as error:
        print(f"segment.py: {error or 'there is not enough memory.'}", file=sys.stderr)
        return 1
    print(args.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
